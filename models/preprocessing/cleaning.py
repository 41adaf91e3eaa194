"""The challenge's `ID,Label` files -> one checked row an image."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute, csv

from models.errors import InputError
from models.labels import LABELS

SHOWN = 3  # names in a message


def read_labels(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a label file: rows `ID_<hex>_<subtype>,<0 or 1>`, six an image.

    Returns the table (one row an image, sorted by `image_id`, columns LABELS as float32) and the ids of images that
    stood in the file more than once with equal labels. Raises InputError for what is no csv file in UTF-8, a missing
    column, no rows, an unknown subtype, a value that is neither 0 nor 1, contradicting duplicates, or an image without
    all six labels.
    """
    ids, texts = _read_csv(path)
    images, cells = _locate(path, ids)
    positive = _positive(path, ids, texts)
    rows, ones = (_count(chosen, len(images)) for chosen in (cells, cells[positive]))
    if (contradicting := (ones > 0) & (ones < rows)).any():
        raise InputError(f"{path} gives both 0 and 1 for {_name(images, contradicting)}; keep one row of each ID")
    _refuse_incomplete(path, images, rows)
    order = compute.sort_indices(images)
    table = pd.DataFrame((ones > 0)[order.to_numpy()].astype(np.float32), columns=list(LABELS))
    table.insert(0, "image_id", images.take(order).to_pandas())
    return table, sorted(images.filter(pa.array((rows > 1).any(axis=1))).to_pylist())


def read_sample_submission(path: Path) -> pd.Series:
    """Read the sample submission; returns its IDs (`ID_<hex>_<subtype>`) in its order. Its values are not looked at.

    Raises InputError for what is no csv file in UTF-8, a missing column, no rows, a subtype that is unknown or lacks
    for an image, or an ID that stands twice.
    """
    ids, _ = _read_csv(path)
    images, cells = _locate(path, ids)
    rows = _count(cells, len(images))
    if (repeated := rows > 1).any():
        raise InputError(f"{path} holds twice or more {_name(images, repeated)}; download it again")
    _refuse_incomplete(path, images, rows)
    return ids.to_pandas().rename("ID")


def image_ids(submission_ids: pd.Series) -> pd.Series:
    """`ID_<hex>_<subtype>` -> `ID_<hex>`: split at the last underscore."""
    return submission_ids.str.rsplit("_", n=1).str[0]


def _read_csv(path: Path) -> tuple[pa.Array, pa.DictionaryArray]:
    """The column ID, without whitespace at its ends, and the text of the column Label."""
    types = {"ID": pa.string(), "Label": pa.dictionary(pa.int32(), pa.string())}
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types),
        )
        columns = table.column_names
    except (pa.ArrowException, ValueError, OSError) as error:  # ValueError: a header that is not UTF-8
        raise InputError(
            f"{path} cannot be read as a csv file in UTF-8 ({_few([str(error)], 1)}); unpack it if it is packed, or "
            "download it again"
        ) from error
    for column in types:
        if column not in columns:
            raise InputError(
                f"{path} lacks the column {column!r}, it has {_few(columns, len(columns))}; download it again"
            )
    if not len(table):
        raise InputError(f"{path} holds no rows; download it again")
    ids, texts = (table.column(columns.index(column)) for column in types)
    return compute.ascii_trim_whitespace(ids.combine_chunks()), texts.unify_dictionaries().combine_chunks()


def _locate(path: Path, ids: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The distinct images of IDs, and of each ID its cell in the table images x LABELS (image * 6 + label)."""
    known = compute.match_substring_regex(ids, f"(?s)._({'|'.join(LABELS)})$").to_numpy(zero_copy_only=False)
    if not known.all():
        unknown = np.flatnonzero(~known)
        few = _few([ids[row].as_py() for row in unknown[:SHOWN]], len(unknown))
        raise InputError(
            f"{path} holds {few}, but an ID is an image's name, an underscore and one of {', '.join(LABELS)}; "
            "remove such rows, or download it again"
        )
    parts = compute.split_pattern(ids, "_", max_splits=1, reverse=True)
    images = compute.list_element(parts, 0).dictionary_encode()
    labels = compute.index_in(compute.list_element(parts, 1), pa.array(LABELS))
    return images.dictionary, images.indices.to_numpy().astype(np.int64) * len(LABELS) + labels.to_numpy()


def _positive(path: Path, ids: pa.Array, texts: pa.DictionaryArray) -> np.ndarray:
    """Whether each row's value is 1; (rows,) of bool. Raises InputError unless each is 0 or 1."""
    words = texts.dictionary.to_pylist()
    values = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy()
    index = texts.indices.to_numpy()
    if (wrong := ~np.isin(values, (0, 1))[index]).any():
        row = wrong.argmax()
        raise InputError(
            f"{path} holds {_few([words[index[row]]], 1)} for {_few([ids[row].as_py()], 1)}, but a label is 0 or 1 "
            f"({wrong.sum():,} such rows); correct it, or download the file again"
        )
    return (values == 1)[index]


def _count(cells: np.ndarray, images: int) -> np.ndarray:
    """How many rows each cell has; (images, 6)."""
    return np.bincount(cells, minlength=images * len(LABELS)).reshape(images, len(LABELS))


def _refuse_incomplete(path: Path, images: pa.Array, rows: np.ndarray) -> None:
    if (missing := rows == 0).any():
        raise InputError(f"{path} lacks a row for {_name(images, missing)}; download it again")


def _name(images: pa.Array, cells: np.ndarray) -> str:
    """The IDs of the cells that are true in a table images x LABELS, in words."""
    true = np.argwhere(cells)
    return _few([f"{images[int(image)]}_{LABELS[label]}" for image, label in true[:SHOWN]], len(true))


def _few(names: list[str], total: int) -> str:
    """The first of so many names, each on one line and cut where it is long, and how many there are."""
    words = ", ".join(repr(name if len(name) <= 120 else name[:117] + "...") for name in names[:SHOWN])
    return words if total <= SHOWN else f"{words}, ... ({total:,} in all)"
