"""How the runs of a blend are joined where it is used: for each label weights, a space, and maybe a calibration.

It is what blend.json tells of the ways that are weighted means. A second level of classifiers cannot travel as numbers
of a table: a label that has one gets the best mean instead (models/inference/released_blend.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from models.common.labels import LABELS
from models.inference.aligned import SUREST, Space, to_probability
from models.inference.calibration import Calibration, raise_any


@dataclass(frozen=True)
class Share:
    """How a label is joined."""

    weights: Mapping[str, float]  # by run; their sum is 1
    space: Space
    calibration: Calibration | None = None

    def __call__(self, said: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities of a label, (slices,), from those of each run, (slices,)."""
        values = {run: said[run].astype(float) for run in self.weights}
        if self.space == "logit":
            values = {run: logit(np.clip(value, SUREST, 1 - SUREST)) for run, value in values.items()}
        mean = to_probability(np.sum([weight * values[run] for run, weight in self.weights.items()], 0), self.space)
        if self.calibration is None:
            return mean
        return expit(self.calibration(logit(np.clip(mean, SUREST, 1 - SUREST))))

    def to_json(self) -> dict[str, Any]:
        """As release.json holds it."""
        calibration = None if self.calibration is None else list(self.calibration)
        return {"weights": dict(self.weights), "space": self.space, "calibration": calibration}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Share":
        """The same from there."""
        calibration = values["calibration"]
        return cls(values["weights"], values["space"], None if calibration is None else Calibration(*calibration))

    @classmethod
    def from_fitted(cls, fitted: dict[str, Any]) -> "Share":
        """From what blend.json tells of a label whose way is a weighted mean."""
        calibration = fitted.get("calibrations")
        return cls(fitted["weights"], fitted["spaces"], None if calibration is None else Calibration(**calibration))


def join(shares: Mapping[str, Share], said: Mapping[str, np.ndarray]) -> np.ndarray:
    """Probabilities (slices, 6) of all labels, from those of each run (slices, 6); `any` is at least the largest."""
    columns = [shares[label]({run: own[:, place] for run, own in said.items()}) for place, label in enumerate(LABELS)]
    return raise_any(np.stack(columns, axis=1))
