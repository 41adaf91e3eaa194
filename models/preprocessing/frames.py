"""Files of the store as older versions wrote them, frames of blosc2: they are read for ever, and no longer written."""

from pathlib import Path
from typing import NamedTuple

import blosc2
from isal.isal_zlib import crc32

FRAME = ".b2nd"  # what their names end in


class FrameHeader(NamedTuple):
    """What a frame tells of its slices."""

    shape: tuple[int, ...]  # slices, rows, columns
    crc32: list[int]  # of each chunk
    notes: bytes


def read_header(path: Path) -> FrameHeader:
    """Open a frame. Raises one of many kinds of exceptions if it is damaged, as blosc2 does."""
    array = _open(path)
    known = array.schunk.vlmeta.getall()
    checksums, notes = known["crc32"], known["notes"]
    # No checksum covers the shape, but the first of its numbers stands there twice, and a chunk tells its size.
    if len(checksums) != array.shape[0] or not isinstance(notes, bytes) or crc32(notes) != known["notes_crc32"]:
        raise ValueError("it contradicts itself")
    return FrameHeader(array.shape, list(checksums), notes)


def read_chunk(path: Path, index: int) -> bytes:
    """A chunk of a frame, which may be damaged. Raises as `read_header`."""
    array = _open(path)  # its chunks are freed with it
    return array.schunk.get_chunk(index)


def _open(path: Path) -> blosc2.NDArray:
    # With its own threads blosc2 hangs DataLoader workers that are forked after the parent has read a frame.
    blosc2.set_nthreads(1)
    array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
    if not isinstance(array, blosc2.NDArray):
        raise ValueError("a file of blosc2, but no array")
    return array
