"""Datasets -> batches: in the loader's processes, and what is said when one fails."""

import math
import os
import re
import shutil
import signal
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from models.common.errors import InputError
from models.common.process import start_process
from models.common.recurrence import Recurrence
from models.training.balance import DrawnBatches
from models.training.batches import OrderedBatches, ShuffledBatches
from models.training.processes import Processes
from models.training.stopping import held_signals, let_signals_in
from models.training.studies import OrderedStudies, ShuffledStudies

_READY = 2  # batches that each process makes in advance, torch's default


Batches = ShuffledBatches | OrderedBatches | ShuffledStudies | OrderedStudies


class Samples(Protocol):
    """What is loaded: a dataset of samples by (epoch, row), each some tensors, of which the last is the target (6,).

    Where labels have weights, the target is (2, 6): labels, then weights.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: tuple[int, int], /) -> tuple[torch.Tensor, ...]: ...


@runtime_checkable
class StudySamples(Samples, Protocol):
    """A dataset of slices that stand together by study, and come in batches of studies or stretches of them."""

    lengths: np.ndarray
    """how many slices each study has, (studies,)"""
    recurrence: Recurrence
    """which stretches to train on"""
    longest: int | None
    """of them, slices; none: a whole study"""
    places: torch.Tensor
    """where slices lie, (slices, 3): study, z in mm, tilt"""


@runtime_checkable
class DrawnSamples(Samples, Protocol):
    """A dataset whose samples begin with an image, which can be drawn where it is wanted."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, uint8: channels, rows, columns."""
        ...

    def draw(self, index: tuple[int, int], grey: np.ndarray, /) -> None:
        """Write an image (channels, rows, columns) to `grey`."""

    def beside(self, rows: list[int], /) -> tuple[torch.Tensor, ...]:
        """The other tensors of some samples, stacked: (rows, ...)."""
        ...


@runtime_checkable
class UnevenSamples(Samples, Protocol):
    """A dataset of slices, of which an epoch may draw some more often than others."""

    series_ids: np.ndarray
    """of each slice, (slices,)"""
    expected: np.ndarray | None
    """how often an epoch draws each, in the mean, (slices,); none: once"""


class WatchedDataset(Dataset):
    """A dataset that notes which row each loader process reads, so that the death of one can be explained.

    `image_ids` names the rows. A sample is what `Samples` give.
    """

    def __init__(self, dataset: Samples, image_ids: Sequence[str] | range, workers: int) -> None:
        self.dataset, self.image_ids = dataset, image_ids
        self.reading = torch.zeros((workers, 2), dtype=torch.int64).share_memory_()  # (process id, row)
        self.closing = torch.zeros((), dtype=torch.bool).share_memory_()
        weakref.finalize(self, self.closing.fill_, True)  # at the latest when this process ends

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[torch.Tensor]:
        """A batch. Images are drawn where they are handed over from: to copy them there took as long as a slice."""
        if not isinstance(self.dataset, DrawnSamples):
            return default_collate([self.dataset[key] for key in map(self._noted, keys)])
        images = _new_images(len(keys), *self.dataset.shape)
        for key, image in zip(map(self._noted, keys), images.numpy(), strict=True):
            self.dataset.draw(key, image)
        return [images, *self.dataset.beside([row for _, row in keys])]

    def _noted(self, key: tuple[int, int]) -> tuple[int, int]:
        """A key; what was noted down is that this process reads it."""
        if worker := get_worker_info():
            self.reading.numpy()[worker.id] = os.getpid(), key[1]
        return key

    def read_by(self, process: int) -> str | None:
        """The `image_id` that a loader process has begun to read last."""
        rows = self.reading[self.reading[:, 0] == process, 1]
        return str(self.image_ids[int(rows[0])]) if len(rows) else None


class Loader(DataLoader):
    """A DataLoader whose processes receive no signal before they are ready for it; until then one would kill them."""

    def to(self, device: torch.device) -> None:
        """Nothing: its batches are brought to the device by `on_device`. fastai asks, and without would choose one."""

    # pyrefly: ignore[bad-override]  # torch promises a private class of its own
    def __iter__(self) -> Iterator:
        with held_signals():  # it starts the processes
            return super().__iter__()


def _new_images(*shape: int) -> torch.Tensor:
    """An uint8 tensor of any content; in a loader process in shared memory, made as torch's own collation makes it."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _as_it_is(batch: list[torch.Tensor]) -> list[torch.Tensor]:
    return batch


def make_loader(
    dataset: Samples,
    batch_size: int,
    workers: int,
    shuffle_seed: int | None = None,
    image_ids: Iterable[str] | None = None,
    processes: Processes | None = None,
) -> DataLoader:
    """Batches of a dataset; with a `shuffle_seed` they are shuffled, and the incomplete last one is dropped.

    Of StudySamples a batch holds so many studies. `image_ids` names the rows of the dataset in messages. Of several
    `processes` each gets its share: of every batch where they are shuffled, of the whole where they are not.
    """
    processes = processes or Processes(torch.device("cpu"))
    if shuffle_seed is None:
        batches = ordered_batches(dataset, batch_size, processes)
    else:
        batches = shuffled_batches(dataset, batch_size, shuffle_seed, processes)
    return load_batches(dataset, batches, workers, image_ids, pinned=processes.on_cuda)


def load_batches(
    dataset: Samples, batches: Batches, workers: int, image_ids: Iterable[str] | None = None, pinned: bool = False
) -> DataLoader:
    """The given batches of a dataset, in `pinned` memory for CUDA; `image_ids` as `make_loader`."""
    return Loader(
        WatchedDataset(dataset, range(len(dataset)) if image_ids is None else list(image_ids), workers),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        # A loader draws a seed for its processes. From torch's own generator it would change the network's dropout.
        generator=torch.Generator(),
    )


def ordered_batches(dataset: Samples, batch_size: int, processes: Processes) -> OrderedBatches | OrderedStudies:
    """All of a dataset in its order, so many slices or studies at a time."""
    rank, count = processes.rank, processes.count
    if isinstance(dataset, StudySamples):
        return OrderedStudies(dataset.lengths, batch_size, rank, count)
    return OrderedBatches(len(dataset), batch_size, rank, count)


def shuffled_batches(
    dataset: Samples, batch_size: int, seed: int, processes: Processes
) -> ShuffledBatches | ShuffledStudies:
    """Whole batches of so many slices or studies, shuffled."""
    rank, count = processes.rank, processes.count
    if isinstance(dataset, StudySamples):
        z = dataset.places[:, 1].numpy()
        return ShuffledStudies(dataset.lengths, batch_size, seed, dataset.recurrence, dataset.longest, rank, count, z)
    if isinstance(dataset, UnevenSamples) and dataset.expected is not None:
        study = np.unique(dataset.series_ids, return_inverse=True)[1]
        return DrawnBatches(dataset.expected, study, batch_size, seed, rank, count)
    return ShuffledBatches(len(dataset), batch_size, seed, rank, count)


@contextmanager
def explained(*loaders: DataLoader) -> Generator[None]:
    """Raise an InputError of one line for what fails in a loader or its processes within the block."""
    try:
        yield
    except InputError as error:
        # Loader processes send their whole traceback as the message, fastai puts the callback's name before it.
        text = str(error).strip().splitlines()[-1].strip()
        raise InputError(text.removeprefix(f"{InputError.__module__}.InputError: ")) from error
    except RuntimeError as error:
        if not re.search(r"DataLoader worker \(pid|shared memory", str(error)):
            raise
        raise InputError(_explain_death(str(error), loaders)) from error


def _explain_death(message: str, loaders: Sequence[DataLoader]) -> str:
    listed = re.search(r"\(pid(?:\(s\))? ([\d, ]+)\)", message)
    processes = [int(number) for number in listed[1].split(",")] if listed else []
    watched = [loader.dataset for loader in loaders if isinstance(loader.dataset, WatchedDataset)]
    names = [dataset.read_by(process) for dataset in watched for process in processes]
    slices = ", ".join(name for name in names if name) or "not known"
    by_signal = re.search(r"killed by signal: ([\w ]+)", message)
    return (
        f"a loader process has died{f' ({by_signal[1]})' if by_signal else ''}; it was reading slice {slices}; "
        f"{free_memory()}; give it more memory, or start fewer of them with --workers"
    )


def require_shared_memory(dataset: Samples, batch_size: int, workers: int) -> None:
    """Raise InputError if /dev/shm, through which loader processes hand over their batches, is too small for them.

    What does not fit ends a process without a word. Docker gives 64 MiB.
    """
    shared = Path("/dev/shm")
    if not workers or not shared.is_dir():
        return
    slices = batch_size
    if isinstance(dataset, StudySamples):  # so many studies, of the usual length
        slices *= int(np.minimum(dataset.lengths, dataset.longest or max(dataset.lengths)).mean())
    needed = workers * _READY * slices * sum(part.nbytes for part in dataset[0, 0])
    if (free := shutil.disk_usage(shared).free) < needed:
        raise InputError(
            f"{workers} loader processes hand over {needed / 2**30:.2f} GiB at a time through /dev/shm, which has "
            f"{free / 2**30:.2f} GiB free; give the container more (docker run --shm-size 8g), or take fewer --workers"
        )


def free_memory() -> str:
    """What is left of memory and of shared memory, through which loader processes hand over their batches."""
    text, shared = f"{psutil.virtual_memory().available / 2**30:.1f} GiB of memory free", Path("/dev/shm")
    if shared.is_dir():
        text += f", {shutil.disk_usage(shared).free / 2**30:.1f} GiB of shared memory (/dev/shm) free"
    return text


def _start_worker(_: int) -> None:
    start_process()
    cv2.setNumThreads(0)  # a loader process is one thread; OpenCV's pool would fight over the cores
    # A terminal and Slurm signal the whole group. The main process decides when to stop, and needs its loaders until
    # it has saved; it sends them SIGTERM itself when it ends.
    worker = get_worker_info()
    assert worker is not None
    assert isinstance(worker.dataset, WatchedDataset)
    closing = worker.dataset.closing
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing else None)
    let_signals_in()
