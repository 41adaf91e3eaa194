"""The numbers of a report: scores of each label, points of calibration, and which type is taken for which."""

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from models.common.labels import ANY, LABELS, SUBTYPES
from models.inference.scoring import score_intervals
from models.reporting.subject import Scored
from models.training.scoring import auc

NO_BLEED = "no hemorrhage"
_NORMAL_95 = 1.96


def score_labels(scored: Scored) -> pd.DataFrame:
    """A row for the weighted log loss and for each label: what `score_intervals` gives, and how slices are ranked.

    Adds `positives`, `AUC`, `average precision`, and `share`, that of the positives, which is the average precision of
    a constant. NaN where a label has one class alone.
    """
    table = score_intervals(scored.target, scored.probability, scored.slices["patient_id"].to_numpy())
    for number, label in enumerate(LABELS):
        target, probability = scored.target[:, number], scored.probability[:, number]
        table.loc[label, "positives"] = target.sum()
        table.loc[label, "share"] = target.mean()
        table.loc[label, "AUC"] = auc(target, probability)
        table.loc[label, "average precision"] = average_precision(target, probability)
    return table


def average_precision(target: np.ndarray, probability: np.ndarray) -> float:
    """Mean precision over the recall of one label, of targets and probabilities (slices,); NaN for one class alone."""
    return float(average_precision_score(target, probability)) if 0 < target.mean() < 1 else float("nan")


def calibrate(target: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Slices in tenths of the probability of one label: `slices`, mean `predicted`, share `observed`, `low`, `high`.

    Targets and probabilities are (slices,). Index: the middle of each tenth that holds slices. The interval is
    Wilson's, 95 %, of independent slices.
    """
    tenths = np.minimum((probability * 10).astype(int), 9)
    groups = pd.DataFrame({"predicted": probability, "observed": target}).groupby((tenths + 0.5) / 10)
    points = groups.mean()
    points.insert(0, "slices", groups.size())
    low, high = _wilson(points["observed"], points["slices"])
    return points.assign(low=low, high=high)


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
    subtypes = scored.target[:, :ANY] == 1
    alone = subtypes.sum(axis=1) == 1
    groups = {name: alone & subtypes[:, number] for number, name in enumerate(SUBTYPES)}
    groups[NO_BLEED] = scored.target[:, ANY] == 0
    rows = {
        name: [chosen.sum(), *(scored.probability[chosen].mean(axis=0) if chosen.any() else [np.nan] * len(LABELS))]
        for name, chosen in groups.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slices", *LABELS])
