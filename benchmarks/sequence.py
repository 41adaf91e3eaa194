"""An epoch of the recurrent layers over the embeddings of the whole challenge, its time and the memory that it takes.

    python benchmarks/sequence.py                          # 21,744 studies, and a tenth of them
    python benchmarks/sequence.py --share 0.05             # 1,087 studies, and a tenth of these
    python benchmarks/sequence.py --width 3840 --device cuda --workers 8

Trains the network of models/train_sequence.py with the real loader, learner and step, without validation. Embeddings
are random numbers, made as they are asked for: reading them from a disk is no part of it. Both counts have a process
each; the peak of its resident memory is printed (without its loaders), beside what all embeddings would take.
"""

import time
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import pandas as pd
import torch
from comparison import peak_memory, separately
from fastai.callback.core import Callback, CancelFitException

from models.common.cli import command
from models.common.errors import InputError
from models.common.folders import Work, default_work
from models.common.labels import LABELS
from models.train_sequence import CONFIG
from models.training.device import choose_device, count_workers, use_device
from models.training.embeddings import SequenceDataset
from models.training.learner import make_learner
from models.training.loading import load_batches, shuffled_batches
from models.training.processes import Processes
from models.training.recurrent import build_sequence_network

STUDIES, SLICES = 21_744, 752_803  # of the challenge's first stage
_SHORTEST, _LONGEST = 20, 60  # slices of a study, before all are scaled to their sum


@dataclass(frozen=True)
class SequenceOptions:
    """The command line of this benchmark."""

    studies: int = STUDIES
    """of some 35 slices each, as the challenge's"""
    width: int = 2048
    """numbers that a network sees in a slice"""
    share: float = 1.0
    """of the studies, for a shorter measurement"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    workers: int = -1
    """processes that load slices; -1: as in training"""


def main(options: SequenceOptions) -> None:
    """Print the time and the memory of an epoch. Raises InputError for fewer studies than ten batches."""
    studies = round(options.share * options.studies)
    if studies // 10 < CONFIG.batch_size:
        raise InputError(f"a tenth of {studies} studies is no batch of {CONFIG.batch_size}; raise --studies or --share")
    print(f"an epoch on {choose_device(options.device)}, torch {torch.__version__}\n")
    print(f"{'studies':>8}{'slices':>9}{'seen':>9}{'seconds':>9}{'slices/s':>10}{'peak MiB':>10}{'embeddings MiB':>16}")
    for count in (studies // 10, studies):
        slices = round(count * SLICES / STUDIES)
        seen, seconds, peak = separately(measure, count, slices, options)
        embeddings = slices * numbers(options.width) * 2
        print(
            f"{count:8}{slices:9}{seen:9}{seconds:9.1f}{seen / seconds:10.0f}{peak / 2**20:10.0f}"
            f"{embeddings / 2**20:16.0f}",
            flush=True,
        )


def numbers(width: int) -> int:
    """How many are stored of a slice: its embedding and its logits."""
    return width + len(LABELS)


def measure(studies: int, slices: int, options: SequenceOptions) -> tuple[int, float, int]:
    """Slices that an epoch has seen, the seconds of its steps, and the most bytes that this process has held."""
    device = use_device(choose_device(options.device))
    table = make_table(studies, slices)
    dataset = SyntheticDataset(table, options.width)
    workers = count_workers(options.workers, device)
    batches = shuffled_batches(dataset, CONFIG.batch_size, CONFIG.seed, Processes(device))
    loader = load_batches(dataset, batches, workers, table["image_id"])
    torch.manual_seed(CONFIG.seed)
    network = build_sequence_network(CONFIG, options.width)
    stopwatch = EpochStopwatch(device)
    learner = make_learner(network, loader, loader, CONFIG, Processes(device), [stopwatch])
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1, CONFIG.max_lr)
    return sum(map(batches.size, range(len(batches)))), stopwatch.took, peak_memory()


def make_table(studies: int, slices: int, seed: int = 0) -> pd.DataFrame:
    """The metadata of so many slices with random labels, one series a study."""
    random = np.random.default_rng(seed)
    lengths = random.integers(_SHORTEST, _LONGEST + 1, studies)
    lengths = np.diff(np.rint(np.cumsum([0, *lengths]) * (slices / lengths.sum())).astype(int))
    study = np.repeat(np.arange(studies), lengths)
    place = np.arange(slices) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = {
        "image_id": [f"ID_{row:09x}" for row in range(slices)],
        "series_id": [f"ID_{number:010x}" for number in study],
        "chunk": place,
        "z": 5.0 * place,
        "tilt": 0.0,
    }
    return pd.DataFrame(columns | {label: (random.random(slices) < 0.1).astype(float) for label in LABELS})


class SyntheticDataset(SequenceDataset):
    """Slices as what one network sees in them, made of random numbers instead of read from files."""

    def __init__(self, slices: pd.DataFrame, width: int) -> None:
        super().__init__(slices, Work(default_work()), CONFIG, sources=[])
        self.study = np.repeat(np.arange(len(self.lengths)), self.lengths)
        self.numbers = numbers(width)

    def read(self, row: int) -> torch.Tensor:
        study = int(self.study[row])
        return make_study(study, int(self.lengths[study]), self.numbers)


@lru_cache(maxsize=4)  # as read_study
def make_study(study: int, slices: int, numbers: int) -> torch.Tensor:
    """A stretch of one block of random numbers, float32 (slices, numbers): a study's own, and cheap."""
    count = slices * numbers
    block = random_block(2 * _LONGEST * numbers)
    start = int(np.random.default_rng(study).integers(len(block) - count + 1))
    return torch.from_numpy(block[start : start + count].reshape(slices, numbers).astype(np.float32))


@cache
def random_block(count: int) -> np.ndarray:
    """Random numbers, float16 (count,)."""
    return np.random.default_rng(0).standard_normal(count, np.float32).astype(np.float16)


class EpochStopwatch(Callback):
    """The seconds of an epoch's steps; ends the training before its validation."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def before_train(self) -> None:
        self.started = time.perf_counter()

    def after_train(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.took = time.perf_counter() - self.started
        raise CancelFitException


if __name__ == "__main__":
    command(main, SequenceOptions)
