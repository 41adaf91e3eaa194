"""What a report is about: out-of-fold predictions, the slices that they are of, and how they were made."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.files import hash_file
from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.blend_record import BlendRecord, read_record_of_blend
from models.inference.gained import Gain
from models.inference.predictions import align
from models.inference.runs import (
    chosen_on_own_slices,
    describe_folds,
    finished_folds,
    join_folds,
    read_fold,
    require_finished,
)
from models.inference.scored import BLEND, read_named
from models.inference.unlike import VIEWS, view_of
from models.training.run_record import RunRecord, SmoothedRecord, read_record

_FITTED = ("weights", "spaces", "calibrations")  # of the ways of a blend, what a table can tell


class Subject(NamedTuple):
    """A run, all its folds together, or the blend."""

    name: str
    folds: list[int]  # of a run; the blend has none
    predictions: pd.DataFrame  # out-of-fold, index image_id, columns LABELS
    made: dict[str, dict[str, str]]  # how: tables of a name and a value a row, each with its heading
    chosen: tuple[str, ...] = ()  # what was chosen on the very slices that these are, in words
    members: Mapping[str, pd.DataFrame] = MappingProxyType({})  # of a blend: the out-of-fold predictions of its runs
    fold_of: Mapping[str, int] = MappingProxyType({})  # of a run: the fold that has predicted an image


class Scored(NamedTuple):
    """Predicted slices beside the truth."""

    slices: pd.DataFrame  # their rows of the metadata, with its index, in anatomical order within each series
    target: np.ndarray  # (slices, 6)
    probability: np.ndarray  # (slices, 6)


def read_subject(work: Work, name: str) -> Subject:
    """Read the blend or the finished folds of a run.

    Raises InputError if there are none, a file is damaged, or the blend was made from others than there are now.
    """
    if name == BLEND:
        return _read_blend(work)
    folds = require_finished(work, name)
    valid = {fold: read_fold(work, name, fold, "valid") for fold in folds}
    records = {f"fold {fold}": record for fold in folds if (record := read_record(work.run(name, fold))) is not None}
    views = {VIEWS[view_of(work, name, fold, "valid")] for fold in folds}
    made = {"Slices": _slices(work) | {"each is the mean of": " or ".join(sorted(views))}, **_describe(records)}
    return Subject(
        name,
        folds,
        join_folds(name, list(valid.values())),
        made,
        tuple(chosen_on_own_slices(work, name, folds)),
        fold_of={image: fold for fold, table in valid.items() for image in table.index},
    )


def _read_blend(work: Work) -> Subject:
    """The blend, as blend.json tells of it; where an older version has made it, as its predictions do."""
    said, record = read_named(work, BLEND), read_record_of_blend(work)
    hashed = {"sha256 of its predictions": hash_file(work.blend / "valid.parquet")}
    if record is None:
        notes = {str(note): _plain(value) for note, value in said.table.attrs.items()}
        made, runs = {"Blend": notes | hashed}, said.table.attrs.get("runs", [])
    else:
        made, runs = _describe_blend(record, hashed), list(record.folds)
    made = {"Slices": _slices(work), **made}
    return Subject(BLEND, [], said.table, made, said.notes, _read_members(work, runs))


def _slices(work: Work) -> dict[str, str]:
    """Which slices are predicted."""
    return {"split": "train, out-of-fold", "stage": "not named" if work.stage is None else str(work.stage)}


def _describe_blend(record: BlendRecord, hashed: dict[str, str]) -> dict[str, dict[str, str]]:
    """How a blend was made, which the report tells as blend.json does, but for the numbers of its second levels."""
    asked = "chosen for each label by nested scores" if record.asked == "best" else "asked for"
    runs = [f"{name}, {describe_folds(folds)}" for name, folds in record.folds.items()]
    by = {"command": record.command, "commit": record.commit or "not noted"}
    files = {f"{run}/{file}": sha256 for run, of in record.runs_sha256.items() for file, sha256 in of.items()}
    return {
        "Blend": {"way": f"{record.name}, {asked}", "runs": "; ".join(runs), **by, **hashed},
        "Way of each label": {label: _describe_way(record, label) for label in LABELS},
        "sha256 of what it was made of": files | record.tables_sha256,
    }


def _describe_way(record: BlendRecord, label: str) -> str:
    """The way of a label, its log loss on unseen patients beside that of the others, and what it has fitted."""
    nested = record.nested.get(label, {})
    losses = ", ".join(f"{way} {loss:.4f}" for way, loss in nested.items())
    fitted = {name: value for name, value in record.fitted.get(label, {}).items() if name in _FITTED}
    told = [record.called(label), f"log loss on unseen patients: {losses}" if losses else ""]
    return "; ".join([part for part in told if part] + [f"{name}: {_plain(value)}" for name, value in fitted.items()])


def _read_members(work: Work, names: list[str]) -> dict[str, pd.DataFrame]:
    """The out-of-fold predictions of those runs of a blend that are still there."""
    folds = {name: finished_folds(work, name) for name in names}
    return {
        name: join_folds(name, [read_fold(work, name, fold, "valid") for fold in of_run])
        for name, of_run in folds.items()
        if of_run
    }


def join_truth(subject: Subject, metadata: pd.DataFrame) -> Scored:
    """Put predictions beside the labels of the metadata. Raises InputError if predicted slices have none."""
    labelled = metadata.dropna(subset=list(LABELS))
    align(labelled.set_index("image_id"), subject.predictions.index.to_series(), "the labels in cache/")
    slices = labelled[labelled["image_id"].isin(subject.predictions.index)]
    probability = subject.predictions.loc[slices["image_id"]].to_numpy()
    return Scored(slices, slices[list(LABELS)].to_numpy(), probability)


def _describe(records: dict[str, RunRecord | SmoothedRecord]) -> dict[str, dict[str, str]]:
    """What the config.json of each fold tells; where they differ, the values of all."""
    smoothed = {fold: record for fold, record in records.items() if isinstance(record, SmoothedRecord)}
    trained = {fold: record for fold, record in records.items() if isinstance(record, RunRecord)}
    widths = {
        fold: f"{record.run}, smoothed with a width of {record.width_mm:.2f} mm{_gain(record)}"
        for fold, record in smoothed.items()
    }
    weights = {
        fold: f"weights of epoch {record.kept_epoch}{_of_stage(record)}, sha256 {record.weights_sha256}"
        for fold, record in trained.items()
    }
    return {
        "Folds": widths | weights,
        "Configuration": _merge([record.config.to_json() for record in trained.values()]),
        "Carried out": _merge([record.ran for record in trained.values()]),
        "Trained with": _merge([record.versions for record in trained.values()]),
    }


def _gain(record: SmoothedRecord) -> str:
    return "" if record.gain is None else "; " + Gain(**record.gain).describe("smoothed", "before")


def _of_stage(record: RunRecord) -> str:
    return "" if record.stage is None else f", trained on stage {record.stage}"


def _merge(tables: list[dict]) -> dict[str, str]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: " | ".join(dict.fromkeys(_plain(table.get(name)) for table in tables)) for name in names}


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
