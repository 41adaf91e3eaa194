"""A DICOM file -> the values of the elements that are asked for, within bounds, or a reason from a closed list.

Files are not trusted: what would take minutes or gigabytes to parse is refused before it is. Elements that were not
asked for, names, dates and free text of a patient among them, are skipped where they stand.
"""

import errno
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable
from contextlib import ContextDecorator, ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import pydicom
import pydicom.config
from isal.isal_zlib import crc32
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import AMBIGUOUS_VR

from models.preprocessing.archives import File, Member, is_packed
from models.preprocessing.frame_items import ITEM, FrameItems
from models.preprocessing.member_file import MemberFile
from models.preprocessing.reasons import Reason, UnreadableSliceError

MAX_BYTES = 400 << 20  # that are read at once
LARGE = 64 << 20  # bytes of a file from which on the pixels are read frame by frame
MAX_HEADER = 8 << 20  # bytes that are read before the pixels of a large file, and a little more with its size
MAX_FILE = (4 << 30) + (64 << 20)  # bytes: a length has 32 bits (PS3.5 7.1), and something stands before the pixels
MAX_READS = 200_000  # two for an element; a multi-frame file of 800 slices makes about 100,000
MAX_ITEMS = 50_000  # of a sequence; a multi-frame file has about ten a slice
MAX_SEQUENCE = 4 << 20  # bytes
MAX_VALUE = 1 << 16  # bytes of any element but the pixels and sequences

PIXEL_DATA, _FRAMES = Tag("PixelData"), Tag("PerFrameFunctionalGroupsSequence")
_TEXTS = ("CS", "DS", "IS", "LO", "SH", "UI")


class BoundedReader(io.BufferedReader):
    """A file that may be read from so many times: a header of a million elements ends in an error, not in minutes."""

    reads, most_reads = 0, MAX_READS
    name = ""  # pydicom asks for one

    @property
    def size(self) -> int:
        """Bytes."""
        return self.raw.size if isinstance(self.raw, MemberFile) else os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises UnreadableSliceError at the read that is one too many."""
        self.reads += 1
        if self.reads > self.most_reads:
            raise UnreadableSliceError(Reason.UNREASONABLE)
        # Memory is had for as many bytes as are asked for, not for those that are there; no file has so many.
        return super().read(MAX_BYTES if size is not None and size > MAX_BYTES else size)

    def verify(self) -> None:
        """Raises UnreadableSliceError for a member of an archive that is not whole, or has another checksum."""
        if isinstance(self.raw, MemberFile):
            self.raw.verify()

    def whole(self) -> bytes:
        """All bytes, verified. Raises UnreadableSliceError for more than MAX_BYTES, or what `verify` refuses."""
        if self.size > MAX_BYTES:
            raise UnreadableSliceError(Reason.UNREASONABLE)
        data = super().read()
        self.verify()
        return data


class LargeReader(BoundedReader):
    """The same for a large file, of which the pixels stay where they are: what is read before them is bounded."""

    def __init__(self, file: io.RawIOBase, size: int) -> None:
        """Reads and bytes are those that a multi-frame file of this size may have before its pixels."""
        super().__init__(file)
        self.most_reads, self.left = MAX_READS + size // 8192, MAX_HEADER + size // 64

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises UnreadableSliceError where more is asked for than is `left`."""
        self.left -= self.size if size is None or size < 0 else size
        if self.left < 0:
            raise UnreadableSliceError(Reason.UNREASONABLE)
        return super().read(size)


# What the header of a file, not the system, makes pydicom fail with; it has no class of its own for that.
PARSER_ERRORS = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError)
PARSER_ERRORS += (BytesLengthException, struct.error, zlib.error)
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV)  # a link to itself, a socket, a device


def open_bounded(path: File) -> BoundedReader:
    """Open a file.

    Raises UnreadableSliceError if it is no file, leads nowhere, is an archive, larger than MAX_FILE, or a member
    without a byte, and OSError if the system does not let this process read it.
    """
    if isinstance(path, Member) and not path.size and path.flaw is None:  # an archive may have a great many of those
        raise UnreadableSliceError(Reason.NOT_DICOM)
    raw, size = (MemberFile(path), path.size) if isinstance(path, Member) else _open_file(path)
    if size > MAX_FILE:
        raw.close()
        raise UnreadableSliceError(Reason.UNREASONABLE)
    file = LargeReader(raw, size) if size > LARGE else BoundedReader(raw)
    if is_packed(path.name) and file.peek(132)[128:132] != b"DICM":
        file.close()
        raise UnreadableSliceError(Reason.ARCHIVE)
    return file


def _open_file(path: Path) -> tuple[io.FileIO, int]:
    handle = _existing(os.open, path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would block for ever
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise UnreadableSliceError(Reason.NOT_OPENED)
    return io.FileIO(handle), status.st_size


def stamp(path: File) -> tuple[int, int]:
    """The size of a file in bytes, and what changes with its content: time of change in ns, or a zip's crc32.

    Raises UnreadableSliceError for a link that leads nowhere, and OSError of the system.
    """
    if isinstance(path, Member):
        return path.size, path.mark
    status = _existing(os.stat, path)
    return status.st_size, status.st_mtime_ns


def _existing(function: Callable[..., Any], path: Path, *more: int) -> Any:
    """What a function of the system says of a path. Raises UnreadableSliceError if the path leads to no file."""
    try:
        return function(path, *more)
    except OSError as error:
        is_broken_link = isinstance(error, FileNotFoundError) and path.is_symlink()
        if is_broken_link or error.errno in _NO_FILE:
            raise UnreadableSliceError(Reason.NOT_OPENED) from error
        raise


def checksum(path: File) -> int:
    """The crc32 of all bytes of a file, 0 for one that cannot be opened. Raises OSError of the system."""
    value = 0
    with suppress(UnreadableSliceError), open_bounded(path) as file:
        while block := io.BufferedReader.read(file, 1 << 20):
            value = crc32(block, value)
    return value


class _Unvalidated(ContextDecorator):
    """Within it pydicom takes values as they are: the RSNA's UIDs (ID_...) would give several warnings for every file.

    pydicom's setting is the whole process's: the first thread that comes in changes it, the last one puts it back.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.setting = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.setting.enter_context(pydicom.config.disable_value_validation())
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.setting.close()


unvalidated = _Unvalidated()


@unvalidated
def values_of(dataset: pydicom.Dataset) -> dict[str, Any]:
    """Keyword -> value of a data set's elements; the error in place of a value that cannot be parsed.

    Raises UnreadableSliceError for an element that would take minutes to parse.
    """
    values = {}
    for tag in list(dataset.keys()):
        try:
            element = dataset.get_item(tag)
            if isinstance(element, RawDataElement):
                _check_length(element)
                values[keyword_for_tag(tag)] = _value(element, dataset)
            else:
                values[element.keyword] = element.value
        except UnreadableSliceError:
            raise
        except PARSER_ERRORS as error:  # pydicom parses an element when it is asked for
            values[keyword_for_tag(tag)] = error
    return values


def _value(element: RawDataElement, dataset: pydicom.Dataset) -> Any:
    """The value of an element; texts and numbers in text, most of a header, are split here, which is faster."""
    representation = dictionary_VR(element.tag) if element.VR in (None, "UN") else element.VR
    if element.tag == _FRAMES and len(value := element.value or b"") > MAX_SEQUENCE:
        return FrameItems(value, element.is_implicit_VR)
    if representation in AMBIGUOUS_VR:  # in an implicit data set; PixelRepresentation tells which it is
        return dataset[element.tag].value
    if representation in _TEXTS and element.value:
        parts = [part.strip(" \0") for part in element.value.decode("latin-1").split("\\")]
        return parts if len(parts) > 1 else parts[0]
    return convert_raw_data_element(element, ds=dataset).value


def _check_length(element: RawDataElement) -> None:
    """Raise UnreadableSliceError for an element that would take minutes to parse."""
    value = element.value or b""
    if element.tag == PIXEL_DATA or len(value) <= MAX_VALUE:
        return
    is_sequence, most = dictionary_VR(element.tag) == "SQ", MAX_ITEMS
    if element.tag == _FRAMES:
        most *= 1 + len(value) // MAX_SEQUENCE
    if not is_sequence or (len(value) > MAX_SEQUENCE and element.tag != _FRAMES) or value.count(ITEM) > most:
        raise UnreadableSliceError(Reason.UNREASONABLE)


def text_of(header: dict, tag: str) -> str:
    """The text of an element, "" where it is absent. Raises UnreadableSliceError if it cannot be parsed."""
    value = header.get(tag)
    if isinstance(value, Exception):
        raise UnreadableSliceError(Reason.HEADER) from value
    return str(value or "").strip()


def number_of(header: dict, tag: str) -> float:
    """The first number of an element, NaN where it is absent, empty or not a finite number."""
    value = header.get(tag)
    if isinstance(value, list | MultiValue):
        value = value[0] if value else None
    try:
        number = float(value)  # pyrefly: ignore[bad-argument-type]  # what is no number is treated as what is not there
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def numbers_of(header: dict, tag: str, length: int) -> list[float]:
    """The first `length` numbers of an element, NaN where it is absent, empty or not a finite number."""
    value = header.get(tag)
    values = list(value[:length]) if isinstance(value, MultiValue | list) else [value] if value is not None else []
    try:
        numbers = [float(number) for number in values]
    except (TypeError, ValueError, OverflowError):  # what is no number is treated as what is not there
        numbers = []
    numbers = [number if math.isfinite(number) else math.nan for number in numbers]
    return numbers + [math.nan] * (length - len(numbers))
