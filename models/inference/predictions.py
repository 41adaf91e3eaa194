"""Prediction files: `image_id` and six float32 probabilities a slice; and submissions, which hold the same by row."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.prediction_files import read_predictions
from models.preprocessing.challenge_csv import read_submission


def read_probabilities(file: Path) -> pd.DataFrame:
    """Read a prediction file (.parquet) or a submission (.csv), indexed by `image_id`, columns LABELS.

    Raises InputError for what is neither of them, and for what `read_predictions` or `read_submission` refuses.
    """
    if file.suffix == ".parquet":
        return read_predictions(file, "the inference script")
    if file.suffix == ".csv":
        return read_submission(file)
    raise InputError(f"{file} is neither a prediction file (.parquet) nor a submission (.csv); unpack or rename it")


def align(predictions: pd.DataFrame, image_ids: pd.Series, name: str) -> pd.DataFrame:
    """Predictions, each slice once, in the order of `image_ids`. Raises InputError if slices lack."""
    rows = predictions.index.get_indexer(pd.Index(image_ids))
    if (missing := rows < 0).any():
        lacking = image_ids[missing].unique()
        raise InputError(f"{name} lacks {len(lacking):,} of {image_ids.nunique():,} slices, first {lacking[0]}")
    return predictions.iloc[rows]


def fill_unreadable(slices: pd.DataFrame, predictions: pd.DataFrame, prior: pd.Series) -> pd.DataFrame:
    """Add a row for each slice (in anatomical order) that has no prediction.

    It gets the mean of the nearest predicted slices before and after it in its series, of one of them at the series'
    ends, and the prior where the series has none. Returns `predictions` in the order of `slices`.
    """
    series = slices["series_id"].fillna(slices["image_id"])  # a slice without a file is a series of its own
    known = predictions.reindex(slices["image_id"])
    groups = known.groupby(series.to_numpy())
    before, after = groups.ffill(), groups.bfill()
    between = (before.fillna(after) + after.fillna(before)) / 2
    return known.fillna(between).fillna(prior.astype(np.float32)).astype(np.float32)
