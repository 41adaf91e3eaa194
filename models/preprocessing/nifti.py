"""One NIfTI volume -> its slices, as dicom.py gives those of a DICOM file.

A volume has no identifiers: it is called by the place where it lies, and so are its study and its patient. Neither does
it say that its values are Hounsfield units: slices that show air, as those of a head do, vouch for it.
"""

import io
import math
import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from models.preprocessing.archives import File
from models.preprocessing.dicom import HEADER_COLUMNS, IDENTIFIERS, Slice
from models.preprocessing.elements import BoundedReader
from models.preprocessing.header_facts import HeaderFacts
from models.preprocessing.hounsfield import AIR, to_hounsfield
from models.preprocessing.nifti_header import Volume, inflating, open_volume, read_header, require_whole, unpacked
from models.preprocessing.orientation import turn_pixels
from models.preprocessing.reasons import Reason, UnreadableSliceError

_AIR_WIDTH, _AIR_SHARE = 100, 0.05  # Hounsfield units that air spreads over; its least share of a slice that shows it
_SUBJECT = re.compile(r"(?:[^/]+/)*?sub-[^/_.]+")  # as BIDS has it, of a folder or of the file
_SESSION = re.compile(r"(?<=[/_])ses-[^/_.]+")


def peek(path: File, place: str) -> list[str]:
    """The identifiers of a volume that lies at a `place`, in the order of IDENTIFIERS.

    Raises UnreadableSliceError for what is no single volume of grey values, and OSError as `read_file` does.
    """
    with open_volume(path) as file:
        read_header(file, path.name)
    return identifiers_of(place)


def read_file(path: File, place: str) -> Iterator[Slice]:
    """The slices of a volume that lies at a `place`, in the order of the file, each in the one frame.

    Raises UnreadableSliceError; when the header was readable and only the values are not, it carries the header rows.
    Raises OSError if the system does not let this process read the file.
    """
    with open_volume(path) as file:
        volume = read_header(file, path.name)
        rescale, turn = volume.rescale, volume.grid.turn
        rows = [_header_row(volume, place, number) for number in range(volume.grid.shape[volume.grid.axis])]
        try:
            require_whole(file, volume)
            for row, plane in zip(rows, _slices(file, volume), strict=True):
                stored = turn_pixels(plane, turn)
                yield Slice(row, stored, rescale, _facts(shows_air(to_hounsfield(stored, rescale))))
        except UnreadableSliceError as error:
            raise UnreadableSliceError(error.reason, rows) from error


def identifiers_of(place: str) -> list[str]:
    """The raw identifiers of what lies at a path of the data folder: image and series, study and patient.

    The patient is the path up to `sub-...`, as BIDS calls subjects, else the folder of the file, and at the top the
    file itself. The study is the session, `ses-...`, of the subject, else all of the patient.
    """
    subject = _SUBJECT.match(place)
    if subject is None:
        patient = study = place.rpartition("/")[0] or place
    else:
        patient, session = subject[0], _SESSION.search(place, subject.end())
        study = f"{patient}/{session[0]}" if session else patient
    return [place, place, study, patient]


def shows_air(hounsfield: np.ndarray) -> bool:
    """Whether a twentieth of a slice (rows, columns) lies where air does: within 100 of -1,000 Hounsfield units."""
    near = cv2.inRange(hounsfield, AIR - _AIR_WIDTH, AIR + _AIR_WIDTH)
    return cv2.countNonZero(near) >= _AIR_SHARE * hounsfield.size


def _facts(has_air: bool) -> HeaderFacts:
    """What a volume tells of what a DICOM header does: what its values show, and nothing else."""
    return HeaderFacts(
        kernel="unknown",
        unit="HU by air" if has_air else "no air",
        body="unknown",
        thickness=math.nan,
        contrast=False,
        lossy=False,
        secondary=False,
        reconstruction="",
        is_volume=True,
    )


def _header_row(volume: Volume, place: str, number: int) -> dict[str, Any]:
    rescale = volume.rescale
    numbers = {
        "frame": number + 1,
        "instance_number": number + 1.0,
        "bits_stored": float(rescale.bits_stored),
        "pixel_representation": float(rescale.pixel_representation),
        "rescale_intercept": rescale.intercept,
        "rescale_slope": rescale.slope,
    }
    names = dict(zip(IDENTIFIERS, identifiers_of(place), strict=True))
    return dict.fromkeys(HEADER_COLUMNS, math.nan) | names | numbers | volume.grid.row(number)


def _slices(file: BoundedReader, volume: Volume) -> Iterator[np.ndarray]:
    """The slices (rows, columns) as they stand in the file; all of it is held where they are not one after another."""
    if volume.grid.is_in_order:
        yield from _planes(file, volume)
        return
    sides = volume.grid.shape[::-1]  # planes, rows, columns
    across = 2 - volume.grid.axis  # which of them the slices follow each other along
    whole = None
    for number, plane in enumerate(_planes(file, volume)):
        if whole is None:  # slice after slice, so that a plane is turned while the processor's cache holds it
            whole = np.empty((sides[across], *sides[:across], *sides[across + 1 :]), plane.dtype)
        np.moveaxis(whole, 0, across)[number] = plane
    if whole is not None:
        yield from whole


def _planes(file: BoundedReader, volume: Volume) -> Iterator[np.ndarray]:
    """The planes (rows, columns) of the first two axes, one after another."""
    with inflating(Reason.TRUNCATED, Reason.DECODING):
        stream = unpacked(file)
        stream.seek(volume.offset)
        for _ in range(volume.grid.shape[2]):
            yield _read_plane(stream, volume)


def _read_plane(stream: io.BufferedIOBase, volume: Volume) -> np.ndarray:
    """The next plane (rows, columns), as `Volume.is_as_stored` says."""
    columns, rows, _ = volume.grid.shape
    size = rows * columns * volume.dtype.itemsize
    if len(data := stream.read(size)) < size:
        raise UnreadableSliceError(Reason.TRUNCATED)
    plane = np.frombuffer(data, volume.dtype).reshape(rows, columns)
    if volume.is_as_stored:
        return plane.astype(volume.dtype.newbyteorder("="), copy=False)
    return _in_hounsfield(plane, volume)


def _in_hounsfield(plane: np.ndarray, volume: Volume) -> np.ndarray:
    """A plane (rows, columns) in Hounsfield units, float32, within what 16 bits hold; what is no number is air."""
    hounsfield = plane.astype(np.float64)
    hounsfield *= volume.slope
    hounsfield += volume.intercept
    hounsfield[np.isnan(hounsfield)] = AIR
    return np.clip(hounsfield, -(1 << 15), (1 << 15) - 1, out=hounsfield).astype(np.float32)
