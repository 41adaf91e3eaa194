"""Prediction files, which training and inference write alike: `image_id` and six float32 probabilities a slice."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.labels import LABELS


def prediction_table(image_ids: pd.Series, probability: np.ndarray) -> pd.DataFrame:
    """A prediction file's table, of probabilities (slices, 6): `image_id` and six float32 columns, those of LABELS."""
    table = pd.DataFrame(probability.astype(np.float32), columns=list(LABELS))
    table.insert(0, "image_id", image_ids.to_numpy())
    return table


def read_predictions(file: Path, repair: str) -> pd.DataFrame:
    """Read a prediction file, indexed by `image_id`, columns LABELS.

    Raises InputError if it is missing or damaged, lacks a column, holds a slice twice, or a value outside [0, 1].
    `repair` is the command that makes it anew.
    """
    table = read_parquet(file, repair)
    if list(table.columns) != ["image_id", *LABELS]:
        raise InputError(
            f"{file} has the columns {list(table.columns)}, not image_id and the six labels; make it with: {repair}"
        )
    if (repeated := table["image_id"].duplicated()).any():
        raise InputError(f"{file} holds {table.loc[repeated, 'image_id'].iloc[0]} twice; make it anew with: {repair}")
    predictions = table.set_index("image_id")
    values = predictions.to_numpy()
    if (wrong := ~np.all((values >= 0) & (values <= 1), axis=1)).any():  # NaN is wrong too
        raise InputError(
            f"{file} gives {predictions.index[wrong][0]} a value that is no probability; make it anew with: {repair}"
        )
    return predictions
