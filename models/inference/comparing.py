"""What a score is of other patients, and whether two predictions differ: a bootstrap of patients, paired.

Each prediction is scored on the same drawn patients, so that the difference of two draws is a paired one. All scores
are made of sums over the slices of a patient, which are added up as often as the patient is drawn.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import entr, ndtr
from scipy.stats import t as student

from models.common.errors import InputError
from models.common.labels import LABELS, METRIC_WEIGHTS
from models.training.metric import slice_losses
from models.training.scoring import WEIGHTED

SCORES = [WEIGHTED, *(f"log loss {label}" for label in LABELS), *(f"AUC {label}" for label in LABELS)]
_AT_ONCE = 100  # draws; of 18,938 patients they take 15 MB


class Resampled(NamedTuple):
    """The scores of one prediction, in the order of SCORES."""

    value: np.ndarray  # (13,), of the slices as they are; the AUC of a label that all have, or none, is NaN
    draws: np.ndarray  # (draws, 13), each of as many patients, drawn with replacement
    patients: int
    seed: int


def resample(
    target: np.ndarray, probability: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0
) -> Resampled:
    """Scores of targets and probabilities (slices, 6), at least one slice, and of the slices of drawn patients.

    `patients` names the patient of each slice. They are drawn, never slices, since those of one patient are alike.
    Equal patients and seed give equal draws, whatever the predictions. The AUC of a draw is its first-order
    approximation: how the drawn positive slices stand among all negative ones, and the drawn negative among all
    positive (Obuchowski, Biometrics 1997, of clustered data), which needs no sorting of each draw.
    """
    positive = (np.asarray(target) == 1).T
    placed = [placements(own, score) for own, score in zip(positive, np.transpose(probability), strict=True)]
    sides = np.stack(placed, axis=1)  # (2, 6, slices)
    columns = [*slice_losses(target, probability).T, *sides[0], *sides[1], *positive]
    totals, count = patient_totals(columns, patients, draws, seed)
    losses, of_positive, of_negative, positives, slices = np.split(totals, (6, 12, 18, 24), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw that lacks one of the classes has no AUC
        found, spared = of_positive / positives, of_negative / (slices - positives)
    whole = found[0]  # each label's own AUC, of which both halves are the mean
    return _resampled(losses / slices, found + spared - whole, count, seed)


def resample_prior(target: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0) -> Resampled:
    """What `resample` gives for the prior, that of each draw: its own prevalences for every slice, whose AUC is 0.5."""
    positive = (np.asarray(target) == 1).T
    totals, count = patient_totals([*positive], patients, draws, seed)
    share = totals[:, :-1] / totals[:, -1:]
    return _resampled(entr(share) + entr(1 - share), np.full(share.shape, 0.5), count, seed)


def intervals(scores: Resampled) -> pd.DataFrame:
    """A row for each of SCORES: its value and its 95 % interval, columns value, low, high; of one patient NaN."""
    return _table(scores.value, scores.draws, scores.patients)


def differences(ours: Resampled, theirs: Resampled) -> pd.DataFrame:
    """The same of our scores less theirs, paired: a log loss below 0 and an AUC above 0 speak for ours.

    Raises InputError for predictions that were scored on other patients, or drawn in another way.
    """
    _require_paired(ours, theirs)
    return _table(ours.value - theirs.value, ours.draws - theirs.draws, ours.patients)


def shares(ours: Resampled, theirs: Resampled) -> pd.DataFrame:
    """The same of our scores as shares of theirs, draw by draw: a log loss of 0.6 is 40 % below the prior's.

    Raises InputError as `differences`.
    """
    _require_paired(ours, theirs)
    with np.errstate(divide="ignore", invalid="ignore"):  # the prior of a label that no slice has is right
        return _table(ours.value / theirs.value, ours.draws / theirs.draws, ours.patients)


def holds_zero(row: pd.Series) -> bool:
    """Whether a difference may be none; so may one without an interval."""
    return not (row["low"] > 0 or row["high"] < 0)


def placements(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """How each slice stands among those of the other class, (2, slices): the positive ones, the negative ones.

    The first row holds the share of negative slices that a positive one is above, the second the share of positive
    slices that a negative one is below, ties as a half, and zeros elsewhere. The mean of each, over its own class, is
    the AUC. `positive` (slices,) is of bool. NaN if only one class is there.
    """
    own, others = np.sort(score[positive]), np.sort(score[~positive])
    placed = np.zeros((2, len(score)))
    with np.errstate(invalid="ignore"):
        placed[0, positive] = places(score[positive], others) / len(others)
        placed[1, ~positive] = 1 - places(score[~positive], own) / len(own)
    return placed


def places(score: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the sorted `others` are below each score, (slices,); equal ones count as a half."""
    return (np.searchsorted(others, score, "left") + np.searchsorted(others, score, "right")) / 2


def patient_totals(columns: list[np.ndarray], patients: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, int]:
    """Sums of columns (slices,) over all slices, and over those of the drawn patients; and how many patients there are.

    The sums are (1 + draws, columns + 1), the last column counts slices.
    """
    codes, names = pd.factorize(patients, sort=True)  # sorted: the order of slices changes nothing
    of_patient = np.stack([np.bincount(codes, weights=column) for column in [*columns, np.ones(len(codes))]], axis=1)
    return drawn_totals(of_patient, draws, seed), len(names)


def drawn_totals(of_patient: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Sums of (patients, columns) over all patients, and over those of each draw, (1 + draws, columns)."""
    totals = [of_patient.sum(axis=0, keepdims=True)]
    return np.concatenate(totals + [times @ of_patient for times in drawn_patients(len(of_patient), draws, seed)])


def drawn_patients(count: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `count` patients is in each draw, float64 (draws, patients), some draws at a time."""
    generator = np.random.default_rng(seed)
    for first in range(0, draws, _AT_ONCE):
        drawn = [generator.integers(count, size=count) for _ in range(first, min(first + _AT_ONCE, draws))]
        yield np.stack([np.bincount(draw, minlength=count) for draw in drawn]).astype(float)


def _resampled(losses: np.ndarray, aucs: np.ndarray, patients: int, seed: int) -> Resampled:
    """Of the slices as they are, then of each draw, (1 + draws, 6)."""
    scores = np.column_stack([np.average(losses, axis=1, weights=METRIC_WEIGHTS), losses, aucs])
    return Resampled(scores[0], scores[1:], patients, seed)


def _require_paired(ours: Resampled, theirs: Resampled) -> None:
    if (ours.patients, ours.seed, len(ours.draws)) != (theirs.patients, theirs.seed, len(theirs.draws)):
        raise InputError(
            f"scores of {ours.patients:,} patients and of {theirs.patients:,} are not paired; score both predictions "
            "on the same slices, with the same draws and seed"
        )


def _table(value: np.ndarray, draws: np.ndarray, patients: int) -> pd.DataFrame:
    table = pd.DataFrame({"value": value, "low": np.nan, "high": np.nan}, index=SCORES)
    known = ~np.isnan(value) & (~np.isnan(draws)).any(axis=0)
    if patients > 1 and known.any():
        table.loc[known, ["low", "high"]] = np.nanpercentile(draws[:, known], tails(patients), axis=0).T
    return table


def tails(patients: int, share: float = 0.95) -> tuple[float, float]:
    """The percentiles of a bootstrap of so many patients, two at least, between which an interval of a share lies.

    For 95 %, 2.5 and 97.5 of many; farther out of few, whose draws vary less than the truth does, as Student's t is
    wider than the normal distribution (the expanded percentile interval of Hesterberg, The American Statistician 2015).
    """
    low = 100 * float(ndtr(np.sqrt(patients / (patients - 1)) * student.ppf((1 - share) / 2, patients - 1)))
    return low, 100 - low
