"""Which slice of a series lies so many millimetres from another."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.preprocessing.geometry import USUAL_GAP
from models.preprocessing.tables import UNREADABLE


def neighbour_chunks(slices: pd.DataFrame, whole: pd.DataFrame, offsets: Sequence[float]) -> np.ndarray:
    """The chunk of the readable slice that is nearest to each offset (mm) from each of `slices`: (slices, offsets).

    `slices` may be any of the readable rows of the metadata, `whole` has all rows of their series. Raises InputError
    for a slice that `whole` lacks.
    """
    whole = whole.loc[whole["chunk"] != UNREADABLE, ["series_id", "chunk", "z"]]
    whole = whole[whole["series_id"].isin(slices["series_id"].unique())].sort_values(["series_id", "chunk"])
    series_ids, chunks, z = whole["series_id"].to_numpy(), whole["chunk"].to_numpy(int), whole["z"].to_numpy(float)
    starts = np.flatnonzero(series_ids[1:] != series_ids[:-1]) + 1
    found = [
        own_chunks[nearest_places(own_z, offsets)]
        for own_chunks, own_z in zip(np.split(chunks, starts), np.split(z, starts), strict=True)
    ]
    rows = pd.MultiIndex.from_arrays([series_ids, chunks])
    wanted = rows.get_indexer(pd.MultiIndex.from_frame(slices[["series_id", "chunk"]]))
    if (wanted < 0).any():
        series_id = slices["series_id"].to_numpy()[wanted < 0][0]
        raise InputError(f"the metadata lacks slices of series {series_id}; make it anew with prepare.py")
    return np.concatenate(found)[wanted]


def neighbour_rows(slices: pd.DataFrame) -> np.ndarray:
    """Rows of the slices below and above each one of a table in anatomical order within each series: (slices, 2).

    The first and the last slice of a series, and one without a series, are their own neighbours on that side.
    """
    rows = pd.Series(np.arange(len(slices)))
    series = rows.groupby(slices["series_id"].fillna(slices["image_id"]).to_numpy(), sort=False)
    return np.stack([series.shift(step).fillna(rows).to_numpy(int) for step in (1, -1)], axis=1)


def nearest_places(z: np.ndarray, offsets: Sequence[float]) -> np.ndarray:
    """Places (slices, offsets) of the slices that are nearest to z + offset, among the slices of one series.

    `z` (slices,) in mm, ascending. Of equally near ones, to the micrometre, the one fewer places away: seen from the
    other end, a series has the same neighbours. Beyond the ends that is the last slice. A slice without z (NaN) among
    others that have one lies nobody knows where: it is its own neighbour, and no other's. Where none has one, offsets
    are counted in slices of USUAL_GAP, at least one unless the offset is 0.
    """
    places = np.arange(len(z))
    known = np.isfinite(z)
    if not known.any():
        steps = [np.sign(offset) * max(round(abs(offset) / USUAL_GAP), 1) for offset in offsets]
        return np.clip(places[:, None] + np.array(steps, int), 0, len(z) - 1)
    found = np.repeat(places[:, None], len(offsets), axis=1)
    z, places = z[known], places[known]
    apart = np.abs(places[:, None] - places)
    for column, offset in enumerate(offsets):
        distance = np.round(np.abs(z[:, None] + offset - z), 3)
        nearest = distance == distance.min(axis=1, keepdims=True)
        found[known, column] = places[np.where(nearest, apart, len(found)).argmin(axis=1)]
    return found
