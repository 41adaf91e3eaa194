"""Train one fold: slices of the store -> runs/<name>/fold<k>/."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.schedule import fit_one_cycle  # noqa: F401 (adds the method to Learner)
from fastai.data.core import DataLoaders
from fastai.optimizer import OptimWrapper
from fastai.torch_core import norm_bias_params
from torch import nn
from torch.utils.data import DataLoader

from models.cli import command
from models.config import Machine, TrainConfig
from models.errors import InputError
from models.paths import Work, only_process, remove_temporaries, require_writable, write_csv, write_parquet
from models.preprocessing.folds import label_shares
from models.training.callbacks import (
    ChannelsLast,
    Checkpoints,
    History,
    LabelLosses,
    RecomputeBatchNorm,
    ShareStatistics,
)
from models.training.checkpoint import differences, read_run, save_config, save_weights
from models.training.dataset import SliceDataset, split_fold
from models.training.evaluation import predict, prediction_table
from models.training.history import write_history_picture
from models.training.loading import explained, make_loader
from models.training.loss import WeightedLogLoss
from models.training.networks import HemorrhageNetwork, build_network, load_initial_weights
from models.training.processes import Processes, count_workers, started_processes
from models.training.resume import delete_checkpoints, read_checkpoint
from models.training.scoring import WEIGHTED, label_table
from models.training.steps import StepLearner
from models.training.stopping import Interrupted, Stop, same_command, stop_signals
from radam import RAdam


@dataclass(frozen=True)
class TrainOptions:
    config: TrainConfig
    fold: int = 0
    """the fold to validate on; the others are trained on"""
    checkpoint_minutes: float = 5
    """a checkpoint every so many minutes, from which the same command goes on"""
    checkpoint_steps: int = 0
    """instead: every so many steps"""
    compile: bool = False
    """compile the network with torch.compile: minutes at the start, faster steps after"""
    machine: Machine = field(default_factory=Machine)


def main(config: TrainConfig) -> None:
    """The command line of a training script: every field of its configuration, the fold and the machine."""
    command(train, TrainOptions(config))


def train(options: TrainOptions) -> None:
    """Train a fold and write config.json, model.safetensors, history.csv, history.png and valid.parquet.

    A finished run is left alone, one that was cut short goes on at its last checkpoint. Ctrl-C and SIGTERM save and
    end the process. Raises InputError for what the command line or the cache has wrong, before any work, and if
    another process trains this fold.
    """
    folder = Work(options.machine.work).run(options.config.name, options.fold)
    try:
        with started_processes(options.machine.device) as processes, stop_signals() as stop, ExitStack() as held:
            if processes.on_main(lambda: is_finished(folder, options.config)):
                return
            processes.on_main(lambda: held.enter_context(only_training(folder)))
            if not processes.on_main(
                lambda: is_finished(folder, options.config)
            ):  # by the one that had the lock before
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
    config, work = options.config, Work(options.machine.work)
    train_slices, valid_slices = split_fold(work, options.fold, config.skip_low_information)
    if len(train_slices) < config.batch_size or valid_slices.empty:
        raise InputError(
            f"fold {options.fold} has {len(train_slices)} slices to train on and {len(valid_slices)} to validate on; "
            f"add studies, or lower --batch-size {config.batch_size}"
        )
    if config.batch_size < processes.count:
        raise InputError(f"--batch-size {config.batch_size} cannot be divided among {processes.count} processes")
    torch.manual_seed(config.seed)
    network = build_network(config)
    processes.on_main(lambda: load_initial_weights(network, config))  # the others get them when the training starts
    if not processes.is_main:
        torch.manual_seed(config.seed + processes.rank)  # for a dropout of its own
    workers = count_workers(options.machine.workers, processes.device)
    train_set = SliceDataset(train_slices, work, config, config.augment)
    train_loader = make_loader(train_set, config.batch_size, workers, config.seed, train_slices["image_id"], processes)
    valid_set = SliceDataset(valid_slices, work, config, augment="none")
    valid_loader = make_loader(
        valid_set, config.batch_size, workers, image_ids=valid_slices["image_id"], processes=processes
    )

    where = f"{processes.count} x {processes.device.type}" if processes.count > 1 else processes.device
    print(f"{folder}: {len(train_slices):,} slices to train on, {len(valid_slices):,} to validate on, on {where}")
    history = fit(network, train_loader, valid_loader, folder, options, processes, stop)
    probability = predict(network, valid_loader, processes, config.precision, "out-of-fold predictions")

    results = (history, train_slices, valid_slices, valid_set.targets, probability)
    processes.on_main(lambda: write_results(folder, options, network, *results))


def write_results(
    folder: Path,
    options: TrainOptions,
    network: nn.Module,
    history: History,
    train_slices: pd.DataFrame,
    valid_slices: pd.DataFrame,
    target: np.ndarray,
    probability: np.ndarray,
) -> None:
    """Write the files of a finished run, config.json last, delete its checkpoints and print its scores."""
    table, epochs = label_table(target, probability), pd.DataFrame(history.rows)
    own, baseline = table.loc[WEIGHTED, ["log loss", "prior's"]]
    save_weights(folder, network)
    write_csv(folder / "history.csv", epochs)
    write_history_picture(folder / "history.png", epochs, history.best_epoch, baseline)
    write_parquet(folder / "valid.parquet", prediction_table(valid_slices["image_id"], probability))
    shares = label_shares(train_slices).to_dict()
    results = {"weighted_log_loss": float(own), "best_epoch": history.best_epoch, "prevalence": shares}
    save_config(folder, options.config, options.fold, results)
    delete_checkpoints(folder)
    print(table.to_string(float_format="{:.4f}".format, na_rep=""))
    print(
        f"{folder}: weighted log loss {own:.4f} (the prior's is {baseline:.4f}), "
        f"epoch {history.best_epoch} of {options.config.epochs}"
    )


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """Whether a run of this configuration lies in `folder`. Raises InputError if another configuration's does."""
    previous = read_run(folder)
    if previous is None:
        return False
    if different := differences(config, previous.config):
        raise InputError(
            f"{folder} was trained with {', '.join(different)}; delete it, or write this run elsewhere with --name"
        )
    print(f"{folder} is finished; delete it to train it again")
    delete_checkpoints(folder)  # a kill may have come between the last file and this
    return True


def fit(
    network: HemorrhageNetwork,
    train: DataLoader,
    valid: DataLoader,
    folder: Path,
    options: TrainOptions,
    processes: Processes,
    stop: Stop,
) -> History:
    """Train in place with fastai's one-cycle, from the last checkpoint in `folder` if there is one.

    The network ends with its best epoch's weights. Returns the history, whose losses are the weighted log loss.
    """
    config = options.config
    history = History()
    every = (options.checkpoint_minutes, options.checkpoint_steps)
    checkpoints = Checkpoints(folder, config, processes, history, stop, *every)
    callbacks = [ChannelsLast(), history, checkpoints, ShareStatistics(processes)]
    if config.batchnorm_batches:
        callbacks.append(RecomputeBatchNorm(train, config.batchnorm_batches, processes.device))
    learner = make_learner(network, train, valid, config, processes, callbacks)
    if options.compile:
        network.compile()
    if found := read_checkpoint(folder, config):
        checkpoints.put_back(found)
        print(f"{folder}: going on in epoch {checkpoints.epoch_index + 1}, after step {checkpoints.step_index}")
    if checkpoints.epoch_index < config.epochs:
        try:
            with explained(train, valid), stop.after_saving():
                learner.fit_one_cycle(config.epochs, config.max_lr, start_epoch=checkpoints.epoch_index)
        except InputError:
            if learner.whole:  # the loader has failed, the steps that were made are good
                checkpoints.save()
            raise
    if history.best_epoch is None:
        raise InputError(f"the loss was not finite after any epoch; lower --max-lr {config.max_lr:g}")
    network.load_state_dict(history.best_weights)
    return history


def make_learner(
    network: nn.Module,
    train: DataLoader,
    valid: DataLoader,
    config: TrainConfig,
    processes: Processes,
    callbacks: list,
) -> StepLearner:
    """A learner with the loss and the optimizer of a configuration."""
    decays = [config.weight_decay] if config.decay_norms_and_biases else [config.weight_decay, 0.0]
    learner = StepLearner(
        DataLoaders(train, valid, device=processes.device),
        network.to(processes.device, memory_format=torch.channels_last),
        loss_func=WeightedLogLoss().to(processes.device),
        opt_func=optimizer(config),
        splitter=partial(decay_groups, config),
        wd=decays,
        cbs=callbacks,
        config=config,
        processes=processes,
    )
    learner.create_opt()
    learner.recorder.loss = LabelLosses(processes)
    return learner


def decay_groups(config: TrainConfig, network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters that are decayed, then those that are not."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.decay_norms_and_biases:
        return [parameters]
    spared = {id(parameter) for parameter in norm_bias_params(network)}
    return [[p for p in parameters if id(p) not in spared], [p for p in parameters if id(p) in spared]]


def optimizer(config: TrainConfig) -> Callable:
    """The optimizer as fastai wants it. Weight decay is decoupled in both, as it was in the original's fastai."""
    torch_class = {"radam": RAdam, "adam": torch.optim.AdamW}[config.optimizer]
    return partial(OptimWrapper, opt=torch_class)
