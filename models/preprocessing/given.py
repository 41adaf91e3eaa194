"""What somebody names to be answered: files, folders, archives -> the files in them, and where they are named from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.common.errors import InputError
from models.common.patience import patiently
from models.preprocessing.archives import File, is_archive, is_packed
from models.preprocessing.dicomdir import NAME as DICOMDIR
from models.preprocessing.raw import walk


class Given(NamedTuple):
    """Files, and the folder or archive that they are named from."""

    root: Path
    files: list[File]


def find_given(paths: Sequence[Path], without: Sequence[Path]) -> Given:
    """All files below some paths, sorted by name and each once: of folders, zips and tars, of what a DICOMDIR lies in.

    What lies in a folder of `without`, where this project writes, is left out, unless it is named itself. Raises
    InputError for a path that is not there, holds no files, or may not be read.
    """
    found: dict[File, None] = {}
    for path in paths:
        own = _written_below(path, without)
        below = [file for file in _below(path) if not str(file).startswith(own)]
        if not below:
            raise InputError(f"{path} holds no files; name another file, folder or archive")
        found |= dict.fromkeys(below)
    return Given(_root(paths), sorted(found, key=lambda file: file.parts))


def _below(path: Path) -> list[File]:
    if not path.exists():
        raise InputError(f"there is no {path}; name a file, a folder or an archive")
    path = path.absolute()
    if path.is_dir():
        return patiently(lambda: walk(path), path)
    if path.name.upper() == DICOMDIR:
        return patiently(lambda: walk(path.parent), path)
    if is_packed(path.name) and not is_archive(path):
        raise InputError(f"{path}: a packed archive cannot be read in place; unpack it, or pack it as a zip")
    return patiently(lambda: walk(path), path) if is_archive(path) else [path]


def _written_below(path: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    """What the names of files below a path begin with that lie in one of some folders, however these are spelt."""
    place = path.absolute().parent if path.name.upper() == DICOMDIR else path.absolute()
    real = [(folder.absolute(), folder.resolve()) for folder in folders]
    inside = [place / lies.relative_to(place.resolve()) for _, lies in real if lies.is_relative_to(place.resolve())]
    return tuple(f"{one}{os.sep}" for one in [*inside, *(named for named, _ in real)] if one.is_relative_to(place))


def _root(paths: Sequence[Path]) -> Path:
    """The folder or archive, if one alone is named; else the folder that holds all that is named."""
    places = [path.absolute() for path in paths]
    if len(places) == 1 and (places[0].is_dir() or is_archive(places[0])):
        return places[0]
    return Path(os.path.commonpath([place.parent for place in places]))
