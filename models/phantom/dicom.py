"""Synthetic studies as DICOM files and tables in Kaggle's layout, with headers like those of the RSNA's own files.

FOLDER/stage_2_train/ID_<hex>.dcm   stage_2_train.csv
FOLDER/stage_2_test/ID_<hex>.dcm    stage_2_sample_submission.csv   phantom_test_labels.csv (the answers)
FOLDER/contact_sheet.png            phantom.json (the parameters and all names, written last)

These are the names of the layout "stage_2"; layouts.py holds the others. With traps (traps.py) there
is also phantom_traps.csv.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom.config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from models.common.errors import InputError
from models.common.files import require_writable
from models.common.labels import ANY, LABELS, SUBTYPES
from models.phantom.layouts import ANSWERS, LAYOUTS, Layout
from models.phantom.pixels import PADDING, outside_circle
from models.phantom.study import PhantomStudy, draw_study
from models.phantom.traps import choose_traps, plant
from models.preprocessing.origin import DRAWN, SYNTHETIC
from models.preprocessing.parallel import progress_map
from models.preprocessing.pictures import contact_sheet

VERSION = 4  # of the drawing: raise it when a seed gives other pixels
PORTRAITS = 6  # slices on the contact sheet


@dataclass(frozen=True)
class Family:
    """How a scanner stores its pixels and what else gives it away."""

    bits: int
    signed: bool
    intercept: str
    window: tuple[str | list[str], str | list[str]]  # centre and width, as written
    padded: bool
    implicit: bool


# The families of the RSNA's training set that are worth telling apart (two-valued windows go with 12 bits there).
FAMILIES = (
    Family(12, False, "-1024", (["00040", "00040"], ["00080", "00080"]), padded=False, implicit=False),
    Family(12, False, "-1024", (["00036", "00036"], ["00080", "00080"]), padded=False, implicit=True),
    Family(12, False, "-1000", (["00040", "00040"], ["00080", "00080"]), padded=False, implicit=False),
    Family(16, True, "-1024", ("30", "80"), padded=True, implicit=False),
    Family(16, True, "-1024", ("40", "150"), padded=False, implicit=False),
    Family(16, True, "-1024.000000", ("35.000000", "135.000000"), padded=False, implicit=False),
)


_ROOT = "2.25."
_FILES = "files"  # of phantom.json: the names of all that was written (models/preprocessing/drawn.py)


@dataclass(frozen=True)
class Identity:
    """The names of one study, which depend on nothing but the seed, the split and the number of the study."""

    seed: int
    patient_seed: int
    patient_id: str
    study_id: str
    series_id: str
    family: Family

    def image_id(self, number: int) -> str:
        """The name of a slice; they are numbered from the base up, from 0."""
        name = f"ID_{_hex(9, self.series_id, number)}"
        return _uid(name) if self.series_id.startswith(_ROOT) else name

    def of_hospital(self) -> "Identity":
        """The same study with identifiers as a scanner gives them."""
        return replace(self, study_id=_uid(self.study_id), series_id=_uid(self.series_id))


def write_phantom(
    folder: Path,
    studies: int,
    test_studies: int,
    image_size: int,
    seed: int = 0,
    jobs: int = -1,
    traps: Sequence[str] = (),
    layout: str = "stage_2",
) -> None:
    """Write a whole data set in Kaggle's layout; the same arguments give the same bytes, for any number of jobs.

    Slices have `image_size` rows and columns. `traps` are names in traps.py or "all", `layout` one in layouts.py. Does
    nothing where the same phantom is complete already. Raises `InputError` for a folder with other content, and for
    traps that cannot be.
    """
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    parameters: dict[str, Any] = {
        "version": VERSION,
        "studies": studies,
        "test_studies": test_studies,
        "image_size": image_size,
        "seed": seed,
    }
    if chosen := choose_traps(traps, LAYOUTS[layout]):
        parameters["traps"] = chosen
    if layout != "stage_2":
        parameters["layout"] = layout
    if _is_complete(folder, parameters):
        print(f"{folder} holds this phantom already")
        return
    require_writable(folder.parent)
    # Drawn beside its place and moved there at the end: nobody meets half a phantom.
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(draft, parameters, jobs)
        draft.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # it is there only if something went wrong


def identify(seed: int, split: str, number: int) -> Identity:
    """The names of study `number` of a split; about one study in eight shows the patient of the study before it."""
    first = number
    while first > 0 and int(_hex(4, seed, split, first, "again"), 16) % 8 == 0:
        first -= 1
    name = (seed, split, number)
    return Identity(
        seed=int(_hex(8, *name, "study"), 16),
        patient_seed=int(_hex(8, seed, split, first, "patient"), 16),
        patient_id=f"ID_{_hex(8, seed, split, first, 'patient id')}",
        study_id=f"ID_{_hex(10, *name, 'study id')}",
        series_id=f"ID_{_hex(10, *name, 'series id')}",
        family=FAMILIES[int(_hex(4, *name, "family"), 16) % len(FAMILIES)],
    )


def _hex(digits: int, *parts) -> str:
    """A name of so many hexadecimal digits that depends on nothing but the parts."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:digits]


def _is_complete(folder: Path, parameters: dict) -> bool:
    """Whether the folder holds this very phantom; False for a free place."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    mark = folder / DRAWN
    repair = "choose another folder or remove this one first"
    if not mark.is_file():
        raise InputError(f"{folder} holds other files than a phantom; {repair}")
    found = {name: value for name, value in json.loads(mark.read_text()).items() if name != _FILES}
    if found != parameters:
        names = [name for name in {**found, **parameters} if found.get(name) != parameters.get(name)]
        differences = ", ".join(f"{n} {found.get(n)} instead of {parameters.get(n)}" for n in names)
        raise InputError(f"{folder} holds another phantom ({differences}); {repair}")
    return True


def _write(folder: Path, parameters: dict, jobs: int) -> None:
    """Write files, tables, contact sheet, traps and, as the mark that all is there, phantom.json."""
    seed, size = parameters["seed"], parameters["image_size"]
    layout = LAYOUTS[parameters.get("layout", "stage_2")]
    tables, portraits = {}, []
    for split, count in (("train", parameters["studies"]), ("test", parameters["test_studies"])):
        (folder / layout.folder(split)).mkdir(parents=True, exist_ok=True)
        write = partial(_write_study, folder, layout, seed, split, size)
        parts = progress_map(write, range(count), jobs, f"phantom {split}")
        tables[split] = pd.concat([labels for labels, _ in parts]) if parts else _empty_table()
        if split == "train":
            portraits = [portrait for _, portrait in parts if portrait is not None]
    _write_tables(folder, layout, tables)
    if portraits:
        images, captions = zip(*_choose(portraits), strict=True)
        cv2.imwrite(str(folder / "contact_sheet.png"), contact_sheet(np.stack(images), captions, title=SYNTHETIC))
    if traps := parameters.get("traps"):
        plant(folder, layout, {image: split for split in tables for image in tables[split].index}, traps, seed)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / DRAWN).write_text(json.dumps({**parameters, _FILES: names}, indent=2) + "\n")


def _write_tables(folder: Path, layout: Layout, tables: dict[str, pd.DataFrame]) -> None:
    if layout.labels is None or layout.sample_submission is None:
        return
    _save_long(tables["train"], folder / layout.labels)
    _save_long(tables["test"], folder / ANSWERS)
    _save_long(tables["test"].assign(**dict.fromkeys(LABELS, 0.5)), folder / layout.sample_submission)


def _write_study(folder: Path, layout: Layout, seed: int, split: str, size: int, number: int):
    """Draw and write a study; return its labels by image and, if it bleeds, its richest slice with a caption."""
    name = identify(seed, split, number)
    if layout.labels is None:
        name = name.of_hospital()
    study = draw_study(name.seed, size, name.patient_seed)
    images = [name.image_id(index) for index in range(len(study.hounsfield))]
    paths = layout.slices(split, (name.patient_id, name.study_id, name.series_id), images)
    (folder / paths[0]).parent.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(paths):
        with pydicom.config.disable_value_validation():
            to_dicom(study, name, index).save_as(folder / path, enforce_file_format=True)
    labels = pd.DataFrame(study.labels, columns=list(LABELS), index=images)
    if not study.labels[:, ANY].any():
        return labels, None
    kinds = study.labels[:, [LABELS.index(kind) for kind in SUBTYPES]]
    # Of the slices with most kinds of blood, the one in the middle.
    richest = np.flatnonzero(kinds.sum(axis=1) == kinds.sum(axis=1).max())
    best = richest[len(richest) // 2]
    caption = ", ".join(kind for kind, there in zip(SUBTYPES, kinds[best], strict=True) if there)
    return labels, (study.hounsfield[best], caption)


def _choose(portraits: Sequence[tuple[np.ndarray, str]]) -> list[tuple[np.ndarray, str]]:
    """A few slices that together show all kinds of blood, single kinds first."""
    ordered = sorted(portraits, key=lambda portrait: portrait[1].count(","))
    different = {caption: (image, caption) for image, caption in reversed(ordered)}
    chosen = sorted(different.values(), key=lambda portrait: (portrait[1].count(","), portrait[1]))
    return (chosen + ordered)[:PORTRAITS]


def to_dicom(study: PhantomStudy, name: Identity, index: int) -> Dataset:
    """One slice as a DICOM data set with the elements of the RSNA's files and no others (22, pixels included)."""
    family = name.family
    data = Dataset()
    # The RSNA's identifiers are no valid UIDs, and neither are these: pydicom must not object.
    with pydicom.config.disable_value_validation():
        data.SOPInstanceUID = name.image_id(index)
        data.Modality = "CT"
        data.PatientID = name.patient_id
        data.StudyInstanceUID = name.study_id
        data.SeriesInstanceUID = name.series_id
        data.StudyID = ""
        data.ImagePositionPatient = [f"{value:.6f}" for value in study.positions[index]]
        data.ImageOrientationPatient = [f"{value:.6f}" for value in study.orientation]
        data.SamplesPerPixel = 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.Rows, data.Columns = study.hounsfield[index].shape
        data.PixelSpacing = [f"{study.pixel_spacing:.6f}"] * 2
        data.BitsAllocated = 16
        data.BitsStored = family.bits
        data.HighBit = family.bits - 1
        data.PixelRepresentation = int(family.signed)
        data.WindowCenter, data.WindowWidth = family.window
        data.RescaleIntercept = family.intercept
        data.RescaleSlope = "1"
        data.PixelData = stored_values(study.hounsfield[index], family).tobytes()
        data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = UID(_uid(name.image_id(index)))
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if family.implicit else ExplicitVRLittleEndian
    return data


def _uid(name: str) -> str:
    """A numeric stand-in for a name, under the root that DICOM keeps for hashes and UUIDs (PS3.5 B.2)."""
    return name if name.startswith(_ROOT) else f"{_ROOT}{int(_hex(24, name), 16)}"


def stored_values(hounsfield: np.ndarray, family: Family) -> np.ndarray:
    """Hounsfield units (size, size) as a scanner of this family stores them, 16 bits, little-endian."""
    values = hounsfield.astype(np.int32) - int(float(family.intercept))
    low, high = (0, 4095) if not family.signed else (0, 32767)
    values = np.clip(values, low, high)
    values[outside_circle(len(values))] = PADDING if family.padded else 0
    return values.astype("<i2" if family.signed else "<u2")


def _empty_table() -> pd.DataFrame:
    return pd.DataFrame(columns=list(LABELS), dtype=np.uint8)


def _save_long(wide: pd.DataFrame, path: Path) -> None:
    """Write a table with a row an image as Kaggle does: a row a label, ID_<hex>_<label>,<value>."""
    wide = wide.sort_index()[list(LABELS)]
    names = [f"{image}_{label}" for image in wide.index for label in LABELS]
    pd.DataFrame({"ID": names, "Label": wide.to_numpy().ravel()}).to_csv(path, index=False, lineterminator="\n")
