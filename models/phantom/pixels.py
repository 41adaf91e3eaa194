"""How scanners store pixels: between stored values and Hounsfield units, for the phantom and its traps."""

import numpy as np
from pydicom.dataset import Dataset

PADDING = -2000  # stored outside the scan circle by some 16-bit scanners; below air once rescaled


def outside_circle(size: int) -> np.ndarray:
    """Which pixels lie outside the circle that a scanner sees. # (size, size) bool"""
    across = np.arange(size) - (size - 1) / 2
    return across[:, None] ** 2 + across**2 > (size / 2) ** 2


def hounsfield(data: Dataset) -> np.ndarray:
    """The Hounsfield units of a phantom's slice, whose slope is 1. # (rows, columns) int"""
    return data.pixel_array.astype(int) + int(float(data.RescaleIntercept))


def store_hounsfield(data: Dataset, values: np.ndarray, bits: int, signed: bool, intercept: str) -> None:
    """Put Hounsfield units (rows, columns) into a data set as a scanner with such pixels does."""
    data.RescaleIntercept = intercept
    store(data, values - int(float(intercept)), bits, signed)


def store(data: Dataset, values: np.ndarray, bits: int, signed: bool) -> None:
    """Put stored values (rows, columns) into a data set, with the elements that describe them."""
    data.Rows, data.Columns = values.shape
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, int(signed)
    data.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
