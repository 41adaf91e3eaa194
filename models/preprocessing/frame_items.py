"""What a multi-frame file says of each frame, some kilobytes a frame: parsed for one frame at a time."""

import io
import struct

import pydicom
from pydicom.filereader import read_dataset

from models.preprocessing.reasons import Reason, UnreadableSliceError

MAX_ITEM = 1 << 16  # bytes
ITEM = struct.pack("<HH", 0xFFFE, 0xE000)  # the tag that opens an item of a sequence (PS3.5 7.5)
_HEADER = struct.Struct("<4sL")


class FrameItems:
    """The items of a sequence whose length is said, as theirs are; each is parsed when it is asked for, and not kept.

    A pydicom.Sequence keeps all that was parsed: hundreds of times the bytes of a file that means harm.
    """

    def __init__(self, value: bytes, implicit: bool) -> None:
        """Find the items. Raises UnreadableSliceError for what is none, or too long."""
        self._value, self._implicit, self._places = value, implicit, []
        place = 0
        while place + _HEADER.size <= len(value):
            tag, length = _HEADER.unpack_from(value, place)
            if tag != ITEM or length > MAX_ITEM:  # an undefined length, too
                raise UnreadableSliceError(Reason.UNREASONABLE)
            self._places.append((place + _HEADER.size, length))
            place += _HEADER.size + length

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    def __getitem__(self, index: int) -> pydicom.Dataset:
        """The elements of an item."""
        place, length = self._places[index]
        return read_dataset(io.BytesIO(self._value[place : place + length]), self._implicit, True)
