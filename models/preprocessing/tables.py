"""The tables of the cache as other stages read them: a row a slice, and the fold of every patient."""

import hashlib

import pandas as pd

from models.common.errors import InputError
from models.common.files import damaged, hash_file, read_json, read_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.preprocessing.origin import noted, prepare_command
from models.preprocessing.windows import LOW_INFORMATION

UNREADABLE = -1  # the `chunk` of a slice that is not in the store


def read_slices(work: Work, split: str) -> pd.DataFrame:
    """The metadata of "train" or "test": one row a slice, in anatomical order within its series.

    Raises InputError if the file is missing or damaged.
    """
    return read_parquet(work.metadata(split), prepare_command(work))


def require_slices(work: Work, split: str) -> None:
    """Raise InputError if there is no metadata of "train" or "test": before seconds of imports, not after."""
    if not work.metadata(split).is_file():
        raise InputError(f"no {work.metadata(split)}; make it with: {prepare_command(work)}")


def split_fold(work: Work, fold: int, skip_low_information: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation slices of a fold: the readable ones that have labels.

    Low-information slices are left out of training when asked, never out of validation. Raises InputError for a fold
    that does not exist.
    """
    slices = read_slices(work, "train").dropna(subset=list(LABELS))
    folds = read_folds(work)
    if fold not in set(folds["fold"]):
        raise InputError(f"no fold {fold}: {work.folds} holds folds {folds['fold'].min()} to {folds['fold'].max()}")
    slices = slices[slices["chunk"] != UNREADABLE].merge(folds, on="patient_id", validate="many_to_one")
    train = slices[slices["fold"] != fold]
    if skip_low_information:
        train = train[train["img_pct_window"] >= LOW_INFORMATION]
    return train.reset_index(drop=True), slices[slices["fold"] == fold].reset_index(drop=True)


def read_folds(work: Work) -> pd.DataFrame:
    """The fold of every patient. Raises InputError if the file is missing or has changed, or is not finished."""
    repair = prepare_command(work)
    if not work.prepared.is_file() or not work.folds.is_file():
        raise InputError(f"no {work.folds}; make it with: {repair}")
    if (files := read_json(work.prepared, repair).get("files")) is None:
        raise InputError(f"{work.tables} is not finished; go on with: {repair}")
    if files.get(work.folds.name) != hash_file(work.folds):
        raise damaged(work.folds, repair)
    return pd.read_csv(work.folds)


def earlier_folds(work: Work, folds: int) -> pd.DataFrame | None:
    """The folds of a cache that is to grow, which patients keep; None if there are none, or they are of another number.

    Raises InputError if the file has changed since it was written.
    """
    if not work.folds.is_file():
        return None
    is_whole = any(work.metadata(split).is_file() for split in ("train", "test")) and "files" in noted(work)
    table = read_folds(work) if is_whole else pd.read_csv(work.folds)
    return table if set(table["fold"]) == set(range(folds)) else None


def hash_tables(work: Work) -> dict[str, str]:
    """The sha256 of what folds are, by the name of the file: of whom each holds, and of the slices that they divide.

    Of content, not of bytes: patients and folds; and of the readable slices that have labels name, patient and labels,
    in any order. So tables that are written anew hash alike, whatever wrote them, and test slices change nothing.
    Nothing where there are no folds. Raises InputError as `read_folds` does.
    """
    if not (work.prepared.is_file() and work.folds.is_file() and work.metadata("train").is_file()):
        return {}
    names = ["image_id", "patient_id", "chunk", *LABELS]
    slices = read_parquet(work.metadata("train"), prepare_command(work), names).dropna(subset=list(LABELS))
    slices = slices[slices["chunk"] != UNREADABLE]
    return {
        work.folds.name: _hash_rows(read_folds(work), ["patient_id"], ["fold"]),
        work.metadata("train").name: _hash_rows(slices, ["image_id", "patient_id"], list(LABELS)),
    }


def _hash_rows(table: pd.DataFrame, texts: list[str], numbers: list[str]) -> str:
    table = table.astype(dict.fromkeys(texts, str)).sort_values(texts[0])
    sha256 = hashlib.sha256()
    for name in texts:
        sha256.update("\n".join(table[name].tolist()).encode())  # a tenth of the time of a walk over the column
    sha256.update(table[numbers].to_numpy("<f4").tobytes())
    return sha256.hexdigest()


def patients_of_fold(work: Work, fold: int) -> pd.Series:
    """The `patient_id` of whom a fold validates on. Raises InputError as `read_folds` does."""
    folds = read_folds(work)
    return folds.loc[folds["fold"] == fold, "patient_id"]
