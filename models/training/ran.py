"""What a run was carried out on and at what speed: nothing of it defines the run, all of it may explain a result."""

import torch

from models.common.options import TrainOptions
from models.common.repair import typed_command
from models.preprocessing.origin import is_synthetic
from models.training.callbacks import History
from models.training.processes import Processes
from models.training.run_record import commit
from models.training.steps import StepLearner


def what_ran(learner: StepLearner, history: History, options: TrainOptions, processes: Processes) -> dict:
    """Device and card, how many processes, precision, parts of a batch, seconds, slices a second, commit, command.

    And whether it has learnt from drawings: the network may be used where nothing else tells of it.
    """
    device = processes.device
    trained = [row for row in history.rows if "train_seconds" in row]  # those of older checkpoints lack it
    seconds = sum(row["train_seconds"] for row in trained)
    return {
        "device": str(device),
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processes": processes.count,
        "precision": learner.precision,
        "compile": options.compile,
        "parts": learner.parts,
        "train_seconds": round(seconds, 1),
        "slices_per_s": round(sum(row["slices_per_s"] * row["train_seconds"] for row in trained) / (seconds or 1), 1),
        "commit": commit(),
        "command": typed_command(),
        "synthetic": is_synthetic(options.machine.working_folder),
    }
