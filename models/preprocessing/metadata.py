"""Header rows -> the table of a series -> cache/metadata_{train,test}.parquet: a row a slice."""

from collections import Counter
from collections.abc import Iterable
from itertools import compress

import numpy as np
import pandas as pd

from models.preprocessing.dicom import HEADER_COLUMNS
from models.preprocessing.geometry import odd_shapes, order_series
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.problems import Problem, ProblemRows, problem_rows
from models.preprocessing.tables import UNREADABLE

STATISTICS = ["img_min", "img_max", "img_mean", "img_std", "img_pct_window"]  # of the pixels, as fastai calls them
_COLUMNS = [*HEADER_COLUMNS, "readable", "constant", *STATISTICS]
_TRANSIENT = ["frame", "instance_number", "slice_location", "readable", "constant"]  # for ordering and reporting alone


def series_table(rows: list[dict], series_id: str) -> tuple[dict[str, np.ndarray], list[int], ProblemRows]:
    """The metadata of one series, in anatomical order, from the rows of its slices in any order.

    A row holds HEADER_COLUMNS and STATISTICS as far as they are known, and whether the slice is `readable` and
    `constant`. Returns the columns, each (slices,), with `chunk` and those of `order_series`; for each chunk, 0 and up,
    its place in `rows`; and the problems of slices and of the series.
    """
    if not rows:
        return {}, [], []
    table = {name: [row.get(name, np.nan) for row in rows] for name in _COLUMNS}
    table["series_id"] = [series_id] * len(rows)
    for name in ("study_id", "patient_id"):  # of a slice without a header the others of its series tell them
        table[name] = _filled(table[name], series_id)
    order, where, odd = order_series(table)
    ordered = {name: [values[place] for place in order] for name, values in table.items()}
    readable = np.array(ordered["readable"], bool)
    problems = problem_rows(Problem.CONSTANT, compress(ordered["image_id"], ordered["constant"]))
    odd += odd_shapes(compress(ordered["rows"], readable), compress(ordered["columns"], readable))
    problems += [row for problem in odd for row in problem_rows(problem, [series_id])]
    where["chunk"] = np.where(readable, readable.cumsum() - 1, UNREADABLE)
    kept = {name: np.array(values) for name, values in ordered.items() if name not in _TRANSIENT}
    return kept | where, list(compress(order, readable)), problems


def _filled(names: list, otherwise: str) -> list[str]:
    """The most frequent of some names in place of those that lack."""
    known = Counter(name for name in names if isinstance(name, str) and name)
    usual = min(known, key=lambda name: (-known[name], name), default=otherwise)
    return [name if name in known else usual for name in names]


def slice_table(series: Iterable[SeriesNotes]) -> tuple[pd.DataFrame, ProblemRows]:
    """The rows of all series, sorted by series and in anatomical order within each, and their problems."""
    series = list(series)
    problems = [row for notes in series for row in notes.problems]
    tables = [notes.columns for notes in series if len(notes)]
    if not tables:
        return pd.DataFrame(), problems
    table = pd.DataFrame({name: np.concatenate([columns[name] for columns in tables]) for name in tables[0]})
    table["patient_id"] = _whole_patients(table)
    repeated = table.duplicated("image_id")  # across series: within one they are gone already
    problems += problem_rows(Problem.REPEATED_IMAGE, table.loc[repeated, "image_id"])
    return table[~repeated].reset_index(drop=True), problems


def _whole_patients(table: pd.DataFrame) -> pd.Series:
    """The patient of each row: of one that has none, and so was named after its study, the only one of that study."""
    is_known = (table["patient_id"] != table["study_id"]) & (table["patient_id"] != table["series_id"])
    known = table[is_known].groupby("study_id")["patient_id"].agg(["first", "nunique"])
    told = table["study_id"].map(known.loc[known["nunique"] == 1, "first"])
    return table["patient_id"].where(is_known, told.fillna(table["patient_id"]))


def join_labels(table: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, ProblemRows]:
    """Put the labels on a slice table (NaN where a slice has none); returns it and the problems."""
    joined = table.merge(labels, on="image_id", how="left", validate="one_to_one")
    unlabelled = joined.loc[joined["any"].isna(), "image_id"]
    absent = labels.loc[~labels["image_id"].isin(table["image_id"]), "image_id"]
    return joined, problem_rows(Problem.NO_LABEL, unlabelled) + problem_rows(Problem.NO_SLICE, absent)


def add_missing(table: pd.DataFrame, expected: pd.Series) -> tuple[pd.DataFrame, ProblemRows]:
    """Append a row, without series or slice, for each expected image without a file; returns it and the problems."""
    absent = expected[~expected.isin(table["image_id"])].drop_duplicates()
    rows = pd.DataFrame({"image_id": absent, "chunk": UNREADABLE})
    complete = pd.concat([table, rows], ignore_index=True) if len(rows) else table
    return complete, problem_rows(Problem.EXPECTED, absent)


def shared_patients(train: pd.DataFrame, test: pd.DataFrame) -> ProblemRows:
    """A problem row for each patient (`patient_id`) who has slices in both tables."""
    both = set(train["patient_id"].dropna()) & set(test["patient_id"].dropna())
    return problem_rows(Problem.BOTH_SPLITS, both)
