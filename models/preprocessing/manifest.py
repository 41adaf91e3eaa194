"""cache/manifest/<series>.json: what each series was made of, and what came of it, so that nothing is done twice.

A record is written once everything else of its series is: what a killed process has left half-way has none. It names
files as reports do, by keyed hashes where they are somebody's own.
"""

from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from models.common.errors import InputError
from models.common.files import read_json, write_json
from models.common.folders import Work
from models.common.patience import patiently
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.pseudonyms import Names

FORMAT = 6  # raise it when the same files give another cache
_DECODERS = ("imagecodecs", "pyjpegls", "pylibjpeg-openjpeg")


class Mark(NamedTuple):
    """What tells a file from another one of its name, and what the first look at it has told."""

    size: int  # bytes
    time: int  # of its last change, ns
    crc32: int  # of all its bytes
    syntax: str  # the transfer syntax
    image_id: str  # a pseudonym, as all names here


class Known(NamedTuple):
    """A file of the manifest."""

    mark: Mark
    names: Names
    series: str  # the key of the record


@dataclass(frozen=True)
class Record:
    """The entry of one series as its files group it: what differs among them has made several parts of it."""

    series: str  # the key: the name of the series, unless two patients or studies share it
    names: Names  # of the first image, the series, the study and the patient
    files: dict[str, Mark]
    image_sizes: list[int]  # whose stores hold it, as far as they are to
    decoders: dict[str, str]  # package -> version
    shared: list[str]  # names of images that other series have, too
    parts: list[SeriesNotes]
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """The record as its file keeps it."""
        return vars(self) | {"parts": [part.to_json() for part in self.parts]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Record":
        """Rebuild a record from `to_json`."""
        return cls(
            **content
            | {
                "names": Names(*content["names"]),
                "files": {name: Mark(*mark) for name, mark in content["files"].items()},
                "parts": [SeriesNotes.from_json(part) for part in content["parts"]],
            }
        )


def write_record(work: Work, record: Record) -> None:
    """Write the entry of a series. Raises InputError if it cannot be written."""
    write_json(work.manifest / f"{record.series}.json", record.to_json(), indent=None)


def read_record(path: Path) -> Record | None:
    """The entry of a series; None if there is none, or it is damaged: then its series is made anew."""
    try:
        content = read_json(path, "")
        return Record.from_json(content) if content["format"] == FORMAT else None
    except (FileNotFoundError, InputError, KeyError, TypeError):
        return None


def known_files(path: Path) -> list[tuple[str, Known]]:
    """The name of each file in a record, and what is known of it."""
    record = patiently(partial(read_record, path), path)
    if record is None:
        return []
    return [
        (name, Known(mark, record.names._replace(image_id=mark.image_id), record.series))
        for name, mark in record.files.items()
    ]


@cache
def decoder_set() -> dict[str, str]:
    """The packages that decode here, and their versions."""
    found = {}
    for package in _DECODERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
