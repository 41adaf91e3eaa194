"""All geometry of a sample at once, on Hounsfield units: one interpolation, and none where pixels only change place."""

from typing import Any

import cv2
import numpy as np

from models.preprocessing.hounsfield import HOUNSFIELD_RANGE

_AIR = np.int16(HOUNSFIELD_RANGE[0])
_QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def warp(slices: list[np.ndarray], geometry: dict[str, dict[str, Any]], size: int, crop: int) -> list[np.ndarray]:
    """Flip, turn, shift, scale, rotate and distort slices alike, then resize them to `size` and cut out the centre.

    `geometry` is that of a `Draw`. Works before the windows: one distortion serves all windows of a slice, and the
    interpolation sees the values that a window would have cut off. int16 (rows, columns) -> int16 (crop, crop).
    """
    quarters = geometry["quarters"]["factor"] if "quarters" in geometry else 0
    turned = [turn(image, "horizontal" in geometry, "vertical" in geometry, quarters) for image in slices]
    rows, columns = turned[0].shape
    if "affine" not in geometry and "grid" not in geometry:
        whole = turned if rows == columns == size else [cv2.resize(image, (size, size)) for image in turned]
        middle = slice((size - crop) // 2, (size - crop) // 2 + crop)
        return [image[middle, middle] for image in whole]
    x, y = pixel_centres(columns, size, crop), pixel_centres(rows, size, crop)
    to_source = np.linalg.inv(geometry["affine"]["matrix"])[:2] if "affine" in geometry else np.eye(3)[:2]
    if "grid" not in geometry:
        return sample_evenly(turned, x, y, to_source)
    return sample(turned, np.interp(x, *geometry["grid"]["x"]), np.interp(y, *geometry["grid"]["y"]), to_source)


def turn(image: np.ndarray, horizontal: bool, vertical: bool, quarters: int) -> np.ndarray:
    """Flip an image, then turn it counterclockwise by so many quarters: pixels change place, not value."""
    if horizontal or vertical:
        image = cv2.flip(image, -1 if horizontal and vertical else int(horizontal))
    return cv2.rotate(image, _QUARTERS[quarters]) if quarters else image


def pixel_centres(length: int, size: int, crop: int) -> np.ndarray:
    """Where the pixels of the cropped, resized image lie on an axis of `length` pixels, (crop,)."""
    return (np.arange(crop) + (size - crop) // 2 + 0.5) * (length / size) - 0.5


def sample_evenly(slices: list[np.ndarray], x: np.ndarray, y: np.ndarray, to_source: np.ndarray) -> list[np.ndarray]:
    """`sample` for evenly spaced x and y, which needs no maps."""
    spacing = np.array([[x[1] - x[0], 0, x[0]], [0, y[1] - y[0], y[0]], [0, 0, 1]])
    how = {"M": to_source @ spacing, "dsize": (len(x), len(y)), "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    return [hounsfield_units(cv2.warpAffine(above_air(image), **how)) for image in slices]


def sample(slices: list[np.ndarray], x: np.ndarray, y: np.ndarray, to_source: np.ndarray) -> list[np.ndarray]:
    """Values of int16 slices at to_source @ (x, y, 1) for all x and y, linear between pixels, air outside of them."""
    x, y, to_source = np.float32(x), np.float32(y)[:, None], np.float32(to_source)
    maps = [by_x * x + (by_y * y + offset) for by_x, by_y, offset in to_source]
    return [hounsfield_units(cv2.remap(above_air(image), *maps, cv2.INTER_LINEAR)) for image in slices]


def above_air(hounsfield: np.ndarray) -> np.ndarray:
    """int16 as uint16, which OpenCV interpolates faster; its 0 for what lies outside is then air."""
    return (hounsfield - _AIR).view(np.uint16)


def hounsfield_units(above_air: np.ndarray) -> np.ndarray:
    return above_air.view(np.int16) + _AIR
