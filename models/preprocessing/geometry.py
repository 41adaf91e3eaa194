"""The slices of one series in anatomical order, and where each lies."""

import numpy as np
import pandas as pd

from models.preprocessing.problems import Problem

_POSITION = [f"image_position_{i}" for i in range(3)]
_ORIENTATION = [f"image_orientation_{i}" for i in range(6)]
_DEGREES = 0.5  # between two tilts that are not the same
_UNEVEN = 1.1  # largest gap to the median one
USUAL_GAP = 5.0  # mm between neighbouring slices of a head CT, where the files do not tell


def order_series(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Sort the slices of a series by position; returns the table and what is odd about the series.

    Adds `z` (mm along the slice normal, towards the head for axial slices), `gap_below` and `gap_above` (mm to the
    neighbours, NaN at the ends) and `tilt` (degrees between the slice normal and the body's axis). The position is
    the projection of ImagePositionPatient on the normal of the slice plane (PS3.3 C.7.6.2.1.1), to the micrometre, so
    that the order is the same on every machine; one normal, that of most slices, serves the whole series. Slices at
    one position keep the order of InstanceNumber, where there is one, and of `image_id`. Without positions
    SliceLocation is `z`, or InstanceNumber gives the order alone.
    """
    normals = _normals(table)  # (slices, 3)
    normal = _most_common(normals)
    z = np.round(table[_POSITION].to_numpy(float) @ normal, 3) + 0.0  # no -0.0
    z, problems = _without_positions(table, z)
    with np.errstate(invalid="ignore"):
        tilt = np.degrees(np.arccos(np.clip(np.abs(normals[:, 2]), 0, 1)))
        leaning = np.degrees(np.arccos(np.clip(normals @ normal, -1, 1))) > _DEGREES
    if leaning.any():
        problems.append(Problem.MIXED_ORIENTATION)
    ordered = table.assign(z=z, tilt=np.round(tilt, 3)).sort_values(
        ["z", "instance_number", "image_id"], ignore_index=True
    )
    gaps = ordered["z"].diff()
    return ordered.assign(gap_below=gaps, gap_above=gaps.shift(-1)), problems + _odd_gaps(gaps.dropna().to_numpy())


def plane_of(table: pd.DataFrame) -> str:
    """The plane of most slices of a series: axial, also where the gantry is tilted, coronal, sagittal or unknown."""
    normals = _normals(table)
    known = normals[np.isfinite(normals).all(axis=1)]
    if not len(known):
        return "unknown"
    return ("sagittal", "coronal", "axial")[np.bincount(np.abs(known).argmax(axis=1)).argmax()]


def _normals(table: pd.DataFrame) -> np.ndarray:
    """The unit normal of each slice's plane (slices, 3); NaN where the orientation is absent or degenerate."""
    orientation = table[_ORIENTATION].to_numpy(float)
    normals = np.cross(orientation[:, :3], orientation[:, 3:])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 0.1, normals / length, np.nan)


def _most_common(normals: np.ndarray) -> np.ndarray:
    """The normal (3,) that most slices have, the first in numerical order of several; NaN if there is none."""
    known = normals[~np.isnan(normals).any(axis=1)]
    if not len(known):
        return np.full(3, np.nan)
    _, first, counts = np.unique(np.round(known, 3), axis=0, return_index=True, return_counts=True)
    return known[first[counts.argmax()]]


def _without_positions(table: pd.DataFrame, z: np.ndarray) -> tuple[np.ndarray, list[Problem]]:
    """Where no slice of the series has a position, `z` from SliceLocation, if all have one."""
    if not np.isnan(z).any():
        return z, []
    if not np.isnan(z).all():
        return z, [Problem.NO_POSITION]
    if table["slice_location"].notna().all():
        return np.round(table["slice_location"].to_numpy(float), 3), [Problem.BY_LOCATION]
    numbered = table["instance_number"].notna().all()
    return z, [Problem.BY_NUMBER if numbered else Problem.BY_NAME]


def _odd_gaps(gaps: np.ndarray) -> list[Problem]:
    problems = []
    if (gaps == 0).any():
        problems.append(Problem.DUPLICATE_POSITIONS)
    apart = gaps[gaps > 0]
    if len(apart) and apart.max() > _UNEVEN * np.median(apart):
        problems.append(Problem.UNEVEN_SPACING)
    return problems


def odd_shapes(table: pd.DataFrame) -> list[Problem]:
    """What is odd about the sizes of the slices of a series: `rows` and `columns`, pixels."""
    shapes = set(map(tuple, table[["rows", "columns"]].to_numpy()))
    problems = [Problem.MIXED_SIZES] if len(shapes) > 1 else []
    if any(rows != columns for rows, columns in shapes):
        problems.append(Problem.NOT_SQUARE)
    return problems


def known_z(slices: pd.DataFrame) -> np.ndarray:
    """`z` (slices,) of a table in anatomical order within each series, mm: USUAL_GAP a place where it is not known."""
    z = slices["z"].to_numpy(float)
    by_order = slices.groupby("series_id", sort=False).cumcount().to_numpy() * USUAL_GAP
    unknown = slices["z"].isna().groupby(slices["series_id"], sort=False).transform("any").to_numpy()
    return np.where(unknown, by_order, z)
