"""One DICOM file -> its slices: a header row and the stored values of each.

What the header claims is checked before anything is decoded. Only the elements named here are ever parsed.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from isal.isal_zlib import crc32
from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from models.preprocessing.archives import File
from models.preprocessing.elements import (
    MAX_BYTES,
    MAX_FILE,
    BoundedReader,
    LargeReader,
    number_of,
    numbers_of,
    open_bounded,
    text_of,
    values_of,
)
from models.preprocessing.header_facts import (
    CT_CLASSES,
    TAGS,
    HeaderFacts,
    header_facts,
    is_localizer,
    is_picture,
    reconstruction,
)
from models.preprocessing.hounsfield import Rescale, clip, shows_wrapped_air, to_hounsfield
from models.preprocessing.large_pixels import find_pixels
from models.preprocessing.modality_table import ModalityTable, read_modality_table
from models.preprocessing.parser import parse, parsing
from models.preprocessing.pixel_data import stored_frames
from models.preprocessing.plain_header import plain_values, wanted
from models.preprocessing.pseudonyms import is_of_challenge
from models.preprocessing.reasons import Reason, UnreadableSliceError

MAX_SIDE = 4096  # pixels
MAX_FRAMES = 4096
MOST_COMPRESSED = 8  # times; lossless CT is two to four times smaller


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
    *TAGS,
    "Modality",
    "ImageType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "HighBit",
    "NumberOfFrames",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
]
_TAGS = [
    Tag(tag) for tag in (*IDENTIFIERS.values(), *_NUMBERS.values(), *(tag for tag, _ in _VECTORS.values()), *_FORMAT)
]
_DICOMDIR = b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10"  # the class of what is stored, with its tag
_SERIES = Tag(IDENTIFIERS["series_id"])
_NAMES, _ELEMENTS = wanted(*IDENTIFIERS.values()), wanted(*map(keyword_for_tag, _TAGS))

# Where an enhanced CT file keeps what others have at the top.
_FUNCTIONAL_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "CTImageFrameTypeSequence",
    "CTReconstructionSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)


@dataclass(frozen=True)
class Slice:
    """One slice as stored."""

    row: dict  # identifiers, geometry, pixel format; NaN where an element is absent
    stored: np.ndarray  # (rows, columns) integers
    rescale: Rescale
    facts: HeaderFacts | None  # None of the challenge's, which are taken whatever they are
    checksum: int | None = None  # the crc32 of its file, where that was read at once


def read_file(path: File) -> Iterator[Slice]:
    """Read a file once; yields its slices, one for most files, one a frame for enhanced CT.

    Raises UnreadableSliceError; when the header was readable and only the pixels are not, it carries the header rows.
    Raises OSError if the system does not let this process read the file, or has ended a decoder.
    """
    with open_bounded(path) as file:
        if isinstance(file, LargeReader):
            dataset, syntax = parse(file, _TAGS)
            yield from _slices(values_of(dataset) | {"PixelData": find_pixels(file)}, syntax, file.size)
            return
        data = file.whole()
    if (plain := plain_values(data, _ELEMENTS)) is not None:
        header, syntax = plain
    else:
        dataset, syntax = parse(BoundedReader(io.BytesIO(data)), _TAGS)
        header = values_of(dataset)
    yield from _slices(header, syntax, len(data), crc32(data))


def _slices(header: dict, syntax: UID, size: int, checksum: int | None = None) -> Iterator[Slice]:
    rows: list[dict] = []
    headers: list[dict] = []
    try:
        frames = _count_frames(header, size)
        headers = [_of_frame(header, frame) for frame in range(frames)]
        rows = [_header_row(headers[frame], frame, frames) for frame in range(frames)]
        table = read_modality_table(header)
        for own_header, row, values in zip(headers, rows, stored_frames(header, syntax, frames), strict=True):
            own = not is_of_challenge(row["image_id"])
            facts = header_facts(own_header, syntax, None if table is None else table.type) if own else None
            yield Slice(row, values, _rescale(own_header, row, values, table), facts, checksum)
    except UnreadableSliceError as error:
        # Of a slice without pixels this alone tells with which others it belongs.
        told = [row | {"reconstruction": reconstruction(own)} for row, own in zip(rows, headers, strict=False)]
        raise UnreadableSliceError(error.reason, told) from error


def read_stored(path: File) -> tuple[np.ndarray, Rescale]:
    """The stored values (rows, columns) of a file's first slice, and what turns them into Hounsfield units.

    Raises UnreadableSliceError.
    """
    first = next(read_file(path))
    return first.stored, first.rescale


def read_slices(path: File) -> list[np.ndarray]:
    """All slices of a file in Hounsfield units, int16 (rows, columns), clipped to HOUNSFIELD_RANGE.

    Raises UnreadableSliceError.
    """
    return [clip(to_hounsfield(item.stored, item.rescale)) for item in read_file(path)]


def peek(path: File) -> tuple[list[str], UID]:
    """The raw identifiers of a file, in the order of IDENTIFIERS, "" for what is absent; and its transfer syntax.

    The first 4 KB are all it reads, if they tell. Raises UnreadableSliceError, and OSError as `read_file` does.
    """
    with open_bounded(path) as file:
        head = file.read(4096)
        if _DICOMDIR in head[:512]:
            raise UnreadableSliceError(Reason.NOT_CT)
        if (plain := plain_values(head, _NAMES, _SERIES)) is not None:
            header, syntax = plain
        else:  # also a header that is longer before that
            file.seek(0)
            dataset, syntax = parse(file, [*map(Tag, IDENTIFIERS.values())], _is_after_series)
            header = values_of(dataset)
    return [text_of(header, keyword) for keyword in IDENTIFIERS.values()], syntax


def _is_after_series(tag: BaseTag, *_) -> bool:
    return tag > _SERIES


def _count_frames(header: dict, size: int) -> int:
    """The number of frames. Raises UnreadableSliceError if the file is no CT slice or claims more than one can hold."""
    if (text_of(header, "SOPClassUID") or CT_CLASSES[0]) not in CT_CLASSES:  # the RSNA took it out of its files
        raise UnreadableSliceError(Reason.NOT_CT)
    if (text_of(header, "Modality") or "CT") != "CT":
        raise UnreadableSliceError(Reason.NOT_CT)
    if is_localizer(header):
        raise UnreadableSliceError(Reason.LOCALIZER)
    if is_picture(header):
        raise UnreadableSliceError(Reason.PICTURE)
    rows, columns, frames = (number_of(header, tag) for tag in ("Rows", "Columns", "NumberOfFrames"))
    frames = 1 if math.isnan(frames) else frames
    if math.isnan(rows) or math.isnan(columns):
        raise UnreadableSliceError(Reason.NO_PIXELS)
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE and 1 <= frames <= MAX_FRAMES):
        raise UnreadableSliceError(Reason.UNREASONABLE)
    if 2 * rows * columns * frames > max(MAX_BYTES, min(MAX_FILE, size * MOST_COMPRESSED)):
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


def _rescale(header: dict, row: dict, stored: np.ndarray, table: ModalityTable | None) -> Rescale:
    """What turns a row's stored values into Hounsfield units; without a rescale they are it (PS3.3 C.11.1.1.2)."""
    intercept, slope = row["rescale_intercept"], row["rescale_slope"]
    for tag, value in (("RescaleIntercept", intercept), ("RescaleSlope", slope)):
        if math.isnan(value) and header.get(tag) not in (None, ""):
            raise UnreadableSliceError(Reason.RESCALE)  # there, but no number
    may_wrap = table is None and not math.isnan(intercept)
    intercept, slope = (0.0 if math.isnan(intercept) else intercept), (1.0 if math.isnan(slope) else slope)
    if not 1e-6 < abs(slope) < 1e6 or abs(intercept) > 1e6:
        raise UnreadableSliceError(Reason.RESCALE)
    bits, representation = int(row["bits_stored"]), int(row["pixel_representation"])
    rescale = Rescale(bits, representation, intercept, slope, _padding(header, representation), table, may_wrap)
    if rescale.has_wrapped and not is_of_challenge(row["image_id"]) and not shows_wrapped_air(stored, rescale):
        return replace(rescale, may_wrap=False)
    return rescale


def _padding(header: dict, representation: int) -> tuple[float, float] | None:
    """The stored values that stand outside the image, lowest and highest, both included (PS3.3 C.7.5.1.1.2).

    They are of the pixels' sign: some writers give -2000 as 63536, or the other way round.
    """
    first, last = (number_of(header, tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if math.isnan(first):
        return None
    low = -(1 << 15) if representation else 0
    limits = [low + (int(value) - low) % (1 << 16) for value in (first, first if math.isnan(last) else last)]
    return min(limits), max(limits)
