"""A raw folder -> the cache: every series into the store, then the tables, the folds and the report on problems."""

from pathlib import Path
from typing import Any

import pandas as pd

from models.common.earlier import go_on_from
from models.common.errors import InputError
from models.common.files import require_writable, without_temporaries, write_csv, write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.common.repair import command_of
from models.common.session import within
from models.preprocessing.affine import affine_table
from models.preprocessing.cache import (
    is_whole,
    lists_of,
    mark_complete,
    mark_unfinished,
    read_problems,
    refuse_without_labels,
)
from models.preprocessing.folds import make_folds
from models.preprocessing.grouping import SeriesTask
from models.preprocessing.metadata import slice_table
from models.preprocessing.options import PrepareOptions
from models.preprocessing.origin import listed, marked, title_of
from models.preprocessing.parallel import progress_batches
from models.preprocessing.problems import ProblemRows, problem_table, wait_for_decoder
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
from models.preprocessing.series import prepare_batch
from models.preprocessing.shares import Share, read_share, require_key
from models.preprocessing.survey import find_series, survey
from models.preprocessing.tables import earlier_folds, read_slices
from models.preprocessing.truth import join_tables, read_tables

_BATCH = 16  # series that a process prepares at a time


def prepare(options: PrepareOptions) -> int:
    """Make the cache of a raw folder, or what it still lacks; with `check`, only report what is wrong with the files.

    What the manifest has is not read again: of data that has grown or changed those series alone are made. Returns the
    exit code: 0, or 3 if too few slices are readable, or some wait for a decoder: the cache is then not finished, and
    the same command makes the rest. Raises InputError for data that is not there or cannot be used, for a cache that
    was made from other data or with other settings, or is damaged, for a disk that is too full, and for a file that the
    system does not let this process read; OutOfTime at the end of a budget.
    """
    if not options.image_size or min(options.image_size) < 1:
        raise InputError(f"--image-size {options.image_size} must be one or more sizes above 0")
    share = None if options.part is None else read_share(options.part)
    go_on_from(options.session, Work(options.work, options.stage))
    with within(options.session.hours_left):
        return make_cache(options, share)


def make_cache(options: PrepareOptions, share: Share | None) -> int:
    """The same of the whole cache or, of a share of the series, their stores alone. Raises InputError as `prepare`."""
    print(f"looking for slices in {options.data}")
    raw, work = find_raw(options.data, options.stage, options.work), Work(options.work, options.stage)
    truth = read_tables(raw, options.labels)
    with only_process(work.root / ".prepare.lock", "prepare.py"), without_temporaries(work.cache):
        if share is not None and raw.stage is None:
            require_key(share, work)
        found = survey(raw, work, options)
        refuse_without_labels(work, found.cached, options)
        if not (options.check or options.retry) and found.is_complete and is_whole(work, found.cached):
            print(f"{work.tables} is complete for image sizes {found.settings['image_size']}; nothing to do")
            tables = {split: read_slices(work, split) for split in found.cached["splits"]}
            return judge(work.problems, tables, read_problems(work), options.min_readable)
        if not options.check:
            require_writable(work.manifest)
            work.begun.touch()
        known_folds = earlier_folds(work, options.folds)
        tasks, problems = find_series(found, raw, work, options)
        if share is not None:
            return make_share(tasks, share, work, options)
        tables, series, of_slices = prepare_splits(tasks, work, options)
        lists = lists_of(work, options.check)
        require_slices(raw, lists, tables, series, problems + of_slices)
        tables, of_tables = join_tables(tables, series, truth, found.pseudonyms)
        rows = problem_table(problems + of_slices + of_tables)
        write_tables(work, tables, series, rows, options, found.settings | found.origin, known_folds)
        return judge(lists[0], tables, rows, options.min_readable)


def make_share(tasks: dict[str, list[SeriesTask]], share: Share, work: Work, options: PrepareOptions) -> int:
    """Store a share of the series, and write no table. Returns the exit code. Raises InputError as `prepare_splits`."""
    own = {split: [task for task in of_split if share.holds(task.series)] for split, of_split in tasks.items()}
    _, _, problems = prepare_splits(own, work, options)
    count, of = (sum(map(len, split.values())) for split in (own, tasks))
    print(
        f"{work.cache}: part {options.part}, {count:,} of {of:,} series; when all {share.of} are made, join them with: "
        f"{command_of('prepare', '--image-size', *options.image_size, '--work-from', 'FOLDER', '...')}"
    )
    return 3 if wait_for_decoder(problem for _, problem, _ in problems) else 0


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
        print(require_disk(work, everything, options.session))
    tables, lists, problems = {}, [], []
    for split, series in tasks.items():
        parts = progress_batches(prepare_batch, series, options.jobs, f"{split}: series", _BATCH, options.dask)
        taken, rows, left = select_series([part for of_one in parts for part in of_one], split, options.take)
        tables[split], found = slice_table(taken)
        lists.append(rows)
        problems += left + found
    table = pd.concat(lists, ignore_index=True)
    if options.part is None:  # else another part may have them
        require_keys(options.take, table)
    return tables, table, problems


def require_slices(
    raw: RawFolder,
    lists: tuple[Path, Path],
    tables: dict[str, pd.DataFrame],
    series: pd.DataFrame,
    problems: ProblemRows,
) -> None:
    """Raise InputError if a split holds no slice to predict, once the `lists_of` a cache that tell why are written."""
    of_problems, of_series = lists
    for split, table in tables.items():
        if not table.empty:
            continue
        folder, left = getattr(raw, split), (series["split"] == split).sum()
        if not left:
            reason = f", first: {problems[0][1]}" if problems else ""
            raise InputError(f"{split}: no file in {folder} is a CT slice{reason}; name another with --data")
        write_csv(of_problems, problem_table(problems))
        write_csv(of_series, series)
        raise InputError(
            f"{split}: none of {left} series in {folder} is an axial head CT in Hounsfield units; {of_series} "
            "says why; take those that are all the same with --take KEY"
        )


def write_tables(
    work: Work,
    tables: dict[str, pd.DataFrame],
    series: pd.DataFrame,
    problems: pd.DataFrame,
    options: PrepareOptions,
    settings: dict[str, Any],
    known_folds: pd.DataFrame | None,
) -> None:
    """Write what is not the store, and last the mark that the cache is complete; with --check what was found alone.

    Raises InputError for folds that cannot be made, and for a file that cannot be written.
    """
    series["split"] = series["series_id"].map(split_of(tables)).fillna(series["split"])
    folds = None
    if "train" in tables and not options.check:
        folds = make_folds(tables["train"].dropna(subset=list(LABELS)), options.folds, options.seed, known_folds)
    waits = wait_for_decoder(problems["problem"])
    if not options.check:  # first: they tell of a whole cache
        for split in ("train", "test"):
            work.metadata(split).unlink(missing_ok=True)
        mark_unfinished(work)
    of_problems, of_series = lists_of(work, options.check)
    write_csv(of_problems, problems)
    write_csv(of_series, listed(series, settings))
    if not options.check:
        if folds is not None:
            write_csv(work.folds, folds)
        whole = pd.concat(tables.values(), ignore_index=True)
        for size in settings["image_size"]:
            write_csv(work.affines(size), listed(affine_table(whole, size), settings))
        shown = next(iter(tables.values()))
        shown = shown[~shown["series_id"].isin(pictures(series))]
        write_contact_sheet(work.contact_sheet, work, shown, max(settings["image_size"]), title_of(settings))
        for split, table in tables.items():
            write_parquet(work.metadata(split), marked(table, settings))
        if not waits:
            mark_complete(work, settings | {"splits": list(tables)})  # last
    print_summary(work, tables, problems, of_problems)
    print_series(series, whole=options.check)


def split_of(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """The split of each series that is taken."""
    return {name: split for split, table in tables.items() for name in table["series_id"].dropna().unique()}
