"""What predict.py has written -> the answers to studies, all by the same networks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from models.common.errors import InputError
from models.common.labels import LABELS
from models.common.repair import command_of
from models.inference.answer import FORMAT


class Told(NamedTuple):
    """One answer."""

    folder: Path
    keys: tuple[str, ...]  # of the study, of the series that is judged, and of the patient
    place: str  # of a file of it, where predict.py was asked for --names
    content: dict[str, Any]  # of answer.json
    slices: pd.DataFrame  # a row a slice from the feet to the head: image_id, slice, z, readable, its probabilities

    @property
    def is_refused(self) -> bool:
        """Whether nothing is said of the study."""
        return self.content["study_probability"] is None


class Answers(NamedTuple):
    """A folder of them."""

    folder: Path
    told: list[Told]
    weights: dict[str, str]  # the sha256 of all that has answered, by the name of its fold
    runs: tuple[str, ...]  # of those folds that speak, not those that look for them
    # By name: threshold, sensitivity and specificity where it was chosen, patients there; frozen, whatever is scored.
    points: dict[str, dict[str, Any]]
    synthetic: bool
    notes: list[str]  # what holds of every answer of these networks


def read_answers(folder: Path) -> Answers:
    """All answers of a folder.

    Raises InputError if there are none, one is damaged, or they were made by different networks or thresholds.
    """
    told = [_read(file) for file in sorted(folder.glob("*/answer.json"))]
    if not told:
        raise InputError(f"no answers in {folder}; make them with: {command_of('predict', 'PATH')} --output {folder}")
    first = next((one for one in told if not one.is_refused), None)
    if first is None:
        raise InputError(f"all {len(told):,} answers in {folder} are refusals: there is nothing to score")
    points = _points(first)
    for one in told:
        if not one.is_refused and (one.content["weights"], _points(one)) != (first.content["weights"], points):
            raise InputError(
                f"{one.folder} and {first.folder} were answered by different networks or thresholds; score one of "
                "them at a time, each in a folder of its own"
            )
    content = first.content
    runs = tuple(content["calibration"])
    return Answers(folder, told, content["weights"], runs, points, content["synthetic"], content["notes"])


def _read(file: Path) -> Told:
    damaged = f"{file} is damaged; delete its folder, and run predict.py again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        told_format = content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(damaged) from error
    if told_format != FORMAT:
        raise InputError(
            f"{file} has the format {told_format}, and this version reads {FORMAT}; take the version of it"
        )
    try:
        keys = tuple(content[name] for name in ("study", "series", "patient"))
        rows = [{**one, **(one["probability"] or {})} for one in content["slices"]]
        slices = pd.DataFrame(rows, columns=["image_id", "slice", "z", "readable", *LABELS])
        return Told(file.parent, keys, _place(file.parent / "slices.csv"), content, slices)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(damaged) from error


def _place(file: Path) -> str:
    """The path of the first slice's file, "" where files are not named."""
    if not file.is_file():
        return ""
    table = pd.read_csv(file, nrows=1, dtype=str, keep_default_na=False)
    return table["file"].iloc[0] if "file" in table and len(table) else ""


def _points(one: Told) -> dict[str, dict[str, Any]]:
    """The operating points of an answer, without what it says of its own study and what depends on the prevalence."""
    kept = ("threshold", "patients", "sensitivity", "specificity")
    return {name: {part: point[part] for part in kept} for name, point in one.content["operating_points"].items()}


def names_of(told: Sequence[Told]) -> str:
    """Some answers by the names of their folders, the first of many."""
    return ", ".join(one.folder.name for one in told[:3]) + (", ..." if len(told) > 3 else "")
