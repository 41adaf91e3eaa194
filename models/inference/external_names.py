"""What published sets call their studies: in labels, as files and folders, and in headers, where answers have keys.

cq500      CQ500-CT-12 in reads.csv; the zip of each study holds `CQ500CT12 CQ500CT12/Unknown Study/<series>/*.dcm`
physionet  049 ... 130 without 059 ... 065: ct_scans/049.nii, masks/049.nii; the number alone in the tables
instance   001 ... 100: train_2/data/001.nii.gz, train_2/label/001.nii.gz
bhsd       ID_<8>_ID_<10>: PatientID and StudyInstanceUID of the challenge, hexadecimal; of MBH-Seg, too
"""

import re
from collections.abc import Iterator
from typing import Literal

Set = Literal["cq500", "physionet", "instance", "bhsd"]

_BETWEEN = r"[\s_-]*"
_PLACES = {  # of a set: the name of a study in a path
    "cq500": re.compile(rf"CQ500{_BETWEEN}CT{_BETWEEN}(\d+)(?!\d)", re.IGNORECASE),
    "physionet": re.compile(r"(?:^|/)(\d{2,3})\.nii(?:\.gz)?(?=/|$)"),
    "instance": re.compile(r"(?:^|/)(\d{3})\.nii(?:\.gz)?(?=/|$)"),
    "bhsd": re.compile(r"(ID_[0-9a-f]{8}_ID_[0-9a-f]{10})(?![0-9a-f])"),
}
_FOLDERS = {  # that volumes lie in, from where predict.py may have named them
    "physionet": ("", "ct_scans/"),
    "instance": ("", "data/", "train_2/data/", "train/data/"),
    "bhsd": ("", "images/", "label_192/images/", "imagesTr/", "imagesTs/"),
}
_ENDS = (".nii", ".nii.gz")


def name_in(published: Set, place: str) -> str | None:
    """The name of the study that a path, or a line of a table, is of; None where it names none."""
    found = _PLACES[published].search(place)
    if found is None:
        return None
    if published == "cq500":
        return f"CQ500-CT-{int(found[1])}"
    return found[1].zfill(3) if published == "physionet" else found[1]


def patient_of(published: Set, name: str) -> str:
    """The patient of a study: of the challenge's studies the first half of the name, else each is somebody else's."""
    return name[: len("ID_01234567")] if published == "bhsd" else name


def study_of_challenge(name: str) -> str:
    """The StudyInstanceUID in a name of bhsd, which answers keep as it is where they are of the challenge's files."""
    return name[len("ID_01234567_") :]


def identifiers_of(published: Set, name: str) -> list[str]:
    """What headers, or the places of volumes, may call a study, its series or its patient.

    A volume is called by its path in the folder that was named. That CQ500's PatientID is the name of its folder has
    not been seen in a header: the folder is called as programs call one that they write, PatientID and PatientName.
    """
    return list(dict.fromkeys(_identifiers(published, name)))


def _identifiers(published: Set, name: str) -> Iterator[str]:
    if published == "cq500":
        number = name.rpartition("-")[2]
        for spelt in (name, f"CQ500CT{number}", f"CQ500 CT {number}", f"CQ500CT{number} CQ500CT{number}"):
            yield from (spelt, *(spelt + end for end in _ENDS))
        return
    yield from (f"{folder}{name}{end}" for folder in _FOLDERS[published] for end in _ENDS)
    if published == "bhsd":
        yield from (name, f"{name}/image.nii.gz")  # MBH-Seg 2025 has a folder a case
