"""Neighbouring slices mostly agree: probabilities smoothed along z, without training anything."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from models.common.errors import InputError
from models.common.labels import LABELS
from models.inference.predictions import align
from models.preprocessing.geometry import USUAL_GAP
from models.training.metric import weighted_log_loss

WIDTHS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # mm, tried first; the last averages over half a head
_TOLERANCE = 0.01  # mm
# A float32 probability of 0 or 1 has no finite logit: it counts as the next one that has.
_LOWEST, _HIGHEST = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg

Stack = tuple[np.ndarray, np.ndarray]  # of one series: the rows of its slices (n,), and where they lie, mm (n,)


def smooth(predictions: pd.DataFrame, slices: pd.DataFrame, width: float) -> pd.DataFrame:
    """Mean of the logits over the slices of a series, weighted by a Gaussian of their distance; float32, same rows.

    `predictions` is indexed by `image_id`, columns LABELS; `slices` is the metadata, in anatomical order within each
    series. `width` is the standard deviation in mm; 0 changes nothing. The weights of a slice sum to 1. In a series
    where no slice has a `z`, neighbours in the metadata are USUAL_GAP apart; a slice that alone has none, and one
    without a series, stays as it is. Raises InputError if the metadata lacks a slice.
    """
    smoothed = _smooth(predictions.to_numpy(), _stacks(predictions.index, slices), width)
    return pd.DataFrame(smoothed, index=predictions.index, columns=predictions.columns)


def fit_width(predictions: pd.DataFrame, slices: pd.DataFrame, labels: pd.DataFrame) -> float:
    """The width (mm) with the lowest weighted log loss, to 0.01 mm around the best of WIDTHS; 0 if none beats 0.

    `labels` is indexed by `image_id`, columns LABELS. Raises InputError if it or the metadata lacks a slice.
    """
    values, stacks = predictions.to_numpy(), _stacks(predictions.index, slices)
    target = align(labels[list(LABELS)], predictions.index.to_series(), "the table of labels").to_numpy()

    def loss(width: float) -> float:
        return weighted_log_loss(target, _smooth(values, stacks, width))

    coarse = [loss(width) for width in WIDTHS]
    best = int(np.argmin(coarse))
    bounds = WIDTHS[max(best - 1, 0)], WIDTHS[min(best + 1, len(WIDTHS) - 1)]
    fine = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": _TOLERANCE})
    return float(fine.x) if fine.fun < coarse[best] else WIDTHS[best]


def _stacks(image_ids: pd.Index, slices: pd.DataFrame) -> list[Stack]:
    """The series of which two slices or more can be smoothed; rows are places in `image_ids`."""
    if len(missing := image_ids.difference(pd.Index(slices["image_id"]))):
        raise InputError(
            f"the metadata lacks {len(missing):,} of {len(image_ids):,} predicted slices, first {missing[0]}; "
            "name the working folder that they were predicted in with --work, or their --stage"
        )
    table = slices.loc[slices["series_id"].notna(), ["image_id", "series_id", "z"]]
    series = table.groupby("series_id", sort=False)
    by_order = series["z"].transform("count") == 0
    table = pd.DataFrame(
        {
            "row": image_ids.get_indexer(pd.Index(table["image_id"])),
            "series": series.ngroup(),
            "z": table["z"].mask(by_order, USUAL_GAP * series.cumcount()).astype(float),
        }
    )
    table = table[(table["row"] >= 0) & table["z"].notna()].sort_values(["series", "z"])
    cuts = np.flatnonzero(np.diff(table["series"])) + 1
    rows, z = np.split(table["row"].to_numpy(), cuts), np.split(table["z"].to_numpy(), cuts)
    return [stack for stack in zip(rows, z, strict=True) if len(stack[0]) > 1]


def _smooth(probability: np.ndarray, stacks: list[Stack], width: float) -> np.ndarray:
    """Smoothed copy, float32 (slices, 6). Memory beside it: the square of the largest series."""
    smoothed = probability.astype(np.float32)
    if width == 0:
        return smoothed
    for rows, z in stacks:
        weights = np.exp(-0.5 * np.square((z[:, None] - z) / width))  # (n, n), 1 on the diagonal
        logits = logit(np.clip(probability[rows].astype(float), _LOWEST, _HIGHEST))
        smoothed[rows] = expit(weights @ logits / weights.sum(axis=1, keepdims=True))
    return smoothed
