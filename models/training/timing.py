"""Slices a second on this machine: of a loader, of a network that trains or predicts, and of both together.

All go the way of a real run: `fit` and `predict_batches`, with the batches of `make_loader` or one that is kept.
"""

import io
import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import defaults
from torch import nn
from torch.utils.data import DataLoader

from models.common.config import StudyConfig, TrainConfig
from models.common.errors import InputError
from models.common.labels import LABELS
from models.common.options import TrainOptions
from models.preprocessing.tables import split_fold
from models.training.device import choose_device, count_workers, use_device
from models.training.evaluation import View, predict_batches, single_view
from models.training.kinds import Kind, OfSlices, OfStudies
from models.training.learner import fit
from models.training.loading import Loader, Samples, make_loader
from models.training.memory import peak_gib, reset_peak
from models.training.planning import VIEWS, Speed
from models.training.processes import Processes
from models.training.stopping import Stop

ENDLESS = 100_000  # epochs: nobody waits for the last


@dataclass(frozen=True)
class Pace:
    """How much is measured: at least so many batches and so many seconds, after batches that are not counted."""

    batches: int = 20
    seconds: float = 2.0
    warm_up: int = 3
    clock: Callable[[], float] = time.perf_counter

    def beyond(self, workers: int) -> "Pace":
        """The same, with a warm-up that takes what the processes of a loader make in advance."""
        return replace(self, warm_up=self.warm_up + 2 * workers)


class OneBatch(Loader):
    """In place of a loader: its first batch again and again, images and targets on the device already.

    Grey values (slices, channels, size, size) or what else a network sees, and labels (slices, 6).
    """

    def __init__(self, loader: DataLoader, device: torch.device, length: int | None = None) -> None:
        """With the length of the loader, if no other is given."""
        super().__init__(loader.dataset, batch_sampler=loader.batch_sampler)
        self.length = len(loader) if length is None else length
        seen, *places, target = next(iter(loader))
        if seen.ndim == 4:
            seen = seen.contiguous(memory_format=torch.channels_last)
        self.batch = (seen.to(device), *places, target.to(device))

    def __len__(self) -> int:
        return self.length

    # pyrefly: ignore[bad-override]  # torch promises a private class of its own
    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return (self.batch for _ in range(self.length))


def measured_here(options: TrainOptions, pace: Pace = Pace()) -> Speed:
    """How fast this machine trains and predicts by a configuration, from random weights.

    Of the slices of fold 0 or, where none are stored at that size, of noise: then the loader is not in it. Raises
    InputError as `fit`, and for a network that looks at studies where there are none.
    """
    config, machine = options.config, options.machine
    assert isinstance(config, TrainConfig)
    device = use_device(choose_device(machine.device))
    workers, processes = count_workers(machine.workers, device), Processes(device)
    of_studies = isinstance(config, StudyConfig)
    kind: Kind[Any, Any, Any] = OfStudies(config, options.folder) if of_studies else OfSlices(config, options.folder)
    stored = machine.working_folder.slices(config.image_size).is_dir()
    if not stored and of_studies:
        raise InputError(f"no slices at {config.image_size} px to measure on; store some, or name another preset")
    train, valid = _stored(kind, options, workers) if stored else (_noise(config, device),) * 2
    pace = pace.beyond(workers if stored else 0)
    network = kind.network(train.dataset)
    reset_peak(device)
    trained = train_rate(network, train, OneBatch(train, device, 1), options, processes, pace)
    memory = peak_gib(device)
    predicted = predict_rate(network, valid, options, processes, pace)
    reset_peak(device)
    slower = replace(pace, batches=math.ceil(pace.batches / VIEWS))
    d4 = predict_rate(network, valid, options, processes, slower, kind.view("d4"))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"this machine's {device.type}"
    source = f"measured here: {where}, " + ("slices of the cache" if stored else "noise, without a loader")
    return Speed(trained, predicted, d4, memory, peak_gib(device), source)


def _stored(kind: Kind, options: TrainOptions, workers: int) -> tuple[DataLoader, DataLoader]:
    """The loaders of a fold."""
    work, batch_size = options.machine.working_folder, options.config.batch_size
    train_slices, valid_slices = split_fold(work, options.fold, kind.skip_low_information)
    train = kind.dataset(train_slices, work, kind.augment)
    valid = kind.dataset(valid_slices, work, "none")
    if len(train_slices) < batch_size:
        raise InputError(f"fold {options.fold} has no batch of {batch_size}; lower --batch-size")
    return make_loader(train, batch_size, workers, options.config.seed), make_loader(valid, batch_size, workers)


def _noise(config: TrainConfig, device: torch.device) -> OneBatch:
    return OneBatch(make_loader(Noise(config), config.batch_size, 0, config.seed), device, 1000)


class Noise(Samples):
    """In place of slices: grey values uint8 (channels, size, size), and labels (6,), a batch of them."""

    def __init__(self, config: TrainConfig) -> None:
        self.length, self.shape = config.batch_size, (len(config.channels), config.input_size, config.input_size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: tuple[int, int], /) -> tuple[torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(index[1])
        grey = torch.randint(0, 256, self.shape, dtype=torch.uint8, generator=random)
        return grey, torch.randint(0, 2, (len(LABELS),), generator=random).float()


def load_rate(loader: DataLoader, pace: Pace) -> float:
    """Slices a second of a loader whose batches nobody uses; it begins anew when it is through."""
    stopwatch = Stopwatch(pace, torch.device("cpu"))
    while True:
        for *_, target in loader:
            if stopwatch.lap(len(target)):
                return stopwatch.rate


def train_rate(
    network: nn.Module, train: DataLoader, valid: DataLoader, options: TrainOptions, processes: Processes, pace: Pace
) -> float:
    """Slices a second of training, which spoils the network; validation between epochs is not counted.

    Raises InputError as `fit`.
    """
    stopwatch = Stopwatch(pace, processes.device)
    with tempfile.TemporaryDirectory() as scratch, _beside_fastais(EndsTraining(stopwatch)), _silent():
        config = replace(options.config, epochs=ENDLESS)
        options = replace(options, config=config, machine=replace(options.machine, work=Path(scratch)))
        try:
            fit(network, train, valid, options, processes, Stop(), {})
        except InputError:
            if math.isnan(stopwatch.rate):
                raise
            # ended before the first epoch was through: there are no weights to keep
    return stopwatch.rate


def predict_rate(
    network: nn.Module,
    batches: DataLoader,
    options: TrainOptions,
    processes: Processes,
    pace: Pace,
    view: View = single_view,
) -> float:
    """Slices a second of predicting by a `view`. Raises InputError as `predict_batches`."""
    stopwatch = Stopwatch(pace, processes.device)
    with _silent():
        while True:
            for seen in predict_batches(network, batches, processes, options.config.precision, "", view):
                if stopwatch.lap(len(seen)):
                    return stopwatch.rate


class Stopwatch:
    """Slices a second: call `lap` after each batch, until it is true."""

    def __init__(self, pace: Pace, device: torch.device) -> None:
        self.pace, self.device = pace, device
        self.batches, self.slices, self.rate = 0, 0, math.nan
        self.started = self.paused = 0.0

    def lap(self, slices: int) -> bool:
        """Count a batch of so many slices; whether it was the last one, after which `rate` tells."""
        self.batches += 1
        counted = self.batches - self.pace.warm_up
        if counted == 0:
            self.started = self._now()
        elif counted > 0:
            self.slices += slices
            # By the clock alone: a device that is waited for after each batch would have no work in store.
            if counted >= self.pace.batches and self.pace.clock() - self.started >= self.pace.seconds:
                self.rate = self.slices / (self._now() - self.started)
                return True
        return False

    def pause(self) -> None:
        """Do not count what comes now, until `go_on`."""
        self.paused = self._now()

    def go_on(self) -> None:
        """Count again."""
        self.started += self._now() - self.paused

    def _now(self) -> float:
        """When the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.pace.clock()


class EndsTraining(Callback):
    """Ends a training when a stopwatch has seen enough of its steps."""

    order = 1000  # after all others

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self.stopwatch = stopwatch

    def after_batch(self) -> None:
        if self.training and self.stopwatch.lap(len(self.yb[0])):
            raise CancelFitException

    def after_train(self) -> None:
        self.stopwatch.pause()

    def before_train(self) -> None:
        if self.epoch > 0:
            self.stopwatch.go_on()


@contextmanager
def _beside_fastais(callback: Callback) -> Generator[None]:
    """Within the block each learner has the callback beside those that fastai gives to all."""
    before = defaults.callbacks
    defaults.callbacks = [*before, callback]
    try:
        yield
    finally:
        defaults.callbacks = before


@contextmanager
def _silent() -> Generator[None]:
    """Within the block no bar is drawn and no epoch told."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield
