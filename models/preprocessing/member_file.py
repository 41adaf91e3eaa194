"""The bytes of a member of an archive, read where they stand: inflated as they are asked for, within what it claims."""

import io
import os
import struct
import zipfile
import zlib
from contextlib import ExitStack

from models.preprocessing.archives import TAR, Member
from models.preprocessing.reasons import Reason, UnreadableSliceError

_CHUNK = 1 << 15  # bytes that are read from the archive at once, to be inflated
_BLOCK = 1 << 20  # bytes at once where the rest is only checked
_HEADER = struct.Struct("<4sHHHHHIIIHH")  # of a zip's member (APPNOTE 4.3.7)
_SIGNATURE = b"PK\3\4"
_MAX_REWINDS = 16  # a deflated member can only be read from its start


class MemberFile(io.RawIOBase):
    """A file of a member's bytes, never more of them than its directory says."""

    def __init__(self, member: Member) -> None:
        """Open it. Raises UnreadableSliceError for a member that may not be read, and OSError of the system."""
        if member.flaw is not None:
            raise UnreadableSliceError(member.flaw)
        self._member, self._handle = member, os.open(member.archive, os.O_RDONLY)
        with ExitStack() as unless_opened:
            unless_opened.callback(self.close)
            self._start = member.offset if member.method == TAR else self._after_header()
            unless_opened.pop_all()
        self.size = member.size
        self.name = self._handle  # as of any file that was opened by its handle: pydicom asks
        self._place = self._sum = self._summed = 0  # bytes; crc32 of the first so many
        self._rewinds = -1
        self._restart()

    def _after_header(self) -> int:
        """Where a zip's bytes begin: the header that stands before them has a length of its own."""
        header = os.pread(self._handle, _HEADER.size, self._member.offset)
        if len(header) < _HEADER.size:
            raise UnreadableSliceError(Reason.DAMAGED_MEMBER)
        signature, _, _, method, *_, name, extra = _HEADER.unpack(header)
        if signature != _SIGNATURE or method != self._member.method:
            raise UnreadableSliceError(Reason.DAMAGED_MEMBER)
        return self._member.offset + _HEADER.size + name + extra

    def _restart(self) -> None:
        self._rewinds += 1
        if self._rewinds > _MAX_REWINDS:
            raise UnreadableSliceError(Reason.UNREASONABLE)
        self._place = self._taken = 0
        self._rest = b""  # read from the archive, not inflated yet
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if self._member.method == zipfile.ZIP_DEFLATED else None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is; going back costs as much as reading it up to there, where it is deflated."""
        return True

    def tell(self) -> int:
        """The place from which bytes are read next."""
        return self._place

    def fileno(self) -> int:
        """The handle of its archive."""
        return self._handle

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to another place. Raises UnreadableSliceError if that was too often back to the start."""
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._member.size}[whence]
        if place < 0:
            raise ValueError("a place before the start")
        if self._inflater is None:
            self._place = place
            return place
        if place < self._place:
            self._restart()
        while self._place < place and self._next(min(place - self._place, _BLOCK)):
            pass
        return self._place

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Raises UnreadableSliceError for bytes that are no deflated stream."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, count: int) -> bytes:
        """The next bytes, so many at most; none at the end."""
        count = min(count, self._member.size - self._place)
        if count <= 0:
            return b""
        data = self._inflated(count) if self._inflater else os.pread(self._handle, count, self._start + self._place)
        if self._place == self._summed and self._member.method != TAR:
            self._sum, self._summed = zlib.crc32(data, self._sum), self._summed + len(data)
        self._place += len(data)
        return data

    def _inflated(self, count: int) -> bytes:
        inflater, data = self._inflater, b""
        while inflater is not None and not data and not inflater.eof:
            if not self._rest:
                left = min(_CHUNK, self._member.packed - self._taken)
                self._rest = os.pread(self._handle, left, self._start + self._taken)
                self._taken += len(self._rest)
                if not self._rest:
                    break
            try:
                data = inflater.decompress(self._rest, count)
            except zlib.error as error:
                raise UnreadableSliceError(Reason.DAMAGED_MEMBER) from error
            self._rest = inflater.unconsumed_tail
        return data

    def verify(self) -> None:
        """Read what has not been read yet, and leave the place as it is.

        Raises UnreadableSliceError unless it is whole, and has the checksum that a zip holds of it.
        """
        place = self.seek(self._place)
        if self._member.method == TAR:
            return
        self.seek(self._summed)
        while self._next(_BLOCK):
            pass
        if (self._summed, self._sum) != (self._member.size, self._member.mark):
            raise UnreadableSliceError(Reason.DAMAGED_MEMBER)
        self.seek(place)

    def close(self) -> None:
        """Close the handle of the archive."""
        if not self.closed:
            os.close(self._handle)
        super().close()
