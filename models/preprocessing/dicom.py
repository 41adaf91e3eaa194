"""One DICOM file -> its slices: a header row and the stored values of each.

What the header claims is checked before anything is decoded. Only the elements named here are ever parsed.
"""

import io
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from models.preprocessing.decoding import DecodingError, decode_guarded, missing_decoder
from models.preprocessing.elements import (
    MAX_BYTES,
    BoundedReader,
    Reason,
    UnreadableSliceError,
    number_of,
    numbers_of,
    open_bounded,
    parse,
    parsing,
    text_of,
    values_of,
)
from models.preprocessing.hounsfield import Rescale, clip, to_hounsfield

MAX_SIDE = 4096  # pixels
MAX_FRAMES = 4096


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
_SERIES_AND_IMAGE = [Tag(IDENTIFIERS["series_id"]), Tag(IDENTIFIERS["image_id"])]

# Where an enhanced CT file keeps what others have at the top.
_FUNCTIONAL_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)


@dataclass(frozen=True)
class Slice:
    """One slice as stored."""

    row: dict  # identifiers, geometry, pixel format; NaN where an element is absent
    stored: np.ndarray  # (rows, columns) integers
    rescale: Rescale


def read_file(path: Path) -> Iterator[Slice]:
    """Read a file once; yields its slices, one for most files, one a frame for enhanced CT.

    Raises UnreadableSliceError; when the header was readable and only the pixels are not, it carries the header rows.
    Raises OSError if the system does not let this process read the file, or has ended a decoder.
    """
    with open_bounded(path) as file:
        dataset, syntax = parse(file, _TAGS)
    rows: list[dict] = []
    try:
        header = values_of(dataset)
        frames = _count_frames(header)
        rows = [_header_row(_of_frame(header, frame), frame, frames) for frame in range(frames)]
        stored = _stored_frames(header, syntax, frames)
        for row, values in zip(rows, stored, strict=True):
            yield Slice(row, values, _rescale(header, row))
    except UnreadableSliceError as error:
        raise UnreadableSliceError(error.reason, rows) from error


def read_stored(path: Path) -> tuple[np.ndarray, Rescale]:
    """The stored values (rows, columns) of a file's first slice, and what turns them into Hounsfield units.

    Raises UnreadableSliceError.
    """
    first = next(read_file(path))
    return first.stored, first.rescale


def read_slices(path: Path) -> list[np.ndarray]:
    """All slices of a file in Hounsfield units, int16 (rows, columns), clipped to HOUNSFIELD_RANGE.

    Raises UnreadableSliceError.
    """
    return [clip(to_hounsfield(item.stored, item.rescale)) for item in read_file(path)]


def peek(path: Path) -> tuple[str, str, int, int, UID]:
    """The raw SeriesInstanceUID and SOPInstanceUID, size in bytes, crc32 of the first 4 KB, and transfer syntax.

    The first 4 KB are all it reads. Raises UnreadableSliceError, and OSError as `read_file` does.
    """
    with open_bounded(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(4096)
    try:
        dataset, syntax = parse(BoundedReader(io.BytesIO(head)), _SERIES_AND_IMAGE, _is_after_series)
        header = values_of(dataset)
        series, image = text_of(header, IDENTIFIERS["series_id"]), text_of(header, IDENTIFIERS["image_id"])
    except UnreadableSliceError:
        series, image, syntax = "", "", UID("")
    if not (series and image):  # a header longer than that, or a deflated one
        with open_bounded(path) as file:
            dataset, syntax = parse(file, _SERIES_AND_IMAGE, _is_after_series)
        header = values_of(dataset)
        series, image = text_of(header, IDENTIFIERS["series_id"]), text_of(header, IDENTIFIERS["image_id"])
    return series, image, size, zlib.crc32(head), syntax


def _is_after_series(tag: BaseTag, *_) -> bool:
    return tag > _SERIES_AND_IMAGE[0]


def _count_frames(header: dict) -> int:
    """The number of frames. Raises UnreadableSliceError if the file is no CT slice or claims more than one can hold."""
    if (text_of(header, "Modality") or "CT") != "CT":
        raise UnreadableSliceError(Reason.NOT_CT)
    if "LOCALIZER" in str(header.get("ImageType", "")):
        raise UnreadableSliceError(Reason.LOCALIZER)
    rows, columns, frames = (number_of(header, tag) for tag in ("Rows", "Columns", "NumberOfFrames"))
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
    with parsing():
        for groups in (shared[0] if shared else {}, each[frame] if each else {}):
            for sequence in _FUNCTIONAL_GROUPS:
                if sequence in groups and groups[sequence].value:
                    merged |= values_of(groups[sequence].value[0])
    return merged


def _header_row(header: dict, frame: int, frames: int) -> dict:
    row: dict = {name: text_of(header, tag) for name, tag in IDENTIFIERS.items()}
    if not (row["image_id"] and row["series_id"]):
        raise UnreadableSliceError(Reason.NO_IDENTIFIER)
    row["patient_id"] = row["patient_id"] or row["study_id"] or row["series_id"]  # without one, a study is a patient
    row["frame"] = frame + 1 if frames > 1 else 0
    for name, tag in _NUMBERS.items():
        row[name] = number_of(header, tag)
    for name, (tag, length) in _VECTORS.items():
        row.update({f"{name}_{i}": value for i, value in enumerate(numbers_of(header, tag, length))})
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
    first, last = (number_of(header, tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
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
    rows, columns, allocated, bits, representation, samples = (number_of(header, name) for name in names)
    photometric = text_of(header, "PhotometricInterpretation")
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
    bits, unused = options["bits_stored"], options["bits_allocated"] - options["bits_stored"]
    for frame in range(options["number_of_frames"]):
        stored = np.frombuffer(pixels, kind, size // kind.itemsize, frame * size).reshape(shape)
        # The bits above the stored ones mean nothing (PS3.5 8.1.1): drop them, and extend the sign.
        if kind.kind == "u":
            yield stored & kind.type((1 << bits) - 1) if unused else stored
        else:
            yield (stored << unused) >> unused if unused else stored
