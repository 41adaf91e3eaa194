"""The headers of the files that slices came from, for what is to stand beside them in their study."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import DA, TM

from models.preprocessing.elements import PARSER_ERRORS, open_bounded
from models.preprocessing.grouping import Look
from models.preprocessing.reasons import UnreadableSliceError

# What the standard wants to be there, if only empty (PS3.3 C.7.1.1, C.7.2.1).
_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate")
_EMPTY += ("StudyTime", "ReferringPhysicianName")
_FORMS = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}  # none of which may be filled with something else
_SEXES = ("F", "M", "O")
_NEEDED = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")


class Source(NamedTuple):
    """Where a slice stands."""

    header: Dataset
    frame: int | None  # from 1, in a file of many


class Sources(NamedTuple):
    """Those of slices by their names, or why nothing can be written beside them."""

    of_slices: dict[str, Source]
    reason: str = ""


def find_sources(slices: pd.DataFrame, files: Mapping[str, Look]) -> Sources:
    """The sources of some slices, whose `files` are known by the names of images."""
    headers: dict[str, Dataset] = {}
    found: dict[str, Source] = {}
    for image in slices["image_id"]:
        name, _, frame = image.rpartition("_")
        is_frame = image not in files and name in files
        file = files[name if is_frame else image]
        if not file.syntax:
            return Sources({}, "its files are no DICOM: there is no study to write into")
        try:
            if file.name not in headers:
                headers[file.name] = _read(file)
        except (UnreadableSliceError, InvalidDicomError, *PARSER_ERRORS) as error:
            return Sources({}, f"the header of a file cannot be read ({error})")
        found[image] = Source(headers[file.name], int(frame) if is_frame else None)
    named = [str(header.SOPInstanceUID) for header in headers.values()]
    if len(set(named)) < len(named):
        return Sources({}, "several of its files share their SOPInstanceUID")
    return Sources(found)


def _read(file: Look) -> Dataset:
    """A header. Raises ValueError where an identifier is none."""
    with open_bounded(file.path) as opened:
        header = pydicom.dcmread(opened, stop_before_pixels=True, force=True)
    if "SOPClassUID" not in header:  # the challenge's files lack it
        header.SOPClassUID = header.file_meta.get("MediaStorageSOPClassUID", CTImageStorage)
    for name in _NEEDED:
        if not UID(str(header.get(name, ""))).is_valid:
            raise ValueError(f"its {name} is no valid UID")
    for name in _EMPTY:
        if name not in header:
            setattr(header, name, "")
    _mend(header)
    return header


def _mend(header: Dataset) -> None:
    """Empty a date, a time or a sex that is none, which the standard allows; letters of all sets become UTF-8's."""
    for name, form in _FORMS.items():
        try:
            form(str(header.get(name) or ""))
        except ValueError:
            setattr(header, name, "")
    sex = str(header.PatientSex or "").upper()
    header.PatientSex = sex if sex in _SEXES else ""
    if "SpecificCharacterSet" in header:  # of which several, or an empty first one, are seldom understood
        header.decode()
        header.SpecificCharacterSet = "ISO_IR 192"
