"""Traps in how pixels are stored, and in the elements that say so. See traps.py."""

import cv2
import numpy as np

from models.phantom.draft import Draft, Items, edited
from models.phantom.pixels import PADDING, hounsfield, outside_circle, store, store_hounsfield


def wrapped(draft: Draft) -> Items:
    """123 slices have 12 bits, unsigned, with intercept 0 or 1: what was negative stands 4096 too high."""
    for intercept, series in zip(("0", "1"), draft.take_series(2), strict=True):
        for piece in series:
            with edited(piece.path) as data:
                # Not lower than 0 in the scanner, where it meant -1000 HU.
                store(data, np.maximum(hounsfield(data), -1000) % 4096, bits=12, signed=False)
                data.RescaleIntercept = intercept
        yield series[0].series


def signed_zero_intercept(draft: Draft) -> Items:
    """Series with 16 or 12 bits, signed, and intercept 0: the stored values are Hounsfield units already."""
    for bits, series in zip((16, 12), draft.take_series(2), strict=True):
        for piece in series:
            with edited(piece.path) as data:
                values = np.clip(hounsfield(data), -1024, (1 << (bits - 1)) - 1)
                store_hounsfield(data, values, bits, signed=True, intercept="0")
        yield series[0].series


def padding(draft: Draft) -> Items:
    """Series with 16 bits, signed, and -2000 outside the scan circle, which is -3024 HU; no element says so."""
    (series,) = draft.take_series()
    for piece in series:
        with edited(piece.path) as data:
            _pad(data, PADDING)
    yield series[0].series


def padding_tag(draft: Draft) -> Items:
    """Series that say what stands outside the scan circle (PixelPaddingValue, PS3.3 C.7.5.1.1.2), by two scanners.

    The RSNA took that element out of its files.
    """
    for value, series in zip((PADDING, -32768), draft.take_series(2), strict=True):
        for piece in series:
            with edited(piece.path) as data:
                _pad(data, value)
                data.add_new("PixelPaddingValue", "SS", value)
        yield series[0].series


def two_windows(draft: Draft) -> Items:
    """Series with two values for the window, equal and with leading zeros: "00036\\\\00036"."""
    (series,) = draft.take_series()
    for piece in series:
        with edited(piece.path) as data:
            data.WindowCenter, data.WindowWidth = ["00036", "00036"], ["00080", "00080"]
    yield series[0].series


def truncated(draft: Draft) -> Items:
    """A file that ends within its pixels: ID_6431af929 has 153,710 bytes of 524,288."""
    for piece in draft.take_slices(1):
        with edited(piece.path) as data:
            due = len(data.PixelData)
        there = due * 153_710 // 524_288 // 2 * 2
        content = piece.path.read_bytes()  # the pixels are the last element
        piece.path.write_bytes(content[: len(content) - due + there])
        yield piece.image


def constant(draft: Draft) -> Items:
    """Some slices hold one value in all pixels."""
    for piece in draft.take_slices(2):
        with edited(piece.path) as data:
            data.PixelData = np.full_like(data.pixel_array, data.pixel_array.min()).tobytes()
        yield piece.image


def beyond_12_bits(draft: Draft) -> Items:
    """16 bits, signed, with metal: up to 26,452 Hounsfield units."""
    for piece in draft.take_slices(1):
        with edited(piece.path) as data:
            values = hounsfield(data).astype(np.int32)
            rows, columns = values.shape
            cv2.circle(values, (columns // 3, rows // 2), max(1, rows // 64), 26_452, thickness=-1)
            store_hounsfield(data, values, bits=16, signed=True, intercept="-1024")
        yield piece.image


def _pad(data, value: int) -> None:
    """Store 16 bits, signed, with a value outside the scan circle."""
    values = np.maximum(hounsfield(data), -1024) + 1024
    values[outside_circle(len(values))] = value
    store(data, values, bits=16, signed=True)
    data.RescaleIntercept = "-1024"
