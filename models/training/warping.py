"""All geometry of a sample at once, on Hounsfield units: one interpolation, and none where pixels only change place."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from models.preprocessing.hounsfield import HOUNSFIELD_RANGE

_AIR = np.int16(HOUNSFIELD_RANGE[0])
_QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


class Affine(NamedTuple):
    """An image is scaled along its axes, then rotated, both about its centre, then shifted."""

    shift: tuple[float, float]
    """x, y, as shares of the columns and of the rows; by whole pixels, towards 0"""
    scale: tuple[float, float]
    """x, y"""
    rotation: float
    """counterclockwise, degrees"""


class Grid(NamedTuple):
    """How much columns and rows of cells show, each as a share of what it covers, before all are scaled to the whole.

    Cells are even, but for a narrow last one: what is left over.
    """

    x: list[float]
    y: list[float]


class Geometry(NamedTuple):
    """Which pixels go where, in this order."""

    horizontal: bool = False
    vertical: bool = False
    quarters: int = 0
    """turns by 90 degrees counterclockwise"""
    affine: Affine | None = None
    grid: Grid | None = None


def warp(slices: list[np.ndarray], geometry: Geometry, size: int, crop: int) -> list[np.ndarray]:
    """Flip, turn, shift, scale, rotate and distort slices alike, then resize them to `size` and cut out the centre.

    Works before the windows: one distortion serves all windows of a slice, and the interpolation sees the values that a
    window would have cut off. int16 (rows, columns) -> int16 (crop, crop).
    """
    turned = [turn(image, geometry.horizontal, geometry.vertical, geometry.quarters) for image in slices]
    rows, columns = turned[0].shape
    if geometry.affine is None and geometry.grid is None:
        whole = turned if rows == columns == size else [cv2.resize(image, (size, size)) for image in turned]
        middle = slice((size - crop) // 2, (size - crop) // 2 + crop)
        return [image[middle, middle] for image in whole]
    x, y = pixel_centres(columns, size, crop), pixel_centres(rows, size, crop)
    to_source = source_matrix(geometry.affine, columns, rows) if geometry.affine else np.eye(3)[:2]
    if geometry.grid is None:
        return sample_evenly(turned, x, y, to_source)
    x, y = np.interp(x, *grid_lines(geometry.grid.x, columns)), np.interp(y, *grid_lines(geometry.grid.y, rows))
    return sample(turned, x, y, to_source)


def turn(image: np.ndarray, horizontal: bool, vertical: bool, quarters: int) -> np.ndarray:
    """Flip an image (rows, columns), then turn it counterclockwise by quarters: pixels change place, not value."""
    if horizontal or vertical:
        image = cv2.flip(image, -1 if horizontal and vertical else int(horizontal))
    return cv2.rotate(image, _QUARTERS[quarters]) if quarters else image


def pixel_centres(length: int, size: int, crop: int) -> np.ndarray:
    """Where the pixels of the cropped, resized image lie on an axis of `length` pixels, (crop,)."""
    return (np.arange(crop) + (size - crop) // 2 + 0.5) * (length / size) - 0.5


def source_matrix(affine: Affine, columns: int, rows: int) -> np.ndarray:
    """Where the pixel (x, y, 1) of a scaled, rotated and shifted image comes from, (2, 3)."""
    angle = math.radians(affine.rotation)
    centre = np.array([columns / 2 - 0.5, rows / 2 - 0.5])
    shift = int(affine.shift[0] * columns), int(affine.shift[1] * rows)
    turn_back = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn_back / np.array(affine.scale)[:, None]
    return np.column_stack([linear, centre - linear @ (centre + shift)])


def grid_lines(shares: list[float], length: int) -> tuple[list[int], list[float]]:
    """First and last pixel of each cell on an axis, and what they show: a cell ends on what the next begins with.

    `shares` are one axis of a Grid. Scaled as Albumentations does where it is "normalized", its default.
    """
    cell = length // (len(shares) - 1)
    shown = np.array(shares)
    shown[-1] *= (length - cell * (len(shares) - 1)) / cell
    shown *= length / cell / shown.sum()
    pixels, places = [], [0.0]
    starts = range(0, length - 1, cell)  # a single pixel that is left over shows what the one before it shows
    for start, share in zip(starts, shown.tolist(), strict=False):
        pixels += [start, min(start + cell, length) - 1]
        places += [places[-1] + cell * share] * 2
    return pixels, places[:-1]


def sample_evenly(slices: list[np.ndarray], x: np.ndarray, y: np.ndarray, to_source: np.ndarray) -> list[np.ndarray]:
    """`sample` for evenly spaced x and y, which needs no maps."""
    spacing = np.array([[x[1] - x[0], 0, x[0]], [0, y[1] - y[0], y[0]], [0, 0, 1]])
    how = {"M": to_source @ spacing, "dsize": (len(x), len(y)), "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    return [hounsfield_units(cv2.warpAffine(above_air(image), **how)) for image in slices]


def sample(slices: list[np.ndarray], x: np.ndarray, y: np.ndarray, to_source: np.ndarray) -> list[np.ndarray]:
    """Values of int16 slices at to_source @ (x, y, 1) for all x (columns,) and y (rows,): int16 (rows, columns).

    Linear between pixels, air outside of them; `to_source` is (2, 3).
    """
    x, y, to_source = x.astype(np.float32), y.astype(np.float32)[:, None], to_source.astype(np.float32)
    map_x, map_y = (by_x * x + (by_y * y + offset) for by_x, by_y, offset in to_source)
    return [hounsfield_units(cv2.remap(above_air(image), map_x, map_y, cv2.INTER_LINEAR)) for image in slices]


def above_air(hounsfield: np.ndarray) -> np.ndarray:
    """int16 of any shape as uint16, which OpenCV interpolates faster; its 0 for what lies outside is then air."""
    return (hounsfield - _AIR).view(np.uint16)


def hounsfield_units(above_air: np.ndarray) -> np.ndarray:
    """Back from what `above_air` gives, int16."""
    return above_air.view(np.int16) + _AIR
