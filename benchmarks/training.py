"""Slices a second of training with the real loader beside one batch that is always in memory, which is the limit.

    python benchmarks/training.py                          # B0 at 224 and 512, B2 and B5 at 512, on a GPU
    python benchmarks/training.py --presets b2 --precision bf16 --workers 16
    python benchmarks/training.py --presets small --steps 3 --device cpu

Each preset trains as its script does, from random weights, on the slices of --data (a phantom, if none) over and over;
the two kinds of batches take turns. Prints the peak of the GPU's memory too.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from comparison import RATE, BenchmarkOptions, Row, quiet, row, scratch, take_turns
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from torch.utils.data import DataLoader

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.folders import Work
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.dataset import SliceDataset
from models.training.device import choose_device, count_workers, use_device
from models.training.learner import make_learner
from models.training.loading import make_loader
from models.training.networks import build_network
from models.training.processes import Processes
from models.training.steps import StepLearner
from models.training.transfer import to_device


@dataclass(frozen=True)
class TrainingOptions(BenchmarkOptions):
    """The command line of this benchmark."""

    presets: tuple[str, ...] = ("b0_224", "b0", "b2", "b5")
    """training scripts, without their train_"""
    steps: int = 40
    """measured in a round, after those that take what the loader has in store"""
    rounds: int = 3
    """of which the median is taken"""
    precision: Literal["fp16", "bf16", "fp32"] | None = None
    """none: the preset's"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    workers: int = -1
    """processes that load slices; -1: as in training"""


def main(options: TrainingOptions) -> None:
    """Print the slices a second of each preset."""
    print(f"slices/s on {choose_device(options.device)}, torch {torch.__version__}\n")
    print(f"{'':12}{'size':>6}{'batch':>7}{'precision':>11}{'real':>10}{'synthetic':>11}{'ratio':>7}{'peak GiB':>10}")
    for config, result, peak in measure(options):
        print(
            f"{config.name:12}{config.input_size:6}{config.batch_size:7}{config.precision:>11}"
            f"{result['ours']:10.1f}{result['peer']:11.1f}{result['ratio']:7.2f}"
            + ("" if peak is None else f"{peak / 2**30:10.1f}"),
            flush=True,
        )


def rows(data: Path | None) -> list[Row]:
    """The rows of this benchmark; none without a GPU."""
    if not torch.cuda.is_available():
        print("training: left out, this machine has no CUDA device")
        return []
    return [result for _, result, _ in measure(TrainingOptions(data))]


def measure(options: TrainingOptions) -> Iterator[tuple[TrainConfig, Row, int | None]]:
    """Each preset with its row and the most bytes of the GPU that it held."""
    configs = [import_module(f"models.train_{name}").CONFIG for name in options.presets]
    configs = [replace(config, precision=options.precision or config.precision) for config in configs]
    with scratch(options.data) as (slices, folder):
        sizes = tuple(sorted({config.image_size for config in configs}))
        with quiet():
            prepare(PrepareOptions(data=slices, work=folder, image_size=sizes, folds=2))
        for config in configs:
            speed, peak = compare(config, Work(folder), options)
            yield config, row(f"train_{config.name}_vs_synthetic", speed["real"], speed["synthetic"], RATE), peak


def compare(config: TrainConfig, work: Work, options: TrainingOptions) -> tuple[dict[str, float], int | None]:
    """Slices a second with batches of either kind, and the peak of the GPU's memory in bytes."""
    device = use_device(choose_device(options.device))
    workers = count_workers(options.workers, device)
    warm_up = 3 + 2 * workers  # as many batches as the loader's processes make in advance, and some
    loader = endless_loader(config, work, workers, (warm_up + options.steps) * config.batch_size)
    torch.manual_seed(config.seed)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stopwatch = StepStopwatch(warm_up, options.steps, device)
    learner = make_learner(build_network(config), loader, loader, config, Processes(device), [stopwatch])
    kinds = {"real": loader, "synthetic": OneBatch(loader, device)}
    turns = {name: partial(seconds_of_steps, learner, stopwatch, batches) for name, batches in kinds.items()}
    medians = take_turns(turns, options.rounds)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {name: options.steps * config.batch_size / median for name, median in medians.items()}, peak


def endless_loader(config: TrainConfig, work: Work, workers: int, length: int) -> DataLoader:
    """The loader of a training run, on the readable slices with labels, repeated until they are `length`."""
    slices = read_slices(work, "train")
    slices = slices[slices["chunk"] != UNREADABLE]
    repeated = pd.concat([slices] * math.ceil(length / len(slices)), ignore_index=True)
    dataset = SliceDataset(repeated, work, config, config.augment)
    return make_loader(dataset, config.batch_size, workers, config.seed, repeated["image_id"])


class OneBatch:
    """In place of a loader: its first batch again and again, on the device already.

    Grey values (slices, channels, size, size) and labels (slices, 6).
    """

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self.dataset, self.batch_sampler = loader.dataset, loader.batch_sampler
        self.length = len(loader)
        grey, target = next(iter(loader))
        self.batch = to_device(grey, device), target.to(device)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return (self.batch for _ in range(self.length))


class StepStopwatch(Callback):
    """Start after `warm_up` steps, and stop the training after `steps` more."""

    def __init__(self, warm_up: int, steps: int, device: torch.device) -> None:
        super().__init__()
        self.warm_up, self.steps, self.device = warm_up, steps, device

    def before_fit(self) -> None:
        self.done, self.took = 0, math.nan

    def after_batch(self) -> None:
        self.done += 1
        if self.done == self.warm_up:
            self.started = self.now()
        elif self.done == self.warm_up + self.steps:
            self.took = self.now() - self.started
            raise CancelFitException

    def now(self) -> float:
        """Seconds, when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def seconds_of_steps(learner: StepLearner, stopwatch: StepStopwatch, batches: DataLoader | OneBatch) -> float:
    """Train on batches until the stopwatch ends it; the seconds that it took."""
    learner.dls = DataLoaders(batches, batches, device=stopwatch.device)
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, lr=learner.config.max_lr)
    return stopwatch.took


if __name__ == "__main__":
    command(main, TrainingOptions)
