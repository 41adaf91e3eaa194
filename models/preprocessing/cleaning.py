"""The challenge's `ID,Label` files -> one checked row an image."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.errors import InputError
from models.labels import LABELS
from models.preprocessing.metadata import problem
from models.preprocessing.series import UNREADABLE


def join_labels(table: pd.DataFrame, labels: pd.DataFrame, file: str) -> tuple[pd.DataFrame, list[dict]]:
    """Put the labels on an ordered slice table (NaN where a slice has none); returns it and the problems."""
    joined = table.merge(labels, on="image_id", how="left", validate="one_to_one")
    unlabelled = joined.loc[joined["any"].isna(), "image_id"]
    absent = labels.loc[~labels["image_id"].isin(table["image_id"]), "image_id"]
    problems = [
        problem(image_id, f"a slice without a label in {file}", "left out of training and validation")
        for image_id in unlabelled
    ]
    problems += [problem(image_id, f"a label in {file} without a slice", "left out") for image_id in absent]
    return joined, problems


def add_missing(table: pd.DataFrame, expected: pd.Series, file: str) -> tuple[pd.DataFrame, list[dict]]:
    """Append a row, without series or slice, for each expected image without a file; returns it and the problems."""
    absent = expected[~expected.isin(table["image_id"])].drop_duplicates()
    rows = pd.DataFrame({"image_id": absent, "chunk": UNREADABLE})
    problems = [
        problem(image_id, f"named in {file}, but there is no slice", "predicted with the prior") for image_id in absent
    ]
    return pd.concat([table, rows], ignore_index=True) if len(rows) else table, problems


def read_labels(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a label file: rows `ID_<hex>_<subtype>,<0 or 1>`, six an image.

    Returns the table (one row an image, sorted by `image_id`, columns LABELS as float32) and the ids of images that
    stood in the file more than once with equal labels. Raises InputError for a missing column, an unknown subtype, a
    value that is neither 0 nor 1, contradicting duplicates, or an image without all six labels.
    """
    rows = _split_ids(path, _read_csv(path))
    values = pd.to_numeric(rows["Label"], errors="coerce")  # one word makes the whole column text
    wrong = rows.index[~values.isin((0, 1))]
    if len(wrong):
        row = rows.loc[wrong[0]]
        raise InputError(f"{path} holds {row['Label']!r} for {row['ID']} ({len(wrong):,} such rows); a label is 0 or 1")
    rows = rows.assign(Label=values)
    unique = rows.drop_duplicates(["image_id", "subtype", "Label"])
    if (contradicting := unique.duplicated(["image_id", "subtype"])).any():
        raise InputError(
            f"{path} gives {unique.loc[contradicting, 'ID'].iloc[0]} both 0 and 1; keep one of the two rows"
        )
    repeated = sorted(rows.loc[rows.duplicated(["image_id", "subtype"]), "image_id"].unique())
    return _widen(path, unique), repeated


def read_sample_submission(path: Path) -> pd.Series:
    """Read the sample submission; returns its IDs (`ID_<hex>_<subtype>`) in its order.

    Raises InputError for a missing column, a subtype that is unknown or lacks for an image, or an ID that stands twice.
    """
    rows = _split_ids(path, _read_csv(path))
    if rows["ID"].duplicated().any():
        raise InputError(f"{path} holds {rows.loc[rows['ID'].duplicated(), 'ID'].iloc[0]} twice; download it again")
    _widen(path, rows)
    return rows["ID"]


def image_ids(submission_ids: pd.Series) -> pd.Series:
    """`ID_<hex>_<subtype>` -> `ID_<hex>`: split at the last underscore."""
    return submission_ids.str.rsplit("_", n=1).str[0]


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a csv file ({error}); download it again") from error
    for column in ("ID", "Label"):
        if column not in table:
            raise InputError(f"{path} lacks the column {column!r}, it has {list(table.columns)}; download it again")
    return table


def _split_ids(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    parts = rows["ID"].astype(str).str.rsplit("_", n=1, expand=True).reindex(columns=[0, 1])
    rows = rows.assign(image_id=parts[0], subtype=parts[1])
    if (unknown := ~rows["subtype"].isin(LABELS)).any():
        raise InputError(
            f"{path} holds the ID {rows.loc[unknown, 'ID'].iloc[0]!r}, which ends in none of {', '.join(LABELS)}"
        )
    return rows


def _widen(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    table = rows.pivot(index="image_id", columns="subtype", values="Label").reindex(columns=LABELS)
    if (incomplete := table.isna().any(axis=1)).any():
        image_id = table.index[incomplete][0]
        missing = [label for label in LABELS if np.isnan(table.loc[image_id, label])]
        raise InputError(
            f"{path} lacks {missing[0]} for {image_id} ({incomplete.sum():,} images lack a label); download it again"
        )
    return table.astype(np.float32).rename_axis(columns=None).reset_index()
