"""The slices of a study in a table: how many each has, and where each lies.

A study is what one series of it shows: the challenge's studies have one each.
"""

import numpy as np
import pandas as pd

from models.preprocessing.geometry import known_z


def study_lengths(slices: pd.DataFrame) -> np.ndarray:
    """How many slices each study has in a table, (studies,); raises ValueError if they do not stand together."""
    series = slices["series_id"].to_numpy()
    starts = np.flatnonzero(np.r_[True, series[1:] != series[:-1]]) if len(series) else np.empty(0, int)
    if len(starts) != len(set(series)):
        raise ValueError("the slices of a series must stand together, in anatomical order")
    return np.diff(np.r_[starts, len(series)])


def first_studies(slices: pd.DataFrame, count: int) -> pd.DataFrame:
    """The slices of the first `count` studies of a table; raises ValueError as `study_lengths`."""
    return slices.head(study_lengths(slices)[:count].sum())


def places(slices: pd.DataFrame) -> np.ndarray:
    """Where each slice lies, float32 (slices, 3): number of its study, z (mm), tilt (degrees; 0 where not known)."""
    study = np.repeat(np.arange(len(lengths := study_lengths(slices))), lengths)
    return np.stack([study, known_z(slices), slices["tilt"].fillna(0)], axis=1).astype(np.float32)
