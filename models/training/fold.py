"""One fold: its slices -> runs/<name>/fold<k>/; or what is tried with them: rates, some steps, all of it in small."""

import shutil
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from models.common.earlier import go_on_from
from models.common.errors import InputError
from models.common.files import require_writable, write_csv, write_parquet
from models.common.labels import LABELS
from models.common.options import TrainOptions
from models.common.prediction_files import prediction_table
from models.preprocessing.folds import label_shares
from models.preprocessing.origin import describe_synthetic, synthetic_title
from models.preprocessing.tables import read_slices, split_fold
from models.training.callbacks import History
from models.training.checkpoint_files import changes_of_version, delete_checkpoints, largest_on_disk
from models.training.device import count_workers
from models.training.evaluation import predict
from models.training.history import write_history_picture
from models.training.kinds import Kind, kind_of
from models.training.learner import find_learning_rate, fit
from models.training.learnt import write_fingerprint
from models.training.loading import Samples, make_loader, require_shared_memory
from models.training.processes import Processes, started_processes
from models.training.profiling import profile_steps
from models.training.run_folder import is_finished, only_training
from models.training.run_record import save_config
from models.training.scoring import WEIGHTED, label_table
from models.training.seen import Seen, write_seen
from models.training.stopping import ALARM, Interrupted, Stop, same_command, stop_signals
from models.training.symmetries import GROUPS
from models.training.weights import save_weights


def carry_out(options: TrainOptions) -> None:
    """Train a fold, or try learning rates; raises InputError as `models.training.run.train`."""
    kind, folder = kind_of(options.config, options.fold_folder), options.folder
    session, work = options.machine.session, options.machine.working_folder
    with (
        started_processes(options.machine.device) as processes,
        stop_signals(session.hours_left) as stop,
        ExitStack() as held,
    ):
        try:
            if processes.count > 1:
                processes.on_main(lambda: go_on_from(session, work))
            if options.find_lr or options.profile:
                try_steps(kind, options, processes)
                return
            if options.fast_dev_run:
                rehearse(kind, options, processes, stop)
                return
            if processes.on_main(lambda: is_finished(options)):
                return
            processes.on_main(lambda: held.enter_context(only_training(folder)))
            if processes.on_main(lambda: is_finished(options)):  # by now
                return
            train_fold(kind, options, processes, stop)
        except Interrupted as interrupted:
            print(f"{folder}: stopped by {interrupted}, all steps are saved; go on with: {same_command()}")
            raise SystemExit(interrupted.code) from None


def train_fold(kind: Kind, options: TrainOptions, processes: Processes, stop: Stop) -> None:
    """Train the fold of a run and write its files. Raises InputError as `start_fold`, `start_network` and `fit`."""
    fold = start_fold(kind, options, processes)
    network = start_network(kind, fold, processes)
    processes.on_main(lambda: require_room_for_checkpoints(options, network))
    where = f"{processes.count} x {processes.device.type}" if processes.count > 1 else processes.device
    added = len(fold.train_set) - len(fold.train_slices)
    pseudolabelled = f" and {added:,} with pseudolabels" if added else ""
    counts = f"{len(fold.train_slices):,} slices to train on{pseudolabelled}, {len(fold.valid_slices):,} to validate on"
    print(f"{options.folder}: {counts}, on {where}")
    history, ran = fit(network, fold.train, fold.valid, options, processes, stop, fold.sources)
    if processes.largest(int(not stop.allows(len(GROUPS[options.tta])))):
        raise Interrupted(ALARM)
    title, view = f"out-of-fold predictions, tta {options.tta}", kind.view(options.tta)
    probability = predict(network, fold.valid, processes, options.config.precision, title, view)
    processes.on_main(lambda: write_results(options, fold, network, history, ran, probability))


def require_room_for_checkpoints(options: TrainOptions, network: nn.Module) -> None:
    """Raise InputError, before the training, for a disk on which its checkpoints and its files have no room."""
    size = largest_on_disk(tensor.nbytes for tensor in network.state_dict().values())
    size -= sum(file.stat().st_size for file in options.folder.glob("checkpoint_*"))  # of which it goes on, and deletes
    repair = "or choose another folder with --work"
    options.machine.session.require_room(options.folder, max(size, 0), f"{options.folder}: checkpoints", repair)


def try_steps(kind: Kind, options: TrainOptions, processes: Processes) -> None:
    """Try learning rates on the slices of the fold, or profile some steps.

    Raises InputError as `start_fold` and `start_network`.
    """
    fold = start_fold(kind, options, processes)
    trial = find_learning_rate if options.find_lr else profile_steps
    trial(start_network(kind, fold, processes), fold.train, options, processes)


def rehearse(kind: Kind, options: TrainOptions, processes: Processes, stop: Stop) -> None:
    """Train on two batches and validate on two, to the files of a run; raises InputError as `train_fold`."""
    folder = options.folder
    processes.on_main(lambda: shutil.rmtree(folder, ignore_errors=True))
    processes.on_main(lambda: require_writable(folder))
    kind.config = replace(options.config, epochs=1)
    train_fold(kind, replace(options, config=kind.config), processes, stop)
    print(f"{folder}: all of a run has been gone through, on two batches each; it may be deleted")


class Fold(NamedTuple):
    """The slices of a fold, and their batches."""

    train_slices: pd.DataFrame  # those that have labels; with pseudolabels there are more in `train_set`
    valid_slices: pd.DataFrame
    train_set: Samples
    train: DataLoader
    valid: DataLoader
    sources: dict[str, str]  # the sha256 of what it is trained with: tables, weights by the names of their runs, files
    seen: Seen


def start_fold(kind: Kind, options: TrainOptions, processes: Processes) -> Fold:
    """The slices of a fold and their loaders, once all that these need has been made.

    Raises InputError if the cache lacks the fold or the image size, a batch is larger than the fold, or what the run
    builds on is missing or has trained on the slices of its validation.
    """
    work = options.machine.working_folder
    slices = processes.main_first(lambda: read_slices(work, "train"))
    processes.on_main(lambda: kind.require_fold_safe(work, options.fold))
    kind.make_inputs(slices, options.machine, processes)
    return processes.main_first(lambda: load_fold(kind, options, processes))


def load_fold(kind: Kind, options: TrainOptions, processes: Processes) -> Fold:
    """The slices of a fold and their loaders; raises InputError as `start_fold`."""
    config, work = options.config, options.machine.working_folder
    train_slices, valid_slices = split_fold(work, options.fold, kind.skip_low_information)
    train_slices = kind.allowed(train_slices, work)
    shown = kind.training_slices(train_slices, work, options.fold)
    if options.fast_dev_run:
        shown, valid_slices = (kind.first(slices, 2 * config.batch_size) for slices in (shown, valid_slices))
        train_slices = train_slices[train_slices["image_id"].isin(shown["image_id"])]
    workers = count_workers(options.machine.workers, processes.device)
    train_set = kind.dataset(shown, work, kind.augment)
    valid_set = kind.dataset(valid_slices, work, "none")
    train = make_loader(train_set, config.batch_size, workers, config.seed, shown["image_id"], processes)
    if len(train) == 0 or valid_slices.empty:
        raise InputError(
            f"fold {options.fold} has {len(shown)} slices to train on and {len(valid_slices)} to validate on; "
            f"add studies, or lower --batch-size {config.batch_size}"
        )
    if config.batch_size < processes.count:
        raise InputError(f"--batch-size {config.batch_size} cannot be divided among {processes.count} processes")
    require_shared_memory(train_set, config.batch_size, workers)
    valid = make_loader(valid_set, config.batch_size, workers, None, valid_slices["image_id"], processes)
    sources, seen = kind.sources(work, options.fold), kind.seen(shown, work, options.fold)
    return Fold(train_slices, valid_slices, train_set, train, valid, sources, seen)


def start_network(kind: Kind, fold: Fold, processes: Processes) -> nn.Module:
    """The network with the weights that it starts from, the same in each process.

    Raises InputError if the weights cannot be had.
    """
    torch.manual_seed(kind.config.seed)
    network = kind.network(fold.train_set)
    # The other processes get them when the training starts.
    processes.on_main(lambda: kind.load_start(network))
    return network


def write_results(
    options: TrainOptions, fold: Fold, network: nn.Module, history: History, ran: dict, probability: np.ndarray
) -> None:
    """Write the files of a finished run, config.json last, delete its checkpoints and print its scores.

    `probability` is of the slices of the validation, (slices, 6).
    """
    folder = options.folder
    table = label_table(fold.valid_slices[list(LABELS)].to_numpy(), probability)
    epochs = pd.DataFrame(history.rows)
    own, baseline = table["log loss"][WEIGHTED], table["prior's"][WEIGHTED]
    assert history.best_epoch is not None  # fit has refused a history without one
    save_weights(folder, network)
    write_csv(folder / "history.csv", epochs)
    title = synthetic_title(options.machine.working_folder)
    best_epoch = None if history.last else history.best_epoch
    write_history_picture(folder / "history.png", epochs, best_epoch, baseline, title)
    predictions = prediction_table(fold.valid_slices["image_id"], probability)
    predictions.attrs = {"tta": options.tta}  # kept in the file
    write_parquet(folder / "valid.parquet", predictions)
    shares = label_shares(fold.train_slices).to_dict()
    chosen = {} if best_epoch is None else {"best_epoch": best_epoch}
    results = {"weighted_log_loss": float(own), **chosen, "prevalence": shares, "sources": fold.sources}
    write_seen(folder, fold.seen)
    write_fingerprint(folder, network, fold.valid_slices, fold.valid, probability)
    warnings = changes_of_version(folder)
    save_config(folder, options.config, options.fold, results, options.machine.stage, ran, warnings)
    delete_checkpoints(folder)
    print(describe_synthetic(options.machine.working_folder), end="")
    print(table.to_string(float_format="{:.4f}".format, na_rep=""))
    print(
        f"{folder}: weighted log loss {own:.4f} (the prior's is {baseline:.4f}), "
        + (
            f"the average after epoch {history.best_epoch}, which was not chosen"
            if history.last
            else f"epoch {history.best_epoch} of {options.config.epochs}, which is chosen on these slices"
        )
    )
