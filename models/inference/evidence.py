"""Which way to blend: each is scored on patients that its fit has not seen."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from models.common.errors import InputError
from models.inference.aligned import Aligned
from models.inference.blending import (
    ORIGINAL_WEIGHTS,
    Blend,
    fit_best_single,
    fit_calibrated,
    fit_equal,
    fit_original,
    fit_weights,
)
from models.inference.stacking import Stacker, fit_stacker

PARTS = 5  # of the patients; a blend is fitted on all but one of them and used on that one
Fit = Callable[[Aligned, np.ndarray, np.ndarray], Blend | Stacker]
WAYS: dict[str, Fit] = {
    "best_single": fit_best_single,
    "equal": fit_equal,
    "original": fit_original,
    "fitted": fit_weights,
    "fitted_calibrated": fit_calibrated,
    "stacker": fit_stacker,
}


def possible_ways(runs: Aligned) -> dict[str, Fit]:
    """All WAYS; without the original's weights if none of its runs is there."""
    return {name: fit for name, fit in WAYS.items() if name != "original" or set(runs.names) & set(ORIGINAL_WEIGHTS)}


def nested(fit: Fit, runs: Aligned, target: np.ndarray, patients: pd.Series) -> np.ndarray:
    """Probabilities of all slices, (slices, 6), each from a blend that was fitted on slices of other patients.

    `target` is (slices, 6), `patients` names the patient of each slice. Raises InputError for a single patient.
    """
    groups, names = pd.factorize(patients, sort=True)
    parts = min(PARTS, len(names))
    if parts < 2:
        raise InputError("all predictions are of one patient; blends can be compared on two or more")
    probability = np.empty(target.shape)
    for _, held_out in GroupKFold(parts, shuffle=True, random_state=0).split(target, groups=groups):
        rows = np.ones(len(target), bool)
        rows[held_out] = False
        probability[held_out] = fit(runs, target, rows)(runs)[held_out]
    return probability
