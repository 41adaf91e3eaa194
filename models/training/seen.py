"""Whose slices a run has trained on, noted beside its weights, so that nobody of them is taken for unseen."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from models.common.errors import InputError
from models.common.files import hash_file, read_parquet, write_parquet
from models.common.folders import Work
from models.common.repair import command_of_fold
from models.preprocessing.tables import hash_tables, split_fold
from models.training.run_record import PATIENTS, RunRecord, SmoothedRecord, read_record


class Seen(NamedTuple):
    """The patients on whose slices a run, and all that it builds on, has trained."""

    patients: frozenset[str]
    unknown: frozenset[str] = frozenset()  # what it builds on without a note of who that has seen, by name


def join_seen(parts: Iterable[Seen]) -> Seen:
    """All of them together."""
    parts = list(parts)
    patients, unknown = (frozenset().union(*sets) for sets in zip(*parts, strict=True))
    return Seen(patients, unknown)


def seen_in(slices: pd.DataFrame) -> Seen:
    """The patients of some slices."""
    return Seen(frozenset(slices["patient_id"].astype(str)))


def write_seen(folder: Path, seen: Seen) -> None:
    """Write patients.parquet of a run. Raises InputError if it cannot be written."""
    table = pd.DataFrame({"patient_id": sorted(seen.patients)}, dtype=str)
    table.attrs = {"unknown": sorted(seen.unknown)}  # kept in the file
    write_parquet(folder / PATIENTS, table)


def seen_by(folder: Path) -> Seen | None:
    """Whom the finished run in `folder` has seen; of smoothed predictions, the run that they were made from.

    None where that was not noted: an older version has trained it, or its note was not brought along with its weights.
    Raises InputError if the note, or the record, is damaged.
    """
    record = read_record(folder)
    if isinstance(record, SmoothedRecord):
        return seen_by(folder.parent.parent / record.run / folder.name)
    file = folder / PATIENTS
    if record is None or record.patients_sha256 is None or not file.is_file():
        return None
    if hash_file(file) != record.patients_sha256:
        raise InputError(f"the sha256 of {file} is not the one in config.json; bring back that file")
    table = read_parquet(file, "the training script")
    return Seen(frozenset(table["patient_id"]), frozenset(table.attrs["unknown"]))


def seen_or_unknown(folder: Path) -> Seen:
    """The same; where it was not noted, that alone. Raises InputError as `seen_by`."""
    return seen_by(folder) or Seen(frozenset(), frozenset([f"{folder.parent.name}/{folder.name}"]))


def require_unseen(folder: Path, slices: pd.DataFrame, work: Work, fold: int) -> None:
    """Raise InputError if the run in `folder` has, or may have, trained on whom a fold validates on.

    `slices` are those of its validation. Where nobody has noted whom the run has seen, it must have been validated on
    all of them: it may have trained on them where the folds were made anew, or are those of another stage.
    """
    seen = seen_by(folder)
    if seen is not None and not (known := _known(slices, seen)).empty:
        raise InputError(
            f"{folder} has trained on {_patients(known)} of {_patients(slices)} patients whom fold {fold} of "
            f"{work.folds} validates on, first that of {known['image_id'].iloc[0]}; name a run that was trained with "
            "these folds"
        )
    if seen is None and not (new := slices[~slices["image_id"].isin(_validated(folder))]).empty:
        raise InputError(
            f"{folder} was not validated on {len(new):,} of {len(slices):,} slices that {work.folds} has in its "
            f"fold{fold}, first {new['image_id'].iloc[0]}; it may have trained on them: name a run that was trained "
            "with these folds"
        )


def require_same_folds(work: Work, name: str, folds: list[int]) -> None:
    """Raise InputError if finished folds of a run were trained with other folds than those of the cache.

    Those of the stage that they were trained on count, if they are there. Where only patients have come since, or
    slices, the folds are the same: of whom one has seen none is in its validation now, of its validation all are.
    """
    hashes = {}  # a second of work for the whole challenge
    for fold in folds:
        record = read_record(work.run(name, fold))
        if isinstance(record, SmoothedRecord):  # its slices are those of the run that it was made from
            record = read_record(work.run(record.run, fold))
        trained = record if isinstance(record, RunRecord) else None
        of_stage = Work(work.root, trained.stage) if trained else work
        if of_stage not in hashes:
            hashes[of_stage] = hash_tables(of_stage)
        tables = hashes[of_stage]
        if tables and not (trained and tables.items() <= trained.sources.items()):
            _require_same_fold(of_stage, work.run(name, fold), fold)


def _require_same_fold(work: Work, folder: Path, fold: int) -> None:
    train, valid = split_fold(work, fold, skip_low_information=False)
    validated = _validated(folder) if (folder / "valid.parquet").is_file() else []  # not brought along
    moved = train[train["image_id"].isin(validated)]
    known = _known(valid, seen_by(folder) or Seen(frozenset()))
    reasons = []
    if len(known):
        reasons.append(
            f"has trained on {_patients(known)} of {_patients(valid)} patients whom fold {fold} validates on"
        )
    if len(moved):
        reasons.append(f"was validated on {_patients(moved)} patients of other folds")
    if reasons:
        raise InputError(
            f"{folder} was trained with other folds than {work.folds} holds now: it {' and '.join(reasons)}; bring its "
            "folds back, or delete it and train that fold anew"
        )


def describe_seen(folder: Path, work: Work, fold: int) -> str:
    """How many of whom a fold validates on now the run in `folder` has trained on, for a message; maybe nothing.

    Raises InputError as `seen_by`, and for a fold that does not exist.
    """
    seen = seen_by(folder)
    if seen is None:
        return ""
    _, valid = split_fold(work, fold, skip_low_information=False)
    return f"; it has trained on {_patients(_known(valid, seen))} of {_patients(valid)} patients whom it validates now"


def _known(slices: pd.DataFrame, seen: Seen) -> pd.DataFrame:
    return slices[slices["patient_id"].astype(str).isin(seen.patients)]


def _patients(slices: pd.DataFrame) -> int:
    return slices["patient_id"].nunique()


def _validated(folder: Path) -> pd.Series:
    return read_parquet(folder / "valid.parquet", command_of_fold("train", folder))["image_id"]
