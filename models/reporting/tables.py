"""The numbers of a report: scores of each label, points of calibration, and which type is taken for which."""

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from scipy.special import xlogy
from sklearn.metrics import average_precision_score

from models.common.labels import ANY, LABELS, METRIC_WEIGHTS, SUBTYPES
from models.inference.scoring import score_intervals
from models.reporting.resampling import auc_interval, resample_means, several, to_interval
from models.reporting.subject import Scored
from models.training.metric import slice_losses
from models.training.scoring import CERTAIN, WEIGHTED, auc

NO_BLEED = "no hemorrhage"
BINS = 10  # of slices, by their probability, in a figure of calibration
_NORMAL_95 = 1.96
_LEAST = 1e-4  # share at least of a label in the reference of a type, which may have no slice at all


def score_labels(scored: Scored, ranked: Scored | None = None) -> pd.DataFrame:
    """A row for the weighted log loss and for each label: what `score_intervals` gives, and how slices are ranked.

    Adds `positives`, `AUC` with its interval (`AUC low`, `AUC high`), `average precision`, and `share`, that of the
    positives, which is the average precision of a constant; and `of prior`, the loss as a share of the prior's, with an
    interval (`of prior low`, `of prior high`) in which each draw of patients has a prior of its own. NaN where a label
    has one class alone. They are ranked as `ranked` says, where that is given, and lose what `scored` says.
    """
    patients = scored.slices["patient_id"].to_numpy()
    table = score_intervals(scored.target, scored.probability, patients)
    table = table.join(_shares_of_prior(scored, patients))
    for number, label in enumerate(LABELS):
        target, probability = scored.target[:, number], (ranked or scored).probability[:, number]
        low, high = auc_interval(target, probability, patients)
        table.loc[label, "positives"] = target.sum()
        table.loc[label, "share"] = target.mean()
        table.loc[label, "AUC"] = auc(target, probability)
        table.loc[label, ["AUC low", "AUC high"]] = low, high
        table.loc[label, "average precision"] = average_precision(target, probability)
    return table


def _shares_of_prior(scored: Scored, patients: np.ndarray) -> pd.DataFrame:
    losses = slice_losses(scored.target, scored.probability)
    values = np.column_stack([losses, scored.target])  # (slices, 12)
    shares = _share_of_prior(resample_means(values, patients))
    low, high = to_interval(shares, several(patients))
    (share,) = _share_of_prior(values.mean(axis=0, keepdims=True))
    columns = {"of prior": share, "of prior low": low, "of prior high": high}
    return pd.DataFrame(columns, index=[WEIGHTED, *LABELS])


def _share_of_prior(means: np.ndarray) -> np.ndarray:
    """Mean losses and shares of labels (draws, 12) -> losses as shares of the prior's, weighted first (draws, 7)."""
    losses, positive = np.split(means, 2, axis=1)
    priors = -xlogy(positive, positive) - xlogy(1 - positive, 1 - positive)
    both = [np.column_stack([values @ METRIC_WEIGHTS / sum(METRIC_WEIGHTS), values]) for values in (losses, priors)]
    return np.divide(*both, out=np.full_like(both[0], np.nan), where=both[1] > CERTAIN)


def average_precision(target: np.ndarray, probability: np.ndarray) -> float:
    """Mean precision over the recall of one label, of targets and probabilities (slices,); NaN for one class alone."""
    return float(average_precision_score(target, probability)) if 0 < target.mean() < 1 else float("nan")


def calibrate(target: np.ndarray, probability: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    """Slices in tenths of equal size by the probability of one label: `slices`, mean `predicted`, share `observed`.

    Targets, probabilities and patients are (slices,). Slices of one probability stay together, so there may be fewer
    tenths. The interval, `low` to `high`, is Wilson's, 95 %, of `independent_slices`; NaN for a single patient.
    """
    edges = np.quantile(probability, np.linspace(0, 1, BINS + 1)[1:-1])
    table = pd.DataFrame({"predicted": probability, "observed": target})
    tenth = np.searchsorted(edges, probability)
    points = table.groupby(tenth).mean()
    points.insert(0, "slices", table.groupby(tenth).size())
    low, high = _wilson(points["observed"], independent_slices(table["observed"].groupby([tenth, patients])))
    return points.assign(low=low, high=high)


def independent_slices(of_patients: SeriesGroupBy) -> pd.Series:
    """How many independent slices would tell as much of a share as those of some patients, who are alike in themselves.

    `of_patients` are ones and zeros by group, and by patient within it. The variance between patients tells it
    (E. L. Korn and B. I. Graubard, Survey Methodology 1998). Where all have it, or none, there are as many as patients.
    """
    table = of_patients.agg(["sum", "size"])
    patients, totals = table.groupby(level=0).size(), table.groupby(level=0).sum()
    share = totals["sum"] / totals["size"]
    apart = table["sum"] - table["size"] * share.reindex(table.index, level=0)
    variance = (apart**2).groupby(level=0).sum() / totals["size"] ** 2 * patients / (patients - 1)
    alone = share * (1 - share)  # the variance of a single slice
    return (alone / variance).where(alone > 0, patients).clip(1, totals["size"]).where(patients > 1)


def calibration_error(points: pd.DataFrame) -> float:
    """The expected calibration error: how far shares lie from predictions, the mean over all slices."""
    return float(np.average((points["observed"] - points["predicted"]).abs(), weights=points["slices"]))


def _wilson(share: pd.Series, count: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Wilson's interval of a share (E. B. Wilson, 1927)."""
    square = _NORMAL_95**2 / count
    center = (share + square / 2) / (1 + square)
    half = _NORMAL_95 * np.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return center - half, center + half


def confuse_types(scored: Scored) -> pd.DataFrame:
    """Mean probability of each label (columns) over the slices of one true type alone (rows), and of none.

    The first column is `slices`; a type without slices of its own has NaN.
    """
    rows = {
        name: [chosen.sum(), *(scored.probability[chosen].mean(axis=0) if chosen.any() else [np.nan] * len(LABELS))]
        for name, chosen in _slices_of_one_type(scored).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slices", *LABELS])


def confuse_named(scored: Scored) -> pd.DataFrame:
    """The share of the slices of one true type alone (rows) that are taken for each type (columns).

    A slice is taken for the type whose odds stand highest above those of the type's share of all slices: so a rare type
    can be named, too. The first column is `slices`; a type without slices of its own has NaN.
    """
    shares = np.clip(scored.target[:, :ANY].mean(axis=0), _LEAST, 1 - _LEAST)
    certain = np.clip(scored.probability[:, :ANY], CERTAIN, 1 - CERTAIN)
    named = (np.log(certain / (1 - certain)) - np.log(shares / (1 - shares))).argmax(axis=1)
    rows = {}
    for name, chosen in _slices_of_one_type(scored).items():
        counts = np.bincount(named[chosen], minlength=len(SUBTYPES))
        rows[name] = [chosen.sum(), *(counts / chosen.sum() if chosen.any() else [np.nan] * len(SUBTYPES))]
    del rows[NO_BLEED]  # these are taken for none
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slices", *SUBTYPES])


def _slices_of_one_type(scored: Scored) -> dict[str, np.ndarray]:
    """Which slices show one type alone, by its name, and which show none; each (slices,) of bool."""
    subtypes = scored.target[:, :ANY] == 1
    alone = subtypes.sum(axis=1) == 1
    groups = {name: alone & subtypes[:, number] for number, name in enumerate(SUBTYPES)}
    return groups | {NO_BLEED: scored.target[:, ANY] == 0}
