"""The cache as a whole: from which raw folder and with which settings it was made, and whether all of it is there.

cache/raw.json         what it is made from; written before anything else, so that nothing is filled up from other data
cache/prepare.json     the settings, and the hashes of the files without a checksum; written last: the cache is complete
"""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from models.common.errors import InputError
from models.common.files import damaged, hash_file, read_json, read_parquet, write_json
from models.common.folders import Work
from models.preprocessing.problems import wait_for_decoder
from models.preprocessing.raw import RawFolder
from models.preprocessing.tables import PREPARE, UNREADABLE

FORMAT = 3  # of the challenge's cache: raise it when the same files give another cache
OWN_FORMAT = 4  # of a cache of somebody's own files
_OLDER = "an older version, which took other values from the same files"


def source_of(raw: RawFolder) -> dict:
    """What a cache is made from, and in which way, as cache/raw.json holds it."""
    source = {"raw": raw.fingerprint()}
    return source if raw.stage else source | {"format": OWN_FORMAT}


def refuse_other_raw(work: Work, source: dict) -> None:
    """Raise InputError if the cache, whole or not, was made from other data, with series of the same names."""
    if not work.raw.is_file() or (cached := read_json(work.raw, PREPARE)) == source:
        return
    what = _OLDER if cached.get("raw") == source["raw"] else "another raw folder"
    raise InputError(f"{work.tables} was made with {what}; delete it, or choose another with --work")


def finished_sizes(work: Work, settings: dict, take: Collection[str] = ()) -> set[int]:
    """Image sizes (pixels) that a complete cache holds, none if it is not, or holds other series than `take` asks for.

    Raises InputError if it was made with other settings (format, folds, seed).
    """
    if not work.prepared.is_file():
        return set()
    cached = read_json(work.prepared, PREPARE)
    for name, value in settings.items():
        if cached.get(name) != value:
            what = _OLDER if name == "format" else f"--{name} {cached.get(name)}"
            raise InputError(f"{work.tables} was made with {what}; delete it, or choose another folder with --work")
    return set(cached["image_size"]) if cached.get("take", []) == sorted(take) else set()


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
    if wait_for_decoder(read_problems(work)["problem"]):
        return False
    tables = [read_parquet(work.metadata(split), PREPARE) for split in raw.splits]
    stored = {name for table in tables for name in table.loc[table["chunk"] != UNREADABLE, "series_id"].unique()}
    return all(stored <= {path.stem for path in work.slices(size).glob("*.b2nd")} for size in sizes)


def read_problems(work: Work) -> pd.DataFrame:
    """The rows of cache/problems.csv."""
    return pd.read_csv(work.problems, dtype=str, keep_default_na=False)


def mark_complete(work: Work, settings: dict) -> None:
    """Say that everything else of the cache is written, with these settings. Raises InputError if it cannot."""
    files = {path.name: hash_file(path) for path in plain_files(work) if path.is_file()}
    write_json(work.prepared, {**settings, "files": files})


def plain_files(work: Work) -> list[Path]:
    """The files of the cache that hold no checksum of their own."""
    return [work.folds, work.problems, work.series_list, work.contact_sheet]
