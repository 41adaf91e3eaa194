"""Predictions of several runs, side by side: aligned by `image_id`, never by position."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from models.common.errors import InputError
from models.common.labels import LABELS
from models.preprocessing.neighbours import neighbour_rows

Space = Literal["probability", "logit"]  # in which predictions are averaged
SPACES = get_args(Space)
SUREST = 1e-6  # in the space of logits no run is surer than this, else one could outvote all others
OFFSETS = (-15, -10, -5, 5, 10, 15)  # mm: three slices on each side, 5 mm apart as most of them are

Rows = np.ndarray | slice  # which slices: (slices,) of bool, or all


@dataclass(frozen=True, eq=False)
class Aligned:
    """What the runs say of the same slices."""

    names: tuple[str, ...]
    image_ids: pd.Index
    values: dict[Space, np.ndarray]  # float32 (6, slices, runs), nothing missing
    complete: np.ndarray  # (slices,) of bool: all runs have said it themselves
    neighbours: np.ndarray  # rows of the slices that are nearest to OFFSETS from each one, (slices, 6)
    studies: np.ndarray  # the number of the study of each slice, from 0 on, (slices,)

    @cached_property
    def context(self) -> np.ndarray:
        """Of each label what the runs' mean says of the slices around: logits, float32 (6, slices, 9).

        The slice itself, its neighbours, and the mean and the largest of its study.
        """
        mean = self.values["logit"].mean(axis=2).T  # (slices, 6)
        study = pd.DataFrame(mean).groupby(self.studies)
        around = [mean, *(mean[rows] for rows in self.neighbours.T), study.transform("mean"), study.transform("max")]
        return np.stack(around, axis=2, dtype=np.float32).swapaxes(0, 1).copy()


def align_runs(predictions: dict[str, pd.DataFrame], slices: pd.DataFrame, fill: bool = False) -> Aligned:
    """Lay the predictions of runs (indexed by `image_id`, columns LABELS) side by side.

    `slices` is the metadata, in anatomical order within each series; the result has those of its slices that all runs
    have, in its order: runs can be compared on these alone. With `fill` it has those that any of the runs has, and a
    slice that a run lacks gets the mean of the others there, in each space: for a final answer, which must lack none.
    Raises InputError if there is no such slice.
    """
    image_ids = pd.Index(slices["image_id"])
    rows = np.stack([run.index.get_indexer(image_ids) for run in predictions.values()])  # (runs, slices), -1: lacks it
    having = np.count_nonzero(rows >= 0, axis=0)
    kept = having >= (1 if fill else len(predictions))
    if not kept.any():
        raise InputError(
            f"there is no slice that all of the runs {', '.join(predictions)} have, so that they cannot be compared; "
            "train the same folds of each"
        )
    table, rows = slices[kept], rows[:, kept]
    probability = np.empty((len(LABELS), len(table), len(predictions)), np.float32)
    for number, (run, own) in enumerate(zip(predictions.values(), rows, strict=True)):
        probability[:, :, number] = np.where(own >= 0, run.to_numpy()[own].T, np.nan)
    values: dict[Space, np.ndarray] = {
        "probability": fill_missing(probability),
        "logit": fill_missing(logit(np.clip(probability, SUREST, 1 - SUREST))),
    }
    return Aligned(
        tuple(predictions),
        pd.Index(table["image_id"], name="image_id"),
        values,
        having[kept] == len(predictions),
        neighbour_rows(table, OFFSETS),
        pd.factorize(table["study_id"].fillna(table["image_id"]))[0],
    )


def fill_missing(values: np.ndarray) -> np.ndarray:
    """Put the mean of the other runs where one has NaN; values (labels, slices, runs), of which each slice has one."""
    missing = np.isnan(values)
    if missing.any():
        return np.where(missing, np.nanmean(values, axis=2, keepdims=True), values)
    return values


def to_probability(values: np.ndarray, space: Space) -> np.ndarray:
    """Probabilities of values of any shape."""
    return expit(values) if space == "logit" else values
