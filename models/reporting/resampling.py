"""Patients drawn with replacement, again and again: how far a number may lie from that of other patients.

Slices of a patient are alike, so patients are drawn, never slices. Equal patients give equal draws, whatever is told:
numbers of the same draws may be compared, and divided by each other. `comparing` draws them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array

from models.inference.comparing import drawn_patients, patient_totals, tails
from models.inference.operating import Range, certain, jeffreys
from models.training.scoring import auc

DRAWS = 1000
_SEED = 0
_STEPS = 1000  # into which probabilities are put, if there are more different ones


class Ranked(NamedTuple):
    """How many negatives and positives of each draw lie at each step of the probability, from the lowest up."""

    negatives: np.ndarray  # (draws, steps)
    positives: np.ndarray  # (draws, steps)


def to_interval(values: np.ndarray, count: int | None = None) -> np.ndarray:
    """The percentiles 2.5 and 97.5 of draws (draws,) or (draws, columns), (2,) or (2, columns).

    Of those draws that have a number: in some a rare label is absent. NaN where none has. With a `count` of patients
    the percentiles are further out, by `tails`.
    """
    known = ~np.isnan(values).all(axis=0)
    ends = np.nanpercentile(np.where(known, values, 0), (2.5, 97.5) if count is None else tails(count), axis=0)
    return ends * np.where(known, 1, np.nan)


def mean_interval(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The interval of a mean over values (slices,) of the patients (slices,), (2,); NaN for a single patient."""
    return to_interval(resample_means(values[:, None].astype(float), patients)[:, 0], several(patients))


def share_interval(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The interval of the share of bools (slices,) that are so, of the patients (slices,), (2,); NaN for a single one.

    It holds that of the bootstrap, and Jeffreys' of so many patients: where all are so, no draw has one that is not.
    """
    low, high = mean_interval(values, patients)
    likely = jeffreys(float(values.mean()), len(set(patients)))
    return np.array([np.minimum(low, likely.low), np.maximum(high, likely.high)])


def several(patients: np.ndarray) -> int | None:
    """How many patients there are, for `to_interval`; None for a single one, of whom there are no draws."""
    count = len(set(patients))
    return count if count > 1 else None


def resample_means(values: np.ndarray, patients: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Means of values (slices, columns) over the slices of the patients (slices,) of each draw, (draws, columns).

    NaN for a single patient, of whom all draws are alike.
    """
    if len(set(patients)) < 2:
        return np.full((draws, values.shape[1]), np.nan)
    totals, _ = patient_totals([*values.T], patients, draws, _SEED)
    return totals[1:, :-1] / totals[1:, -1:]


def resample_auc(target: np.ndarray, probability: np.ndarray, patients: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """The area under the ROC curve of each draw, (draws,), of targets, probabilities and patients (slices,).

    NaN for all if a class is absent, or has a single patient, whom one draw in three lacks.
    """
    if not can_be_resampled(target, patients):
        return np.full(draws, np.nan)
    return np.concatenate([auc_of(ranked) for ranked in resample_ranks(target, probability, patients, draws)])


def auc_interval(target: np.ndarray, probability: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The interval of the area under the ROC curve, (2,), of targets, probabilities and patients (slices,).

    NaN as `resample_auc`; with the count of patients of the class that has fewer, and of an AUC of 0 or 1, by which
    all draws are alike, that of a share of so many.
    """
    fewest = min(len(set(patients[target == value])) for value in (0, 1))
    ends = to_interval(resample_auc(target, probability, patients), fewest if fewest > 1 else None)
    found = certain(Range(auc(target, probability), *ends), fewest)
    return np.array([found.low, found.high])


def can_be_resampled(target: np.ndarray, patients: np.ndarray) -> bool:
    """Whether each class of the targets (slices,) has two patients (slices,) at least."""
    return all(len(set(patients[target == value])) > 1 for value in (0, 1))


def auc_of(ranked: Ranked) -> np.ndarray:
    """The area under the ROC curve of each draw, (draws,); NaN where a class is absent."""
    below = np.cumsum(ranked.negatives, axis=1) - ranked.negatives / 2  # of equal ones half
    pairs = ranked.negatives.sum(axis=1) * ranked.positives.sum(axis=1)
    won = (ranked.positives * below).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def count_ranks(target: np.ndarray, probability: np.ndarray) -> Ranked:
    """Counts of all slices, as one draw, of targets and probabilities (slices,): a step a different probability."""
    _, step = np.unique(probability, return_inverse=True)
    counts = [np.bincount(step[target == value], minlength=step.max() + 1)[None] for value in (0, 1)]
    return Ranked(*counts)


def resample_ranks(
    target: np.ndarray, probability: np.ndarray, patients: np.ndarray, draws: int = DRAWS
) -> Iterator[Ranked]:
    """Counts of draws, some at a time, of targets, probabilities and patients (slices,)."""
    step = steps_of(probability)
    codes, names = pd.factorize(patients, sort=True)
    shape = len(names), step.max() + 1
    counts = [
        coo_array((np.ones(chosen.sum()), (codes[chosen], step[chosen])), shape).tocsr().T
        for chosen in (target == 0, target == 1)
    ]
    for times in drawn_patients(len(names), draws, _SEED):
        yield Ranked(*((count @ times.T).T for count in counts))


def steps_of(probability: np.ndarray) -> np.ndarray:
    """The step of each probability, (slices,) -> (slices,): the same for equal ones, and not less for greater ones.

    As many steps as there are different probabilities, _STEPS at most: then of equally many slices each.
    """
    values, step = np.unique(probability, return_inverse=True)
    if len(values) <= _STEPS:
        return step
    return np.searchsorted(np.quantile(probability, np.linspace(0, 1, _STEPS + 1)[1:-1]), probability)
