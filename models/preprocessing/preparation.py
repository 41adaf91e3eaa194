"""A raw folder -> the cache: every series into the store, then the tables, the folds and the report on problems."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from models.common.errors import InputError
from models.common.files import require_writable, without_temporaries, write_csv, write_parquet
from models.common.folders import DataFolder, Stage, Work, WorkFolder, default_data, default_work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.preprocessing.cache import (
    cached_settings,
    is_whole,
    mark_complete,
    read_problems,
    refuse_older,
    refuse_other_raw,
    source_of,
)
from models.preprocessing.challenge_csv import image_ids, read_labels, read_sample_submission
from models.preprocessing.folds import make_folds
from models.preprocessing.grouping import Look, SeriesTask, group_by_series, in_batches, look_batch
from models.preprocessing.manifest import FORMAT, Known, known_files
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
from models.preprocessing.tables import read_folds, read_slices

_BATCH = 256  # records that are read at a time


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
    retry: bool = False
    """read series again of which a file could not be read; without it they are when another decoder is there"""
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

    What the manifest has is not read again: of data that has grown or changed those series alone are made. Returns the
    exit code: 0, or 3 if too few slices are readable, or some wait for a decoder: the cache is then not finished, and
    the same command makes the rest. Raises InputError for data that is not there or cannot be used, for a cache that
    was made from other data or with other settings, or is damaged, for a disk that is too full, and for a file that the
    system does not let this process read.
    """
    if not options.image_size or min(options.image_size) < 1:
        raise InputError(f"--image-size {options.image_size} must be one or more sizes above 0")
    print(f"looking for slices in {options.data}")
    raw, work = find_raw(options.data, options.stage, options.work), Work(options.work, options.stage)
    truth = read_tables(raw)
    with only_process(work.root / ".prepare.lock", "prepare.py"), without_temporaries(work.cache):
        found = survey(raw, work, options)
        if not (options.check or options.retry) and found.is_complete and is_whole(work, raw, found.cached):
            print(f"{work.tables} is complete for image sizes {found.settings['image_size']}; nothing to do")
            tables = {split: read_slices(work, split) for split in raw.splits}
            return judge(work, tables, read_problems(work), options.min_readable)
        if not options.check:
            require_writable(work.manifest)
        known_folds = read_folds(work) if found.cached and work.folds.is_file() else None
        tasks, problems = find_series(found, raw, work, options)
        tables, series, of_slices = prepare_splits(tasks, work, options)
        require_slices(raw, work, tables, series, problems + of_slices)
        tables, of_tables = join_tables(tables, truth, found.pseudonyms)
        listed = problem_table(problems + of_slices + of_tables)
        write_tables(work, tables, series, listed, options, found.settings, known_folds)
        return judge(work, tables, listed, options.min_readable)


class Truth(NamedTuple):
    """What the tables of a challenge say, None where there is no such table."""

    labels: pd.DataFrame | None
    repeated: list[str]  # images whose rows stand more than once
    expected: pd.Series | None  # images that are to be predicted


def read_tables(raw: RawFolder) -> Truth:
    """Read the labels and the sample submission. Raises InputError if they cannot be used."""
    labels, repeated = read_labels(raw.labels) if raw.labels else (None, [])
    expected = image_ids(read_sample_submission(raw.sample_submission)) if raw.sample_submission else None
    return Truth(labels, repeated, expected)


@dataclass(frozen=True)
class Survey:
    """What is there before the work begins: the files, and what the cache tells of them."""

    looks: dict[str, list[Look]]  # the files of each split
    known: dict[str, Known]  # the files of the manifest, by name
    cached: dict[str, Any]  # what cache/prepare.json tells, {} without it
    settings: dict[str, Any]  # what it is to tell
    pseudonyms: Pseudonyms

    @property
    def is_complete(self) -> bool:
        """Whether the cache was made of these files with these settings, as far as what the cache tells of itself."""
        files = (file for split in self.looks.values() for file in split if file.reason is None)
        return self.settings.items() <= self.cached.items() and all(file.name in self.known for file in files)


def survey(raw: RawFolder, work: Work, options: PrepareOptions) -> Survey:
    """Look at each file of each split; one that the manifest knows and that has not changed is not opened.

    Raises InputError for a cache that was made from other data, with other settings or by an older version.
    """
    refuse_older(work)
    settings = {"format": FORMAT, "folds": options.folds, "seed": options.seed}
    cached = cached_settings(work, settings)
    pseudonyms = Pseudonyms(read_key(work.root / "pseudonyms.key"), challenge=raw.stage is not None)
    known = {} if options.check else read_manifest(work, options.jobs)
    looks = {}
    for split in raw.splits:
        batches = in_batches(raw.files(split), raw.root, pseudonyms, known)
        look = partial(look_batch, pseudonyms)
        found = progress_map(look, batches, options.jobs, f"{split}: series of each file", options.dask)
        looks[split] = [file for batch in found for file in batch]
    refuse_other_raw(work, known, (file for split in looks.values() for file in split))
    sizes = {*options.image_size, *(size for size in cached.get("image_size", []) if work.slices(size).is_dir())}
    settings |= {"source": source_of(raw, looks), "take": sorted(options.take), "image_size": sorted(sizes)}
    return Survey(looks, known, cached, settings, pseudonyms)


def read_manifest(work: Work, jobs: int) -> dict[str, Known]:
    """What is known of each file that the cache was made of, by its name."""
    paths = sorted(work.manifest.glob("*.json"))
    if not paths:
        return {}
    batches = [paths[first : first + _BATCH] for first in range(0, len(paths), _BATCH)]
    return dict(file for batch in progress_map(known_files, batches, jobs, "manifest") for file in batch)


def find_series(
    found: Survey, raw: RawFolder, work: Work, options: PrepareOptions
) -> tuple[dict[str, list[SeriesTask]], ProblemRows]:
    """The series of each split, and the problems of files that belong to none.

    Raises InputError for a series that has files in both splits.
    """
    sizes = () if options.check else tuple(found.settings["image_size"])
    tasks, problems = {}, []
    for split, files in found.looks.items():
        tasks[split], odd = group_by_series(files, raw, work, sizes, found.pseudonyms, options.take, options.retry)
        problems += odd
    keys = [{task.series for task in split} for split in tasks.values()]
    if len(keys) > 1 and (both := keys[0] & keys[1]):
        raise InputError(f"series {min(both)} has files in both {raw.train} and {raw.test}; move them into one of them")
    return tasks, problems


def prepare_splits(
    tasks: dict[str, list[SeriesTask]], work: Work, options: PrepareOptions
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, ProblemRows]:
    """The slice table of each split, the table of all series, and the problems; the store is written on the way.

    Raises InputError for a disk that is too full, and for a key of `take` that no series has.
    """
    everything = [task for split in tasks.values() for task in split]
    for line in missing_decoders(everything):
        print(line)
    if not options.check:
        print(require_disk(work, everything))
    tables, lists, problems = {}, [], []
    for split, series in tasks.items():
        parts = progress_map(prepare_series, series, options.jobs, f"{split}: series", options.dask)
        taken, rows, left = select_series([part for of_one in parts for part in of_one], split, options.take)
        tables[split], found = slice_table(taken)
        lists.append(rows)
        problems += left + found
    table = pd.concat(lists, ignore_index=True)
    require_keys(options.take, table)
    return tables, table, problems


def join_tables(
    tables: dict[str, pd.DataFrame], truth: Truth, pseudonyms: Pseudonyms
) -> tuple[dict[str, pd.DataFrame], ProblemRows]:
    """Put labels on the training slices, and rows for what is to be predicted and is not there on those of the test."""
    tables, problems = dict(tables), problem_rows(Problem.REPEATED_LABEL, map(pseudonyms.image, truth.repeated))
    if truth.labels is not None:
        labels = truth.labels.assign(image_id=pseudonyms.images(truth.labels["image_id"]))
        tables["train"], found = join_labels(tables["train"], labels)
        problems += found + shared_patients(tables["train"], tables["test"])
    if truth.expected is not None:
        tables["test"], found = add_missing(tables["test"], pseudonyms.images(truth.expected))
        problems += found
    return tables, problems


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


def write_tables(
    work: Work,
    tables: dict[str, pd.DataFrame],
    series: pd.DataFrame,
    problems: pd.DataFrame,
    options: PrepareOptions,
    settings: dict,
    known_folds: pd.DataFrame | None,
) -> None:
    """Write what is not the store, and last the mark that the cache is complete; with --check what was found alone.

    Raises InputError for folds that cannot be made, and for a file that cannot be written.
    """
    folds = None
    if "train" in tables and not options.check:
        folds = make_folds(tables["train"].dropna(subset=list(LABELS)), options.folds, options.seed, known_folds)
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
