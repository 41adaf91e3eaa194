"""A run -> the same run smoothed along z, runs/<name>_smoothed, each fold by a width fitted on the others."""

from dataclasses import dataclass, field
from typing import Annotated

import pandas as pd
import tyro

from models.common.errors import InputError
from models.common.files import hash_file, without_temporaries, write_parquet
from models.common.folders import Stage, Work, WorkFolder, default_work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.inference.gained import measure_gain
from models.inference.predictions import align
from models.inference.runs import join_folds, read_fold, require_finished
from models.inference.smoothing import fit_width, smooth
from models.preprocessing.origin import describe_synthetic
from models.preprocessing.tables import read_slices
from models.training.metric import weighted_log_loss
from models.training.run_record import SmoothedRecord, read_record, save_smoothed
from models.training.scoring import WEIGHTED


@dataclass(frozen=True)
class SmoothOptions:
    """The command line of models/smooth.py."""

    run: Annotated[str, tyro.conf.Positional]
    """the run whose predictions to smooth"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None


def smooth_run(options: SmoothOptions) -> None:
    """Write runs/<run>_smoothed; folds that were made from the same predictions are left alone.

    Raises InputError if a fold there was made from others, or the run has no finished fold.
    """
    work, run, name = Work(options.work, options.stage), options.run, f"{options.run}_smoothed"
    folds = require_finished(work, run)
    valid = {fold: read_fold(work, run, fold, "valid") for fold in folds}
    join_folds(run, list(valid.values()))
    slices = read_slices(work, "train")
    labels = slices.set_index("image_id")[list(LABELS)].dropna()
    patients = slices.set_index("image_id")["patient_id"]
    output = work.runs / name
    with only_process(work.runs / f".{name}.lock", "smoothing", item=output), without_temporaries(output):
        origins = {fold: hash_predictions(work, run, folds, fold) for fold in folds}
        records = {fold: done for fold in folds if (done := read_finished(work, name, fold, origins[fold]))}
        missing = [fold for fold in folds if fold not in records]
        for fold in missing:
            others = [valid[other] for other in folds if other != fold] or [valid[fold]]
            width = fit_width(pd.concat(others), slices, labels)
            smoothed = smooth(valid[fold], slices, width)
            gain = measure_gain(smoothed, valid[fold], labels, patients)
            records[fold] = SmoothedRecord(name, run, width, origins[fold], None if gain is None else gain._asdict())
            write_fold(work, fold, records[fold], smoothed)
    print_scores(work, name, records, valid, labels, patients)


def hash_predictions(work: Work, run: str, folds: list[int], fold: int) -> dict[str, str]:
    """The sha256 of what a smoothed fold depends on: every fold's valid.parquet, and its own test predictions."""
    files = [work.prediction(run, other, "valid") for other in folds]
    files += [stage.prediction(run, fold, "test") for stage in work.stages]
    return {f"{file.parent.name}/{file.name}": hash_file(file) for file in files if file.is_file()}


def read_finished(work: Work, name: str, fold: int, origin: dict[str, str]) -> SmoothedRecord | None:
    """The record of a fold that has been smoothed, else None. Raises InputError if the folder holds something else."""
    folder = work.run(name, fold)
    record = read_record(folder)
    if record is None:
        return None
    if not isinstance(record, SmoothedRecord):
        raise InputError(f"{folder} holds a trained network; rename {folder.parent}, then smooth again")
    made_from = record.predictions_sha256
    if different := [file for file in origin | made_from if origin.get(file) != made_from.get(file)]:
        raise InputError(
            f"{folder} was made from another {record.run}/{different[0]}, or without it; delete {folder.parent} to "
            "make it anew"
        )
    print(f"{folder} is there; delete {folder.parent} to smooth again")
    return record


def write_fold(work: Work, fold: int, record: SmoothedRecord, valid: pd.DataFrame) -> None:
    """Write the files of a fold, config.json last; `valid` are its smoothed out-of-fold predictions."""
    folder = work.run(record.name, fold)
    write_parquet(work.prediction(record.name, fold, "valid"), valid.reset_index())
    for stage in work.stages:
        if stage.prediction(record.run, fold, "test").is_file():
            test = read_fold(stage, record.run, fold, "test")
            smoothed = smooth(test, read_slices(stage, "test"), record.width_mm)
            write_parquet(stage.prediction(record.name, fold, "test"), smoothed.reset_index())
    save_smoothed(folder, record)
    print(f"{folder}: width {record.width_mm:.2f} mm")


def print_scores(
    work: Work,
    name: str,
    records: dict[int, SmoothedRecord],
    valid: dict[int, pd.DataFrame],
    labels: pd.DataFrame,
    patients: pd.Series,
) -> None:
    """Width and weighted log loss of each fold and of all, before smoothing and after; what is scored is the files.

    And the paired difference; `labels` and `patients` are indexed by `image_id`.
    """
    after = {fold: read_fold(work, name, fold, "valid") for fold in valid}
    rows = {
        f"fold {fold}": {"width, mm": records[fold].width_mm} | compare(labels, valid[fold], after[fold])
        for fold in valid
    }
    before, smoothed = pd.concat(valid.values()), pd.concat(after.values())
    rows["all"] = compare(labels, before, smoothed)
    print(f"{describe_synthetic(work)}{name}: {WEIGHTED}")
    print(pd.DataFrame.from_dict(rows, orient="index").to_string(float_format="{:.4f}".format, na_rep=""))
    if (gain := measure_gain(smoothed, before, labels, patients)) is not None:
        print(gain.describe(name, next(iter(records.values())).run))
    for fold, record in records.items():
        if record.fitted_on_own:
            print(f"fold {fold} has but its own slices: the width is fitted on the very slices that it is scored on")


def compare(labels: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """How many slices, and their weighted log losses. Raises InputError if one has no label or lacks in `after`."""
    image_ids = before.index.to_series()
    target, after = align(labels, image_ids, "the table of labels"), align(after, image_ids, "the smoothed run")
    return {
        "slices": len(before),
        "before": weighted_log_loss(target.to_numpy(), before.to_numpy()),
        "after": weighted_log_loss(target.to_numpy(), after.to_numpy()),
    }
