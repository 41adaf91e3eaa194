"""Which slices an epoch draws: so many of each study, those with blood more often, the loss corrected for it."""

import numpy as np
import pandas as pd

from models.common.config import TrainConfig
from models.common.labels import ANY, LABEL_WEIGHTS, LABELS
from models.training.batches import ShuffledBatches

EXPECTED = "expected_draws"  # a column of the slices to train on: how often an epoch draws each, in the mean


def drawn_evenly(slices: pd.DataFrame, config: TrainConfig) -> pd.DataFrame:
    """Slices to train on with EXPECTED, and with LABEL_WEIGHTS that weigh back what is drawn more or less often.

    The expectation of an epoch's loss is then that of all slices, once each. As they are, where a configuration draws
    each of them once.
    """
    if config.balanced == 0 and config.positives == 1:
        return slices
    expected = expected_draws(slices, config)
    weight = (expected.sum() / len(slices) / expected).astype(np.float32)
    return weighted(slices, weight[:, None]).assign(**{EXPECTED: expected})


def weighted(slices: pd.DataFrame, weight: np.ndarray) -> pd.DataFrame:
    """Slices whose LABEL_WEIGHTS, 1 where they have none, are multiplied by weights (slices, 1) or (slices, 6)."""
    before = slices.reindex(columns=list(LABEL_WEIGHTS), fill_value=np.float32(1)).to_numpy(np.float32)
    return slices.assign(**dict(zip(LABEL_WEIGHTS, (before * weight).astype(np.float32).T, strict=True)))


def expected_draws(slices: pd.DataFrame, config: TrainConfig) -> np.ndarray:
    """How often an epoch draws each slice, in the mean, (slices,); those of a study add up to a whole number."""
    study = pd.factorize(slices["series_id"])[0]
    often = np.where(slices[LABELS[ANY]].to_numpy(float) > 0.5, config.positives, 1.0)
    count = np.bincount(study)
    drawn = np.minimum(count, config.balanced) if config.balanced else count
    return often * (drawn / np.bincount(study, often))[study]


def first_drawn(slices: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first slices, `count` of them; where they have EXPECTED, whole studies of which an epoch draws so many."""
    if EXPECTED not in slices:
        return slices.head(count)
    drawn = slices.groupby("series_id", sort=False)[EXPECTED].sum().cumsum().round(6)
    studies = drawn.index[: int(np.searchsorted(drawn, count)) + 1]
    return slices[slices["series_id"].isin(studies)]


class DrawnBatches(ShuffledBatches):
    """Batches of slices that are drawn as often as is expected: in each epoch, as often as in the mean, but for a part.

    Systematic sampling along each study: its slices stand one after the other with their expectations as lengths, and
    marks at a distance of 1, from anywhere, hit those that are drawn, in places that lie evenly. `expected` (slices,),
    slices of a study together or not.
    """

    def __init__(
        self, expected: np.ndarray, study: np.ndarray, batch_size: int, seed: int, rank: int, count: int
    ) -> None:
        """`study` (slices,) numbers the study of each slice."""
        super().__init__(round(expected.sum()), batch_size, seed, rank, count)
        self.order = np.argsort(study, kind="stable")
        self.study, self.ends = study[self.order], np.round(np.cumsum(expected[self.order]), 6)

    def rows(self) -> np.ndarray:
        """The rows of the epoch's batches, those of all processes, (batches, batch_size)."""
        random = np.random.default_rng((self.seed, self.epoch))
        start = random.random(self.study.max() + 1)[self.study]
        before = np.r_[0.0, self.ends[:-1]]
        times = (np.floor(self.ends + start) - np.floor(before + start)).astype(int)
        rows = random.permutation(np.repeat(self.order, times))
        return rows[: len(self) * self.batch_size].reshape(-1, self.batch_size)
