"""Scores of predictions beside the prior's."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from models.labels import LABELS
from models.training.loss import log_losses, prior, weighted_log_loss

WEIGHTED = "weighted log loss"


def score(target: np.ndarray, probability: np.ndarray) -> pd.Series:
    """Weighted log loss, then log loss and AUC of each label, of targets and probabilities (slices, 6).

    The AUC of a label that all slices have, or none, is NaN.
    """
    scores = {WEIGHTED: weighted_log_loss(target, probability)}
    scores |= {f"log loss {label}": loss for label, loss in zip(LABELS, log_losses(target, probability), strict=True)}
    scores |= {f"AUC {label}": auc(target[:, i], probability[:, i]) for i, label in enumerate(LABELS)}
    return pd.Series(scores)


def auc(target: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve of one label, NaN if only one class is there."""
    return float(roc_auc_score(target, probability)) if 0 < target.mean() < 1 else float("nan")


def score_prior(target: np.ndarray) -> pd.Series:
    """The scores of the best constant prediction."""
    return score(target, prior(target))


def score_table(labels: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each named prediction: slices, weighted log loss, the prior's, and the AUC of each label.

    `labels` and predictions are indexed by `image_id` with columns LABELS; only slices that have both count.
    """
    rows = {}
    for name, table in predictions.items():
        common = table.index.intersection(labels.index)
        target = labels.loc[common, list(LABELS)].to_numpy()
        if len(common) == 0:
            rows[name] = {"slices": 0}
            continue
        scores = score(target, table.loc[common].to_numpy())
        aucs = scores[[f"AUC {label}" for label in reversed(LABELS)]]
        rows[name] = {"slices": len(common), WEIGHTED: scores[WEIGHTED], "prior": score_prior(target)[WEIGHTED], **aucs}
    return pd.DataFrame.from_dict(rows, orient="index")
