"""One DICOM file -> a header row and a slice in Hounsfield units."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

# The RSNA's UIDs (ID_...) are not valid UIDs: pydicom would warn several times for every file.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# Air ... beyond any tissue; padding (-2000 stored) and metal fall on the ends.
HOUNSFIELD_RANGE = (-1000, 2000)

# The short list of header fields that leave this module: no name, date or free text of a patient is among them.
_IDENTIFIERS = {
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
}
_VECTORS = {
    "image_position": ("ImagePositionPatient", 3),
    "image_orientation": ("ImageOrientationPatient", 6),
    "pixel_spacing": ("PixelSpacing", 2),
    "window_center": ("WindowCenter", 1),  # may hold two values: the first is the one to use
    "window_width": ("WindowWidth", 1),
}


class UnreadableSliceError(Exception):
    """A file that gives no slice; the message is the reason, as it stands in problems.csv."""


@dataclass(frozen=True)
class Rescale:
    """The header fields that turn stored values into Hounsfield units (PS3.3 C.11.1.1.2)."""

    bits_stored: int
    pixel_representation: int  # 0: unsigned, 1: two's complement
    intercept: float
    slope: float

    @property
    def has_wrapped(self) -> bool:
        """True for the 123 files of the RSNA set whose 12-bit values have wrapped around.

        12 bits, unsigned, and an intercept near 0 cannot hold air at -1000 HU, so its values stand 4096 too high.
        """
        return self.bits_stored == 12 and self.pixel_representation == 0 and self.intercept > -100


def read_header(path: Path) -> dict:
    """Read the header of one file into a flat row; `image_position_0` ... are numbers, NaN where the tag is absent.

    Raises UnreadableSliceError if the file is not DICOM or lacks the fields that give a slice its size.
    """
    dataset = _read(path, stop_before_pixels=True)
    row: dict = {name: str(_element(dataset, tag) or "").strip() for name, tag in _IDENTIFIERS.items()}
    for name, tag in _NUMBERS.items():
        row[name] = _floats(dataset, tag, 1)[0]
    for name, (tag, length) in _VECTORS.items():
        values = _floats(dataset, tag, length)
        row.update({name: values[0]} if length == 1 else {f"{name}_{i}": value for i, value in enumerate(values)})
    if np.isnan(row["rows"]) or np.isnan(row["columns"]):
        raise UnreadableSliceError("no Rows or Columns in the header")
    return row


def read_slice(path: Path) -> np.ndarray:
    """Read one file as int16 Hounsfield units (rows, columns), clipped to HOUNSFIELD_RANGE.

    Raises UnreadableSliceError if the file is not DICOM, or its pixels are absent, cut off or not a grey-scale slice.
    """
    return clip(to_hounsfield(*read_stored(path)))


def read_stored(path: Path) -> tuple[np.ndarray, Rescale]:
    """Read one file's stored values (rows, columns), integers, and what turns them into Hounsfield units."""
    dataset = _read(path)
    try:
        stored = dataset.pixel_array
    except Exception as error:  # pydicom raises a different class for each thing that can be wrong with pixels
        raise UnreadableSliceError(f"pixels cannot be decoded: {_one_line(error)}") from error
    if stored.ndim != 2:
        raise UnreadableSliceError(f"pixels of shape {stored.shape} are not one grey-scale slice")
    bits, representation, intercept, slope = (
        _floats(dataset, tag, 1)[0] for tag in ("BitsStored", "PixelRepresentation", "RescaleIntercept", "RescaleSlope")
    )
    # PS3.3 C.11.1.1.2: without a rescale the stored values are the output
    return stored, Rescale(
        int(bits), int(representation), 0.0 if np.isnan(intercept) else intercept, 1.0 if np.isnan(slope) else slope
    )


def to_hounsfield(stored: np.ndarray, rescale: Rescale) -> np.ndarray:
    """Stored values -> Hounsfield units, float32: stored * slope + intercept, after the one repair where it is due.

    The repair (J. Howard, "Some DICOM gotchas to be aware of", 2019): values that have wrapped are unwrapped, and get
    the intercept -1000 that they were stored with.
    """
    if rescale.has_wrapped:
        values = stored.astype(np.int32) + 1000
        values[values >= 4096] -= 4096
        return (values - 1000).astype(np.float32)
    return stored.astype(np.float32) * np.float32(rescale.slope) + np.float32(rescale.intercept)


def clip(hounsfield: np.ndarray) -> np.ndarray:
    """Hounsfield units rounded to int16 within HOUNSFIELD_RANGE."""
    return np.rint(np.clip(hounsfield, *HOUNSFIELD_RANGE)).astype(np.int16)


def _read(path: Path, **options) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(path, **options)
    except InvalidDicomError as error:
        raise UnreadableSliceError("not a DICOM file") from error
    except Exception as error:  # a damaged file can fail in any of pydicom's parsers
        raise UnreadableSliceError(f"cannot be read: {_one_line(error)}") from error


def _element(dataset: pydicom.Dataset, tag: str) -> Any:
    try:
        return dataset.get(tag)  # pydicom parses an element when it is asked for
    except Exception as error:
        raise UnreadableSliceError(f"{tag} cannot be read: {_one_line(error)}") from error


def _floats(dataset: pydicom.Dataset, tag: str, length: int) -> list[float]:
    """The first `length` numbers of an element, NaN where it is absent, empty or not a number."""
    value = _element(dataset, tag)
    try:
        values = [value] if np.isscalar(value) or value is None else list(value)
        numbers = [float(number) for number in values[:length]]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    return numbers + [float("nan")] * (length - len(numbers))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
