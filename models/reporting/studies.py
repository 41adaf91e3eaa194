"""Slices -> studies: whether there is blood anywhere in the head, and what an alarm for a study is worth."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold

from models.common.labels import ANY, LABELS
from models.inference.aligned import SUREST
from models.inference.calibration import fit_calibration, raise_any
from models.reporting.resampling import DRAWS, Ranked, can_be_resampled, count_ranks, resample_ranks, to_interval
from models.reporting.subject import Scored

PARTS = 5  # of the patients; what calibrates a study is fitted on the others
LEVELS = (0.90, 0.95)  # of specificity, at which sensitivity is told, and the reverse
PREVALENCES = (0.01, 0.02, 0.05, 0.10, 0.20, 0.40)


class Studies(NamedTuple):
    """What is said of studies in two ways, of the same ones in the same order."""

    highest: Scored  # as their highest slice says: these can be ranked, and stand at a threshold
    calibrated: Scored  # by studies of other patients: these can be believed, but each part has a scale of its own


class Point(NamedTuple):
    """Shares of studies at a threshold, of each draw (draws,)."""

    sensitivity: np.ndarray
    specificity: np.ndarray


def join_studies(scored: Scored) -> Studies:
    """The studies of some slices: a label is there if a slice has it, and as probable as in its most probable slice.

    That is too high for most studies, since the highest of forty guesses is a high one. So it is calibrated by
    studies of other patients, for losses and calibration. Not for ranks: a part of the patients that bleeds more often
    than the others is calibrated by these to less, and would lie below them. The rows of `slices` have `study_id`,
    `patient_id` and `image_id`, that of a slice.
    """
    codes, names = pd.factorize(scored.slices["study_id"])
    table = scored.slices[~pd.Series(codes).duplicated().to_numpy()][["study_id", "patient_id", "image_id"]]
    target, highest = np.zeros((len(names), len(LABELS))), np.zeros((len(names), len(LABELS)))
    np.maximum.at(target, codes, scored.target)
    np.maximum.at(highest, codes, scored.probability)
    studies = Scored(table.reset_index(drop=True), target, highest)
    calibrated = _calibrate(target, highest, table["patient_id"].to_numpy())
    return Studies(studies, studies._replace(probability=calibrated))


def _calibrate(target: np.ndarray, probability: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Probabilities (studies, 6), those of each part of the patients calibrated by the others."""
    parts = min(PARTS, len(set(patients)))
    if parts < 2:
        return probability
    logits = logit(np.clip(probability, SUREST, 1 - SUREST))
    calibrated = np.empty(logits.shape)
    groups, _ = pd.factorize(patients, sort=True)
    for others, part in GroupKFold(parts, shuffle=True, random_state=0).split(logits, groups=groups):
        for label in range(len(LABELS)):
            calibration = fit_calibration(logits[others, label], target[others, label])
            calibrated[part, label] = calibration(logits[part, label])
    return raise_any(expit(calibrated))


def operate(studies: Scored) -> pd.DataFrame:
    """A row a label: `positives`, and for each of LEVELS what is reached at it, with its interval.

    Studies are those by their highest slice.
    The columns are `sensitivity at 0.9`, `sensitivity at 0.9 low`, ... `high`, and `specificity at 0.9`, ...: the best
    threshold on these very studies. NaN where a label has one class alone, or a single patient. An interval holds that
    of the bootstrap, and Jeffreys' of so many patients: where no draw has a false alarm, one may yet come.
    """
    rows = {}
    for number, label in enumerate(LABELS):
        target = studies.target[:, number]
        row = {"positives": target.sum()}
        for level in LEVELS:
            for name in Point._fields:
                at, drawn = _points(studies, number, name, level)
                other = "specificity" if name == "sensitivity" else "sensitivity"
                low, high = _wider(getattr(drawn, other), getattr(_likely(studies, number, at), other))
                column = f"{other} at {level}"
                row |= {column: getattr(at, other)[0], f"{column} low": low, f"{column} high": high}
        rows[label] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def predict_values(studies: Scored, fixed: str, level: float) -> pd.DataFrame:
    """What an alarm for `any`, or none, is worth at PREVALENCES, with the `fixed` share of a Point at a level.

    Studies are those by their highest slice.
    Columns: `PPV` and `NPV`, each with its interval (`PPV low`, `PPV high`): of the studies with an alarm those that
    bleed, and of the others those that do not. Intervals are as wide as those of `operate`.
    """
    at, drawn = _points(studies, ANY, fixed, level)
    likely = _likely(studies, ANY, at)
    rows = {}
    for prevalence in PREVALENCES:
        row = {}
        for name, value in (("PPV", positive_value), ("NPV", negative_value)):
            low, high = _wider(value(drawn, prevalence), value(likely, prevalence))
            row |= {name: value(at, prevalence)[0], f"{name} low": low, f"{name} high": high}
        rows[prevalence] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def positive_value(point: Point, prevalence: float) -> np.ndarray:
    """The share of alarms that are right, (draws,), by Bayes; NaN where there is no alarm."""
    right = point.sensitivity * prevalence
    return _share(right, right + (1 - point.specificity) * (1 - prevalence))


def negative_value(point: Point, prevalence: float) -> np.ndarray:
    """The share of studies without an alarm that do not bleed, (draws,); NaN where there are none."""
    right = point.specificity * (1 - prevalence)
    return _share(right, right + (1 - point.sensitivity) * prevalence)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _wider(draws: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """The interval that holds those of both, of draws (draws,); NaN if the first has none."""
    (low, high), (lowest, highest) = to_interval(draws), to_interval(others)
    return np.minimum(low, lowest), np.maximum(high, highest)


def _likely(studies: Scored, label: int, at: Point) -> Point:
    """Points (draws,) that are likely after what was seen at one: Jeffreys' posterior, of patients, not of studies."""
    generator, shares = np.random.default_rng(0), []
    for value, share in zip((1, 0), at, strict=True):
        count = studies.slices.loc[studies.target[:, label] == value, "patient_id"].nunique()
        shares.append(generator.beta(share[0] * count + 0.5, (1 - share[0]) * count + 0.5, DRAWS))
    return Point(*shares)


def _points(studies: Scored, label: int, fixed: str, level: float) -> tuple[Point, Point]:
    """The point of all studies, and those of the draws, at which a share is at least `level` and the other highest."""
    target, probability = studies.target[:, label], studies.probability[:, label]
    patients = studies.slices["patient_id"].to_numpy()
    if not 0 < target.mean() < 1:
        nothing = Point(np.full(1, np.nan), np.full(1, np.nan))
        return nothing, nothing
    at = _point(count_ranks(target, probability), fixed, level)
    if not can_be_resampled(target, patients):
        return at, Point(np.full(1, np.nan), np.full(1, np.nan))
    drawn = [_point(ranked, fixed, level) for ranked in resample_ranks(target, probability, patients)]
    return at, Point(*map(np.concatenate, zip(*drawn, strict=True)))


def _point(ranked: Ranked, fixed: str, level: float) -> Point:
    """The point of each draw: an alarm is what lies at a step or above; no alarm at all comes last.

    NaN where a draw has no study of one of the two classes.
    """
    shares = []
    for counts in ranked:
        below = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)], axis=1)  # (draws, steps + 1)
        shares.append(_share(below, np.broadcast_to(below[:, -1:], below.shape)))
    specificity, sensitivity = shares[0], 1 - shares[1]
    if fixed == "specificity":  # it rises with the threshold: the first that is high enough
        step = (specificity >= level - 1e-9).argmax(axis=1)
    else:
        step = sensitivity.shape[1] - 1 - (sensitivity >= level - 1e-9)[:, ::-1].argmax(axis=1)
    draws = np.arange(len(step))
    is_known = ~(np.isnan(sensitivity[:, 0]) | np.isnan(specificity[:, 0]))
    return Point(*(np.where(is_known, share[draws, step], np.nan) for share in (sensitivity, specificity)))
