"""Scores of several predictions, and how far those of other patients may lie from them."""

import numpy as np
import pandas as pd

from models.labels import LABELS, METRIC_WEIGHTS
from models.training.loss import prior, slice_losses
from models.training.scoring import WEIGHTED, score, score_prior


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


def score_intervals(
    target: np.ndarray, probability: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A row for the weighted log loss and for each label: log loss, its 95 % interval (low, high), the prior's.

    Targets and probabilities are (slices, 6), at least one slice; `patients` names the patient of each slice. The
    interval lies between percentiles of a bootstrap of so many draws: patients are drawn with replacement, never
    slices, since those of one patient are alike. Equal patients and seed give equal draws, whatever the predictions.
    """
    losses = with_weighted(slice_losses(target, probability))  # (slices, 7)
    low, high = np.percentile(resampled_means(losses, patients, draws, seed), (2.5, 97.5), axis=0)
    of_prior = with_weighted(slice_losses(target, prior(target))).mean(axis=0)
    columns = {"log loss": losses.mean(axis=0), "low": low, "high": high, "prior's": of_prior}
    return pd.DataFrame(columns, index=[WEIGHTED, *LABELS])


def with_weighted(losses: np.ndarray) -> np.ndarray:
    """Losses of the labels (slices, 6), with the weighted loss of each slice before them, (slices, 7)."""
    return np.column_stack([np.average(losses, axis=1, weights=METRIC_WEIGHTS), losses])


def resampled_means(values: np.ndarray, patients: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of values (slices, columns) over the slices of patients drawn with replacement, (draws, columns)."""
    codes, names = pd.factorize(patients, sort=True)  # sorted: the order of slices changes nothing
    sums = np.stack([np.bincount(codes, weights=column) for column in [*values.T, np.ones(len(values))]], axis=1)
    generator = np.random.default_rng(seed)
    totals = np.empty((draws, sums.shape[1]))
    for draw in totals:
        draw[:] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names)) @ sums
    return totals[:, :-1] / totals[:, -1:]
