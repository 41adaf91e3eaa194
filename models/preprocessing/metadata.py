"""Header rows -> the table of a series -> cache/metadata_{train,test}.parquet: a row a slice."""

from collections.abc import Iterable

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


def series_table(rows: list[dict], series_id: str) -> tuple[pd.DataFrame, list[int], ProblemRows]:
    """The metadata of one series, in anatomical order, from the rows of its slices in any order.

    A row holds HEADER_COLUMNS and STATISTICS as far as they are known, and whether the slice is `readable` and
    `constant`. Returns the table, with `chunk` and the columns of `order_series`; for each chunk, 0 and up, its place
    in `rows`; and the problems of slices and of the series.
    """
    table = pd.DataFrame(rows, columns=_COLUMNS).assign(series_id=series_id, place=range(len(rows)))
    if table.empty:
        return table, [], []
    problems = problem_rows(Problem.CONSTANT, table.loc[table["constant"], "image_id"])
    for name in ("study_id", "patient_id"):  # of a slice without a header the others of its series tell them
        if table[name].isna().any():
            table = table.assign(**{name: table[name].fillna(table[name].mode().min()).fillna(table["series_id"])})
    table, odd = order_series(table)
    for problem in (*odd, *odd_shapes(table[table["readable"]])):
        problems += problem_rows(problem, [series_id])
    chunk = np.where(table["readable"], table["readable"].cumsum() - 1, UNREADABLE)
    places = table.loc[table["readable"], "place"].to_list()
    return table.assign(chunk=chunk).drop(columns=[*_TRANSIENT, "place"]), places, problems


def slice_table(series: Iterable[SeriesNotes]) -> tuple[pd.DataFrame, ProblemRows]:
    """The rows of all series, sorted by series and in anatomical order within each, and their problems."""
    series = list(series)
    tables = [notes.table for notes in series if len(notes.table)]
    problems = [row for notes in series for row in notes.problems]
    if not tables:
        return pd.DataFrame(), problems
    table = pd.concat(tables, ignore_index=True)
    repeated = table.duplicated("image_id")  # across series: within one they are gone already
    problems += problem_rows(Problem.REPEATED_IMAGE, table.loc[repeated, "image_id"])
    return table[~repeated].reset_index(drop=True), problems


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
