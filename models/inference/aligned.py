"""Predictions of several runs, side by side: aligned by `image_id`, never by position."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from models.common.labels import LABELS
from models.preprocessing.neighbours import neighbour_rows

Space = Literal["probability", "logit"]  # in which predictions are averaged
SPACES = get_args(Space)
SUREST = 1e-6  # in the space of logits no run is surer than this, else one could outvote all others


class Aligned(NamedTuple):
    """What the runs say of the same slices."""

    names: tuple[str, ...]
    image_ids: pd.Index
    values: dict[Space, np.ndarray]  # float32 (6, slices, runs), nothing missing
    neighbours: np.ndarray  # rows of the slices below and above, (slices, 2); at the ends of a series its own


def align_runs(predictions: dict[str, pd.DataFrame], slices: pd.DataFrame) -> Aligned:
    """Lay the predictions of runs (indexed by `image_id`, columns LABELS) side by side.

    `slices` is the metadata, in anatomical order within each series; the result has those of its slices that any of
    the runs has, in its order. A slice that a run lacks gets the mean of the others there, in each space.
    """
    known = pd.Index([]).append([table.index for table in predictions.values()]).unique()
    table = slices[slices["image_id"].isin(known)]
    image_ids = pd.Index(table["image_id"], name="image_id")
    probability = np.empty((len(LABELS), len(image_ids), len(predictions)), np.float32)
    for number, run in enumerate(predictions.values()):
        probability[:, :, number] = run.reindex(image_ids).to_numpy().T
    values: dict[Space, np.ndarray] = {
        "probability": fill_missing(probability),
        "logit": fill_missing(logit(np.clip(probability, SUREST, 1 - SUREST))),
    }
    return Aligned(tuple(predictions), image_ids, values, neighbour_rows(table))


def fill_missing(values: np.ndarray) -> np.ndarray:
    """Put the mean of the other runs where one has NaN; values (labels, slices, runs), of which each slice has one."""
    missing = np.isnan(values)
    if missing.any():
        return np.where(missing, np.nanmean(values, axis=2, keepdims=True), values)
    return values


def to_probability(values: np.ndarray, space: Space) -> np.ndarray:
    """Probabilities of values of any shape."""
    return expit(values) if space == "logit" else values
