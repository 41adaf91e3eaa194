"""The challenge's metric as a score, in numpy."""

import numpy as np

from models.common.labels import METRIC_WEIGHTS


def log_losses(target: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Log loss of each label, (6,), of targets and probabilities (slices, 6)."""
    return slice_losses(target, probability).mean(axis=0)


def slice_losses(target: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """What each label of each slice costs, (slices, 6), of targets and probabilities of that shape.

    Probabilities are kept 1e-15 away from 0 and 1, as the competition did it.
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-15, 1 - 1e-15)
    return -np.where(np.asarray(target) == 1, np.log(p), np.log1p(-p))


def prior(target: np.ndarray) -> np.ndarray:
    """The best constant prediction for targets (slices, 6): each label's prevalence for every slice, (slices, 6)."""
    return np.tile(target.mean(axis=0), (len(target), 1))


def weighted_log_loss(target: np.ndarray, probability: np.ndarray) -> float:
    """The competition's score of targets and probabilities (slices, 6); lower is better, 0.693 for 0.5 throughout."""
    return float(np.average(log_losses(target, probability), weights=METRIC_WEIGHTS))
