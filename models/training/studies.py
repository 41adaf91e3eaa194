"""The slices of a study, together and in their order: where each lies, and batches of whole studies or stretches.

Batches stay lists of slices; which of them belong together stands in their places (study_places.py).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from models.common.recurrence import Recurrence


class ShuffledStudies(Sampler):
    """The batches of an epoch, drawn by (seed, epoch), as lists of keys (epoch, row): so many studies each.

    Of a study they hold all slices in their order or, as the recurrence says, one of so many mm, a stretch of these, or
    the reverse. All batches are whole. Of each this gives the share of one of `count` processes. The first `start`
    batches are left out, for a run that goes on in the middle of an epoch; the length stays the epoch's. `lengths` says
    how many slices each study has, (studies,), and `z` where they lie, in mm (slices,).
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        recurrence: Recurrence,
        longest: int | None = None,
        rank: int = 0,
        count: int = 1,
        z: np.ndarray | None = None,
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.rank, self.count = lengths, batch_size, seed, rank, count
        self.recurrence, self.longest, self.z = recurrence, longest, z
        self.epoch, self.start = 0, 0
        self.drawn: tuple[int, list[list[np.ndarray]]] | None = None

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size

    @property
    def smallest(self) -> int:
        """The number of studies of the smallest share of a batch, the same in all processes."""
        return self.batch_size // self.count

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for studies in self.studies()[self.start :]:
            yield [(self.epoch, int(row)) for study in studies[self.rank :: self.count] for row in study]

    def size(self, batch: int) -> int:
        """The number of slices of a batch, those of all processes."""
        return sum(map(len, self.studies()[batch]))

    def rows(self) -> list[np.ndarray]:
        """The rows of each batch of the epoch, (slices,), those of all processes."""
        return [np.concatenate(studies) for studies in self.studies()]

    def studies(self) -> list[list[np.ndarray]]:
        """The rows of each study, (slices,), of each batch of the epoch."""
        if self.drawn is None or self.drawn[0] != self.epoch:
            self.drawn = self.epoch, self._draw(np.random.default_rng((self.seed, self.epoch)))
        return self.drawn[1]

    def _draw(self, random: np.random.Generator) -> list[list[np.ndarray]]:
        count, shown = len(self.lengths), self._shown(random)
        lengths = np.array([len(rows) for rows in shown])
        share = random.uniform(self.recurrence.shortest, 1, count)
        kept = np.minimum(np.ceil(share * lengths).astype(int), self.longest or max(lengths))
        first = random.integers(lengths - kept + 1)
        step = np.where(self.recurrence.reverse & (random.random(count) < 0.5), -1, 1)
        rows = [some[a : a + n][::s] for some, a, n, s in zip(shown, first, kept, step, strict=True)]
        order = random.permutation(count)[: len(self) * self.batch_size].reshape(-1, self.batch_size)
        return [[rows[study] for study in batch] for batch in order]

    def _shown(self, random: np.random.Generator) -> list[np.ndarray]:
        """The rows of each study that may be seen in an epoch."""
        studies = np.split(np.arange(sum(self.lengths)), np.cumsum(self.lengths)[:-1])
        if not self.recurrence.spacing:
            return studies
        assert self.z is not None
        return [rows[thinned(self.z[rows], self.recurrence.spacing, random)] for rows in studies]


def thinned(z: np.ndarray, spacing: float, random: np.random.Generator) -> np.ndarray:
    """Which slices, at z (mm, ascending, (slices,)), are the first in a stretch of so many mm; these begin anywhere."""
    stretch = np.floor((z - z[0]) / spacing + random.random())
    return np.flatnonzero(np.r_[True, stretch[1:] != stretch[:-1]])


class OrderedStudies(Sampler):
    """All rows in order, as lists of keys (0, row), so many studies each; one of `count` processes has a stretch.

    `lengths` says how many slices each study has, (studies,).
    """

    start = 0

    def __init__(self, lengths: np.ndarray, batch_size: int, rank: int = 0, count: int = 1) -> None:
        ends = np.cumsum(lengths)
        studies = [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        own = np.array_split(np.arange(len(studies)), count)[rank]
        self.batches = [
            np.concatenate([studies[study] for study in own[first : first + batch_size]])
            for first in range(0, len(own), batch_size)
        ]
        self.stretch = np.concatenate(self.batches) if self.batches else np.empty(0, int)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in self.batches:
            yield [(0, int(row)) for row in rows]


def split_studies(place: torch.Tensor) -> list[int]:
    """How many slices of a batch each study has, from the places (slices, 3), which have stayed on the CPU."""
    study = place[:, 0].numpy()  # of a tensor on a GPU this is an error: it would have to be waited for
    starts = np.flatnonzero(np.r_[True, study[1:] != study[:-1]]) if len(study) else []
    return np.diff(np.r_[starts, len(study)]).astype(int).tolist()
