"""A raw folder -> the cache: every series into the store, then the tables, the folds and the report on problems."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from models.common.errors import InputError
from models.common.files import without_temporaries, write_csv, write_json, write_parquet
from models.common.folders import DataFolder, Stage, Work, WorkFolder, default_data, default_work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.preprocessing.cache import (
    FORMAT,
    OWN_FORMAT,
    finished_sizes,
    is_whole,
    mark_complete,
    read_problems,
    refuse_other_raw,
    source_of,
)
from models.preprocessing.challenge_csv import image_ids, read_labels, read_sample_submission
from models.preprocessing.dicomdir import absent_files
from models.preprocessing.folds import make_folds
from models.preprocessing.grouping import SeriesTask, group_by_series, in_batches, peek_batch
from models.preprocessing.metadata import add_missing, join_labels, shared_patients, slice_table
from models.preprocessing.parallel import progress_map
from models.preprocessing.problems import Problem, ProblemRows, problem_rows, problem_table, wait_for_decoder
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.raw import RawFolder, find_raw
from models.preprocessing.report import (
    judge,
    missing_decoders,
    print_series,
    print_summary,
    require_disk,
    write_contact_sheet,
)
from models.preprocessing.selection import pictures, require_keys, select_series
from models.preprocessing.series import prepare_series
from models.preprocessing.tables import read_slices


@dataclass(frozen=True)
class PrepareOptions:
    """Where the raw data is, and what to make of it."""

    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    image_size: tuple[int, ...] = (224, 512)
    """sides of the stored slices, pixels; one store for each"""
    folds: int = 5
    """parts for cross-validation, grouped by patient"""
    seed: int = 0
    """of the folds"""
    stage: Stage = None
    take: tuple[str, ...] = ()
    """keys of series to predict although they are no axial head CT in Hounsfield units (cache/series.csv)"""
    check: bool = False
    """only read everything and report what is wrong"""
    jobs: int = -1
    """processes; -1: one a core"""
    min_readable: float = 0.99
    """share of the CT slices that must be readable; with fewer the exit code is 3"""
    dask: str | None = None
    """scheduler of a Dask cluster to work on (tcp://...), which sees the same folders"""


def prepare(options: PrepareOptions) -> int:
    """Make the cache of a raw folder, or what it still lacks; with `check`, only report what is wrong with the files.

    A series that is stored already is not read again. Returns the exit code: 0, or 3 if too few slices are readable, or
    some wait for a decoder: the cache is then not finished, and the same command makes the rest. Raises InputError for
    data that is not there or cannot be used, for a cache that was made from other data or with other settings, or is
    damaged, for a disk that is too full, and for a file that the system does not let this process read.
    """
    if not options.image_size or min(options.image_size) < 1:
        raise InputError(f"--image-size {options.image_size} must be one or more sizes above 0")
    raw, work = find_raw(options.data, options.stage, options.work), Work(options.work, options.stage)
    labels, repeated = read_labels(raw.labels) if raw.labels else (None, [])
    expected = image_ids(read_sample_submission(raw.sample_submission)) if raw.sample_submission else None
    source = source_of(raw)
    settings: dict[str, Any] = {
        "format": FORMAT if raw.stage else OWN_FORMAT,
        "folds": options.folds,
        "seed": options.seed,
    }
    with only_process(work.root / ".prepare.lock", "prepare.py"), without_temporaries(work.cache):
        refuse_other_raw(work, source)
        finished = finished_sizes(work, settings, options.take)
        if not options.check and set(options.image_size) <= finished and is_whole(work, raw, finished):
            print(f"{work.tables} is complete for image sizes {sorted(finished)}; nothing to do")
            tables = {split: read_slices(work, split) for split in raw.splits}
            return judge(work, tables, read_problems(work), options.min_readable)
        if not options.check:
            write_json(work.raw, source)  # first, so that a cache cut short is not filled from other data
        tables, series, problems = prepare_splits(raw, work, options)
        require_slices(raw, work, tables, series, problems)
        problems += problem_rows(Problem.REPEATED_LABEL, repeated)
        if labels is not None:
            tables["train"], found = join_labels(tables["train"], labels)
            problems += found + shared_patients(tables["train"], tables["test"])
        if expected is not None:
            tables["test"], found = add_missing(tables["test"], expected)
            problems += found
        settings |= {"image_size": sorted(finished | set(options.image_size))}
        if options.take:
            settings |= {"take": sorted(options.take)}
        listed = problem_table(problems)
        write_tables(work, tables, series, listed, options, settings)
        return judge(work, tables, listed, options.min_readable)


def prepare_splits(
    raw: RawFolder, work: Work, options: PrepareOptions
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, ProblemRows]:
    """The slice table of each split, the table of all series, and the problems; the store is written on the way.

    Raises InputError for a disk that is too full, and for a key of `take` that no series has.
    """
    pseudonyms = Pseudonyms(read_key(work.root / "pseudonyms.key"), challenge=raw.stage is not None)
    sizes = () if options.check else options.image_size
    tasks, problems = {}, []
    for split in raw.splits:
        tasks[split], found = find_series(raw, split, work, sizes, pseudonyms, options)
        problems += found
    everything = [task for split in tasks.values() for task in split]
    for line in missing_decoders(everything):
        print(line)
    if sizes:
        print(require_disk(work, everything))
    tables, lists = {}, []
    for split, series in tasks.items():
        prepared = progress_map(prepare_series, series, options.jobs, f"{split}: series", options.dask)
        taken, rows, left = select_series(prepared, split, options.take)
        tables[split], found = slice_table(taken)
        lists.append(rows)
        problems += left + found
    table = pd.concat(lists, ignore_index=True)
    require_keys(options.take, table)
    return tables, table, problems


def require_slices(
    raw: RawFolder, work: Work, tables: dict[str, pd.DataFrame], series: pd.DataFrame, problems: ProblemRows
) -> None:
    """Raise InputError if a split holds no slice to predict, once the lists that tell why are written."""
    for split, table in tables.items():
        if not table.empty:
            continue
        folder, left = getattr(raw, split), (series["split"] == split).sum()
        if not left:
            reason = f", first: {problems[0][1]}" if problems else ""
            raise InputError(f"{split}: no file in {folder} is a CT slice{reason}; name another with --data")
        write_csv(work.problems, problem_table(problems))
        write_csv(work.series_list, series)
        raise InputError(
            f"{split}: none of {left} series in {folder} is an axial head CT in Hounsfield units; {work.series_list} "
            "says why; take those that are all the same with --take KEY"
        )


def find_series(
    raw: RawFolder, split: str, work: Work, sizes: tuple[int, ...], pseudonyms: Pseudonyms, options: PrepareOptions
) -> tuple[list[SeriesTask], ProblemRows]:
    """The files of a split by series: the first bytes of each are read for that, nothing more."""
    files = raw.files(split)
    peeked = progress_map(peek_batch, in_batches(files), options.jobs, f"{split}: series of each file", options.dask)
    found = (file for batch in peeked for file in batch)
    tasks, problems = group_by_series(found, raw, work, sizes, pseudonyms, options.take)
    absent = [pseudonyms.file(path, raw.root) for path in absent_files(files)]
    return tasks, problems + problem_rows(Problem.ABSENT, absent)


def write_tables(
    work: Work,
    tables: dict[str, pd.DataFrame],
    series: pd.DataFrame,
    problems: pd.DataFrame,
    options: PrepareOptions,
    settings: dict,
) -> None:
    """Write what is not the store, and last the mark that the cache is complete; with --check what was found alone.

    Raises InputError for folds that cannot be made, and for a file that cannot be written.
    """
    folds = None
    if "train" in tables and not options.check:
        folds = make_folds(tables["train"].dropna(subset=list(LABELS)), options.folds, options.seed)
    waits = wait_for_decoder(problems["problem"])
    if waits and not options.check:
        work.prepared.unlink(missing_ok=True)  # first: it tells of a whole cache
    write_csv(work.problems, problems)
    write_csv(work.series_list, series)
    if not options.check:
        if folds is not None:
            write_csv(work.folds, folds)
        for split, table in tables.items():
            write_parquet(work.metadata(split), table)
        shown = next(iter(tables.values()))
        shown = shown[~shown["series_id"].isin(pictures(series))]
        write_contact_sheet(work.contact_sheet, work, shown, max(settings["image_size"]))
        if not waits:
            mark_complete(work, settings)  # last
    print_summary(work, tables, problems)
    print_series(series, whole=options.check)
