"""The slices of one series in anatomical order, and where each lies."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from models.preprocessing.problems import Problem

POSITION = [f"image_position_{i}" for i in range(3)]
ORIENTATION = [f"image_orientation_{i}" for i in range(6)]
AXIS = (0.0, 0.0, 1.0)  # of the body, towards the head
_DEGREES = 0.5  # between two tilts that are not the same
_UNEVEN = 1.1  # largest gap to the median one
USUAL_GAP = 5.0  # mm between neighbouring slices of a head CT, where the files do not tell


Columns = Mapping[str, Any] | pd.DataFrame  # name -> the values of that column (slices,)


def order_series(table: Columns) -> tuple[list[int], dict[str, np.ndarray], list[Problem]]:
    """Sort the slices of a series by position; returns their order, where they are then, and what is odd about it.

    Where they are: `z` (mm along the slice normal, towards the head for axial slices), `gap_below` and `gap_above` (mm
    to the neighbours, NaN at the ends) and `tilt` (degrees between the slice normal and the body's axis), each
    (slices,). The position is the projection of ImagePositionPatient on the normal of the slice plane (PS3.3
    C.7.6.2.1.1), to the micrometre, so that the order is the same on every machine; one normal, that of most slices,
    serves the whole series. Slices at one position keep the order of InstanceNumber, where there is one, and of
    `image_id`. Where positions lack, or are all the same, the order is by the best that is left, and the problems say
    by what.
    """
    normals = unit_normals(_matrix(table, ORIENTATION))  # (slices, 3)
    normal = _most_common(normals)
    z, problems = _heights(table, normal)
    if (np.isnan(normals[:, 0]) & ~np.isnan(np.asarray(table["image_position_2"], float))).any():
        problems.append(Problem.NO_ORIENTATION)
    with np.errstate(invalid="ignore"):
        tilt = np.degrees(np.arccos(np.clip(np.abs(normals[:, 2]), 0, 1)))
        leaning = np.degrees(np.arccos(np.clip(normals @ normal, -1, 1))) > _DEGREES
    if leaning.any():
        problems.append(Problem.MIXED_ORIENTATION)
    last = np.where(np.isnan(z), np.inf, z), np.nan_to_num(np.asarray(table["instance_number"], float), nan=np.inf)
    names = list(table["image_id"])
    order = sorted(range(len(names)), key=lambda place: (last[0][place], last[1][place], names[place]))
    z = z[order]
    gaps = np.diff(z, prepend=np.nan)
    where = {"z": z, "tilt": np.round(tilt, 3)[order], "gap_below": gaps, "gap_above": np.append(gaps[1:], np.nan)}
    return order, where, problems + _odd_gaps(gaps[~np.isnan(gaps)])


def plane_of(table: Columns) -> str:
    """The plane of most slices of a series: axial, also where the gantry is tilted, coronal, sagittal or unknown."""
    normals = unit_normals(_matrix(table, ORIENTATION))
    known = normals[np.isfinite(normals).all(axis=1)]
    if not len(known):
        return "unknown"
    return ("sagittal", "coronal", "axial")[np.bincount(np.abs(known).argmax(axis=1)).argmax()]


def _matrix(table: Columns, names: list[str]) -> np.ndarray:
    """Some columns of numbers as one array (slices, columns)."""
    return np.array([np.asarray(table[name], float) for name in names]).T


def unit_normals(orientation: np.ndarray) -> np.ndarray:
    """The normal (slices, 3) of each ImageOrientationPatient (slices, 6); NaN where that is absent or degenerate.

    It points to the head, or of a coronal or sagittal slice to the back or the left, also where the pixels run the
    other way: "below" is below in every series.
    """
    normals = np.cross(orientation[:, :3], orientation[:, 3:])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        normals = np.where(length > 0.1, normals / length, np.nan)
    longest = np.take_along_axis(normals, np.abs(normals).argmax(axis=1)[:, None], axis=1)
    return np.where(longest < 0, -normals, normals)


def _most_common(normals: np.ndarray) -> np.ndarray:
    """The normal (3,) that most slices have, the first in numerical order of several; the body's axis without any."""
    known = normals[~np.isnan(normals).any(axis=1)]
    if not len(known):
        return np.array(AXIS)
    _, first, counts = np.unique(np.round(known, 3), axis=0, return_index=True, return_counts=True)
    return known[first[counts.argmax()]]


def _heights(table: Columns, normal: np.ndarray) -> tuple[np.ndarray, list[Problem]]:
    """`z` (slices,) along a normal (3,): from positions, else from the best that is left, and by what it is."""
    z = np.round(_matrix(table, POSITION) @ normal, 3) + 0.0  # no -0.0
    location, number = (np.asarray(table[name], float) for name in ("slice_location", "instance_number"))
    known = ~np.isnan(z)
    if not known.any():
        if not np.isnan(location).any():
            return np.round(location, 3), [Problem.BY_LOCATION]
        return z, [Problem.BY_NAME if np.isnan(number).any() else Problem.BY_NUMBER]
    if known.sum() > 1 and np.ptp(z[known]) == 0 and np.ptp(location) > 0:  # neither where one is NaN
        return np.round(location, 3), [Problem.ONE_POSITION]
    if known.all():
        return z, []
    for key, slope, problem in (
        (location, 1.0, Problem.SOME_BY_LOCATION),
        (number, np.nan, Problem.SOME_BY_NUMBER),
    ):
        filled = _filled(z, key, slope)
        if not np.isnan(filled).any():
            return filled, [problem]
    return z, [Problem.NO_POSITION]


def _filled(z: np.ndarray, key: np.ndarray, slope: float) -> np.ndarray:
    """`z` (slices,) with what is unknown of it in proportion to a `key` (slices,) of all slices.

    All NaN where the key does not run with what is known. `slope`: mm a step of the key, for a single known slice.
    """
    known = np.flatnonzero(~np.isnan(z))
    known = known[np.argsort(key[known], kind="stable")]
    keys, heights = key[known], z[known]
    steps, rises = np.diff(keys), np.diff(heights)
    one_way = (rises >= 0).all() or (rises <= 0).all()
    if np.isnan(key).any() or (steps <= 0).any() or not one_way:
        return np.full_like(z, np.nan)
    slope = np.median(rises / steps) if len(steps) else slope
    beyond = key - np.clip(key, keys[0], keys[-1])
    return np.where(np.isnan(z), np.round(np.interp(key, keys, heights) + slope * beyond, 3), z)


def _odd_gaps(gaps: np.ndarray) -> list[Problem]:
    problems = []
    if (gaps == 0).any():
        problems.append(Problem.DUPLICATE_POSITIONS)
    apart = gaps[gaps > 0]
    if len(apart) and apart.max() > _UNEVEN * np.median(apart):
        problems.append(Problem.UNEVEN_SPACING)
    return problems


def odd_shapes(rows: Iterable[float], columns: Iterable[float]) -> list[Problem]:
    """What is odd about the sizes of the slices of a series, pixels."""
    shapes = set(zip(rows, columns, strict=True))
    problems = [Problem.MIXED_SIZES] if len(shapes) > 1 else []
    if any(height != width for height, width in shapes):
        problems.append(Problem.NOT_SQUARE)
    return problems


def known_z(slices: pd.DataFrame) -> np.ndarray:
    """`z` (slices,) of a table in anatomical order within each series, mm: USUAL_GAP a place where it is not known."""
    z = slices["z"].to_numpy(float)
    by_order = slices.groupby("series_id", sort=False).cumcount().to_numpy() * USUAL_GAP
    unknown = slices["z"].isna().groupby(slices["series_id"], sort=False).transform("any").to_numpy()
    return np.where(unknown, by_order, z)
