"""Train one fold: slices of the store -> runs/<name>/fold<k>/."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.schedule import fit_one_cycle  # noqa: F401 (adds the method to Learner)
from fastai.callback.tracker import TrackerCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from models.cli import command
from models.config import Machine, TrainConfig
from models.errors import InputError
from models.labels import LABELS
from models.paths import Work, require_writable, write_csv, write_parquet
from models.preprocessing.folds import label_shares
from models.training.checkpoint import differences, read_run, save_config, save_weights
from models.training.dataset import SliceDataset, split_fold
from models.training.evaluation import AUTOCAST, choose_device, count_workers, predict, to_device
from models.training.loading import make_loader
from models.training.loss import WeightedLogLoss, prior, weighted_log_loss
from models.training.networks import HemorrhageNetwork, build_network, load_initial_weights
from radam import RAdam


@dataclass(frozen=True)
class TrainOptions:
    config: TrainConfig
    fold: int = 0
    """the fold to validate on; the others are trained on"""
    machine: Machine = field(default_factory=Machine)


def main(config: TrainConfig) -> None:
    """The command line of a training script: every field of its configuration, the fold and the machine."""
    command(train, TrainOptions(config))


def train(options: TrainOptions) -> None:
    """Train a fold and write config.json, model.safetensors, history.csv and valid.parquet.

    A finished run is left alone. Raises InputError for what the command line or the cache has wrong, before any work.
    """
    config, work = options.config, Work(options.machine.work)
    folder = work.run(config.name, options.fold)
    if is_finished(folder, config):
        print(f"{folder} is finished; delete it to train it again")
        return
    require_writable(folder)
    train_slices, valid_slices = split_fold(work, options.fold, config.skip_low_information)
    if len(train_slices) < config.batch_size or valid_slices.empty:
        raise InputError(
            f"fold {options.fold} has {len(train_slices)} slices to train on and {len(valid_slices)} to validate on; "
            f"add studies, or lower --batch-size {config.batch_size}"
        )
    device = choose_device(options.machine.device)
    torch.manual_seed(config.seed)
    network = build_network(config)
    load_initial_weights(network, config)
    workers = count_workers(options.machine.workers, device)
    train_set = SliceDataset(train_slices, work, config, config.augment)
    train_loader = make_loader(train_set, config.batch_size, workers, shuffle_seed=config.seed)
    valid_set = SliceDataset(valid_slices, work, config, augment="none")
    valid_loader = make_loader(valid_set, config.batch_size, workers)

    print(f"{folder}: {len(train_slices):,} slices to train on, {len(valid_slices):,} to validate on, on {device}")
    history, best = fit(network, train_loader, valid_loader, config, device)
    probability = predict(network, valid_loader, device, config.precision, "out-of-fold predictions")

    save_weights(folder, network)
    write_csv(folder / "history.csv", history)
    write_parquet(folder / "valid.parquet", prediction_table(valid_slices["image_id"], probability))
    score = weighted_log_loss(valid_set.targets, probability)
    results = {"weighted_log_loss": score, "best_epoch": best, "prevalence": label_shares(train_slices).to_dict()}
    save_config(folder, config, options.fold, results)
    baseline = weighted_log_loss(valid_set.targets, prior(valid_set.targets))
    print(f"{folder}: weighted log loss {score:.4f} (the prior's is {baseline:.4f}), epoch {best} of {config.epochs}")


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """Whether a run of this configuration lies in `folder`. Raises InputError if another configuration's does."""
    previous = read_run(folder)
    if previous is None:
        return False
    if different := differences(config, previous.config):
        raise InputError(
            f"{folder} was trained with {', '.join(different)}; delete it, or write this run elsewhere with --name"
        )
    return True


def fit(
    network: HemorrhageNetwork, train: DataLoader, valid: DataLoader, config: TrainConfig, device: torch.device
) -> tuple[pd.DataFrame, int]:
    """Train in place with fastai's one-cycle; the network ends with its best epoch's weights.

    Returns the history (epoch, train_loss, valid_loss: both are the weighted log loss) and that epoch, from 1.
    """
    best = BestEpoch()
    callbacks = [EpochSeed(), ChannelsLast(device), best]
    if config.batchnorm_batches:
        callbacks.append(RecomputeBatchNorm(train, config.batchnorm_batches, device))
    if device.type == "cuda" and config.precision in AUTOCAST:
        callbacks.append(MixedPrecision(config.precision))
    learner = Learner(
        DataLoaders(train, valid, device=device),
        network.to(device, memory_format=torch.channels_last),
        loss_func=WeightedLogLoss().to(device),
        opt_func=optimizer(config),
        wd=config.weight_decay,
        cbs=callbacks,
    )
    learner.fit_one_cycle(config.epochs, config.max_lr)
    if best.state is None:
        raise InputError(f"the loss was not finite after any epoch; lower --max-lr {config.max_lr:g}")
    network.load_state_dict(best.state)
    history = pd.DataFrame(list(learner.recorder.values), columns=list(learner.recorder.metric_names[1:-1]))
    history.insert(0, "epoch", range(1, len(history) + 1))
    return history, best.epoch_number


def optimizer(config: TrainConfig) -> Callable:
    """The optimizer as fastai wants it. Weight decay is decoupled in both, as it was in the original's fastai."""
    torch_class = {"radam": RAdam, "adam": torch.optim.AdamW}[config.optimizer]
    return partial(OptimWrapper, opt=torch_class)


def prediction_table(image_ids: pd.Series, probability: np.ndarray) -> pd.DataFrame:
    """A prediction file's table: `image_id` and six float32 columns in the order of LABELS."""
    table = pd.DataFrame(probability.astype(np.float32), columns=list(LABELS))
    table.insert(0, "image_id", image_ids.to_numpy())
    return table


class BestEpoch(TrackerCallback):
    """Keep the weights of the epoch with the lowest weighted log loss, in memory."""

    state: dict[str, torch.Tensor] | None = None

    def after_epoch(self) -> None:
        super().after_epoch()
        if self.new_best:
            self.epoch_number = self.epoch + 1
            self.state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}


class EpochSeed(Callback):
    """Tell the sampler the epoch, on which the order and the augmentation of the slices depend."""

    def before_train(self) -> None:
        self.dls.train.sampler.epoch = self.epoch


class ChannelsLast(Callback):
    """Give batches the memory format of the network: convolutions are faster with it, on CPUs too."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def before_batch(self) -> None:
        self.learn.xb = tuple(to_device(grey, self.device) for grey in self.xb)


class RecomputeBatchNorm(Callback):
    """Before each validation, replace the running batch-norm statistics by their mean over some training batches.

    EfficientNet's running mean moves by 1 % a step: in a short run it lags so far behind the weights that a network
    with a good training loss can validate worse than the prior.
    """

    def __init__(self, loader: DataLoader, batches: int, device: torch.device) -> None:
        super().__init__()
        self.loader, self.batches, self.device = loader, batches, device

    def before_validate(self) -> None:
        update_bn(islice(self.loader, self.batches), self.model, self.device)
        self.model.eval()
