"""The slice store: one file a series, one independently compressed chunk a slice, a crc32 for every chunk.

Chosen over PNG, JPEG-LS and HDF5 by measurement: exact int16 Hounsfield units serve every window, and a slice with its
neighbours is one open file.
"""

import math
import zlib
from pathlib import Path

import blosc2
import cv2
import numpy as np

from models.errors import InputError
from models.paths import replacing
from models.preprocessing.dicom import HOUNSFIELD_RANGE

# With its own threads blosc2 hangs DataLoader workers that are forked after the parent has read a file.
blosc2.set_nthreads(1)

_COMPRESSION = {
    "codec": blosc2.Codec.ZSTD,
    "clevel": 1,
    "filters": [blosc2.Filter.SHUFFLE],
    "nthreads": 1,
}


def fit_to_square(hounsfield: np.ndarray, size: int) -> np.ndarray:
    """Pad a slice (rows, columns) with air to a square about its centre, then resize to (size, size).

    By area when it shrinks (every pixel counts, so no aliasing), linear when it grows.
    """
    rows, columns = hounsfield.shape
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    padding = (top, side - rows - top, left, side - columns - left)
    square = (
        cv2.copyMakeBorder(hounsfield, *padding, cv2.BORDER_CONSTANT, value=HOUNSFIELD_RANGE[0])
        if any(padding)
        else hounsfield
    )
    if side == size:
        return square
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def write_series(path: Path, slices: np.ndarray) -> None:
    """Write the slices of a series in anatomical order, int16 Hounsfield units (slices, size, size)."""
    count, *shape = slices.shape
    with replacing(path) as temporary:
        array = blosc2.empty(
            slices.shape,
            dtype=np.int16,
            chunks=(1, *shape),
            blocks=(1, *shape),
            urlpath=str(temporary),
            mode="w",
            cparams=_COMPRESSION,
        )
        for index in range(count):
            array[index] = slices[index]
        array.schunk.vlmeta["crc32"] = [zlib.crc32(array.schunk.get_chunk(index)) for index in range(count)]


class Series:
    """Read access to the slices of one stored series."""

    def __init__(self, path: Path) -> None:
        """Open a file of the store. Raises InputError if it is not there or damaged."""
        self.path = path
        try:
            self._array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            self._crc32 = list(self._array.schunk.vlmeta["crc32"])
            chunk_bytes = self._array.schunk.chunksize
        except FileNotFoundError:
            raise InputError(f"no {path}; make it with: {_repair(path)}") from None
        except Exception as error:  # blosc2 raises RuntimeError, ValueError, KeyError ... for a damaged header
            raise self._damaged("its header cannot be read") from error
        count, *shape = self._array.shape  # no checksum covers the shape, but each of its numbers stands there twice
        if count != len(self._crc32) or math.prod(shape) * np.dtype(np.int16).itemsize != chunk_bytes:
            raise self._damaged("its header contradicts itself")

    def __len__(self) -> int:
        return len(self._array)

    def read(self, index: int) -> np.ndarray:
        """Slice `index` in Hounsfield units, int16 (size, size). Raises InputError if its bytes have changed."""
        try:
            chunk = self._array.schunk.get_chunk(index)
        except RuntimeError as error:
            raise self._damaged(f"slice {index} cannot be found in it") from error
        if zlib.crc32(chunk) != self._crc32[index]:
            raise self._damaged(f"the checksum of slice {index} does not match")
        values = np.empty(self._array.shape[1:], dtype=np.int16)
        blosc2.decompress2(chunk, dst=values, nthreads=1)
        return values

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.path} is damaged: {what}; delete it and make it anew with: {_repair(self.path)}")


def _repair(path: Path) -> str:
    return f"python models/prepare.py --image-size {path.parent.name.rpartition('_')[2]}"
