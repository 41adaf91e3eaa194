"""The files of one series -> its stores at every asked size, a metadata row a slice, and what was wrong."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.folders import Work
from models.preprocessing.dicom import HEADER_COLUMNS, Slice, peek, read_file
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.geometry import order_series
from models.preprocessing.hounsfield import clip, to_hounsfield
from models.preprocessing.problems import NO_SLICE_OF_FILE, NOT_USED, Problem, problem_rows, unreadable
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder
from models.preprocessing.store import Series, compress_slice, fit_to_square, write_series
from models.preprocessing.tables import UNREADABLE
from models.preprocessing.windows import fraction_in_window

_BATCH = 256  # files that are peeked into at a time
_NOT_SLICES = (Reason.NOT_CT, Reason.LOCALIZER)  # no row is due for what never was a slice
_TRANSIENT = ["frame", "instance_number", "slice_location", "readable", "constant"]
_STATISTICS = ["img_min", "img_max", "img_mean", "img_std", "img_pct_window"]
_COLUMNS = [*HEADER_COLUMNS, "readable", "constant", *_STATISTICS]


class Peeked(NamedTuple):
    """What the first bytes of a file tell."""

    path: Path
    series_id: str = ""
    image_id: str = ""
    mark: str = ""  # size and checksum of the first bytes
    reason: Reason | None = None


@dataclass(frozen=True)
class SeriesTask:
    """The files of one series, and where its slices go."""

    series_id: str
    files: list[Peeked]
    stores: dict[int, Path]  # image size -> file of the store; empty when only a report is wanted
    root: Path
    pseudonyms: Pseudonyms

    def source(self) -> str:
        """A hash of the files' names, sizes and first bytes: other files of these names have another one."""
        lines = "\n".join(f"{file.path.name} {file.mark}" for file in self.files)
        return hashlib.blake2b(lines.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


@dataclass
class Prepared:
    """What became of a series: a metadata row a slice, in anatomical order, and rows of problems.csv."""

    table: pd.DataFrame
    problems: list[tuple[str, str, str]] = field(default_factory=list)


def in_batches(files: list[Path]) -> list[list[Path]]:
    """Files for `peek_batch`, some hundred at a time."""
    return [files[first : first + _BATCH] for first in range(0, len(files), _BATCH)]


def peek_batch(files: list[Path]) -> list[Peeked]:
    """Read the first bytes of each file."""
    peeked = []
    for path in files:
        try:
            series_id, image_id, size, checksum = peek(path)
            peeked.append(Peeked(path, series_id, image_id, f"{size} {checksum:08x}"))
        except UnreadableSliceError as error:
            peeked.append(Peeked(path, reason=error.reason))
    return peeked


def group_by_series(
    peeked: Iterable[Peeked], raw: RawFolder, work: Work, sizes: Iterable[int], pseudonyms: Pseudonyms
) -> tuple[list[SeriesTask], list[tuple[str, str, str]]]:
    """A task for each series, sorted, and a problem row for each file that tells no series."""
    groups, problems = defaultdict(list), []
    for file in peeked:
        if file.reason is None and file.series_id and file.image_id:
            groups[pseudonyms(file.series_id)].append(file)
        else:
            reason = file.reason or Reason.NO_IDENTIFIER
            problems.append(unreadable(pseudonyms.file(file.path, raw.root), reason, NOT_USED))
    return [
        SeriesTask(name, files, {size: work.series(size, name) for size in sizes}, raw.root, pseudonyms)
        for name, files in sorted(groups.items())
    ], problems


def prepare_series(task: SeriesTask) -> Prepared:
    """Read the files of a series, each once, and write its stores; a series that is stored already is not read.

    Memory: the series, compressed. Raises InputError if a store was made from other files.
    """
    notes = [_read_notes(task, store) for store in task.stores.values() if store.is_file()]
    if not notes or len(notes) < len(task.stores):
        return _from_notes(_prepare_from_files(task))
    return _from_notes(notes[0])


def _read_notes(task: SeriesTask, store: Path) -> dict:
    notes = Series(store).notes()
    if notes["source"] != task.source():
        raise InputError(
            f"{store} was made from other files than those in the data folder; "
            "delete the cache to make it anew, or choose another folder with --work"
        )
    return notes


def _from_notes(notes: dict) -> Prepared:
    return Prepared(pd.DataFrame(notes["slices"]), [tuple(row) for row in notes["problems"]])


def _prepare_from_files(task: SeriesTask) -> dict:
    """Read, order and store a series; returns its notes, which are all that is kept of it beside the slices."""
    cv2.setNumThreads(1)  # a process a core: more threads would fight over them
    rows, chunks, problems, odd = [], {}, [], set()
    for file in task.files:
        if file.path.name != file.path.name.strip():
            problems += problem_rows(Problem.STRAY_NAME, [task.pseudonyms.image(file.image_id)])
        try:
            for item in read_file(file.path):
                row, images = _prepare_slice(item, task, odd)
                rows.append(row)
                chunks[len(rows) - 1] = images
        except UnreadableSliceError as error:
            missing = _rows_without_slices(task, file, error, {row["image_id"] for row in rows})
            rows += missing
            treatment = NO_SLICE_OF_FILE if missing else NOT_USED
            problems.append(unreadable(task.pseudonyms.file(file.path, task.root), error.reason, treatment))
    ordered, found = _order(rows, odd, problems)
    problems += [row for problem in found for row in problem_rows(problem, [task.series_id])]
    readable = [place for place in ordered.pop("place") if place in chunks] if len(ordered) else []
    notes = {
        "source": task.source(),
        "slices": ordered.to_dict("list"),
        "problems": sorted(set(problems)),
    }
    for size, store in task.stores.items():
        if readable and not store.is_file():
            write_series(store, [chunks[place][size] for place in readable], (size, size), notes)
    return notes


def _prepare_slice(item: Slice, task: SeriesTask, odd: set[Problem]) -> tuple[dict, dict[int, bytes]]:
    """A slice's row with its pixel statistics, and its chunk at each size; adds to `odd` what its values show."""
    hounsfield = to_hounsfield(item.stored, item.rescale)
    statistics = pixel_statistics(item.stored, hounsfield)
    low, high = item.rescale.slope * statistics["img_min"], item.rescale.slope * statistics["img_max"]
    constant = statistics["img_min"] == statistics["img_max"]
    if item.rescale.has_wrapped:
        odd.add(Problem.WRAPPED)
    elif not constant:
        if min(low, high) + item.rescale.intercept < -1024:
            odd.add(Problem.BELOW_AIR)
        if max(low, high) + item.rescale.intercept > 3071:
            odd.add(Problem.BEYOND_BONE)
    row = _pseudonymous(item.row, task.pseudonyms) | {"readable": True, "constant": constant} | statistics
    clipped = clip(hounsfield)
    return row, {size: compress_slice(fit_to_square(clipped, size)) for size in task.stores}


def _pseudonymous(row: dict, pseudonyms: Pseudonyms) -> dict:
    frame = f"_{row['frame']:04d}" if row["frame"] else ""
    names = {name: pseudonyms(row[name]) for name in ("series_id", "study_id", "patient_id")}
    return row | {"image_id": pseudonyms.image(row["image_id"]) + frame} | names


def _rows_without_slices(task: SeriesTask, file: Peeked, error: UnreadableSliceError, known: set[str]) -> list[dict]:
    """The rows of a file whose pixels, or whose whole header, cannot be read: a slice must never cost a row."""
    if error.reason in _NOT_SLICES:
        return []
    rows = [_pseudonymous(row, task.pseudonyms) for row in error.rows]
    rows = rows or [{"image_id": task.pseudonyms.image(file.image_id), "series_id": task.series_id}]
    return [row | {"readable": False, "constant": False} for row in rows if row["image_id"] not in known]


def _order(
    rows: list[dict], odd: set[Problem], problems: list[tuple[str, str, str]]
) -> tuple[pd.DataFrame, list[Problem]]:
    """The slices in anatomical order with their `chunk`; the column `place` is the place in `rows`."""
    table = pd.DataFrame(rows, columns=_COLUMNS).assign(place=range(len(rows)))
    if table.empty:
        return table, []
    repeated = table.duplicated("image_id")
    problems += problem_rows(Problem.REPEATED_IMAGE, table.loc[repeated, "image_id"])
    table = table[~repeated]
    problems += problem_rows(Problem.CONSTANT, table.loc[table["constant"], "image_id"])
    for name in ("study_id", "patient_id"):  # of a slice without a header the others of its series tell them
        if table[name].isna().any():
            table = table.assign(**{name: table[name].fillna(table[name].mode().min()).fillna(table["series_id"])})
    table, found = order_series(table)
    sizes = set(map(tuple, table.loc[table["readable"], ["rows", "columns"]].to_numpy()))
    if len(sizes) > 1:
        found.append(Problem.MIXED_SIZES)
    if any(rows != columns for rows, columns in sizes):
        found.append(Problem.NOT_SQUARE)
    chunk = np.where(table["readable"], table["readable"].cumsum() - 1, UNREADABLE)
    return table.assign(chunk=chunk).drop(columns=_TRANSIENT), [*found, *odd]


def pixel_statistics(stored: np.ndarray, hounsfield: np.ndarray) -> dict[str, float]:
    """The columns of fastai's `from_dicoms(px_summ=True)`: of the stored values, and the share of brain."""
    mean = cv2.sumElems(stored)[0] / stored.size
    variance = cv2.norm(stored, cv2.NORM_L2SQR) / stored.size - mean**2  # exact: sums of integers below 2^53
    values = (stored.min(), stored.max(), mean, max(variance, 0) ** 0.5, fraction_in_window(hounsfield))
    return dict(zip(_STATISTICS, map(float, values), strict=True))
