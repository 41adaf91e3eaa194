"""Probabilities that mean what they say: a temperature and a bias for each label."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit

from models.common.labels import ANY

_PRIOR = 1.0  # slices' worth of belief that nothing has to change: without it a label with one class has no optimum


class Calibration(NamedTuple):
    """calibrated logit = logit / temperature + bias, of logits of any shape"""

    temperature: float
    bias: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logits / self.temperature + self.bias


def fit_calibration(logits: np.ndarray, target: np.ndarray, counts: np.ndarray | None = None) -> Calibration:
    """The calibration with the lowest log loss of one label; logits and targets (slices,).

    `counts` (slices,) tells of how many slices each is; without it of one.
    Platt scaling (Platt 1999; the temperature of Guo et al., ICML 2017, and a bias), a convex problem.
    """
    values, target = logits.astype(float), target.astype(float)
    weights = np.ones(len(values)) if counts is None else counts.astype(float)
    total = weights.sum()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = parameters
        scores = scale * values + bias
        error = weights * (expit(scores) - target)
        change = parameters - (1, 0)
        value = (weights * (np.logaddexp(0, scores) - target * scores)).sum() + _PRIOR / 2 * (change @ change)
        return value / total, (np.array([error @ values, error.sum()]) + _PRIOR * change) / total

    fitted = minimize(loss, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=[(1e-3, None), (None, None)])
    scale, bias = fitted.x
    return Calibration(float(1 / scale), float(bias))


def fit_shift(logits: np.ndarray, target: np.ndarray, largest: np.ndarray) -> float:
    """What to add to the logits of `any` so that, once raised, it is expected as often as it is; all are (slices,).

    `largest` is the largest probability of the five types, to which `any` is raised: where it often is, it is expected
    too often. One number for all slices, which few patients can tell; with them, too, `_PRIOR` holds it back.
    """
    count = len(logits)

    def excess(shift: float) -> float:
        return np.maximum(expit(logits + shift), largest).sum() - target.sum() + _PRIOR * shift

    return float(brentq(excess, -count, count))  # of at most `count` slices too many, or too few


def raise_any(probability: np.ndarray) -> np.ndarray:
    """A copy of probabilities (slices, 6) in which `any` is at least the largest of the five types."""
    raised = probability.copy()
    raised[:, ANY] = probability.max(axis=1)
    return raised
