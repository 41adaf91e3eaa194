"""The pixels of a large file, which stay where they are: one frame of them is in memory at a time."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.encaps import encapsulate, generate_frames

from models.preprocessing.elements import MAX_SEQUENCE, PARSER_ERRORS, LargeReader
from models.preprocessing.reasons import Reason, UnreadableSliceError

_PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class LargePixels:
    """Where the value of PixelData stands."""

    file: LargeReader
    start: int
    length: int  # bytes, up to the end of the file where it is undefined

    def native(self, place: int, count: int) -> bytes:
        """So many bytes from a place in them on. Raises UnreadableSliceError if they are cut off."""
        self.file.left = count
        self.file.seek(self.start + place)
        if len(data := self.file.read(count)) < count:
            raise UnreadableSliceError(Reason.TRUNCATED)
        return data

    def encapsulated(self, frames: int, most: int) -> Iterator[bytes]:
        """Each frame as if it were the only one; `most` is what it may take in bytes.

        Raises UnreadableSliceError for what is no row of items, or for a larger frame.
        """
        self.file.seek(self.start)
        found = generate_frames(self.file, number_of_frames=frames)
        for _ in range(frames):
            self.file.left = most + MAX_SEQUENCE  # the table of offsets stands before the first
            try:
                frame = next(found)
            except (StopIteration, OSError, *PARSER_ERRORS) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise UnreadableSliceError(Reason.DECODING) from error
            yield encapsulate([frame])


def find_pixels(file: LargeReader) -> LargePixels | None:
    """The pixels of a file that has been parsed up to them; None where there are none.

    Raises UnreadableSliceError for a member of an archive that is damaged.
    """
    head = file.read(12)
    if len(head) < 12 or head[:4] != _PIXEL_DATA:
        return None
    is_explicit = head[4:6] in (b"OB", b"OW", b"UN") and head[6:8] == b"\0\0"
    (length,) = struct.unpack_from("<L", head, 8 if is_explicit else 4)
    start = file.tell() - (0 if is_explicit else 4)
    file.verify()
    return LargePixels(file, start, file.size - start if length == _UNDEFINED else min(length, file.size - start))
