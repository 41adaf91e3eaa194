"""Where the stored slices lie in the patient: mm of each element of a stored series, at every size.

An affine here takes (column, row, slice, 1) of a stored series, 0 and up, slice as `chunk` in the metadata, to mm in
DICOM's coordinates of the patient: x to the left, y to the back, z to the head (LPS; PS3.3 C.7.6.2.1.1). NIfTI's x and
y run the other way: `to_ras`. Where the gantry was tilted, the step from slice to slice is not along the normal of the
slices, and the affine is sheared.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from models.preprocessing.geometry import AXIS, ORIENTATION, POSITION, USUAL_GAP, unit_normals
from models.preprocessing.tables import UNREADABLE

AFFINE = [f"affine_{i}{j}" for i in range(3) for j in range(4)]  # the three upper rows; the last is 0 0 0 1
_NUMBERS = [*POSITION, *ORIENTATION, "pixel_spacing_0", "pixel_spacing_1", "rows", "columns", "z"]
_UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_SAME = 1e-3  # mm
_FLAT = 1e-6  # mm^3 of an element
_ROUND = 9  # decimals: less than the width of an atom over a head


class Placement(NamedTuple):
    """Where a stored series lies."""

    affine: np.ndarray  # (4, 4); NaN where the positions are not known
    pixel: tuple[float, float]  # mm between the middles of neighbouring columns, and of neighbouring rows
    departure: float  # mm between where a corner of a slice lies and where the affine puts it, the largest

    @property
    def is_known(self) -> bool:
        """Whether there is an affine."""
        return bool(np.isfinite(self.affine).all())

    @property
    def step(self) -> float:
        """From slice to slice, mm."""
        return float(np.linalg.norm(self.affine[:3, 2]))

    @property
    def shear(self) -> float:
        """Degrees between the step from slice to slice and the normal of the slices: the tilt of the gantry."""
        normal = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        cosine = abs(normal @ self.affine[:3, 2]) / (np.linalg.norm(normal) * self.step)
        return float(np.degrees(np.arccos(min(cosine, 1.0)))) if self.is_known else np.nan


def place_series(slices: pd.DataFrame, image_size: int) -> Placement:
    """Where a series is that is stored at `image_size` (pixels), from its rows of the metadata.

    The affine is the one that fits best: where spacing is uneven, or slices differ, `departure` tells by how much. A
    single slice gets the usual step, along its normal.
    """
    readable = slices[slices["chunk"] != UNREADABLE].sort_values("chunk")
    return _place(readable[_NUMBERS].to_numpy(float), image_size)


def affine_table(metadata: pd.DataFrame, image_size: int) -> pd.DataFrame:
    """A row for each stored series of the metadata: how far its elements are apart, and the affine.

    `series_id`, `slices`, `mm_per_column`, `mm_per_row`, `mm_per_slice`, `shear` (degrees), `departure` (mm; see
    Placement), and AFFINE, row by row; NaN where they are not known.
    """
    stored = metadata[metadata["chunk"] != UNREADABLE].sort_values(["series_id", "chunk"])
    names, numbers = stored["series_id"].to_numpy(), stored[_NUMBERS].to_numpy(float)
    starts = np.flatnonzero(names[1:] != names[:-1]) + 1
    rows = []
    for name, one in zip(np.split(names, starts), np.split(numbers, starts), strict=True):
        if len(name):
            placed = _place(one, image_size)
            told = np.round((placed.step, placed.shear, placed.departure), 6)
            rows.append((name[0], len(name), *placed.pixel, *told, *placed.affine[:3].ravel()))
    between = ["mm_per_column", "mm_per_row", "mm_per_slice"]
    return pd.DataFrame(rows, columns=["series_id", "slices", *between, "shear", "departure", *AFFINE])


def to_ras(affine: np.ndarray) -> np.ndarray:
    """An affine (4, 4) whose mm are NIfTI's: x to the right, y to the front, z to the head."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _place(numbers: np.ndarray, size: int) -> Placement:
    """Where slices are, by their _NUMBERS (slices, 14)."""
    position, orientation, spacing, shape, z = np.split(numbers, (3, 9, 11, 13), axis=1)
    side = shape.max(axis=1, keepdims=True)
    scale = side / size  # pixels of the file for one that is stored
    with np.errstate(invalid="ignore"):
        row_mm, column_mm = np.round(np.median(spacing * scale, axis=0), _ROUND)
    normals = unit_normals(orientation)
    if np.isnan(normals).any(axis=1).all():
        orientation, normals = np.tile(_UPRIGHT, (len(numbers), 1)), np.tile(AXIS, (len(numbers), 1))
    position = _apart(position, normals[0], z[:, 0])
    # The corners of the stored square, at the outer edges of its pixels, which are half a pixel from their middles.
    corners = np.array([(x, y) for x in (-0.5, size - 0.5) for y in (-0.5, size - 0.5)])  # (4, 2)
    padded = (side - shape) // 2  # above and left of the slice, as fit_to_square does
    columns = (corners[:, 0] + 0.5) * scale - 0.5 - padded[:, 1:]  # of the file, (slices, 4)
    rows = (corners[:, 1] + 0.5) * scale - 0.5 - padded[:, :1]
    points = position[:, None] + (columns * spacing[:, 1:])[..., None] * orientation[:, None, :3]
    points += (rows * spacing[:, :1])[..., None] * orientation[:, None, 3:]  # mm, (slices, 4, 3)
    number = np.broadcast_to(np.arange(len(numbers))[:, None, None], (*points.shape[:2], 1))
    indices = np.concatenate([np.broadcast_to(corners, (*points.shape[:2], 2)), number, np.ones_like(number)], axis=2)
    affine, departure = _fit(indices, points)
    return Placement(affine, (float(column_mm), float(row_mm)), departure)


def _apart(position: np.ndarray, normal: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Positions (slices, 3), moved along the normal (3,) by `z` (slices,), of SliceLocation, where all are one."""
    if len(z) > 1 and np.ptp(position @ normal) < _SAME:  # not where one is NaN
        return position + (z - z[0])[:, None] * normal
    return position


def _fit(indices: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """The affine (4, 4) that takes indices (slices, 4, 4) closest to points (slices, 4, 3), and what is left, mm."""
    known = np.isfinite(points).all(axis=(1, 2))
    affine = np.full((4, 4), np.nan)
    if known.sum() < min(2, len(points)):
        return affine, np.nan
    indices, points = indices[known].reshape(-1, 4).astype(float), points[known].reshape(-1, 3)
    solution = np.linalg.lstsq(indices, points)[0]  # (4, 3)
    departure = float(np.linalg.norm(indices @ solution - points, axis=1).max())
    if known.size == 1:
        normal = np.cross(solution[0], solution[1])
        solution[2] = USUAL_GAP * normal / np.linalg.norm(normal)
    if abs(np.linalg.det(solution[:3])) < _FLAT:  # all slices in one place, or pixels without width
        return affine, np.nan
    affine[:3], affine[3] = np.round(solution.T, _ROUND) + 0.0, (0, 0, 0, 1)  # no -0.0
    return affine, departure
