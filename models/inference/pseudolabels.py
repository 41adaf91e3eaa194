"""Probabilities of test slices -> pseudolabels: targets, and how much each counts in training."""

from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import entr

from models.common.labels import LABEL_WEIGHTS, LABELS

Kind = Literal["soft", "hard"]


def make_labels(probability: pd.DataFrame, kind: Kind, threshold: float) -> pd.DataFrame:
    """Targets (LABELS) and weights (LABEL_WEIGHTS), float32 in [0, 1], a row a slice, indexed as `probability`.

    `probability` has the columns LABELS. `threshold` is for hard ones alone.
    """
    return soft_labels(probability) if kind == "soft" else hard_labels(probability, threshold)


def hard_labels(probability: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The original's way: what is above the threshold is positive and has a weight of 1, nothing else has any.

    Slices without a positive label are left out.
    """
    positive = probability > threshold
    return _table(positive, positive)[positive.any(axis=1)]


def soft_labels(probability: pd.DataFrame) -> pd.DataFrame:
    """The probabilities themselves; the weight is 1 less their binary entropy in bits: 0 at 1/2, 1 at 0 and at 1."""
    p = probability.astype(np.float64)
    return _table(p, (1 - (entr(p) + entr(1 - p)) / np.log(2)).clip(0, 1))


def report(pseudolabels: pd.DataFrame, slices: int, training: pd.Series) -> pd.DataFrame:
    """A row a label: the sum of the weights, the same for each of `slices` that could have one, and prevalences.

    The prevalence of a pseudolabel is the weighted mean of its targets; beside it stands that in training.
    """
    targets, weights = pseudolabels[list(LABELS)].to_numpy(float), pseudolabels[list(LABEL_WEIGHTS)].to_numpy(float)
    total = pd.Series(weights.sum(axis=0), index=LABELS)
    prevalence = (weights * targets).sum(axis=0) / total.replace(0, np.nan)
    columns = {"pseudolabels": total.round(1), "of all": total / slices, "prevalence": prevalence}
    return pd.DataFrame(columns | {"in training": training})


def _table(targets: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    return targets.join(weights.set_axis(LABEL_WEIGHTS, axis=1)).astype(np.float32)
