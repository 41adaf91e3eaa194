"""Made-up published sets in their exact layouts, and answers to them as predict.py writes them, for the tests."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from models.common.files import write_csv
from models.common.folders import Work
from models.common.labels import ANY, LABELS, SUBTYPES
from models.inference.answer import Answer, slice_rows, to_json
from models.inference.judging import Check
from models.inference.operating import Point, Range
from models.preprocessing.given import find_given
from models.preprocessing.metadata import slice_table
from models.preprocessing.own_studies import find_studies, read_study
from models.preprocessing.pseudonyms import Pseudonyms, read_key

SLICES, SIDE = 10, 16
POINTS = {
    "sensitivity": Point(0.3, Range(0.95, 0.9, 0.98), Range(0.8, 0.7, 0.9), 60, 80),
    "specificity": Point(0.7, Range(0.8, 0.7, 0.9), Range(0.95, 0.9, 0.98), 60, 80),
}
WEIGHTS = {"b2/fold0": "ab" * 32}
CQ500_HEADER = ["name", "Category"] + [
    f"R{reader}:{finding}"
    for reader in (1, 2, 3)
    for finding in (
        *("ICH", "IPH", "IVH", "SDH", "EDH", "SAH", "BleedLocation-Left", "BleedLocation-Right", "ChronicBleed"),
        *("Fracture", "CalvarialFracture", "OtherFracture", "MassEffect", "MidlineShift"),
    )
]
PHYSIONET_HEADER = "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural"
Says = Callable[
    [str, int], np.ndarray
]  # the name of a volume and its slices -> probabilities (slices, 6), as in the file


def affine(upwards: bool = True) -> np.ndarray:
    """Of a volume whose slices run from the feet to the head, or the other way, 5 mm apart."""
    made = np.diag([-8.0, -8.0, 5.0 if upwards else -5.0, 1])
    made[:3, 3] = (60, 60, -20 if upwards else 25)
    return made


def write_volume(file: Path, values: np.ndarray, upwards: bool = True) -> Path:
    """A NIfTI volume of (slices, SIDE, SIDE)."""
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine(upwards))
    image.set_sform(affine(upwards), 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, file)
    return file


def write_scan(file: Path, upwards: bool = True, slices: int = SLICES) -> Path:
    """A head in air, Hounsfield units."""
    values = np.full((slices, SIDE, SIDE), -1000, np.int16)
    values[:, 4:12, 4:12] = 40
    return write_volume(file, values, upwards)


def write_mask(file: Path, drawn: Sequence[Sequence[int]], upwards: bool = True) -> Path:
    """A mask in whose slices these values are drawn."""
    values = np.zeros((len(drawn), SIDE, SIDE), np.uint8)
    for plane, numbers in zip(values, drawn, strict=True):
        for place, number in enumerate(numbers):
            plane[5 + place, 6] = number
    return write_volume(file, values, upwards)


def labels_of(*drawn: Sequence[str]) -> np.ndarray:
    """Labels (slices, 6) of slices that have these types."""
    table = np.array([[float(label in own) for label in SUBTYPES] for own in drawn]).reshape(-1, len(SUBTYPES))
    return np.column_stack([table, table.max(axis=1)])


def write_physionet(folder: Path, target: dict[int, np.ndarray]) -> Path:
    """hemorrhage_diagnosis_raw_ct.csv from the labels (slices, 6) of each patient."""
    rows = []
    for patient, own in target.items():
        for number, values in enumerate(own.astype(int), start=1):
            told = dict(zip(LABELS, values, strict=True))
            types = [told[name.lower()] for name in PHYSIONET_HEADER.split(",")[2:]]
            rows.append([patient, number, *types, 1 - told["any"], 0])
    columns = [*PHYSIONET_HEADER.split(","), "No_Hemorrhage", "Fracture_Yes_No"]
    file = folder / "hemorrhage_diagnosis_raw_ct.csv"
    write_csv(file, pd.DataFrame(rows, columns=columns))
    return file


def write_reads(file: Path, reads: dict[str, Sequence[Sequence[str]]]) -> Path:
    """reads.csv from what each of three readers has found in each study."""
    rows = []
    for name, readers in reads.items():
        found = {f"R{number}:{finding}" for number, own in enumerate(readers, start=1) for finding in own}
        rows.append([name, "B1", *(int(column in found) for column in CQ500_HEADER[2:])])
    write_csv(file, pd.DataFrame(rows, columns=CQ500_HEADER))
    return file


def answer_volumes(folder: Path, output: Path, says: Says, **options) -> None:
    """Answers to the volumes of a folder, joined to their files by the project's own reading of them."""
    pseudonyms = Pseudonyms(read_key(output / "pseudonyms.key"))
    studies, _ = find_studies(find_given([folder], ()), pseudonyms, jobs=1)
    for study in studies:
        read = read_study(study, Work(output.parent / "scratch" / study.key), (SIDE,), ())
        table, _ = slice_table(read.notes)
        place = str(study.files[0].path.relative_to(folder))
        frames = table["image_id"].str[-4:].astype(int).to_numpy() - 1
        probability = says(place, len(table))[frames]
        series = read.series.drop(columns="split").assign(taken="yes", left_out_otherwise="")
        write_answer(output, study.key, table, probability, series=series, place=place, **options)


def write_answer(
    output: Path,
    study: str,
    slices: pd.DataFrame,
    probability: np.ndarray | None,
    *,
    patient: str | None = None,
    series: pd.DataFrame | None = None,
    study_probability: np.ndarray | None = None,
    points: dict[str, Point] | None = None,
    weights: dict[str, str] | None = None,
    place: str = "",
    names: bool = False,
) -> Path:
    """One answer, by the project's own writers: its slices from the feet to the head, `probability` (slices, 6)."""
    if probability is not None:
        probability = probability.round(6)
        study_probability = probability.max(axis=0) if study_probability is None else study_probability
    else:
        slices = slices[:0]
    columns = ["series_id", "plane"]
    answer = Answer(
        study=study,
        patient=patient or study,
        content="",
        verdict="refused" if probability is None else "answered",
        checks=[Check("head", "refused", "made up")] if probability is None else [],
        notes=["made up"],
        series=pd.DataFrame([[study, "axial"]], columns=columns) if series is None else series,
        slices=slices,
        probability=probability,
        study_probability=study_probability,
        points=POINTS if points is None else points,
    )
    content = to_json(answer, "predict.py") | {
        "weights": {} if probability is None else WEIGHTS if weights is None else weights,
        "calibration": {"b2": None},
    }
    folder = output / study
    files = {image: place for image in slices["image_id"]} if names else None
    write_csv(folder / "slices.csv", slice_rows(answer, files))
    (folder / "answer.json").write_text(json.dumps(content))
    return folder


def plain_slices(study: str, count: int = 4, image: str = "ID_{study}{number}") -> pd.DataFrame:
    """Slices of files of their own, from the feet to the head."""
    names = [image.format(study=study, number=number) for number in range(count)]
    return pd.DataFrame({"image_id": names, "series_id": study, "z": np.arange(count) * 5.0, "chunk": 0})


def spread(study: Sequence[float] | np.ndarray, count: int = 4) -> np.ndarray:
    """Probabilities (slices, 6) of a study whose highest are these."""
    return np.outer(np.linspace(1, 0.1, count), study)


def hinted(target: np.ndarray, generator: np.random.Generator, strength: float = 2.0) -> np.ndarray:
    """Probabilities of six digits that tell something of labels, both (rows, 6); `any` is the highest."""
    logits = generator.normal(size=target.shape) + strength * (target - 0.5)
    probability = 1 / (1 + np.exp(-logits))
    probability[:, ANY] = probability.max(axis=1)
    return probability.round(6)
