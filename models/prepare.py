"""Step 1: a folder of DICOM files -> cache/ (metadata, slice store, folds, problems).

    python models/prepare.py --data data --image-size 224 512
    python models/prepare.py --check          # the report alone: every file is read, no slice is stored

Needs the challenge's data in Kaggle's layout, a phantom (python models/make_phantom.py data), or any tree of CT files,
which all become test slices. Writes cache/metadata_{train,test}.parquet, cache/slices_<size>/<series>.b2nd,
cache/folds.csv, cache/problems.csv and cache/contact_sheet.png. It can be stopped at any moment: the same command goes
on where it was.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from models.common.cli import command
from models.common.errors import InputError
from models.common.files import (
    damaged,
    hash_file,
    read_json,
    read_parquet,
    without_temporaries,
    write_csv,
    write_json,
    write_parquet,
)
from models.common.folders import DataFolder, Stage, Work, WorkFolder, default_data, default_work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.preprocessing.challenge_csv import image_ids, read_labels, read_sample_submission
from models.preprocessing.folds import make_folds
from models.preprocessing.metadata import add_missing, join_labels, shared_patients, slice_table
from models.preprocessing.parallel import progress_map
from models.preprocessing.problems import Problem, problem_rows, problem_table
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.raw import RawFolder, find_raw
from models.preprocessing.report import print_summary, require_disk, write_contact_sheet
from models.preprocessing.series import SeriesTask, group_by_series, in_batches, peek_batch, prepare_series
from models.preprocessing.tables import PREPARE

FORMAT = 3  # of the cache: raise it when the same files give another cache


@dataclass(frozen=True)
class PrepareOptions:
    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    image_size: tuple[int, ...] = (224, 512)
    """sides of the stored slices, pixels; one store for each"""
    folds: int = 5
    """parts for cross-validation, grouped by patient"""
    seed: int = 0
    """of the folds"""
    stage: Stage = None
    check: bool = False
    """only read everything and report what is wrong"""
    jobs: int = -1
    """processes; -1: one a core"""
    dask: str | None = None
    """scheduler of a Dask cluster to work on (tcp://...), which sees the same folders"""


def prepare(options: PrepareOptions) -> None:
    if not options.image_size or min(options.image_size) < 1:
        raise InputError(f"--image-size {options.image_size} must be one or more sizes above 0")
    raw, work = find_raw(options.data, options.stage), Work(options.work, options.stage)
    labels, repeated = read_labels(raw.labels) if raw.labels else (None, [])
    expected = image_ids(read_sample_submission(raw.sample_submission)) if raw.sample_submission else None
    source = {"raw": raw.fingerprint()}
    settings = {"format": FORMAT, "folds": options.folds, "seed": options.seed}
    with only_process(work.root / ".prepare.lock", "prepare.py"), without_temporaries(work.cache):
        refuse_other_raw(work, source)
        finished = finished_sizes(work, settings)
        if not options.check and set(options.image_size) <= finished and is_whole(work, raw, finished):
            print(f"{work.tables} is complete for image sizes {sorted(finished)}; nothing to do")
            return
        if not options.check:
            write_json(work.raw, source)  # first, so that a cache cut short is not filled from other data
        tables, problems = prepare_splits(raw, work, options)
        problems += problem_rows(Problem.REPEATED_LABEL, repeated)
        if labels is not None:
            tables["train"], found = join_labels(tables["train"], labels)
            problems += found + shared_patients(tables["train"], tables["test"])
        if expected is not None:
            tables["test"], found = add_missing(tables["test"], expected)
            problems += found
        settings["image_size"] = sorted(finished | set(options.image_size))
        write_tables(work, tables, problem_table(problems), options, settings)


def prepare_splits(raw: RawFolder, work: Work, options: PrepareOptions) -> tuple[dict[str, pd.DataFrame], list]:
    """The slice table of each split and the problems; the store of every series is written on the way."""
    pseudonyms = Pseudonyms(read_key(work.root / "pseudonyms.key"), challenge=raw.stage is not None)
    sizes = () if options.check else options.image_size
    tasks, problems = {}, []
    for split in raw.splits:
        tasks[split], found = find_series(raw, split, work, sizes, pseudonyms, options)
        problems += found
    if sizes:
        print(require_disk(work, [task for split in tasks.values() for task in split]))
    tables = {}
    for split, series in tasks.items():
        prepared = progress_map(prepare_series, series, options.jobs, f"{split}: series", options.dask)
        tables[split], found = slice_table(prepared)
        problems += found
        if tables[split].empty:
            reason = f", first: {problems[0][1]}" if problems else ""
            raise InputError(
                f"{split}: no file in {getattr(raw, split)} is a CT slice{reason}; name another with --data"
            )
    return tables, problems


def find_series(
    raw: RawFolder, split: str, work: Work, sizes: tuple[int, ...], pseudonyms: Pseudonyms, options: PrepareOptions
) -> tuple[list[SeriesTask], list]:
    """The files of a split by series: the first bytes of each are read for that, nothing more."""
    files = raw.files(split)
    peeked = progress_map(peek_batch, in_batches(files), options.jobs, f"{split}: series of each file", options.dask)
    return group_by_series((file for batch in peeked for file in batch), raw, work, sizes, pseudonyms)


def write_tables(
    work: Work, tables: dict[str, pd.DataFrame], problems: pd.DataFrame, options: PrepareOptions, settings: dict
) -> None:
    """Write what is not the store, and last the mark that the cache is complete; with --check the problems alone."""
    folds = None
    if "train" in tables and not options.check:
        folds = make_folds(tables["train"].dropna(subset=list(LABELS)), options.folds, options.seed)
    write_csv(work.problems, problems)
    if not options.check:
        if folds is not None:
            write_csv(work.folds, folds)
        for split, table in tables.items():
            write_parquet(work.metadata(split), table)
        write_contact_sheet(work.contact_sheet, work, next(iter(tables.values())), max(settings["image_size"]))
        files = {path.name: hash_file(path) for path in plain_files(work) if path.is_file()}
        write_json(work.prepared, {**settings, "files": files})  # last: it says that the cache is complete
    print_summary(work, tables, problems)


def plain_files(work: Work) -> list[Path]:
    """The files of the cache that hold no checksum of their own."""
    return [work.folds, work.problems, work.contact_sheet]


def refuse_other_raw(work: Work, source: dict) -> None:
    """Raise InputError if the cache, whole or not, was made from other data, with series of the same names."""
    if work.raw.is_file() and read_json(work.raw, PREPARE) != source:
        raise InputError(f"{work.tables} was made with another raw folder; delete it, or choose another with --work")


def finished_sizes(work: Work, settings: dict) -> set[int]:
    """Image sizes that the cache holds. Raises InputError if it was made with other folds."""
    if not work.prepared.is_file():
        return set()
    cached = read_json(work.prepared, PREPARE)
    for name, value in settings.items():
        if cached.get(name) != value:
            what = f"--{name} {cached.get(name)}"
            raise InputError(f"{work.tables} was made with {what}; delete it, or choose another folder with --work")
    return set(cached["image_size"])


def is_whole(work: Work, raw: RawFolder, sizes: set[int]) -> bool:
    """Whether every file of a finished cache is there still: what was deleted as damaged is made anew.

    Raises InputError for a file that has changed.
    """
    files = read_json(work.prepared, PREPARE)["files"]
    if not all((work.tables / name).is_file() for name in files) or not work.raw.is_file():
        return False
    for name, expected in files.items():
        if hash_file(work.tables / name) != expected:
            raise damaged(work.tables / name, PREPARE)
    if not all(work.metadata(split).is_file() for split in raw.splits):
        return False
    tables = [read_parquet(work.metadata(split), PREPARE) for split in raw.splits]
    stored = {name for table in tables for name in table.loc[table["chunk"] >= 0, "series_id"].unique()}
    return all(stored <= {path.stem for path in work.slices(size).glob("*.b2nd")} for size in sizes)


if __name__ == "__main__":
    command(prepare, PrepareOptions)
