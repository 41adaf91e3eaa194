"""What the probabilities of a run mean: calibrated on its own validation, of slices and of studies; and thresholds.

All of it is read from the fingerprints of its folds, whose counts add up.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, expit, logit

from models.common.labels import ANY, LABELS
from models.inference.aligned import SUREST
from models.inference.calibration import Calibration, fit_calibration
from models.training.fingerprint import EDGES, Counts, Fingerprint

LEVEL = 0.95
DRAWS = 2000
YOUDEN = "youden"
FEWEST = 10  # studies with and without blood that a threshold is told of
_MIDDLES = np.concatenate([EDGES[:1], (EDGES[1:] + EDGES[:-1]) / 2, EDGES[-1:]])

Patients = Mapping[str, Mapping[str, tuple[int, int]]]  # of slices and studies, by label: with it, and without it


class Range(NamedTuple):
    """A share, and its 95 % interval."""

    value: float
    low: float
    high: float


class Point(NamedTuple):
    """An alarm for `any` in a study is a probability of `threshold` or above."""

    threshold: float  # calibrated
    sensitivity: Range
    specificity: Range
    positives: int  # patients whose studies this was seen on
    negatives: int


class Meaning(NamedTuple):
    """How to read a run."""

    slices: dict[str, Calibration]
    studies: dict[str, Calibration]  # of the highest slice of a study
    points: dict[str, Point]  # by the share that is LEVEL there; none where too few studies were seen


def meaning_of(folds: Sequence[Fingerprint]) -> Meaning:
    """That of a run, from the fingerprints of its folds."""
    slices, studies = (_add([getattr(one, of) for one in folds]) for of in ("of_slices", "of_studies"))
    of_slices, of_studies = _fit(slices), _fit(studies)
    share = sum(one.patients for one in folds) / max(1, sum(one.studies for one in folds))
    counts = studies[LABELS[ANY]]
    positives, negatives = (max(1, round(int(counts[value].sum()) * share)) for value in (1, 0))
    points = operating_points(counts, of_studies[LABELS[ANY]], positives, negatives)
    return Meaning(of_slices, of_studies, {name: point for name, point in points.items() if name != YOUDEN})


def all_points(folds: Sequence[Fingerprint], patients: Patients) -> dict[str, dict[str, dict[str, Point]]]:
    """Those of `slices` and of `studies`, for each label, by `operating_points`; intervals are of so many patients."""
    found = {}
    for name, of in (("slices", "of_slices"), ("studies", "of_studies")):
        counts = _add([getattr(one, of) for one in folds])
        meant = _fit(counts)
        found[name] = {label: operating_points(counts[label], meant[label], *patients[name][label]) for label in LABELS}
    return found


def calibrated(probability: np.ndarray, calibrations: Mapping[str, Calibration]) -> np.ndarray:
    """Probabilities (..., 6) as they are meant; none of the five types is more probable than `any`.

    `any` stays what it is: what thresholds are told to find, and to alarm about for nothing, was counted on it.
    """
    logits = logit(np.clip(probability.astype(float), SUREST, 1 - SUREST))
    meant = expit(np.stack([calibrations[label](logits[..., column]) for column, label in enumerate(LABELS)], axis=-1))
    return np.minimum(meant, meant[..., [ANY]])


def predictive_values(point: Point, prevalence: float) -> dict[str, Range]:
    """What an alarm, and none, is worth where so many studies bleed: `PPV` and `NPV`, by Bayes."""
    generator = np.random.default_rng(0)
    sensitivity, specificity = (
        np.append(share.value, generator.beta(*_posterior(share.value, count), DRAWS))
        for share, count in ((point.sensitivity, point.positives), (point.specificity, point.negatives))
    )
    right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    free, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    values = {"PPV": right / np.maximum(right + wrong, 1e-12), "NPV": free / np.maximum(free + missed, 1e-12)}
    return {name: Range(float(of[0]), *map(float, np.percentile(of[1:], (2.5, 97.5)))) for name, of in values.items()}


def _add(counts: Sequence[Counts]) -> Counts:
    return {label: np.sum([one[label] for one in counts], axis=0) for label in LABELS}


def _fit(counts: Counts) -> dict[str, Calibration]:
    values, target = np.tile(_MIDDLES, 2), np.repeat([0.0, 1.0], len(_MIDDLES))
    return {label: fit_calibration(values, target, counts[label].ravel()) for label in LABELS}


def operating_points(counts: np.ndarray, calibration: Calibration, positives: int, negatives: int) -> dict[str, Point]:
    """Thresholds by counts (2, bins) of those without and with blood, who are so many patients.

    At LEVEL of sensitivity and at LEVEL of specificity, where that is reached between EDGES, and where the sum of both
    is the highest (W. J. Youden, Cancer 1950); none where too few were seen.
    """
    if counts.sum(axis=1).min() < FEWEST:
        return {}
    below = np.cumsum(counts[:, :-1], axis=1) / counts.sum(axis=1, keepdims=True)  # of EDGES
    specificity, sensitivity = below[0], 1 - below[1]
    found, spared = (np.flatnonzero(share >= LEVEL - 1e-9) for share in (sensitivity, specificity))
    places = {"sensitivity": found[-1:], "specificity": spared[:1], YOUDEN: [(sensitivity + specificity).argmax()]}
    return {
        name: Point(
            float(expit(calibration(EDGES[place]))),
            jeffreys(float(sensitivity[place]), positives),
            jeffreys(float(specificity[place]), negatives),
            positives,
            negatives,
        )
        for name, reached in places.items()
        for place in reached
    }


def jeffreys(value: float, count: float) -> Range:
    """A share of so many patients, with Jeffreys' interval."""
    low, high = betaincinv(*_posterior(value, count), (0.025, 0.975))
    return Range(value, min(float(low), value), max(float(high), value))


def certain(auc: Range, fewest: float) -> Range:
    """An AUC with its interval within 0 ... 1; that of an AUC of 0 or 1 is the one of a share of so many patients.

    Of those with or without the label, of which there are fewer: no draw of them tells how sure an AUC of 1 is.
    """
    if auc.value in (0, 1) and not np.isnan(auc.low):
        return jeffreys(auc.value, fewest)
    return Range(auc.value, float(np.clip(auc.low, 0, 1)), float(np.clip(auc.high, 0, 1)))


def _posterior(value: float, count: float) -> tuple[float, float]:
    return value * count + 0.5, (1 - value) * count + 0.5
