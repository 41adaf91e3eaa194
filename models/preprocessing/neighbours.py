"""Which slice of a series lies so many millimetres from another."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.preprocessing.geometry import USUAL_GAP, known_z
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


def neighbour_rows(slices: pd.DataFrame, offsets: Sequence[float]) -> np.ndarray:
    """Rows of the slices that are nearest to offsets (mm) from each one, within its series: (slices, offsets).

    Of any table in anatomical order within each series, all series at once; neighbours and `z` are those of
    `nearest_places` and `known_z`. A slice without a series is its own neighbour.
    """
    codes = pd.factorize(slices["series_id"])[0]
    rows, z = np.flatnonzero(codes >= 0), known_z(slices)
    found = np.repeat(np.arange(len(slices))[:, None], len(offsets), axis=1)
    if len(rows) == 0:
        return found
    apart = 2 * (np.ptp(z[rows]) + np.abs(offsets).max() + 1)  # so far that no offset leads from one series to another
    place = codes[rows] * apart + z[rows]
    order = np.argsort(place, kind="stable")
    rows, place = rows[order], place[order]
    for column, offset in enumerate(offsets):
        wanted = place + offset
        above = np.searchsorted(place, wanted).clip(min=1).clip(max=len(place) - 1)
        closer = np.round((wanted - place[above - 1]) - (place[above] - wanted), 3)  # by so much the one above is
        is_above = closer >= 0 if offset < 0 else closer > 0  # of equally near ones, the one fewer places away
        found[rows, column] = rows[np.where(is_above, above, above - 1)]
    return found


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
