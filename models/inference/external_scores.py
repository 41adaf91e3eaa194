"""Scores of a set with intervals, beside those that the networks were released with. Nothing is fitted here.

Thresholds and calibration are those of the answers: what an alarm is was decided before anybody saw the set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from models.common.labels import LABELS
from models.inference.comparing import intervals, resample
from models.inference.external_joining import Rows
from models.inference.operating import Range, certain, jeffreys
from models.training.fingerprint import Counts, Fingerprint
from models.training.metric import prior, slice_losses

_UNKNOWN = Range(np.nan, np.nan, np.nan)


def score_labels(rows: Rows, labels: Sequence[str]) -> pd.DataFrame:
    """A row for each label of a set: `positive`, AUC and log loss, both with low and high, and the prior's log loss.

    Patients are drawn as `resample` does it; where an AUC is 1 no draw tells how sure that is, and `certain` does.
    `predicted` is the mean probability, and `observed` the share that has the label: calibration in the large.
    """
    target, probability, patients = rows
    scores = intervals(resample(target, probability, patients))
    of_prior = slice_losses(target, prior(target)).mean(axis=0)
    table = {}
    for label in labels:
        place = LABELS.index(label)
        loss, positive = scores.loc[f"log loss {label}"], target[:, place] == 1
        sides = [len(np.unique(patients[chosen])) for chosen in (positive, ~positive)]
        found = [float(value) for value in scores.loc[f"AUC {label}"].to_numpy(float)]
        auc = certain(Range(*found), min(sides))
        table[label] = {
            "positive": positive.sum(),
            **{"AUC": auc.value, "AUC low": auc.low, "AUC high": auc.high},
            **{"log loss": loss["value"], "loss low": loss["low"], "loss high": loss["high"]},
            "prior's": of_prior[place],
            "predicted": probability[:, place].mean(),
            "observed": target[:, place].mean(),
        }
    return pd.DataFrame.from_dict(table, orient="index")


def at_threshold(alarm: np.ndarray, target: np.ndarray, patients: np.ndarray) -> tuple[Range, Range]:
    """Sensitivity and specificity of alarms for `any` that were given, of studies; all are (studies,).

    The interval is Jeffreys', of as many patients as there are, as that of an operating point is.
    """
    positive = np.asarray(target) == 1
    return _share(alarm[positive], patients[positive]), _share(~alarm[~positive], patients[~positive])


def apart(here: Range, there: Range) -> Range:
    """How far two independent shares are apart, here less there, by their own intervals.

    Of the limits' distances the roots of the sums of squares (MOVER; Zou and Donner, Statistics in Medicine 2008).
    """
    value = here.value - there.value
    below = np.hypot(here.value - here.low, there.high - there.value)
    above = np.hypot(here.high - here.value, there.value - there.low)
    return Range(value, float(value - below), float(value + above))


def own_points(point: Mapping[str, Any]) -> tuple[Range, Range]:
    """Sensitivity and specificity where a threshold was chosen, as an answer tells them."""
    return Range(*point["sensitivity"]), Range(*point["specificity"])


def own_aucs(runs: Sequence[Sequence[Fingerprint]], of: str) -> dict[str, Range]:
    """The AUC of each label in what the folds of each run were validated on, `of_studies` or `of_slices`.

    Of several runs that of the least able. Those of a run are counts by probability, a quarter of a logit wide, within
    which all are alike. The interval is DeLong's, of as many patients as there are.
    """
    found: dict[str, Range] = {}
    for folds in runs:
        counts: Counts = {label: np.sum([getattr(fold, of)[label] for fold in folds], axis=0) for label in LABELS}
        patients = sum(fold.patients for fold in folds)
        for label in LABELS:
            own = _auc_of_counts(counts[label].astype(float), patients)
            if label not in found or not own.value >= found[label].value:
                found[label] = own
    return found


def _auc_of_counts(counts: np.ndarray, patients: int) -> Range:
    """The AUC by counts (2, bins) of those without and with a label, who are of so many patients."""
    negatives, positives = counts.sum(axis=1)
    if not (negatives and positives):
        return _UNKNOWN
    below = (np.cumsum(counts[0]) - counts[0] / 2) / negatives  # share of negatives below what is in a bin
    above = 1 - (np.cumsum(counts[1]) - counts[1] / 2) / positives
    value = float(counts[1] @ below / positives)
    share = min(1.0, patients / (negatives + positives))
    spread = sum(
        (count @ (placed - value) ** 2) / count.sum() / max(1.0, share * count.sum() - 1)
        for count, placed in ((counts[1], below), (counts[0], above))
    )
    half = 1.959964 * float(np.sqrt(spread))
    return certain(Range(value, value - half, value + half), min(positives, negatives) * share)


def _share(right: np.ndarray, patients: np.ndarray) -> Range:
    """The share of bools (studies,) that are so, with its interval; nothing of none."""
    if not len(right):
        return _UNKNOWN
    return jeffreys(float(right.mean()), len(np.unique(patients)))


def worse(difference: Range) -> str:
    """What a difference tells, in words."""
    if np.isnan(difference.value):
        return "not known"
    if difference.low > 0:
        return "better here"
    return "worse here" if difference.high < 0 else "may be none"
