"""What can be wrong with the data, and what is done about it: the closed list of cache/problems.csv."""

from collections.abc import Iterable
from enum import Enum

import pandas as pd

from models.preprocessing.elements import Reason
from models.preprocessing.pseudonyms import is_of_challenge

COLUMNS = ["item", "problem", "treatment"]
ProblemRow = tuple[str, str, str]  # COLUMNS
ProblemRows = list[ProblemRow]


_LEFT = "left out of prediction, unless it is asked for with --take"


class Problem(Enum):
    """What is wrong, and the treatment."""

    CONSTANT = "all pixels of the slice have one value", "kept"
    WRAPPED = "12-bit values have wrapped around", "repaired: 1000 added, what is then 4096 or more lowered by 4096"
    BELOW_AIR = "values below -1,024 HU: padding outside the scan circle", "set to -1,000 HU, air"
    BEYOND_BONE = "values above 3,071 HU, more than 12 bits hold: metal", "set to 2,000 HU"
    TURNED = "slices that are mirrored, upside down or turned", "turned: nose up, the patient's left on the right"
    NOT_SQUARE = "slices are not square", "padded with air to a square"
    MIXED_SIZES = "slices of several sizes in one series", "each brought to the size of the store"
    MIXED_ORIENTATION = "slices of several tilts in one series", "ordered along the normal of most slices"
    DUPLICATE_POSITIONS = "slices that share their position", "kept, ordered by their identifiers"
    UNEVEN_SPACING = "uneven spacing of slices", "kept; the gaps stand in the metadata"
    NO_POSITION = "slices without ImagePositionPatient or ImageOrientationPatient", "the last of their series"
    NO_ORIENTATION = "no ImageOrientationPatient", "ordered along the normal of the others, or the body's axis"
    ONE_POSITION = "all slices of the series have one ImagePositionPatient", "ordered by SliceLocation"
    SOME_BY_LOCATION = "some slices without ImagePositionPatient", "placed among the others by SliceLocation"
    SOME_BY_NUMBER = "some slices without ImagePositionPatient or SliceLocation", "placed by InstanceNumber"
    BY_LOCATION = "no ImagePositionPatient in the series", "ordered by SliceLocation"
    BY_NUMBER = "no ImagePositionPatient and no SliceLocation in the series", "ordered by InstanceNumber, z unknown"
    BY_NAME = "nothing in the series tells its order", "ordered by identifier, z unknown"
    NOT_AXIAL = "a coronal or sagittal series", _LEFT
    SCOUT = "a few coronal or sagittal images: a scout", _LEFT
    OTHER_UNIT = "values of another unit than Hounsfield's", _LEFT
    NO_UNIT = "nothing says that the values are Hounsfield units", _LEFT
    SECONDARY = "made from other images (ImageType SECONDARY): text may stand in the pixels", _LEFT
    NOT_HEAD = "BodyPartExamined names another part of the body", _LEFT
    ABSENT = "named in a DICOMDIR, but there is no such file", "left out"
    STRAY_NAME = "white space in the file name", "read all the same"
    COPY = "a copy of another file: SOPInstanceUID, position and values are the same", "left out"
    REPEATED_IMAGE = "the SOPInstanceUID of another file, with other values or at another position", "left out"
    SHARED_NAME = "a SOPInstanceUID that several different slices share", "kept, each under a name of its own"
    PARTS = "several orientations, sizes or reconstructions in one series", "each became a series of its own"
    REPEATED_LABEL = "equal label rows that stand more than once", "counted once"
    NO_LABEL = "a slice without a label", "left out of training and validation"
    NO_SLICE = "a label without a slice", "left out"
    EXPECTED = "named in the sample submission, but there is no slice", "predicted with the prior"
    BOTH_SPLITS = "a patient in both train and test", "kept; folds are grouped by patient"


NO_SLICE_OF_FILE = "no slice: left out of training and validation, predicted from its neighbours"
NOT_USED = "left out"
COPY_IS_READ = "left out: another copy of it can be read"
WAITS = "waits: install it and run the same command again"

_NEVER_READ = {Reason.NOT_CT, Reason.LOCALIZER, Reason.PICTURE}  # what is no slice is none at a second try, too
_UNREAD = {reason.value for reason in Reason if reason not in _NEVER_READ}
_ARCHIVED = {Reason.ARCHIVE.value, Reason.PACKED.value, Reason.NOT_A_MEMBER.value, Reason.DAMAGED_MEMBER.value}
_OF_HEADER = {Reason.NOT_OPENED, Reason.HEADER, Reason.UNREASONABLE, Reason.NO_IDENTIFIER, Reason.PAIR}
_LOST = {reason.value for reason in _OF_HEADER} | _ARCHIVED  # may have been slices


def problem_rows(problem: Problem, items: Iterable[str]) -> ProblemRows:
    """A row for each item that has this problem."""
    what, treatment = problem.value
    return [(item, what, treatment) for item in items]


def unreadable(item: str, reason: Reason, treatment: str) -> ProblemRow:
    """The row of a file that gives no slice."""
    return item, reason.value, treatment


def is_unread(problem: str) -> bool:
    """Whether a problem is that a slice could not be read, for whatever reason."""
    return problem in _UNREAD


def wait_for_decoder(problems: Iterable[str]) -> bool:
    """Whether slices are lacking because a decoder was, which is no property of the data; in older caches, too."""
    return any(problem.startswith(("needs a decoder", "needs the package")) for problem in problems)


def count_lost_files(table: pd.DataFrame) -> int:
    """How many files of cache/problems.csv may have been slices and have no row in the metadata.

    In Kaggle's layout, where a file has the name of its image, those are some that are no DICOM, too: they are empty.
    """
    unused = table[table["treatment"] == NOT_USED]
    no_dicom = unused.loc[unused["problem"] == Reason.NOT_DICOM.value, "item"]
    images = [name for name in no_dicom if name.endswith(".dcm") and is_of_challenge(name.removesuffix(".dcm"))]
    return unused["problem"].isin(_LOST).sum() + len(images)


def problem_table(rows: Iterable[ProblemRow]) -> pd.DataFrame:
    """The rows of cache/problems.csv, in an order that does not depend on how the work was divided."""
    return pd.DataFrame(sorted(set(rows)), columns=COLUMNS)


def count_problems(table: pd.DataFrame) -> pd.DataFrame:
    """How many items have each problem, the most frequent first: `problem`, `treatment`, `items`."""
    counts = table.groupby(["problem", "treatment"]).size().rename("items").reset_index()
    return counts.sort_values(["items", "problem"], ascending=[False, True], ignore_index=True)
