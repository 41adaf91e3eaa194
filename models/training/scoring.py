"""Scores of predictions beside the prior's."""

import numpy as np
import pandas as pd

from models.common.labels import LABELS
from models.training.metric import log_losses, prior, weighted_log_loss

WEIGHTED = "weighted log loss"
CERTAIN = 1e-9  # log loss of a prior that knows: all slices have the label, or none


def score(target: np.ndarray, probability: np.ndarray) -> pd.Series:
    """Weighted log loss, then log loss and AUC of each label, of targets and probabilities (slices, 6).

    The AUC of a label that all slices have, or none, is NaN.
    """
    scores = {WEIGHTED: weighted_log_loss(target, probability)}
    scores |= {f"log loss {label}": loss for label, loss in zip(LABELS, log_losses(target, probability), strict=True)}
    scores |= {f"AUC {label}": auc(target[:, i], probability[:, i]) for i, label in enumerate(LABELS)}
    return pd.Series(scores)


def auc(target: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve of one label, of targets and probabilities (slices,); NaN if only one class is there."""
    from sklearn.metrics import roc_auc_score  # half a second, which a misspelt flag does not need

    return float(roc_auc_score(target, probability)) if 0 < target.mean() < 1 else float("nan")


def score_prior(target: np.ndarray) -> pd.Series:
    """What `score` gives for the best constant prediction for targets (slices, 6)."""
    return score(target, prior(target))


def label_table(target: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """A row for the weighted log loss and for each label: log loss, the prior's log loss, AUC.

    Of targets and probabilities (slices, 6).
    """
    scores, baseline = score(target, probability), score_prior(target)
    rows = {WEIGHTED: (scores[WEIGHTED], baseline[WEIGHTED], float("nan"))}
    for label in LABELS:
        rows[label] = (scores[f"log loss {label}"], baseline[f"log loss {label}"], scores[f"AUC {label}"])
    return pd.DataFrame.from_dict(rows, orient="index", columns=["log loss", "prior's", "AUC"])
