"""The challenge's `ID,Label` files -> one checked row an image."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute, csv

from models.common.errors import InputError
from models.common.labels import LABELS
from models.preprocessing.archives import File, Member
from models.preprocessing.elements import open_bounded
from models.preprocessing.reasons import UnreadableSliceError

SHOWN = 3  # names in a message
DOWNLOAD, REWRITE = "download it again", "write it again"  # what mends a file of Kaggle's, and a file of one's own


class _File(NamedTuple):
    """The rows of a file, and what mends it."""

    path: File
    ids: pa.Array
    texts: pa.DictionaryArray  # of the column Label
    repair: str


def read_labels(path: File) -> tuple[pd.DataFrame, list[str]]:
    """Read a label file: rows `ID_<hex>_<subtype>,<0 or 1>`, six an image.

    Returns the table (one row an image, sorted by `image_id`, columns LABELS as float32) and the ids of images that
    stood in the file more than once with equal labels. Raises InputError for what is no csv file in UTF-8, a missing
    column, no rows, an unknown subtype, a value that is neither 0 nor 1, contradicting duplicates, or an image without
    all six labels.
    """
    file = _read_csv(path, DOWNLOAD)
    images, cells = _locate(file)
    values = _numbers(file)
    _require(file, np.isin(values, (0, 1)), "a label is 0 or 1")
    rows, ones = (_count(chosen, len(images)) for chosen in (cells, cells[values == 1]))
    if (contradicting := (ones > 0) & (ones < rows)).any():
        raise InputError(f"{path} gives both 0 and 1 for {_name(images, contradicting)}; keep one row of each ID")
    _refuse_incomplete(file, images, rows)
    repeated = sorted(images.filter(pa.array((rows > 1).any(axis=1))).to_pylist())
    return _table(images, (ones > 0).astype(np.float32)), repeated


def read_sample_submission(path: File) -> pd.Series:
    """Read the sample submission; returns its IDs (`ID_<hex>_<subtype>`) in its order. Its values are not looked at.

    Raises InputError for what is no csv file in UTF-8, a missing column, no rows, a subtype that is unknown or lacks
    for an image, or an ID that stands twice.
    """
    file = _read_csv(path, DOWNLOAD)
    _refuse_uneven(file, *_locate(file))
    return file.ids.to_pandas().rename("ID")


def read_submission(path: File) -> pd.DataFrame:
    """Read a submission: rows `ID_<hex>_<subtype>,<probability>`, six an image.

    Returns one row an image, indexed by `image_id` and sorted by it, columns LABELS as float64. Raises InputError for
    what `read_sample_submission` refuses, and for a value that is no number from 0 to 1.
    """
    file = _read_csv(path, REWRITE)
    images, cells = _locate(file)
    values = _numbers(file)
    _require(file, (values >= 0) & (values <= 1), "a probability is a number from 0 to 1")
    _refuse_uneven(file, images, cells)
    table = np.empty((len(images), len(LABELS)))
    table.ravel()[cells] = values
    return _table(images, table).set_index("image_id")


def image_ids(submission_ids: pd.Series) -> pd.Series:
    """`ID_<hex>_<subtype>` -> `ID_<hex>`: split at the last underscore."""
    return submission_ids.str.rsplit("_", n=1).str[0]


def _read_csv(path: File, repair: str) -> _File:
    """The column ID, without whitespace at its ends, and the text of the column Label."""
    types = {"ID": pa.string(), "Label": pa.dictionary(pa.int32(), pa.string())}
    try:
        table = csv.read_csv(
            _bytes_of(path) if isinstance(path, Member) else path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types),
        )
        columns = table.column_names
    except (
        pa.ArrowException,
        ValueError,
        OSError,
        UnreadableSliceError,
    ) as error:  # ValueError: a header that is not UTF-8
        raise InputError(
            f"{path} cannot be read as a csv file in UTF-8 ({_few([str(error)], 1)}); unpack it if it is packed, "
            f"or {repair}"
        ) from error
    for column in types:
        if column not in columns:
            raise InputError(f"{path} lacks the column {column!r}, it has {_few(columns, len(columns))}; {repair}")
    if not len(table):
        raise InputError(f"{path} holds no rows; {repair}")
    ids, texts = (table.column(columns.index(column)) for column in types)
    ids = compute.ascii_trim_whitespace(ids.combine_chunks())
    return _File(path, ids, texts.unify_dictionaries().combine_chunks(), repair)


def _bytes_of(member: Member) -> pa.BufferReader:
    with open_bounded(member) as file:
        return pa.BufferReader(file.whole())


def _locate(file: _File) -> tuple[pa.Array, np.ndarray]:
    """The distinct images of IDs, and of each ID its cell in the table images x LABELS (image * 6 + label)."""
    known = compute.match_substring_regex(file.ids, f"(?s)._({'|'.join(LABELS)})$").to_numpy(zero_copy_only=False)
    if not known.all():
        unknown = np.flatnonzero(~known)
        few = _few([file.ids[row].as_py() for row in unknown[:SHOWN]], len(unknown))
        raise InputError(
            f"{file.path} holds {few}, but an ID is an image's name, an underscore and one of {', '.join(LABELS)}; "
            f"remove such rows, or {file.repair}"
        )
    parts = compute.split_pattern(file.ids, "_", max_splits=1, reverse=True)
    images = compute.list_element(parts, 0).dictionary_encode()
    labels = compute.index_in(compute.list_element(parts, 1), pa.array(LABELS))
    return images.dictionary, images.indices.to_numpy().astype(np.int64) * len(LABELS) + labels.to_numpy()


def _numbers(file: _File) -> np.ndarray:
    """The number of each row, (rows,); NaN where the text is none."""
    words = pd.Series(file.texts.dictionary.to_pylist(), dtype=object)
    return pd.to_numeric(words, errors="coerce").to_numpy(np.float64)[file.texts.indices.to_numpy()]


def _require(file: _File, right: np.ndarray, rule: str) -> None:
    """Raise InputError, which tells the rule and the first row that breaks it, unless all rows are right."""
    if not right.all():
        name, text = (_few([column[right.argmin()].as_py()], 1) for column in (file.ids, file.texts))
        raise InputError(
            f"{file.path} holds {text} for {name}, but {rule} ({np.sum(~right):,} such rows); correct it, or "
            f"{file.repair}"
        )


def _count(cells: np.ndarray, images: int) -> np.ndarray:
    """How many rows each cell has; (images, 6)."""
    return np.bincount(cells, minlength=images * len(LABELS)).reshape(images, len(LABELS))


def _refuse_uneven(file: _File, images: pa.Array, cells: np.ndarray) -> None:
    """Raise InputError unless every cell of the table images x LABELS has one row."""
    rows = _count(cells, len(images))
    if (repeated := rows > 1).any():
        raise InputError(f"{file.path} holds twice or more {_name(images, repeated)}; {file.repair}")
    _refuse_incomplete(file, images, rows)


def _refuse_incomplete(file: _File, images: pa.Array, rows: np.ndarray) -> None:
    if (missing := rows == 0).any():
        raise InputError(f"{file.path} lacks a row for {_name(images, missing)}; {file.repair}")


def _table(images: pa.Array, values: np.ndarray) -> pd.DataFrame:
    """Columns `image_id` and LABELS, sorted by image, of images and their values (images, 6)."""
    order = compute.sort_indices(images)
    table = pd.DataFrame(values[order.to_numpy()], columns=list(LABELS))
    table.insert(0, "image_id", images.take(order).to_pandas())
    return table


def _name(images: pa.Array, cells: np.ndarray) -> str:
    """The IDs of the cells that are true in a table images x LABELS, in words."""
    true = np.argwhere(cells)
    return _few([f"{images[int(image)]}_{LABELS[label]}" for image, label in true[:SHOWN]], len(true))


def _few(names: list[str], total: int) -> str:
    """The first of so many names, each on one line and cut where it is long, and how many there are."""
    words = ", ".join(repr(name if len(name) <= 120 else name[:117] + "...") for name in names[:SHOWN])
    return words if total <= SHOWN else f"{words}, ... ({total:,} in all)"
