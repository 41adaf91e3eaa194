"""The cache as a whole: from which raw folder and with which settings it was made, and whether all of it is there.

cache/manifest/     what each series was made of (models/preprocessing/manifest.py)
cache/prepare.json  the settings, a hash of what the data folder held, and the hashes of the files without a checksum;
                    these are written last: the cache is complete
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from models.common.errors import InputError
from models.common.files import damaged, hash_file, legible, read_json, write_json
from models.common.folders import STORED, Work
from models.preprocessing.elements import stamp
from models.preprocessing.frames import FRAME
from models.preprocessing.grouping import Look
from models.preprocessing.manifest import Known, decoder_set
from models.preprocessing.options import PrepareOptions
from models.preprocessing.origin import noted, prepare_command
from models.preprocessing.problems import is_unread, wait_for_decoder
from models.preprocessing.raw import RawFolder
from models.preprocessing.tables import UNREADABLE, read_slices

_DECODERS = "decoders"  # of prepare.json: the packages and their versions; no setting, by which nothing is refused
_OLDER = "an older version of this project, whose caches cannot be added to"


def source_of(raw: RawFolder, labels: Path | None, looks: Mapping[str, Iterable[Look]]) -> str:
    """A hash of the names, sizes and times of all files of a raw folder, and of the split that each is in.

    `labels` is a table of labels that does not belong to it.
    """
    files = [(split, file.name, file.size, file.time) for split, of_split in looks.items() for file in of_split]
    files += [("", path.name, *stamp(path)) for path in (raw.labels, raw.sample_submission, labels) if path is not None]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def origin_of(raw: RawFolder, data: Path, labels: Path | None, drawn: bool) -> dict[str, str]:
    """Where a raw folder lies, for the messages that tell how to make the cache anew.

    Of own files, which were not drawn, the path may name a patient: only that there were labels is told.
    """
    if raw.stage is None and not drawn:
        return {"labels": "LABELS.csv"} if labels else {}
    paths = {"data": data} | ({"labels": labels} if labels else {})
    return {name: legible(path.absolute()) for name, path in paths.items()}


def refuse_older(work: Work) -> None:
    """Raise InputError for a cache, whole or not, whose store is made of frames of blosc2, or has no manifest."""
    kinds = [f"*{FRAME}"] if work.manifest.is_dir() else [f"*{FRAME}", f"*{STORED}"]
    if any(path for kind in kinds for path in work.cache.glob(f"slices_*/{kind}")):
        raise _made_with(work, _OLDER)


def refuse_without_labels(work: Work, cached: Mapping[str, Any], options: PrepareOptions) -> None:
    """Raise InputError where a cache was made with labels and is to be made without: nothing would be for training."""
    if "labels" in cached and options.labels is None and not options.check:
        raise InputError(
            f"{work.tables} was made with --labels; name that table again, or choose another folder with --work"
        )


def refuse_other_raw(work: Work, known: Mapping[str, Known], looks: Iterable[Look]) -> None:
    """Raise InputError if the cache, whole or not, holds other data: none of its files is there under its name."""
    same = (known[file.name].mark.size == file.size for file in looks if file.name in known)
    if known and not any(same):
        raise _made_with(work, "another raw folder")


def cached_settings(work: Work, settings: dict) -> dict:
    """What cache/prepare.json tells, {} if there is none. Raises InputError if its settings are others."""
    if not work.prepared.is_file():
        return {}
    cached = read_json(work.prepared, prepare_command(work))
    for name, value in settings.items():
        if cached.get(name) != value:
            raise _made_with(work, _OLDER if name == "format" else f"--{name} {cached.get(name)}")
    return cached


def _made_with(work: Work, what: str) -> InputError:
    return InputError(f"{work.tables} was made with {what}; delete it, or choose another folder with --work")


def is_whole(work: Work, cached: dict) -> bool:
    """Whether every file of a finished cache is there still: what was deleted as damaged is made anew.

    Nor is it whole where other decoders may read what could not be read. `cached` is what cache/prepare.json tells.
    Raises InputError for a file that has changed.
    """
    files = cached["files"]
    if not all((work.tables / name).is_file() for name in files):
        return False
    for name, expected in files.items():
        if hash_file(work.tables / name) != expected:
            raise damaged(work.tables / name, prepare_command(work))
    if not all(work.metadata(split).is_file() for split in cached["splits"]):
        return False
    problems = read_problems(work)["problem"]
    if wait_for_decoder(problems) or (cached.get(_DECODERS) != decoder_set() and any(map(is_unread, problems))):
        return False
    tables = [read_slices(work, split) for split in cached["splits"]]
    stored = {name for table in tables for name in table.loc[table["chunk"] != UNREADABLE, "series_id"].unique()}
    records = {path.stem for path in work.manifest.glob("*.json")}
    return bool(records) and all(
        stored <= {path.stem for path in work.slices(size).glob(f"*{STORED}") if path.is_file()}  # no link to nothing
        for size in cached["image_size"]
    )


def read_problems(work: Work) -> pd.DataFrame:
    """The rows of cache/problems.csv."""
    return pd.read_csv(work.problems, dtype=str, keep_default_na=False)


def lists_of(work: Work, check: bool) -> tuple[Path, Path]:
    """Where problems and series are listed; a check leaves alone those that a finished cache vouches for."""
    before = "checked_" if check and work.prepared.is_file() else ""
    problems, series = (path.with_name(f"{before}{path.name}") for path in (work.problems, work.series_list))
    return problems, series


def mark_unfinished(work: Work) -> None:
    """Before tables change: what is told of settings stays, but no longer that the cache is complete."""
    if cached := noted(work):
        write_json(work.prepared, {name: value for name, value in cached.items() if name != "files"})


def mark_complete(work: Work, settings: dict) -> None:
    """Say that everything else of the cache is written, with these settings. Raises InputError if it cannot."""
    files = {path.name: hash_file(path) for path in plain_files(work) if path.is_file()}
    write_json(work.prepared, {**settings, _DECODERS: decoder_set(), "files": files})


def plain_files(work: Work) -> list[Path]:
    """The files of the cache that hold no checksum of their own."""
    listed = sorted(work.tables.iterdir())  # a pattern for all of them would hide that they cannot be listed
    affines = [path for path in listed if path.match("affine_*.csv")]
    return [work.folds, work.problems, work.series_list, work.contact_sheet, *affines]
