"""The second level: a logistic regression on what the runs say of a slice and of its neighbours."""

from dataclasses import dataclass

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from models.common.errors import InputError
from models.common.labels import LABELS
from models.inference.aligned import Aligned
from models.inference.calibration import raise_any

_STRENGTH = 0.03  # inverse of the ridge; the runs are alike, and what sets them apart must not be overrated


@dataclass(frozen=True)
class Stacker:
    """A classifier for each label."""

    names: tuple[str, ...]
    classifiers: tuple[LogisticRegression | DummyClassifier, ...]

    def __call__(self, runs: Aligned) -> np.ndarray:
        """Probabilities of all slices, (slices, 6). Raises InputError for other runs than it was made for."""
        if runs.names != self.names:
            raise InputError(f"a stacker of the runs {self.names} cannot be used for {runs.names}")
        seen = features(runs)
        return raise_any(np.stack([positive(classifier, seen) for classifier in self.classifiers], axis=1))


def fit_stacker(runs: Aligned, target: np.ndarray, rows: np.ndarray) -> Stacker:
    """Logistic regressions with a ridge, fitted on the slices `rows`; a label that all have or none is a constant.

    `target` is (slices, 6) for all slices, `rows` the (slices,) of bool that are looked at.
    """
    seen = features(runs)[rows]
    classifiers = []
    for label in range(len(LABELS)):
        known = target[rows, label]
        both = 0 < known.mean() < 1
        kind = LogisticRegression(C=_STRENGTH, solver="newton-cholesky") if both else DummyClassifier(strategy="prior")
        classifiers.append(kind.fit(seen, known))
    return Stacker(runs.names, tuple(classifiers))


def features(runs: Aligned) -> np.ndarray:
    """Logits of all labels: each run's of a slice, the runs' mean of those below and above; (slices, 6 x runs + 12)."""
    logits = np.concatenate(list(runs.values["logit"]), axis=1)  # (slices, 6 x runs)
    mean = runs.values["logit"].mean(axis=2).T  # (slices, 6)
    below, above = runs.neighbours.T
    return np.concatenate([logits, mean[below], mean[above]], axis=1)


def positive(classifier: LogisticRegression | DummyClassifier, seen: np.ndarray) -> np.ndarray:
    """Probability of the label, (slices,); 0 if the classifier has seen no positive slice."""
    classes = list(classifier.classes_)
    return classifier.predict_proba(seen)[:, classes.index(1)] if 1 in classes else np.zeros(len(seen))
