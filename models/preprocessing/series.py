"""The files of one series -> its stores at every asked size, and its notes: the metadata and what was wrong."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from models.common.errors import InputError
from models.common.patience import patiently
from models.preprocessing.dicom import Slice, read_file
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.grouping import Peeked, SeriesTask
from models.preprocessing.header_facts import HeaderFacts
from models.preprocessing.hounsfield import Rescale, clip, to_hounsfield
from models.preprocessing.metadata import STATISTICS, series_table
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.orientation import to_one_frame
from models.preprocessing.problems import (
    NO_SLICE_OF_FILE,
    NOT_USED,
    WAITS,
    Problem,
    ProblemRows,
    problem_rows,
    unreadable,
    wait_for_decoder,
)
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.selection import reasons_to_leave, series_facts
from models.preprocessing.store import Series, compress_slice, fit_to_square, write_series
from models.preprocessing.tables import UNREADABLE
from models.preprocessing.windows import fraction_in_window

_NOT_SLICES = (Reason.NOT_CT, Reason.LOCALIZER, Reason.PICTURE)  # no row is due for what never was a slice


class _Prepared(NamedTuple):
    """What became of a slice."""

    row: dict  # of the metadata
    chunks: dict[int, bytes]  # image size -> the slice, compressed; empty where it cannot be read
    facts: HeaderFacts | None = None


def prepare_series(task: SeriesTask) -> SeriesNotes:
    """Read the files of a series, each once, and write its stores; a series that is stored already is not read.

    One that is not to be predicted, or of which a part waits for a decoder, gets none.

    Memory: the series, compressed. Raises InputError if a store was made from other files, is damaged, or cannot be
    written, and for a file that the system does not let this process read.
    """
    stored = [_read_notes(task, store) for store in task.stores.values() if store.is_file()]
    outdated = not task.lacks and any(wait_for_decoder(problem for _, problem, _ in notes.problems) for notes in stored)
    if outdated or not stored or len(stored) < len(task.stores):
        return _prepare_from_files(task, anew=outdated)
    return stored[0]


def _read_notes(task: SeriesTask, store: Path) -> SeriesNotes:
    notes = SeriesNotes.from_json(Series(store).notes())
    if notes.source != task.source():
        raise InputError(
            f"{store} was made from other files than those in the data folder; "
            "delete the cache to make it anew, or choose another folder with --work"
        )
    return notes


def _prepare_from_files(task: SeriesTask, anew: bool) -> SeriesNotes:
    """Read, order and store a series; `anew`: also where it is stored already."""
    cv2.setNumThreads(1)  # a process a core: more threads would fight over them
    slices: list[_Prepared] = []
    problems: ProblemRows = []
    for file in task.files:
        found, wrong = patiently(partial(_prepare_file, file, task, slices), file.path)
        slices += found
        problems += wrong
    table, places, wrong = series_table([prepared.row for prepared in slices], task.series_id)
    waits = wait_for_decoder(problem for _, problem, _ in problems)
    if waits:
        table["chunk"] = UNREADABLE
    known = [prepared.facts for prepared in slices if prepared.facts is not None]
    facts = series_facts(known) if known and not task.pseudonyms.challenge else None
    notes = SeriesNotes(task.source(), table, sorted({*problems, *wrong}), facts)
    content = notes.to_json()
    is_stored = bool(places) and not waits and (task.take or not reasons_to_leave(notes))
    for size, store in task.stores.items():
        if is_stored and (anew or not store.is_file()):
            write_series(store, [slices[place].chunks[size] for place in places], (size, size), content)
    return SeriesNotes.from_json(content)  # what a later call will read


def _prepare_file(file: Peeked, task: SeriesTask, before: list[_Prepared]) -> tuple[list[_Prepared], ProblemRows]:
    """The slices of a file, and what is wrong with it; `before` are those of the files that were read before it."""
    slices, odd, problems = [], set(), []
    if file.path.name != file.path.name.strip():
        problems += problem_rows(Problem.STRAY_NAME, [task.pseudonyms.image(file.image_id)])
    try:
        for item in read_file(file.path):
            prepared, found = _prepare_slice(item, task)
            slices.append(prepared)
            odd.update(found)
    except UnreadableSliceError as error:
        known = {prepared.row["image_id"] for prepared in (*before, *slices)}
        missing = _rows_without_slices(task, file, error, known)
        slices += [_Prepared(row, {}) for row in missing]
        treatment = NO_SLICE_OF_FILE if missing else NOT_USED
        if error.reason is Reason.NO_DECODER:
            treatment = WAITS
        problems.append(unreadable(task.pseudonyms.file(file.path, task.root), error.reason, treatment))
    return slices, problems + [row for problem in odd for row in problem_rows(problem, [task.series_id])]


def _prepare_slice(item: Slice, task: SeriesTask) -> tuple[_Prepared, list[Problem]]:
    """A slice's row with its pixel statistics, its chunk at each size, and what its values show of its series."""
    item, turned = to_one_frame(item)
    hounsfield = to_hounsfield(item.stored, item.rescale)
    statistics = pixel_statistics(item.stored, hounsfield)
    constant = statistics["img_min"] == statistics["img_max"]
    row = _pseudonymous(item.row, task.pseudonyms) | {"readable": True, "constant": constant} | statistics
    clipped = clip(hounsfield)
    chunks = {size: compress_slice(fit_to_square(clipped, size)) for size in task.stores}
    odd = _odd_values(item.rescale, statistics["img_min"], statistics["img_max"])
    return _Prepared(row, chunks, item.facts), turned + odd


def _odd_values(rescale: Rescale, lowest: float, highest: float) -> list[Problem]:
    """What is odd about the stored values of a slice, which lie between `lowest` and `highest`."""
    if rescale.has_wrapped:
        return [Problem.WRAPPED]
    if lowest == highest or rescale.table is not None:
        return []
    low, high = sorted((rescale.slope * lowest, rescale.slope * highest))
    odd = {Problem.BELOW_AIR: low + rescale.intercept < -1024, Problem.BEYOND_BONE: high + rescale.intercept > 3071}
    return [problem for problem, is_so in odd.items() if is_so]


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


def pixel_statistics(stored: np.ndarray, hounsfield: np.ndarray) -> dict[str, float]:
    """The columns of fastai's `from_dicoms(px_summ=True)`, STATISTICS, of one slice, both (rows, columns).

    Lowest, highest, mean and standard deviation of the stored values, and the share of pixels that show brain, 0 ... 1.
    """
    mean = cv2.sumElems(stored)[0] / stored.size
    variance = cv2.norm(stored, cv2.NORM_L2SQR) / stored.size - mean**2  # exact: sums of integers below 2^53
    values = (stored.min(), stored.max(), mean, max(variance, 0) ** 0.5, fraction_in_window(hounsfield))
    return dict(zip(STATISTICS, map(float, values), strict=True))
