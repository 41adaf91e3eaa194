"""The second level: classifiers on what the runs say of a slice, of its neighbours and of its study."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference.aligned import Aligned, Rows
from models.inference.blending import ALL
from models.inference.calibration import Calibration, fit_calibration, fit_shift, raise_any

Classifier = LogisticRegression | HistGradientBoostingClassifier

_STRENGTH = 0.03  # inverse of the ridge; the runs are alike, and what sets them apart must not be overrated
_logistic = partial(LogisticRegression, C=_STRENGTH, solver="newton-cholesky")
# Shallow trees, few of them: what the runs say is most of what is to be known. Fixed counts: no slices are held back.
_boosting = partial(
    HistGradientBoostingClassifier,
    max_iter=50,
    learning_rate=0.1,
    max_leaf_nodes=8,
    min_samples_leaf=40,
    l2_regularization=1.0,
    early_stopping=False,
    random_state=0,
)


@dataclass(frozen=True)
class Stacker:
    """A classifier for each label; `any` is at least the largest of the five types."""

    names: tuple[str, ...]
    classifiers: tuple[Classifier | Calibration, ...]
    shifts: tuple[float, ...] = (0.0,) * len(LABELS)  # of what they answer, on logits

    def __call__(self, runs: Aligned, rows: Rows = ALL) -> np.ndarray:
        """Probabilities of the slices `rows`, (slices, 6). Raises InputError for other runs than it was made for."""
        if runs.names != self.names:
            raise InputError(f"a stacker of the runs {self.names} cannot be used for {runs.names}")
        said = [answer(classifier, runs, label, rows) for label, classifier in enumerate(self.classifiers)]
        return raise_any(expit(np.stack(said, axis=1) + self.shifts))


def fit_stacker(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Stacker:
    """Logistic regressions with a ridge, fitted on the slices `rows`.

    `target` is (slices, 6) for all slices, `rows` the (slices,) of bool that are looked at. A label that all of these
    have, or none, is no ground to learn from: it gets the runs' mean, calibrated, which is never quite 0 or 1. What is
    answered of `any` is shifted, since raising it to the largest type makes it too likely.
    """
    return _fit(_logistic, runs, target, rows)


def fit_boosted(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Stacker:
    """The same with gradient boosted trees in the place of the logistic regressions; `target` is (slices, 6) again."""
    return _fit(_boosting, runs, target, rows)


def _fit(kind: "partial[Classifier]", runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Stacker:
    classifiers: list[Classifier | Calibration] = []
    for label in range(len(LABELS)):
        known = target[rows, label]
        if 0 < known.mean() < 1:
            classifiers.append(kind().fit(features(runs, label, rows), known))
        else:
            classifiers.append(fit_calibration(runs.context[label, rows, 0], known))
    said = [answer(classifier, runs, label, rows) for label, classifier in enumerate(classifiers)]
    largest = expit(np.max(said[:ANY], axis=0))
    shifts = [0.0] * len(LABELS)
    shifts[ANY] = fit_shift(said[ANY], target[rows, ANY], largest)
    return Stacker(runs.names, tuple(classifiers), tuple(shifts))


def features(runs: Aligned, label: int, rows: Rows) -> np.ndarray:
    """Logits that tell of a label on the slices `rows`, (slices, runs + 14).

    What each run says of it, what their mean says of it around the slice, and what that says of the other labels.
    """
    others = [runs.context[other, rows, 0] for other in range(len(LABELS)) if other != label]
    return np.column_stack([runs.values["logit"][label][rows], runs.context[label][rows], *others])


def answer(classifier: Classifier | Calibration, runs: Aligned, label: int, rows: Rows) -> np.ndarray:
    """Logits of a label, (slices,)."""
    if isinstance(classifier, Calibration):
        return classifier(runs.context[label, rows, 0].astype(float))
    return classifier.decision_function(features(runs, label, rows))
