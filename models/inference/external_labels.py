"""What a published set says of its studies and slices, whatever its files look like."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.labels import ANY, LABELS, SUBTYPES
from models.inference.external_names import Set

SLICE = ["study", "number", "z", "drawn"]  # of the table of slices, before the columns of the labels


class Published(NamedTuple):
    """The labels of a set."""

    name: Set
    labels: tuple[str, ...]  # of LABELS, those that it tells of
    studies: pd.DataFrame  # index: their names; columns LABELS of 0 and 1, NaN where the set does not tell
    # A row a slice, columns SLICE and LABELS: `number` counts from 1 as slices stand in the volume; `z` is mm to the
    # head, and `drawn` whether a mask beside a table has something there, 0 or 1: NaN where the set does not tell.
    # Without rows where it has labels of studies alone.
    slices: pd.DataFrame
    notes: tuple[str, ...] = ()  # what is odd about it, to be printed


def of_slices(name: Set, labels: Sequence[str], slices: pd.DataFrame, notes: Sequence[str] = ()) -> Published:
    """A set whose slices have labels: a study has what any of its slices has."""
    studies = slices.groupby("study")[list(LABELS)].max()
    return Published(
        name, tuple(labels), studies, slices.reindex(columns=[*SLICE, *LABELS]).reset_index(drop=True), tuple(notes)
    )


def with_any(table: pd.DataFrame, told: np.ndarray, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A table of SUBTYPES with `any`: where it is `told`, (rows,) of bool, or one of the five is there.

    Returns it, and a note where the two contradict each other.
    """
    highest = table[list(SUBTYPES)].to_numpy().max(axis=1) > 0
    notes = []
    if odd := int((told != highest).sum()):
        notes.append(f"{path.name}: in {odd:,} of {len(table):,} rows hemorrhage and its types contradict each other")
    return table.assign(any=(told | highest).astype(float)), notes


def only_any(table: pd.DataFrame) -> pd.DataFrame:
    """A table with `any` alone, with columns for the other labels, which nobody tells of."""
    return table.reindex(columns=[*(name for name in table if name not in SUBTYPES), *LABELS[:ANY]])


def read_table(path: Path, columns: Sequence[str], layout: str) -> pd.DataFrame:
    """Some columns of a published csv file, as text; blanks around names and values are dropped.

    `layout` tells what it is to be. Raises InputError if it cannot be read, or lacks a column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a csv file ({error}); name {layout} with --labels") from error
    table = table.rename(columns=str.strip)
    if lacking := [name for name in columns if name not in table]:
        raise InputError(f"{path} lacks the column {lacking[0]}; name {layout} with --labels")
    return table[list(columns)].apply(lambda column: column.str.strip())


def zeros_and_ones(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table of texts as numbers. Raises InputError for what is neither 0 nor 1."""
    values = table.apply(pd.to_numeric, errors="coerce")
    if (wrong := ~values.isin((0, 1))).any(axis=None):
        row, column = np.argwhere(wrong.to_numpy())[0]
        text = table.iloc[row, column]
        raise InputError(f"{path}, line {row + 2}: {text!r} for {table.columns[column]}; a label is 0 or 1, correct it")
    return values.astype(float)


def file_of(path: Path, names: Sequence[str], layout: str) -> Path:
    """A file that is named, or the one of these names that lies in a folder that is, or below it.

    Raises InputError if it is not there, or lies there twice.
    """
    if path.is_file():
        return path
    found = sorted(file for name in names for file in path.glob(f"**/{name}"))
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} files like {found[0]}" if found else f"no {names[0]}"
    raise InputError(f"{what} in {path}; name {layout} with --labels")
