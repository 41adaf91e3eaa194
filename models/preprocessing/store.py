"""The slice store: one file a series, one independently compressed chunk a slice, a crc32 for every chunk.

What a network sees in the slices is stored in the same way (models/training/embeddings.py).

A file also holds notes: the metadata rows of its slices, so that a prepared series need never be read again.

Chosen over PNG, JPEG-LS and HDF5 by measurement: exact int16 Hounsfield units serve every window, and a slice with its
neighbours is one open file.
"""

import json
import math
from pathlib import Path

import blosc2
import cv2
import numpy as np
from isal.isal_zlib import crc32  # zlib's, but faster (benchmarks/prepare.py: its share of reading)

from models.common.errors import InputError
from models.common.files import replacing, require_readable
from models.common.patience import patiently, unreadable
from models.preprocessing.hounsfield import AIR
from models.preprocessing.tables import PREPARE

_COMPRESSION = {
    "codec": blosc2.Codec.LZ4,  # much faster than zstd, to encode and to decode, for some more bytes
    "clevel": 1,
    "filters": [blosc2.Filter.SHUFFLE],
    "nthreads": 1,
}


def fit_to_square(hounsfield: np.ndarray, size: int) -> np.ndarray:
    """Pad a slice (rows, columns) with air to a square about its centre, then resize to (size, size).

    By area when it shrinks, so that every pixel counts; linear when it grows, or shrinks too little to miss a pixel.
    """
    rows, columns = hounsfield.shape
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    padding = (top, side - rows - top, left, side - columns - left)
    square = cv2.copyMakeBorder(hounsfield, *padding, cv2.BORDER_CONSTANT, value=AIR) if any(padding) else hounsfield
    if side == size:
        return square
    if side % size and side % 2 == 0 and side > 2 * size:
        # Blocks of four first, for which OpenCV has a fast path: much faster than 512 -> 224 in one go.
        side //= 2
        square = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
    much = side > 1.5 * size
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if much else cv2.INTER_LINEAR)


def compress_slice(values: np.ndarray) -> bytes:
    """A slice (size, size) int16 as one chunk of the store."""
    # pyrefly: ignore[bad-argument-type, bad-return]  # blosc2 types each keyword as a dict; it gives bytes
    return blosc2.compress2(np.ascontiguousarray(values), typesize=2, blocksize=values.nbytes, **_COMPRESSION)


def write_series(path: Path, chunks: list[bytes], shape: tuple[int, int], notes: dict) -> None:
    """Write the compressed slices of a series (`compress_slice`), in anatomical order, and what is known of them.

    `shape` is that of a slice.

    Raises InputError if the disk is full, or the folder cannot be written to.
    """
    text = json.dumps(notes, separators=(",", ":")).encode()
    with replacing(path) as temporary:
        try:
            # On the disk from the first chunk on: a frame that is made in memory is copied twice more.
            array = blosc2.empty(
                (len(chunks), *shape),
                dtype=np.dtype(np.int16),
                chunks=(1, *shape),
                blocks=(1, *shape),
                cparams=_COMPRESSION,
                contiguous=True,
                urlpath=str(temporary),
                mode="w",
            )
            schunk = array.schunk
            for index, chunk in enumerate(chunks):
                schunk.update_chunk(index, chunk)
            # Of what is read, not of what was given: blosc2 keeps a chunk of one value in another form.
            schunk.vlmeta["crc32"] = [crc32(schunk.get_chunk(index)) for index in range(len(chunks))]
            schunk.vlmeta["notes"] = text
            schunk.vlmeta["notes_crc32"] = crc32(text)
        except RuntimeError:
            # blosc2 does not say why it could not write; the system does, when as many bytes are asked of it.
            temporary.write_bytes(bytes(sum(map(len, chunks)) + len(text) + 4096))
            raise


class Series:
    """Read access to the slices of one stored series."""

    def __init__(self, path: Path, repair: str | None = None) -> None:
        """Open a file of the store. Raises InputError if it is not there or damaged; `repair` makes it anew."""
        self.path = path
        self.repair = repair or f"{PREPARE} --image-size {path.parent.name.rpartition('_')[2]}"
        # With its own threads blosc2 hangs DataLoader workers that are forked after the parent has read a file.
        blosc2.set_nthreads(1)
        try:
            array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            if not isinstance(array, blosc2.NDArray):
                raise ValueError("a file of blosc2, but no array")
            self._array = array
            self._crc32 = list(array.schunk.vlmeta["crc32"])
            chunk_bytes = array.schunk.chunksize
        except FileNotFoundError as error:
            if patiently(path.exists, path):  # blosc2 takes any error of the system for that
                raise unreadable(path, error) from error
            raise InputError(f"no {path}; make it with: {self.repair}") from None
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
        if crc32(chunk) != self._crc32[index]:
            raise self._damaged(f"the checksum of slice {index} does not match")
        values = np.empty(self._array.shape[1:], dtype=np.int16)
        # pyrefly: ignore[bad-argument-type]  # blosc2 types each keyword as a dict
        blosc2.decompress2(chunk, dst=values, nthreads=1)
        return values

    def notes(self) -> dict:
        """What `write_series` was given beside the slices. Raises InputError if its bytes have changed."""
        vlmeta = self._array.schunk.vlmeta
        try:
            text, expected = vlmeta["notes"], vlmeta["notes_crc32"]
            if not isinstance(text, bytes) or crc32(text) != expected:
                raise ValueError
            return json.loads(text)
        except Exception as error:  # blosc2 and msgpack raise many kinds for damaged bytes
            raise self._damaged("the table of its slices does not match its checksum") from error

    def _damaged(self, what: str) -> InputError:
        require_readable(self.path)
        return InputError(f"{self.path} is damaged: {what}; delete it and make it anew with: {self.repair}")
