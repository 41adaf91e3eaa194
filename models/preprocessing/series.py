"""The files of one series -> the stores of its parts at every asked size, and its record in the manifest."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import cv2
import numpy as np

from models.common.patience import patiently
from models.preprocessing.copies import without_copies
from models.preprocessing.elements import Reason, UnreadableSliceError, checksum, stamp
from models.preprocessing.formats import read_file
from models.preprocessing.grouping import Look, SeriesTask
from models.preprocessing.manifest import Mark, Record, decoder_set, read_record, write_record
from models.preprocessing.metadata import series_table
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.orientation import row_in_one_frame
from models.preprocessing.parts import split_series
from models.preprocessing.problems import (
    COPY_IS_READ,
    NO_SLICE_OF_FILE,
    NOT_USED,
    WAITS,
    Problem,
    ProblemRows,
    is_unread,
    problem_rows,
    unreadable,
    wait_for_decoder,
)
from models.preprocessing.pseudonyms import is_of_challenge
from models.preprocessing.selection import reasons_to_leave, series_facts
from models.preprocessing.slices import Prepared, prepare_slice, pseudonymous
from models.preprocessing.store import write_series
from models.preprocessing.tables import UNREADABLE

_NOT_SLICES = (Reason.NOT_CT, Reason.LOCALIZER, Reason.PICTURE)  # no row is due for what never was a slice


def prepare_batch(tasks: list[SeriesTask]) -> list[list[SeriesNotes]]:
    """Prepare some series; while the disk takes one, the next is read. Raises InputError as `prepare_series` does."""
    parts: list[list[SeriesNotes]] = []
    waiting: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for task in tasks:
            found, write = _read_series(task)
            if waiting is not None:
                waiting.result()  # one series at most is in memory beside that which is read
            waiting = writer.submit(write)
            parts.append(found)
        if waiting is not None:
            waiting.result()
    return parts


def prepare_series(task: SeriesTask) -> list[SeriesNotes]:
    """Read the files of a series, each once, and write its stores; returns the notes of each part.

    A part that is not to be predicted, or waits for a decoder, gets no store. What the manifest has is not read again.

    Memory: the series, compressed. Raises InputError if a store cannot be written, and for a file that the system does
    not let this process read.
    """
    parts, write = _read_series(task)
    write()
    return parts


def _read_series(task: SeriesTask) -> tuple[list[SeriesNotes], Callable[[], None]]:
    """The notes of each part of a series, and what writes what is not there yet."""
    path = task.work.manifest / f"{task.series}.json"
    record = patiently(partial(read_record, path), path) if task.image_sizes else None
    if record is None:
        return _read_files(task, task.image_sizes, set(), None)
    if not _is_still_true(record, task):
        return _read_files(task, task.image_sizes, set(), record)
    lacking = tuple(size for size in task.image_sizes if not _is_stored(record, task, size))
    if not lacking:
        return record.parts, lambda: None
    return _read_files(task, lacking, {*record.image_sizes} - {*lacking}, None)


def _forget(record: Record, task: SeriesTask) -> None:
    """Before stores change: no record, table or store may be left that tells of what they were."""
    (task.work.manifest / f"{record.series}.json").unlink()
    for stage in task.work.stages:
        for split in ("train", "test"):
            stage.metadata(split).unlink(missing_ok=True)
    for size in record.image_sizes:
        for part in record.parts:
            task.work.series(size, part.series_id).unlink(missing_ok=True)


def _is_still_true(record: Record, task: SeriesTask) -> bool:
    """Whether a series would be made of the same files in the same way."""
    problems = {problem for part in record.parts for _, problem, _ in part.problems}
    if any(map(is_unread, problems)) and (task.retry or record.decoders != decoder_set()):
        return False
    if wait_for_decoder(problems) and not task.lacks:
        return False
    marks = {file.name: record.files.get(file.name) for file in task.files}
    if set(record.shared) != task.shared:
        return False
    return len(record.files) == len(marks) and all(_is_same(file, marks[file.name]) for file in task.files)


def _is_same(file: Look, mark: Mark | None) -> bool:
    """Whether a file has the bytes that it had: its time tells, or where that has changed its checksum."""
    if mark is None or mark.size != file.size:
        return False
    return mark.time == file.time or mark.crc32 == patiently(partial(_checksum, file), file.path)


def _is_stored(record: Record, task: SeriesTask, size: int) -> bool:
    """Whether the stores of one size are all there that are due."""
    due = [part for part in record.parts if _is_due(part, task)]
    return size in record.image_sizes and all(task.work.series(size, part.series_id).is_file() for part in due)


def _is_due(part: SeriesNotes, task: SeriesTask) -> bool:
    """Whether a part is to have a store: some slice can be read, and it is to be predicted."""
    is_readable = len(part) > 0 and bool((part.columns["chunk"] != UNREADABLE).any())
    return is_readable and (part.series_id in task.take or not reasons_to_leave(part))


def _read_files(
    task: SeriesTask, image_sizes: tuple[int, ...], others: set[int], outdated: Record | None
) -> tuple[list[SeriesNotes], Callable[[], None]]:
    """Read and order a series for some sizes; it is stored at the others already, or there is an outdated record."""
    cv2.setNumThreads(1)  # a process a core: more threads would fight over them
    slices: list[Prepared] = []
    failures: dict[Look, Reason] = {}
    checksums: dict[Look, int | None] = {}
    for file in task.files:
        found, reason, checksums[file] = patiently(partial(_prepare_file, file, task, image_sizes), file.path)
        slices += found
        if reason is not None:
            failures[file] = reason
    slices, problems = without_copies(slices, task.shared, task.pseudonyms)
    problems += _problems_of_files(task, failures, slices)
    own = not is_of_challenge(task.files[0].names.image_id)
    named = split_series(slices, task.series, task.pseudonyms) if own and slices else {task.series: slices}
    if len(named) > 1:
        problems += problem_rows(Problem.PARTS, [task.series])
    parts = []
    for name, of_part in named.items():
        parts.append(_make_part(task, name, of_part, problems))
        problems = []  # those of the files stand with the first part
    notes = [part for part, _ in parts]
    if not image_sizes:
        return notes, lambda: None
    return notes, partial(_write, task, parts, checksums, image_sizes, others, outdated)


def _write(
    task: SeriesTask,
    parts: list[tuple[SeriesNotes, list[Prepared]]],
    checksums: dict[Look, int | None],
    image_sizes: tuple[int, ...],
    others: set[int],
    outdated: Record | None,
) -> None:
    """Write the stores of the parts, and last the record."""
    if outdated is not None:
        _forget(outdated, task)
    for part, slices in parts:
        for size in image_sizes:
            if _is_due(part, task):
                store = task.work.series(size, part.series_id)
                write_series(store, [item.chunks[size] for item in slices], (size, size), {})
    names, sizes = task.files[0].names, sorted({*image_sizes, *others})
    files = {file.name: _mark(file, checksums[file]) for file in task.files}
    notes, shared = [part for part, _ in parts], sorted(task.shared)
    write_record(task.work, Record(task.series, names, files, sizes, decoder_set(), shared, notes))


def _make_part(
    task: SeriesTask, name: str, slices: list[Prepared], problems: ProblemRows
) -> tuple[SeriesNotes, list[Prepared]]:
    """The notes of a part, and its slices that can be read, in order; `problems` are those of its files."""
    columns, places, wrong = series_table([item.row for item in slices], name)
    odd = {problem for item in slices for problem in item.odd}
    problems = problems + wrong + [row for problem in odd for row in problem_rows(problem, [name])]
    if wait_for_decoder(problem for _, problem, _ in problems):
        columns["chunk"] = np.full_like(columns["chunk"], UNREADABLE)
    known = [item.facts for item in slices if item.facts is not None]
    part = SeriesNotes(name, task.series, columns, sorted({*problems}), series_facts(known) if known else None)
    return part, [slices[place] for place in places]


def _prepare_file(
    file: Look, task: SeriesTask, image_sizes: tuple[int, ...]
) -> tuple[list[Prepared], Reason | None, int | None]:
    """The slices of a file, also those that cannot be read; why, if there are such; its checksum, if it is known."""
    slices, checksum = [], None
    try:
        for item in read_file(file.path, task.root):
            slices.append(prepare_slice(item, file, image_sizes, task.pseudonyms))
            checksum = item.checksum
    except UnreadableSliceError as error:
        return slices + _without_pixels(file, task, error, len(slices)), error.reason, checksum
    return slices, None, checksum


def _without_pixels(file: Look, task: SeriesTask, error: UnreadableSliceError, before: int) -> list[Prepared]:
    """The rows of a file whose pixels, or whose whole header, cannot be read: a slice must never cost a row.

    So many slices of it were read `before` the error.
    """
    if error.reason in _NOT_SLICES:
        return []
    rows = [pseudonymous(row_in_one_frame(row), task.pseudonyms) for row in error.rows[before:]]
    if not error.rows:
        rows = [{"image_id": file.names.image_id, "series_id": task.series}]
    return [Prepared(file, row | {"readable": False, "constant": False}, {}) for row in rows]


def _problems_of_files(task: SeriesTask, failures: dict[Look, Reason], kept: list[Prepared]) -> ProblemRows:
    """A row for each file that could not be read, or has an odd name."""
    problems = []
    with_rows = {item.file for item in kept if not item.row["readable"]}
    read = {item.row["image_id"] for item in kept if item.row["readable"]}
    for file, reason in failures.items():
        treatment = NO_SLICE_OF_FILE if file in with_rows else NOT_USED
        if treatment == NOT_USED and file.names.image_id in read:
            treatment = COPY_IS_READ
        if reason is Reason.NO_DECODER:
            treatment = WAITS
        problems.append(unreadable(file.name.strip(), reason, treatment))
    stray = [file.names.image_id for file in task.files if file.path.name != file.path.name.strip()]
    return problems + problem_rows(Problem.STRAY_NAME, stray)


def _mark(file: Look, known: int | None) -> Mark:
    """What tells a file; its checksum may be `known` from when it was read."""
    crc32 = patiently(partial(_checksum, file), file.path) if known is None else known
    return Mark(file.size, file.time, crc32, file.syntax, file.names.image_id)


def _checksum(file: Look) -> int:
    """The crc32 of a file's bytes; that of none where it has changed since it was looked at: it is to be read again."""
    with suppress(UnreadableSliceError):
        if stamp(file.path) == (file.size, file.time):
            return checksum(file.path)
    return 0
