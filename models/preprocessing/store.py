"""The slice store: one file a series, one independently compressed chunk a slice, a crc32 for every chunk.

What a network sees in the slices is stored in the same way (models/training/embeddings.py). A file is, little-endian:

    8 bytes      b"slices" and the number of this layout
    2 x uint32   the length of the header, and its crc32
    header       3 x uint32: slices, rows, columns; for each slice uint64: where its chunk begins in the file, and
                 2 x uint32: the chunk's length and crc32; then notes, as JSON
    chunks       of blosc2, one a slice: its values, int16 (rows, columns)

Chosen over PNG, JPEG-LS and HDF5 by measurement: exact int16 Hounsfield units serve every window, and a slice with its
neighbours is one open file. Chosen over a frame of blosc2 and a safetensors file, because a slice is read at once from
a series that was not open: both are slower to open and to write (docs/results.md).
"""

import json
import math
import os
import struct
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import blosc2
import cv2
import numpy as np
from isal.isal_zlib import crc32  # zlib's, but faster (benchmarks/prepare.py: its share of reading)

from models.common.errors import InputError
from models.common.files import replacing
from models.common.patience import patiently
from models.preprocessing.frames import FRAME, read_chunk, read_header
from models.preprocessing.hounsfield import AIR
from models.preprocessing.origin import command_of_store

_MAGIC = b"slices\x00\x01"
_START = struct.Struct("<8sII")
_SHAPE = struct.Struct("<III")
_CHUNK = struct.Struct("<QII")

Result = TypeVar("Result")
_COMPRESSION = {
    "codec": blosc2.Codec.LZ4,  # much faster than zstd, to encode and to decode, for some more bytes
    "clevel": 1,
    "filters": [blosc2.Filter.SHUFFLE],
    "splitmode": blosc2.SplitMode.NEVER_SPLIT,
    "nthreads": 1,
}
_BLOCK = 1 << 17  # bytes that are shuffled and compressed at a time: they stay in the processor's cache


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
    values, block = np.ascontiguousarray(values), min(values.nbytes, _BLOCK)
    # pyrefly: ignore[bad-argument-type, bad-return]  # blosc2 types each keyword as a dict; it gives bytes
    return blosc2.compress2(values, typesize=2, blocksize=block, **_COMPRESSION)


def write_series(path: Path, chunks: list[bytes], shape: tuple[int, int], notes: dict) -> None:
    """Write the compressed slices of a series (`compress_slice`), in anatomical order, and what is known of them.

    `shape` is that of a slice. Raises InputError if the disk is full, or the folder cannot be written to.
    """
    text = json.dumps(notes, separators=(",", ":")).encode()
    begin, places = _START.size + _SHAPE.size + len(chunks) * _CHUNK.size + len(text), []
    for chunk in chunks:
        places.append((begin, len(chunk), crc32(chunk)))
        begin += len(chunk)
    header = _pack_header((len(chunks), *shape), places, text)
    start = _START.pack(_MAGIC, len(header), crc32(header))
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join([start, header, *chunks]))


def _pack_header(shape: tuple[int, ...], places: list[tuple[int, int, int]], notes: bytes) -> bytes:
    return b"".join([_SHAPE.pack(*shape), *(_CHUNK.pack(*place) for place in places), notes])


def made_from(z: np.ndarray, series: Path) -> int:
    """A checksum of the slices of a series as they are stored, and of where they lie: `z` (slices,), mm.

    Raises InputError if its file is not there or damaged.
    """
    return crc32(z.tobytes(), Series(series).checksum)


class Series:
    """Read access to the slices of one stored series. Its file is open only while it is read."""

    __slots__ = ("_header", "_repair", "path")  # a loader process keeps those of all series

    def __init__(self, path: Path, repair: str | None = None) -> None:
        """Look at a file of the store. Raises InputError if it is not there or damaged; `repair` makes it anew."""
        self.path, self._repair = path, repair
        self._header = self._reading(self._read_header)

    def __len__(self) -> int:
        return _SHAPE.unpack_from(self._header)[0]

    @property
    def checksum(self) -> int:
        """One of all that the file holds: two series of which it is equal have the same slices."""
        return crc32(self._header)

    @property
    def repair(self) -> str:
        """The command that makes the file anew."""
        return self._repair or command_of_store(self.path.parent)

    def read(self, index: int) -> np.ndarray:
        """Slice `index` in Hounsfield units, int16 (size, size). Raises InputError if its bytes have changed."""
        return self.read_some([index])[0]

    def read_some(self, indexes: Iterable[int]) -> list[np.ndarray]:
        """Several slices as `read` gives them, while the file is open once. Raises InputError as `read` does."""
        return self._reading(lambda file: [self._decompress(index, self._read_chunk(file, index)) for index in indexes])

    def notes(self) -> dict:
        """What `write_series` was given beside the slices."""
        return json.loads(self._header[_SHAPE.size + len(self) * _CHUNK.size :])

    def _reading(self, function: Callable[[BinaryIO], Result]) -> Result:
        """What a function reads in the file. Raises InputError if it is not there, or the system does not let it."""
        return patiently(partial(self._read_file, function), self.path)

    def _read_file(self, function: Callable[[BinaryIO], Result]) -> Result:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            frame = self.path.with_suffix(FRAME)
            if frame == self.path or not frame.is_file():
                raise InputError(f"no {self.path}; make it with: {self.repair}") from None
            self.path = frame
            return self._read_file(function)
        with file:
            return function(file)

    def _read_header(self, file: BinaryIO) -> bytes:
        if self.path.suffix == FRAME:
            return self._read_frame(file)
        start, size = file.read(_START.size), os.fstat(file.fileno()).st_size
        if len(start) == _START.size:
            magic, length, expected = _START.unpack(start)
            header = file.read(min(length, size))  # a damaged length may be any
            if magic == _MAGIC and crc32(header) == expected:
                return header
        raise self._damaged("its header cannot be read")

    def _read_frame(self, file: BinaryIO) -> bytes:
        """The header that a frame would have, were it a file of today; where its chunks are blosc2 knows."""
        file.read()  # all of it: if the system does not let this process read, blosc2 would not say so
        try:
            shape, checksums, notes = read_header(self.path)
            return _pack_header(shape, [(0, 0, checksum) for checksum in checksums], notes)
        except Exception as error:  # blosc2 raises RuntimeError, ValueError, KeyError ... for a damaged header
            raise self._damaged("its header cannot be read") from error

    def _read_chunk(self, file: BinaryIO, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has no slice {index}")
        begin, length, expected = _CHUNK.unpack_from(self._header, _SHAPE.size + index * _CHUNK.size)
        if self.path.suffix == FRAME:
            try:
                chunk = read_chunk(self.path, index)
            except Exception as error:  # as above
                raise self._damaged(f"slice {index} cannot be found in it") from error
        else:
            file.seek(begin)
            chunk = file.read(length)
        if crc32(chunk) != expected:
            raise self._damaged(f"the checksum of slice {index} does not match")
        return chunk

    def _decompress(self, index: int, chunk: bytes) -> np.ndarray:
        shape = _SHAPE.unpack_from(self._header)[1:]
        # blosc2 would write as many bytes as the chunk says, wherever they are.
        if blosc2.get_cbuffer_sizes(chunk)[0] != math.prod(shape) * np.dtype(np.int16).itemsize:
            raise self._damaged(f"slice {index} is of another size")
        values = np.empty(shape, dtype=np.int16)
        # pyrefly: ignore[bad-argument-type]  # blosc2 types each keyword as a dict
        blosc2.decompress2(chunk, dst=values, nthreads=1)
        return values

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.path} is damaged: {what}; delete it and make it anew with: {self.repair}")
