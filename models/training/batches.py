"""The order of slices: shuffled to train on, as they stand to predict; of several processes each has its share."""

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ShuffledBatches(Sampler):
    """The batches of an epoch, shuffled by (seed, epoch), as lists of keys (epoch, row) for a SliceDataset.

    All batches are whole. Of each this gives the share of one of `count` processes. The first `start` batches are left
    out, for a run that goes on in the middle of an epoch; the length stays the epoch's.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, count: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.rank, self.count = length, batch_size, seed, rank, count
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.length // self.batch_size

    @property
    def smallest(self) -> int:
        """The number of slices of the smallest share of a batch, the same in all processes."""
        return self.batch_size // self.count

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in self.rows()[self.start :, self.rank :: self.count]:
            yield [(self.epoch, int(row)) for row in rows]

    def size(self, _: int) -> int:
        """The number of slices of a batch, those of all processes."""
        return self.batch_size

    def rows(self) -> np.ndarray:
        """The rows of the epoch's batches, those of all processes, (batches, batch_size)."""
        rows = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return rows[: len(self) * self.batch_size].reshape(-1, self.batch_size)


class OrderedBatches(Sampler):
    """All rows in order, as lists of keys (0, row); one of `count` processes has a stretch of them."""

    start = 0

    def __init__(self, length: int, batch_size: int, rank: int = 0, count: int = 1) -> None:
        self.stretch = np.array_split(np.arange(length), count)[rank]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.stretch) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, len(self.stretch), self.batch_size):
            yield [(0, int(row)) for row in self.stretch[first : first + self.batch_size]]
