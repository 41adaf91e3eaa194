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
from collections.abc import Generator
from contextlib import ContextDecorator, ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any

import pydicom
import pydicom.config
from isal.isal_zlib import crc32
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import AMBIGUOUS_VR

MAX_BYTES = 400 << 20  # of a file, also once inflated: some 800 slices of 512 x 512
MAX_READS = 200_000  # two for an element; a multi-frame file of 800 slices makes about 100,000
MAX_ITEMS = 50_000  # of a sequence; a multi-frame file has about ten a slice
MAX_SEQUENCE = 4 << 20  # bytes
MAX_VALUE = 1 << 16  # bytes of any element but the pixels and sequences

_PIXEL_DATA = Tag("PixelData")
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)  # the tag that opens an item of a sequence
_META_GROUP, _TRANSFER_SYNTAX = b"\x02\x00", b"\x02\x00\x10\x00"
# Big-endian files, which nobody writes any more, are left to pydicom.
_SYNTAXES = {str(uid).encode(): uid for uid in AllTransferSyntaxes if uid != ExplicitVRBigEndian}
_TEXTS = ("CS", "DS", "IS", "LO", "SH", "UI")
_LONG = (b"OB", b"UN")  # the value representations in the file meta information with a length of four bytes


class Reason(Enum):
    """Why a file gives no slice: the closed list."""

    NOT_OPENED = "cannot be opened"
    NOT_DICOM = "not a DICOM file"
    HEADER = "the header is damaged"
    UNREASONABLE = "the header claims more than a CT series can hold"
    NO_IDENTIFIER = "no usable SOPInstanceUID or SeriesInstanceUID in the header"
    NOT_CT = "not a CT image"
    LOCALIZER = "a localizer, not a slice"
    PICTURE = "a picture with text in its pixels, not a slice"
    NO_PIXELS = "no pixels"
    PIXEL_FORMAT = "not a grey-scale image, or a pixel format that is not known"
    RESCALE = "the rescale slope or intercept is not a usable number"
    TRUNCATED = "pixels are cut off"
    COMPRESSION = "a compression that is not known"
    NO_DECODER = "needs a decoder that is not installed: pip install imagecodecs pyjpegls pylibjpeg-openjpeg"
    DECODING = "compressed pixels cannot be decoded"


class UnreadableSliceError(Exception):
    """A file that gives no slice; `rows` are the header rows of its slices, as far as they could be read."""

    def __init__(self, reason: Reason, rows: list[dict] | None = None) -> None:
        super().__init__(reason.value)
        self.reason, self.rows = reason, rows or []


class BoundedReader(io.BufferedReader):
    """A file that may be read from so many times: a header of a million elements ends in an error, not in minutes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises UnreadableSliceError at the read that is one too many."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise UnreadableSliceError(Reason.UNREASONABLE)
        # Memory is had for as many bytes as are asked for, not for those that are there; no file has so many.
        return super().read(MAX_BYTES if size is not None and size > MAX_BYTES else size)


# What the header of a file, not the system, makes pydicom fail with; it has no class of its own for that.
PARSER_ERRORS = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError)
PARSER_ERRORS += (BytesLengthException, struct.error, zlib.error)
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV)  # a link to itself, a socket, a device
_BAD_SEEK = (None, errno.EINVAL, errno.EOVERFLOW)  # of what pydicom raises itself, or where a length leads nowhere


@contextmanager
def parsing() -> Generator[None]:
    """A block in which pydicom parses: what it fails with becomes UnreadableSliceError, but errors of the system.

    Let nothing else stand in the block: a defect of this project would be taken for damaged data.
    """
    try:
        yield
    except UnreadableSliceError:
        raise
    except InvalidDicomError as error:
        raise UnreadableSliceError(Reason.NOT_DICOM) from error
    except OSError as error:
        if error.errno not in _BAD_SEEK:
            raise
        # pydicom turns what the bounded reader raises within a sequence into an OSError of its own
        unreasonable = isinstance(error.__context__, UnreadableSliceError)
        raise UnreadableSliceError(Reason.UNREASONABLE if unreasonable else Reason.HEADER) from error
    except PARSER_ERRORS as error:
        raise UnreadableSliceError(Reason.HEADER) from error


def open_bounded(path: Path) -> BoundedReader:
    """Open a file. Raises UnreadableSliceError if it is no file, leads nowhere, or has more than MAX_BYTES.

    Raises OSError if the system does not let this process read it.
    """
    with _opening(path):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would block for ever
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        os.close(handle)
        raise UnreadableSliceError(Reason.UNREASONABLE if stat.S_ISREG(status.st_mode) else Reason.NOT_OPENED)
    return BoundedReader(io.FileIO(handle))


@contextmanager
def _opening(path: Path) -> Generator[None]:
    """A block that opens a path: one that leads nowhere becomes UnreadableSliceError."""
    try:
        yield
    except OSError as error:
        is_broken_link = isinstance(error, FileNotFoundError) and path.is_symlink()
        if is_broken_link or error.errno in _NO_FILE:
            raise UnreadableSliceError(Reason.NOT_OPENED) from error
        raise


def stamp(path: Path) -> tuple[int, int]:
    """The size of a file in bytes, and the time of its last change in ns. Raises UnreadableSliceError, and OSError."""
    with _opening(path):
        status = path.stat()
    return status.st_size, status.st_mtime_ns


def checksum(path: Path) -> int:
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
def parse(file: BoundedReader, tags: list[BaseTag], stop_when=None) -> tuple[pydicom.Dataset, UID]:
    """The asked elements of a file, and its transfer syntax. Raises UnreadableSliceError, and OSError of the system."""
    syntax = _read_syntax(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        file, syntax = _inflate(file), ExplicitVRLittleEndian
    if syntax is not None:  # the way of nearly all files
        with parsing():
            implicit = syntax == ImplicitVRLittleEndian
            return read_dataset(file, implicit, True, stop_when=stop_when, specific_tags=[*tags]), syntax
    file.seek(0)
    with parsing():
        dataset = pydicom.dcmread(file, specific_tags=tags)
        return dataset, UID(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))


def _read_syntax(file: BoundedReader) -> UID | None:
    """The transfer syntax in the file meta information (PS3.10 7.1), which is read; None where it is not as usual."""
    head = file.peek(1)  # what is buffered: some thousand bytes
    place, syntax = 132, None
    while head[place : place + 2] == _META_GROUP and place + 12 <= len(head):
        if head[place + 4 : place + 6].isupper():
            is_long = head[place + 4 : place + 6] in _LONG
            (length,) = struct.unpack_from("<L" if is_long else "<H", head, place + (8 if is_long else 6))
            start = place + (12 if is_long else 8)
        else:  # without a representation: a second group, which some writers leave in an implicit data set
            (length,) = struct.unpack_from("<L", head, place + 4)
            start = place + 8
        if head[place : place + 4] == _TRANSFER_SYNTAX and syntax is None:  # of two groups the first describes the file
            syntax = head[start : start + length].rstrip(b"\0 ")
        place = start + length
    if head[128:132] != b"DICM" or syntax is None or place >= len(head) or syntax not in _SYNTAXES:
        return None
    file.seek(place)
    return _SYNTAXES[syntax]


def _inflate(file: BoundedReader) -> BoundedReader:
    """The rest of a deflated file, inflated within bounds; pydicom has none."""
    deflated = file.read()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with parsing():
        inflated = inflater.decompress(deflated, MAX_BYTES // 8)
    if inflater.unconsumed_tail:
        raise UnreadableSliceError(Reason.UNREASONABLE)
    return BoundedReader(io.BytesIO(inflated))


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
    if representation in AMBIGUOUS_VR:  # in an implicit data set; PixelRepresentation tells which it is
        return dataset[element.tag].value
    if representation in _TEXTS and element.value:
        parts = [part.strip(" \0") for part in element.value.decode("latin-1").split("\\")]
        return parts if len(parts) > 1 else parts[0]
    return convert_raw_data_element(element, ds=dataset).value


def _check_length(element: RawDataElement) -> None:
    """Raise UnreadableSliceError for an element that would take minutes to parse."""
    value = element.value or b""
    if element.tag == _PIXEL_DATA or len(value) <= MAX_VALUE:
        return
    is_sequence = dictionary_VR(element.tag) == "SQ"
    if not is_sequence or len(value) > MAX_SEQUENCE or value.count(_ITEM) > MAX_ITEMS:
        raise UnreadableSliceError(Reason.UNREASONABLE)


def text_of(header: dict, tag: str) -> str:
    """The text of an element, "" where it is absent. Raises UnreadableSliceError if it cannot be parsed."""
    value = header.get(tag)
    if isinstance(value, Exception):
        raise UnreadableSliceError(Reason.HEADER) from value
    return str(value or "").strip()


def number_of(header: dict, tag: str) -> float:
    """The first number of an element, NaN where it is absent, empty or not a finite number."""
    return numbers_of(header, tag, 1)[0]


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
