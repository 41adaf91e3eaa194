"""A table of one's own -> labels of the slices of any tree: a row an image, a series or a study."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.labels import LABELS, SUBTYPES
from models.preprocessing.metadata import shared_patients
from models.preprocessing.problems import Problem, ProblemRows, problem_rows
from models.preprocessing.pseudonyms import Pseudonyms

_COLUMNS = {  # of the table -> that of the metadata which its values are compared with
    "SOPInstanceUID": "image_id",
    "SeriesInstanceUID": "series_id",
    "StudyInstanceUID": "study_id",
}


class OwnLabels(NamedTuple):
    """A checked table of labels."""

    path: Path
    column: str  # image_id, series_id or study_id: what a row names
    table: pd.DataFrame  # names of the files or of the cache -> LABELS, float32
    repeated: list[str]  # names whose rows stand more than once, all the same


def read_own_labels(path: Path) -> OwnLabels:
    """Read a csv table: SOPInstanceUID, SeriesInstanceUID or StudyInstanceUID, and a column of 0 and 1 a subtype.

    The keys of the cache will do in place of the identifiers, in columns `image_id`, `series_id` or `study_id`. Where
    `any` lacks it is the highest of the others. Raises InputError for a table that cannot be read, a column that lacks,
    a value that is neither 0 nor 1, `any` that contradicts the others, and rows that contradict each other.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a csv file ({error}); name another one with --labels") from error
    found = [name for name in (*_COLUMNS, *_COLUMNS.values()) if name in table]
    if len(found) != 1:
        raise InputError(
            f"{path} must have one of the columns {', '.join(_COLUMNS)}; it has {', '.join(map(str, table))}"
        )
    if lacking := [name for name in SUBTYPES if name not in table]:
        raise InputError(f"{path} lacks the column {lacking[0]}; a column of 0 and 1 is due for each subtype")
    names = table[found[0]].str.strip()
    values = table[[name for name in LABELS if name in table]].apply(pd.to_numeric, errors="coerce")
    if (wrong := ~values.isin((0, 1))).any(axis=None):
        row, column = np.argwhere(wrong.to_numpy())[0]
        text = table[values.columns[column]].iloc[row]
        raise InputError(f"{path} holds {text!r} for {values.columns[column]} of {names.iloc[row]}; a label is 0 or 1")
    highest = values[list(SUBTYPES)].max(axis=1)
    values = values.assign(any=values.get("any", highest))[list(LABELS)].astype(np.float32)
    if (wrong := highest > values["any"]).any():
        raise InputError(f"{path}: any is 0 for {names[wrong].iloc[0]}, and one of its subtypes is 1; correct it")
    return OwnLabels(path, _COLUMNS.get(found[0], found[0]), *_one_row_each(path, names, values))


def _one_row_each(path: Path, names: pd.Series, values: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    distinct = values.assign(name=names).drop_duplicates()
    if (twice := distinct["name"].duplicated()).any():
        raise InputError(f"{path} has different labels for {distinct.loc[twice, 'name'].iloc[0]}; keep one row of it")
    return distinct.set_index("name"), sorted(set(names[names.duplicated()]))


def join_own_labels(
    table: pd.DataFrame, series: pd.DataFrame, labels: OwnLabels, pseudonyms: Pseudonyms
) -> tuple[dict[str, pd.DataFrame], ProblemRows]:
    """Put one's own labels on a slice table: every slice gets those of its image, its series or its study.

    `series` is the table of all series, which tells of what a series is a part.

    Series with labelled slices are "train", all others "test"; a split without slices is not there. Returns them, and
    the problems. Raises InputError if no row of the labels names anything here.
    """
    names = table[labels.column]
    if labels.column == "series_id":  # a part of a series is labelled as the whole, unless a row names it alone
        whole = names.map(series.set_index("series_id")["part_of"])
        names = names.where(names.isin(labels.table.index), whole)
    here = set(names)
    keys = [name if name in here else _key(name, labels.column, pseudonyms) for name in labels.table.index]
    values = labels.table.set_axis(keys)
    if values.index.has_duplicates:
        twice = labels.table.index[values.index.duplicated()][0]
        raise InputError(f"{labels.path} names {twice} by its key, too; keep one row of it")
    if here.isdisjoint(keys):
        raise InputError(
            f"none of the {len(keys):,} rows of {labels.path} names an image, a series or a study of the data, first "
            f"{labels.table.index[0]}; see the identifiers of your files, or the keys in cache/series.csv"
        )
    joined = pd.concat([table, values.reindex(names).set_axis(table.index)], axis=1)
    is_train = joined["series_id"].isin(joined.loc[joined["any"].notna(), "series_id"])
    train, test = joined[is_train].reset_index(drop=True), table[~is_train].reset_index(drop=True)
    problems = problem_rows(Problem.REPEATED_LABEL, [_key(name, labels.column, pseudonyms) for name in labels.repeated])
    problems += problem_rows(Problem.NO_LABEL, train.loc[train["any"].isna(), "image_id"])
    problems += problem_rows(Problem.NO_SLICE, sorted(set(keys) - here))
    problems += shared_patients(train, test)
    return {"train": train} | ({"test": test} if len(test) else {}), problems


def _key(name: str, column: str, pseudonyms: Pseudonyms) -> str:
    """What the cache calls an identifier."""
    return pseudonyms.images(pd.Series([name]))[0] if column == "image_id" else pseudonyms.hash(name)
