"""One run: the slices of a fold -> runs/<name>/fold<k>/."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from models.common.cli import command
from models.common.config import RunConfig, TrainOptions
from models.common.errors import InputError
from models.common.files import remove_temporaries, require_writable, write_csv, write_parquet
from models.common.labels import LABELS
from models.common.locks import only_process
from models.common.prediction_files import prediction_table
from models.preprocessing.folds import label_shares
from models.preprocessing.tables import read_slices, split_fold
from models.training.callbacks import History
from models.training.checkpoint_files import delete_checkpoints
from models.training.evaluation import predict
from models.training.history import write_history_picture
from models.training.kinds import (
    add_training_slices,
    build,
    load_start,
    make_dataset,
    make_inputs,
    require_fold_safe,
    training_sources,
)
from models.training.learner import find_learning_rate, fit
from models.training.loading import make_loader
from models.training.processes import Processes, count_workers, started_processes
from models.training.run_record import differences, read_run, save_config, stage_difference
from models.training.scoring import WEIGHTED, label_table
from models.training.stopping import Interrupted, Stop, same_command, stop_signals
from models.training.weights import save_weights


def main(config: RunConfig) -> None:
    """The command line of a training script: every field of its configuration, the fold and the machine."""
    command(train, TrainOptions(config))


def train(options: TrainOptions) -> None:
    """Train a fold and write config.json, model.safetensors, history.csv, history.png and valid.parquet.

    A finished run is left alone, one that was cut short goes on at its last checkpoint. Ctrl-C and SIGTERM save and
    end the process. Raises InputError for what the command line or the cache has wrong, before any work, and if
    another process trains this fold.
    """
    folder = options.folder
    with started_processes(options.machine.device) as processes, stop_signals() as stop, ExitStack() as held:
        try:
            if options.find_lr:
                suggest_rate(options, processes)
                return
            if processes.on_main(lambda: is_finished(options)):
                return
            processes.on_main(lambda: held.enter_context(only_training(folder)))
            if processes.on_main(lambda: is_finished(options)):  # by now
                return
            train_fold(folder, options, processes, stop)
        except Interrupted as interrupted:
            print(f"{folder}: stopped by {interrupted}, all steps are saved; go on with: {same_command()}")
            raise SystemExit(128 + interrupted.number) from None


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Hold the lock of a fold. Raises InputError if another training has it, or the folder cannot be written to."""
    require_writable(folder)
    # Beside the folder, not in it: a lock must never be deleted, and a finished run is its files and nothing else.
    lock = folder.parent / f".{folder.name}.lock"
    with only_process(lock, "training", lock.with_suffix(".holder"), folder):
        remove_temporaries(folder)  # of a run that was killed
        yield


def train_fold(folder: Path, options: TrainOptions, processes: Processes, stop: Stop) -> None:
    fold = start_fold(folder, options, processes)
    network = start_network(options, fold, processes)
    where = f"{processes.count} x {processes.device.type}" if processes.count > 1 else processes.device
    added = len(fold.train.dataset) - len(fold.train_slices)
    pseudolabelled = f" and {added:,} with pseudolabels" if added else ""
    counts = f"{len(fold.train_slices):,} slices to train on{pseudolabelled}, {len(fold.valid_slices):,} to validate on"
    print(f"{folder}: {counts}, on {where}")
    history = fit(network, fold.train, fold.valid, options, processes, stop, fold.sources)
    probability = predict(network, fold.valid, processes, options.config.precision, "out-of-fold predictions")
    processes.on_main(lambda: write_results(folder, options, fold, network, history, probability))


def suggest_rate(options: TrainOptions, processes: Processes) -> None:
    """Try learning rates on the slices of the fold; a run that lies in its folder is neither read nor changed."""
    fold = start_fold(options.folder, options, processes)
    find_learning_rate(start_network(options, fold, processes), fold.train, options, processes)


def start_network(options: TrainOptions, fold: "Fold", processes: Processes) -> nn.Module:
    """The network with the weights that it starts from, the same in each process, and random numbers of its own."""
    config = options.config
    torch.manual_seed(config.seed)
    network = build(config, fold.train.dataset.dataset)
    # The other processes get them when the training starts.
    processes.on_main(lambda: load_start(network, config, options.folder))
    if not processes.is_main:
        torch.manual_seed(config.seed + processes.rank)  # for a dropout of its own
    return network


class Fold(NamedTuple):
    """The slices of a fold, and their batches."""

    train_slices: pd.DataFrame  # those that have labels; with pseudolabels there are more in `train`
    valid_slices: pd.DataFrame
    train: DataLoader
    valid: DataLoader
    sources: dict[str, str]  # the sha256 of what it builds on: weights by the names of their runs, and a file


def start_fold(folder: Path, options: TrainOptions, processes: Processes) -> Fold:
    """Raises InputError if the cache lacks the fold or the image size, or a batch is larger than the fold."""
    work = options.machine.working_folder
    slices = processes.main_first(lambda: read_slices(work, "train"))
    processes.on_main(lambda: require_fold_safe(options.config, folder, work, options.fold))
    make_inputs(options.config, slices, folder, options.machine, processes)
    return processes.main_first(lambda: load_fold(folder, options, processes))


def load_fold(folder: Path, options: TrainOptions, processes: Processes) -> Fold:
    config, work = options.config, options.machine.working_folder
    train_slices, valid_slices = split_fold(work, options.fold, getattr(config, "skip_low_information", False))
    workers = count_workers(options.machine.workers, processes.device)
    shown = add_training_slices(train_slices, work, config, options.fold)
    train_set = make_dataset(shown, work, config, getattr(config, "augment", "none"), folder)
    valid_set = make_dataset(valid_slices, work, config, "none", folder)
    train = make_loader(train_set, config.batch_size, workers, config.seed, shown["image_id"], processes)
    if len(train) == 0 or valid_slices.empty:
        raise InputError(
            f"fold {options.fold} has {len(shown)} slices to train on and {len(valid_slices)} to validate on; "
            f"add studies, or lower --batch-size {config.batch_size}"
        )
    if config.batch_size < processes.count:
        raise InputError(f"--batch-size {config.batch_size} cannot be divided among {processes.count} processes")
    valid = make_loader(valid_set, config.batch_size, workers, None, valid_slices["image_id"], processes)
    return Fold(train_slices, valid_slices, train, valid, training_sources(config, folder, work, options.fold))


def write_results(
    folder: Path, options: TrainOptions, fold: Fold, network: nn.Module, history: History, probability: np.ndarray
) -> None:
    """Write the files of a finished run, config.json last, delete its checkpoints and print its scores."""
    table = label_table(fold.valid_slices[list(LABELS)].to_numpy(), probability)
    epochs = pd.DataFrame(history.rows)
    own, baseline = table.loc[WEIGHTED, ["log loss", "prior's"]]
    save_weights(folder, network)
    write_csv(folder / "history.csv", epochs)
    write_history_picture(folder / "history.png", epochs, history.best_epoch, baseline)
    write_parquet(folder / "valid.parquet", prediction_table(fold.valid_slices["image_id"], probability))
    shares = label_shares(fold.train_slices).to_dict()
    results = {"weighted_log_loss": float(own), "best_epoch": history.best_epoch, "prevalence": shares}
    if fold.sources:
        results["sources"] = fold.sources
    save_config(folder, options.config, options.fold, results, options.machine.stage)
    delete_checkpoints(folder)
    print(table.to_string(float_format="{:.4f}".format, na_rep=""))
    print(
        f"{folder}: weighted log loss {own:.4f} (the prior's is {baseline:.4f}), "
        f"epoch {history.best_epoch} of {options.config.epochs}"
    )


def is_finished(options: TrainOptions) -> bool:
    """Whether this fold has been trained. Raises InputError if another configuration or stage lies in its folder."""
    folder, previous = options.folder, read_run(options.folder)
    if previous is None:
        return False
    different = differences(options.config, previous.config) + stage_difference(options.machine.stage, previous.stage)
    if different:
        raise InputError(
            f"{folder} was trained with {', '.join(different)}; delete it, or write this run elsewhere with --name"
        )
    print(f"{folder} is finished; delete it to train it again")
    delete_checkpoints(folder)  # a kill may have come between the last file and this
    return True
