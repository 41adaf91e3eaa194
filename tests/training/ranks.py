"""What test_ranks.py starts several times at once: a tiny network with batch norm that is trained by all of them.

    ranks.py '{"folder": "...", "studies": true, ...}'          the fields of Training

Each leaves its weights in <folder>/<rank>.safetensors. Batch statistics are shared as on GPUs: see norms_on_cpu.py.
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from norms_on_cpu import shared_norms
from torch import distributed, nn
from torch.utils.data import Dataset

from models.common.config import StudyConfig
from models.common.errors import InputError
from models.common.options import Machine, TrainOptions
from models.common.process import start_process
from models.common.recurrence import Recurrence
from models.train_b0_recurrent import CONFIG as OF_STUDIES
from models.train_small import CONFIG as OF_SLICES
from models.training.callbacks import MEASURED
from models.training.learner import fit
from models.training.loading import make_loader
from models.training.networks import HemorrhageNetwork
from models.training.processes import started_processes
from models.training.recurrent import StudyNetwork
from models.training.stopping import Interrupted, stop_signals
from models.training.weights import write_tensors

PATIENCE = timedelta(seconds=100)  # after which processes that wait for each other in vain are told so
SLICES = 45
LENGTHS = (7, 1, 2, 9, 3, 8, 1, 5, 4, 6)  # slices of the studies
RANK = int(os.environ.get("RANK", "0"))


@dataclass
class Training:
    """What is trained, and what happens to it: all by itself, and in which process."""

    folder: str
    studies: bool = False
    joint: bool = False
    """whether of studies there are three losses, and a transformer"""
    batch_size: int = 15
    accumulate: int = 1
    slices_at_once: int = 100
    dropout: float = 0.0
    batchnorm_batches: int = 0
    epochs: int = 2
    damaged: int | None = None
    """the row that cannot be read"""
    deadly: int | None = None
    """the row whose reader is killed"""
    told: int | None = None
    """the row whose reader is told to stop"""
    own_norms: bool = False
    """whether batch norm sees the share of a process alone, as on CPUs"""
    own_folders: bool = False
    """whether each process has a folder of its own for checkpoints"""

    def words(self) -> list[str]:
        return [str(Path(__file__)), json.dumps(asdict(self))]


class Drawn(Dataset):
    """Noise with random labels, single slices, or those of studies."""

    recurrence, longest = Recurrence(), None

    def __init__(self, training: Training) -> None:
        self.training, random = training, torch.Generator().manual_seed(3)
        count = sum(LENGTHS) if training.studies else SLICES
        self.grey = torch.randint(0, 256, (count, 3, 16, 16), generator=random).to(torch.uint8)
        self.targets = (torch.rand(count, 6, generator=random) < 0.4).float()
        study = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
        self.places = torch.stack([study, 5.0 * torch.arange(len(study)), 0.0 * study], dim=1)
        if training.studies:
            self.lengths = torch.tensor(LENGTHS).numpy()

    def __len__(self) -> int:
        return len(self.grey)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        epoch, row = key
        if epoch == 1 and row == self.training.damaged:
            raise InputError(f"slice {row} is damaged; mend it")
        if epoch == 1 and row in (self.training.deadly, self.training.told):
            os.kill(os.getpid(), signal.SIGKILL if row == self.training.deadly else signal.SIGTERM)
        place = [self.places[row]] if self.training.studies else []
        return self.grey[row], *place, self.targets[row]


def of_studies(training: Training) -> StudyConfig:
    joint = {"cell": "transformer", "slice_weight": 1.0, "study_weight": 0.5}
    return replace(OF_STUDIES, **joint) if training.joint else OF_STUDIES


def network(training: Training) -> nn.Module:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(training.dropout)),
        *(nn.Conv2d(4, 8, 3, stride=2), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    slices = HemorrhageNetwork(backbone, 32)
    config = replace(of_studies(training), slices_at_once=training.slices_at_once, hidden=8, dropout=training.dropout)
    return StudyNetwork(slices, config) if training.studies else slices


def train(training: Training) -> dict[str, torch.Tensor]:
    """The weights of the best epoch, and the history, which tells of all of them; `fit` writes its checkpoints."""
    same = {name: getattr(training, name) for name in ("batch_size", "accumulate", "batchnorm_batches", "epochs")}
    config = replace(of_studies(training) if training.studies else OF_SLICES, **same, optimizer="radam", max_lr=0.05)
    work = Path(training.folder, str(RANK) if training.own_folders else "")
    options = TrainOptions(config, checkpoint_steps=1000, machine=Machine(work=work, device="cpu"))
    options.folder.mkdir(parents=True, exist_ok=True)
    data, own = Drawn(training), network(training)
    with started_processes("cpu") as processes, stop_signals() as stop:
        shuffled = make_loader(data, config.batch_size, 0, config.seed, processes=processes)
        in_order = make_loader(data, 4, 0, processes=processes)
        history, _ = fit(own, shuffled, in_order, options, processes, stop, {})
    values = [[value for name, value in row.items() if name not in MEASURED] for row in history.rows]
    rows = torch.tensor(values, dtype=torch.float64)
    return {**own.state_dict(), "history": rows}


def main() -> None:
    """Train what the command line says, and end as a training script does."""
    start_process()
    training = Training(**json.loads(sys.argv[1]))
    if not training.own_norms:
        shared_norms()
    distributed.init_process_group("gloo", timeout=PATIENCE)  # before others do, who are more patient
    try:
        write_tensors(Path(training.folder, f"{RANK}.safetensors"), train(training))
    except InputError as error:
        sys.exit(f"error: {error}")
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.number)


if __name__ == "__main__":
    main()
