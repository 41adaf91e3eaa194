"""One DICOM file -> its slices: a header row and the stored values of each.

Files are not trusted: what the header claims is checked before anything is decoded, and a file that gives no slice
gives a reason from a closed list. Only the elements named here are ever parsed: names, dates and free text of a
patient are skipped where they stand.
"""

import io
import logging
import math
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from models.preprocessing.decoding import DecodingError, decode_guarded, missing_decoder
from models.preprocessing.hounsfield import Rescale, clip, to_hounsfield

# The RSNA's UIDs (ID_...) are not valid UIDs: pydicom would warn several times for every file.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
# What is wrong with a file is said by its Reason, not by pydicom's log and warnings.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")

MAX_SIDE = 4096  # pixels
MAX_FRAMES = 4096
MAX_BYTES = 400 << 20  # of a file, also once inflated: some 800 slices of 512 x 512
MAX_READS = 200_000  # two for an element; a multi-frame file of 800 slices makes about 100,000
MAX_ITEMS = 50_000  # of a sequence; a multi-frame file has about ten a slice
MAX_SEQUENCE = 4 << 20  # bytes
MAX_VALUE = 1 << 16  # bytes of any element but the pixels and sequences

IDENTIFIERS = {
    "image_id": "SOPInstanceUID",
    "series_id": "SeriesInstanceUID",
    "study_id": "StudyInstanceUID",
    "patient_id": "PatientID",
}
_NUMBERS = {
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "rescale_intercept": "RescaleIntercept",
    "rescale_slope": "RescaleSlope",
    "window_center": "WindowCenter",  # may hold two values: the first is the one to use
    "window_width": "WindowWidth",
    "instance_number": "InstanceNumber",
    "slice_location": "SliceLocation",
}
_VECTORS = {
    "image_position": ("ImagePositionPatient", 3),
    "image_orientation": ("ImageOrientationPatient", 6),
    "pixel_spacing": ("PixelSpacing", 2),
}
HEADER_COLUMNS = [
    *IDENTIFIERS,
    "frame",  # from 1 in a multi-frame file, else 0
    *_NUMBERS,
    *(f"{name}_{i}" for name, (_, length) in _VECTORS.items() for i in range(length)),
]
_FORMAT = [
    "Modality",
    "ImageType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "NumberOfFrames",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
]
_TAGS = [
    Tag(tag) for tag in (*IDENTIFIERS.values(), *_NUMBERS.values(), *(tag for tag, _ in _VECTORS.values()), *_FORMAT)
]
_SYNTAX = re.compile(rb"\x02\x00\x10\x00UI..(?P<uid>[\d.]+)", re.DOTALL)
_PIXEL_DATA = Tag("PixelData")
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)  # the tag that opens an item of a sequence
_SERIES_AND_IMAGE = [Tag(IDENTIFIERS["series_id"]), Tag(IDENTIFIERS["image_id"])]

# Where an enhanced CT file keeps what others have at the top.
_FUNCTIONAL_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)


class Reason(Enum):
    """Why a file gives no slice: the closed list."""

    NOT_OPENED = "cannot be opened"
    NOT_DICOM = "not a DICOM file"
    HEADER = "the header is damaged"
    UNREASONABLE = "the header claims more than a CT series can hold"
    NO_IDENTIFIER = "no usable SOPInstanceUID or SeriesInstanceUID in the header"
    NOT_CT = "not a CT image"
    LOCALIZER = "a localizer, not a slice"
    NO_PIXELS = "no pixels"
    PIXEL_FORMAT = "not a grey-scale image, or a pixel format that is not known"
    RESCALE = "the rescale slope or intercept is not a usable number"
    TRUNCATED = "pixels are cut off"
    COMPRESSION = "a compression that is not known"
    NO_DECODER = "needs the package pylibjpeg-libjpeg (GPL-3): pip install pylibjpeg-libjpeg"
    DECODING = "compressed pixels cannot be decoded"


class UnreadableSliceError(Exception):
    """A file that gives no slice; `rows` are the header rows of its slices, as far as they could be read."""

    def __init__(self, reason: Reason, rows: list[dict] | None = None) -> None:
        super().__init__(reason.value)
        self.reason, self.rows = reason, rows or []


@dataclass(frozen=True)
class Slice:
    """One slice as stored."""

    row: dict  # identifiers, geometry, pixel format; NaN where an element is absent
    stored: np.ndarray  # (rows, columns) integers
    rescale: Rescale


def read_file(path: Path) -> Iterator[Slice]:
    """Read a file once; yields its slices, one for most files, one a frame for enhanced CT.

    Raises UnreadableSliceError; when the header was readable and only the pixels are not, it carries the header rows.
    """
    with _open(path) as file:
        dataset, syntax = _parse(file, _TAGS)
    rows: list[dict] = []
    try:
        header = _values(dataset)
        frames = _count_frames(header)
        rows = [_header_row(_of_frame(header, frame), frame, frames) for frame in range(frames)]
        stored = _stored_frames(header, syntax, frames)
        for row, values in zip(rows, stored, strict=True):
            yield Slice(row, values, _rescale(header, row))
    except UnreadableSliceError as error:
        raise UnreadableSliceError(error.reason, rows) from error
    except Exception as error:  # pydicom parses an element when it is asked for, and can fail in many ways
        raise UnreadableSliceError(Reason.HEADER, rows) from error


def read_stored(path: Path) -> tuple[np.ndarray, Rescale]:
    """The stored values (rows, columns) of a file's first slice, and what turns them into Hounsfield units."""
    first = next(read_file(path))
    return first.stored, first.rescale


def read_slices(path: Path) -> list[np.ndarray]:
    """All slices of a file in Hounsfield units, int16 (rows, columns), clipped to HOUNSFIELD_RANGE."""
    return [clip(to_hounsfield(item.stored, item.rescale)) for item in read_file(path)]


def peek(path: Path) -> tuple[str, str, int, int]:
    """The raw SeriesInstanceUID and SOPInstanceUID, size in bytes and crc32 of the first 4 KB, which is all it reads.

    Raises UnreadableSliceError.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(4096)
    try:
        header = _values(_parse(_BoundedReader(io.BytesIO(head)), _SERIES_AND_IMAGE, _is_after_series)[0])
        series, image = _text(header, IDENTIFIERS["series_id"]), _text(header, IDENTIFIERS["image_id"])
    except UnreadableSliceError:
        series = image = ""
    if not (series and image):  # a header longer than that, or a deflated one
        with _open(path) as file:
            header = _values(_parse(file, _SERIES_AND_IMAGE, _is_after_series)[0])
        series, image = _text(header, IDENTIFIERS["series_id"]), _text(header, IDENTIFIERS["image_id"])
    return series, image, size, zlib.crc32(head)


def _is_after_series(tag: BaseTag, *_) -> bool:
    return tag > _SERIES_AND_IMAGE[0]


class _BoundedReader(io.BufferedReader):
    """A file that may be read from so many times: a header of a million elements ends in an error, not in minutes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise UnreadableSliceError(Reason.UNREASONABLE)
        return super().read(size)


def _open(path: Path) -> _BoundedReader:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would block for ever
        file = _BoundedReader(io.FileIO(handle))
        status = os.fstat(handle)
    except OSError as error:
        raise UnreadableSliceError(Reason.NOT_OPENED) from error
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        file.close()
        raise UnreadableSliceError(Reason.UNREASONABLE if stat.S_ISREG(status.st_mode) else Reason.NOT_OPENED)
    return file


def _parse(file: _BoundedReader, tags: list[BaseTag], stop_when=None) -> tuple[pydicom.Dataset, UID]:
    """The asked elements of a file, and its transfer syntax. Raises UnreadableSliceError."""
    try:
        syntax = _read_syntax(file)
        if syntax == DeflatedExplicitVRLittleEndian:
            file, syntax = _inflate(file), ExplicitVRLittleEndian
        if syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):  # the way of nearly all files
            implicit = syntax == ImplicitVRLittleEndian
            return read_dataset(file, implicit, True, stop_when=stop_when, specific_tags=tags), syntax
        file.seek(0)
        dataset = pydicom.dcmread(file, specific_tags=tags)
        return dataset, UID(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    except UnreadableSliceError:
        raise
    except InvalidDicomError as error:
        raise UnreadableSliceError(Reason.NOT_DICOM) from error
    except Exception as error:  # a damaged file can fail in any of pydicom's parsers
        if isinstance(error, OSError) and error.errno:
            raise UnreadableSliceError(Reason.NOT_OPENED) from error
        # pydicom turns what the bounded reader raises within a sequence into an OSError of its own
        unreasonable = isinstance(error.__context__, UnreadableSliceError)
        raise UnreadableSliceError(Reason.UNREASONABLE if unreasonable else Reason.HEADER) from error


def _read_syntax(file: _BoundedReader) -> UID | None:
    """The transfer syntax in the file meta information (PS3.10 7.1), which is read; None where it is not as usual."""
    head = file.read(144)
    if head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return None
    (length,) = struct.unpack("<L", head[140:])
    found = _SYNTAX.search(file.read(min(length, MAX_VALUE)))
    return UID(found["uid"].decode()) if found else None


def _inflate(file: _BoundedReader) -> _BoundedReader:
    """The rest of a deflated file, inflated within bounds; pydicom has none."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(file.read(), MAX_BYTES // 8)
    if inflater.unconsumed_tail:
        raise UnreadableSliceError(Reason.UNREASONABLE)
    return _BoundedReader(io.BytesIO(inflated))


def _values(dataset: pydicom.Dataset) -> dict[str, Any]:
    """Keyword -> value of a data set's elements; the error in place of a value that cannot be parsed."""
    values = {}
    for tag in list(dataset.keys()):
        try:
            element = dataset.get_item(tag)
            if isinstance(element, RawDataElement):
                _check_length(element)
                element = convert_raw_data_element(element, ds=dataset)
            values[element.keyword] = element.value
        except UnreadableSliceError:
            raise
        except Exception as error:  # pydicom parses an element when it is asked for, and can fail in many ways
            values[keyword_for_tag(tag)] = error
    return values


def _check_length(element: RawDataElement) -> None:
    """Raise UnreadableSliceError for an element that would take minutes to parse."""
    value = element.value or b""
    if element.tag == _PIXEL_DATA or len(value) <= MAX_VALUE:
        return
    is_sequence = dictionary_VR(element.tag) == "SQ"
    if not is_sequence or len(value) > MAX_SEQUENCE or value.count(_ITEM) > MAX_ITEMS:
        raise UnreadableSliceError(Reason.UNREASONABLE)


def _count_frames(header: dict) -> int:
    """The number of frames. Raises UnreadableSliceError if the file is no CT slice or claims more than one can hold."""
    if (_text(header, "Modality") or "CT") != "CT":
        raise UnreadableSliceError(Reason.NOT_CT)
    if "LOCALIZER" in str(header.get("ImageType", "")):
        raise UnreadableSliceError(Reason.LOCALIZER)
    rows, columns, frames = (_number(header, tag) for tag in ("Rows", "Columns", "NumberOfFrames"))
    frames = 1 if math.isnan(frames) else frames
    if math.isnan(rows) or math.isnan(columns):
        raise UnreadableSliceError(Reason.NO_PIXELS)
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE and 1 <= frames <= MAX_FRAMES):
        raise UnreadableSliceError(Reason.UNREASONABLE)
    if 2 * rows * columns * frames > MAX_BYTES:
        raise UnreadableSliceError(Reason.UNREASONABLE)
    return int(frames)


def _of_frame(header: dict, frame: int) -> dict:
    """The header with what the functional groups of an enhanced CT file say of one frame (PS3.3 A.38)."""
    each, shared = (header.get(f"{name}FunctionalGroupsSequence") for name in ("PerFrame", "Shared"))
    if not each and not shared:
        return header
    merged = dict(header)
    for groups in (shared[0] if shared else {}, each[frame] if each else {}):
        for sequence in _FUNCTIONAL_GROUPS:
            if sequence in groups and groups[sequence].value:
                merged |= _values(groups[sequence].value[0])
    return merged


def _header_row(header: dict, frame: int, frames: int) -> dict:
    row: dict = {name: _text(header, tag) for name, tag in IDENTIFIERS.items()}
    if not (row["image_id"] and row["series_id"]):
        raise UnreadableSliceError(Reason.NO_IDENTIFIER)
    row["patient_id"] = row["patient_id"] or row["study_id"] or row["series_id"]  # without one, a study is a patient
    row["frame"] = frame + 1 if frames > 1 else 0
    for name, tag in _NUMBERS.items():
        row[name] = _number(header, tag)
    for name, (tag, length) in _VECTORS.items():
        row.update({f"{name}_{i}": value for i, value in enumerate(_numbers(header, tag, length))})
    if frames > 1 and math.isnan(row["instance_number"]):
        row["instance_number"] = frame + 1.0
    return row


def _rescale(header: dict, row: dict) -> Rescale:
    """What turns a row's stored values into Hounsfield units; without a rescale they are it (PS3.3 C.11.1.1.2)."""
    intercept, slope = row["rescale_intercept"], row["rescale_slope"]
    for tag, value in (("RescaleIntercept", intercept), ("RescaleSlope", slope)):
        if math.isnan(value) and header.get(tag) not in (None, ""):
            raise UnreadableSliceError(Reason.RESCALE)  # there, but no number
    intercept, slope = (0.0 if math.isnan(intercept) else intercept), (1.0 if math.isnan(slope) else slope)
    if not 1e-6 < abs(slope) < 1e6 or abs(intercept) > 1e6:
        raise UnreadableSliceError(Reason.RESCALE)
    first, last = (_number(header, tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    last = first if math.isnan(last) else last
    padding = None if math.isnan(first) else (min(first, last), max(first, last))
    return Rescale(int(row["bits_stored"]), int(row["pixel_representation"]), intercept, slope, padding)


def _stored_frames(header: dict, syntax: UID, frames: int) -> Iterator[np.ndarray]:
    """The stored values of each frame (rows, columns)."""
    pixels = header.get("PixelData")
    if not isinstance(pixels, bytes) or not pixels:
        raise UnreadableSliceError(Reason.NO_PIXELS)
    options = _pixel_options(header, frames)
    if syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        yield from _native_frames(pixels, options)
        return
    if (missing := missing_decoder(syntax)) is not None:
        raise UnreadableSliceError(Reason.NO_DECODER if missing else Reason.COMPRESSION)
    try:
        for frame in decode_guarded(pixels, syntax, options):
            if frame.shape != (options["rows"], options["columns"]):
                raise UnreadableSliceError(Reason.DECODING)
            yield frame.astype(frame.dtype.newbyteorder("="), copy=False)
    except DecodingError as error:
        raise UnreadableSliceError(Reason.DECODING) from error


def _pixel_options(header: dict, frames: int) -> dict:
    """The checked pixel format, named as pydicom's decoders take it."""
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    rows, columns, allocated, bits, representation, samples = (_number(header, name) for name in names)
    photometric = _text(header, "PhotometricInterpretation")
    known = allocated in (8, 16, 32) and 1 <= bits <= allocated and representation in (0, 1) and samples == 1
    if not known or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableSliceError(Reason.PIXEL_FORMAT)
    return {
        "rows": int(rows),
        "columns": int(columns),
        "number_of_frames": frames,
        "samples_per_pixel": 1,
        "photometric_interpretation": photometric,
        "bits_allocated": int(allocated),
        "bits_stored": int(bits),
        "pixel_representation": int(representation),
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }


def _native_frames(pixels: bytes, options: dict) -> Iterator[np.ndarray]:
    shape = options["rows"], options["columns"]
    kind = np.dtype(f"<{'i' if options['pixel_representation'] else 'u'}{options['bits_allocated'] // 8}")
    size = shape[0] * shape[1] * kind.itemsize
    if len(pixels) < options["number_of_frames"] * size:
        raise UnreadableSliceError(Reason.TRUNCATED)
    unused = options["bits_allocated"] - options["bits_stored"]
    for frame in range(options["number_of_frames"]):
        stored = np.frombuffer(pixels, kind, size // kind.itemsize, frame * size).reshape(shape)
        # The bits above the stored ones mean nothing (PS3.5 8.1.1): drop them, and extend the sign.
        yield (stored << unused) >> unused if unused else stored


def _text(header: dict, tag: str) -> str:
    value = header.get(tag)
    if isinstance(value, Exception):
        raise UnreadableSliceError(Reason.HEADER) from value
    return str(value or "").strip()


def _number(header: dict, tag: str) -> float:
    return _numbers(header, tag, 1)[0]


def _numbers(header: dict, tag: str, length: int) -> list[float]:
    """The first `length` numbers of an element, NaN where it is absent, empty or not a finite number."""
    value = header.get(tag)
    values = list(value[:length]) if isinstance(value, MultiValue | list) else [value] if value is not None else []
    try:
        numbers = [float(number) for number in values]
    except (TypeError, ValueError, OverflowError):  # what is no number is treated as what is not there
        numbers = []
    numbers = [number if math.isfinite(number) else math.nan for number in numbers]
    return numbers + [math.nan] * (length - len(numbers))
