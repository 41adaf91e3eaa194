"""Prepared series and label tables -> cache/metadata_{train,test}.parquet: a row a slice."""

from collections.abc import Iterable

import pandas as pd

from models.preprocessing.problems import Problem, problem_rows
from models.preprocessing.series import Prepared
from models.preprocessing.tables import UNREADABLE

ProblemRows = list[tuple[str, str, str]]


def slice_table(series: Iterable[Prepared]) -> tuple[pd.DataFrame, ProblemRows]:
    """The rows of all series, sorted by series and in anatomical order within each, and their problems."""
    series = list(series)
    tables = [prepared.table for prepared in series if len(prepared.table)]
    problems = [row for prepared in series for row in prepared.problems]
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
    """A problem row for each patient who has slices in both tables."""
    both = set(train["patient_id"].dropna()) & set(test["patient_id"].dropna())
    return problem_rows(Problem.BOTH_SPLITS, both)
