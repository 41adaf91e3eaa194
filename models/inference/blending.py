"""Several runs -> one blend: weights on the simplex for each label, typed in or fitted on out-of-fold predictions."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference.aligned import SPACES, SUREST, Aligned, Rows, Space, to_probability
from models.inference.calibration import Calibration, fit_calibration, fit_shift, raise_any
from models.training.metric import weighted_log_loss

# blending.ipynb of the original: 0.4 for the mean of five B2 folds, 0.2 for the finetuned B5, and so on.
ORIGINAL_WEIGHTS = {"b2": 0.4, "b5": 0.2, "b0": 0.2, "b0_224": 0.1, "resnext101": 0.1}
ALL = slice(None)
TOLERANCES = (1e-10, 1e-7)  # of the loss; where rounding is in the way of the first, the second will do


@dataclass(frozen=True)
class Blend:
    """A weighted mean of the runs, for each label in a space of its own, then calibrated if it is asked for.

    `any` is at least the largest of the five types, whatever the runs say.
    """

    names: tuple[str, ...]
    weights: np.ndarray  # (6, runs), each row sums to 1
    spaces: tuple[Space, ...] = ("probability",) * len(LABELS)
    calibrations: tuple[Calibration, ...] | None = None

    def __call__(self, runs: Aligned, rows: Rows = ALL) -> np.ndarray:
        """Probabilities of the slices `rows`, float64 (slices, 6).

        Raises InputError for other runs than it was made for.
        """
        blended = self.mean(runs, rows)
        if self.calibrations is None:
            return raise_any(blended)
        return raise_any(expit(calibrated(blended, self.calibrations)))

    def mean(self, runs: Aligned, rows: Rows = ALL) -> np.ndarray:
        """The weighted mean of the runs alone, float64 (slices, 6): not calibrated, and `any` is not raised.

        Raises InputError for other runs than it was made for.
        """
        if runs.names != self.names:
            raise InputError(f"a blend of the runs {self.names} cannot be used for {runs.names}")
        means = [runs.values[space][label][rows] @ self.weights[label] for label, space in enumerate(self.spaces)]
        return np.stack([to_probability(mean, space) for mean, space in zip(means, self.spaces, strict=True)], 1)


def fit_equal(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Blend:
    """Every run counts the same; nothing is fitted. Takes what `fit_weights` takes, as all of these."""
    return Blend(runs.names, np.full((len(LABELS), len(runs.names)), 1 / len(runs.names)))


def fit_original(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Blend:
    """The original's weights of those of its runs that are there, scaled to a sum of 1; nothing is fitted.

    Takes what `fit_weights` takes. Raises InputError if none of them is there.
    """
    weights = np.array([ORIGINAL_WEIGHTS.get(name, 0) for name in runs.names])
    if not weights.any():
        raise InputError(f"none of the runs {runs.names} has a weight; weights are for {sorted(ORIGINAL_WEIGHTS)}")
    return Blend(runs.names, np.tile(weights / weights.sum(), (len(LABELS), 1)))


def fit_best_single(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Blend:
    """The run with the lowest weighted log loss alone, of those slices that `fit_weights` would look at."""
    values = runs.values["probability"][:, rows]  # (6, slices, runs)
    losses = [weighted_log_loss(target[rows], values[:, :, run].T) for run in range(len(runs.names))]
    return Blend(runs.names, np.tile(np.eye(len(losses))[np.argmin(losses)], (len(LABELS), 1)))


def fit_weights(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Blend:
    """For each label the weights, and the space, with the lowest log loss on the slices `rows`.

    `target` is (slices, 6) for all slices, `rows` the (slices,) of bool that are looked at.
    """
    weights, spaces = [], []
    for label in range(len(LABELS)):
        fitted = {space: fit_simplex(runs.values[space][label][rows], target[rows, label], space) for space in SPACES}
        best = min(SPACES, key=lambda space: fitted[space][1])
        weights.append(fitted[best][0])
        spaces.append(best)
    return Blend(runs.names, np.stack(weights), tuple(spaces))


def fit_calibrated(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Blend:
    """As `fit_weights`, then a temperature and a bias for each label; that of `any` allows for its being raised."""
    fitted = fit_weights(runs, target, rows)
    calibrations = fit_calibrations(fitted.mean(runs, rows), target[rows])
    return Blend(runs.names, fitted.weights, fitted.spaces, calibrations)


def fit_calibrations(probability: np.ndarray, target: np.ndarray) -> tuple[Calibration, ...]:
    """Of each label, from probabilities and targets (slices, 6); that of `any` allows for its being raised."""
    logits = logit(np.clip(probability, SUREST, 1 - SUREST))
    found = [fit_calibration(logits[:, label], target[:, label]) for label in range(len(LABELS))]
    said = calibrated(probability, tuple(found))
    shift = fit_shift(said[:, ANY], target[:, ANY], expit(said[:, :ANY].max(axis=1)))
    found[ANY] = found[ANY]._replace(bias=found[ANY].bias + shift)
    return tuple(found)


def calibrated(probability: np.ndarray, calibrations: tuple[Calibration, ...]) -> np.ndarray:
    """Logits of probabilities (slices, 6), each label by its own calibration."""
    logits = logit(np.clip(probability, SUREST, 1 - SUREST))
    return np.stack([calibrate(logits[:, label]) for label, calibrate in enumerate(calibrations)], axis=1)


def fit_simplex(values: np.ndarray, target: np.ndarray, space: Space) -> tuple[np.ndarray, float]:
    """The weights, at least 0 and of sum 1, with the lowest log loss of one label, and that loss.

    `values` are probabilities or logits (slices, runs), `target` is (slices,). A convex problem in both spaces, solved
    by sequential quadratic programming (Kraft 1988), with the exact gradient. If that does not converge with either of
    the TOLERANCES, the best of equal weights and of each run alone.
    """
    values, target = values.astype(float), target.astype(float)
    measure = logit_loss if space == "logit" else probability_loss
    found = [*np.eye(values.shape[1]), np.full(values.shape[1], 1 / values.shape[1])]  # where nothing else is
    for tolerance in TOLERANCES:
        solved = minimize(
            lambda weights: measure(weights, values, target),
            found[-1],
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * len(found[-1]),
            constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
            options={"ftol": tolerance, "maxiter": 200},
        )
        if solved.success:
            weights = np.clip(solved.x, 0, 1)
            weights /= weights.sum()
            return weights, measure(weights, values, target)[0]
    return min(((weights, measure(weights, values, target)[0]) for weights in found), key=lambda pair: pair[1])


def logit_loss(weights: np.ndarray, logits: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Log loss of the weighted mean of logits (slices, runs), and its gradient by the weights (runs,)."""
    mean = logits @ weights
    return float((np.logaddexp(0, mean) - target * mean).mean()), (expit(mean) - target) @ logits / len(target)


def probability_loss(weights: np.ndarray, probability: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Log loss of the weighted mean of probabilities (slices, runs), and its gradient by the weights (runs,)."""
    mean = np.clip(probability @ weights, 1e-15, 1 - 1e-15)
    right = np.where(target == 1, mean, 1 - mean)  # the probability of what is true
    return float(-np.log(right).mean()), (np.where(target == 1, -1, 1) / right) @ probability / len(target)
