"""What a report is about: out-of-fold predictions, the slices that they are of, and how they were made."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.inference.predictions import align
from models.inference.runs import finished_folds, join_folds, read_fold
from models.training.run_record import RunRecord, SmoothedRecord, read_record

BLEND = "blend"


class Subject(NamedTuple):
    """A run, all its folds together, or the blend."""

    name: str
    folds: list[int]  # of a run; the blend has none
    predictions: pd.DataFrame  # out-of-fold, index image_id, columns LABELS
    made: dict[str, dict[str, str]]  # how: tables of a name and a value a row, each with its heading
    members: Mapping[str, pd.DataFrame] = MappingProxyType({})  # of a blend: the out-of-fold predictions of its runs
    fold_of: Mapping[str, int] = MappingProxyType({})  # of a run: the fold that has predicted an image


class Scored(NamedTuple):
    """Predicted slices beside the truth."""

    slices: pd.DataFrame  # their rows of the metadata, with its index, in anatomical order within each series
    target: np.ndarray  # (slices, 6)
    probability: np.ndarray  # (slices, 6)


def read_subject(work: Work, name: str) -> Subject:
    """Read the blend or the finished folds of a run. Raises InputError if there are none, or a file is damaged."""
    if name == BLEND:
        file = work.blend / "valid.parquet"
        predictions = read_predictions(file, "blending.ipynb")
        notes = {str(note): _plain(value) for note, value in predictions.attrs.items()}
        made = {"Blend": notes | {"sha256 of its predictions": hash_file(file)}}
        return Subject(name, [], predictions, made, _read_members(work, predictions.attrs.get("runs", [])))
    folds = finished_folds(work, name)
    if not folds:
        raise InputError(f"no finished fold in {work.runs / name}; train one with: python models/train_{name}.py")
    valid = {fold: read_fold(work, name, fold, "valid") for fold in folds}
    records = {f"fold {fold}": record for fold in folds if (record := read_record(work.run(name, fold))) is not None}
    fold_of = {image: fold for fold, table in valid.items() for image in table.index}
    return Subject(name, folds, join_folds(name, list(valid.values())), _describe(records), fold_of=fold_of)


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
        fold: f"{record.run}, smoothed with a width of {record.width_mm:.2f} mm" for fold, record in smoothed.items()
    }
    weights = {
        fold: f"weights of epoch {record.results.get('best_epoch')}, sha256 {record.weights_sha256}"
        for fold, record in trained.items()
    }
    return {
        "Folds": widths | weights,
        "Configuration": _merge([record.config.to_json() for record in trained.values()]),
        "Trained with": _merge([record.versions for record in trained.values()]),
    }


def _merge(tables: list[dict]) -> dict[str, str]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: " | ".join(dict.fromkeys(_plain(table.get(name)) for table in tables)) for name in names}


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
