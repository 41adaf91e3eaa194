"""The raw folder: which files of a download are slices, labels and the sample submission, in an archive or not.

A place in an archive is a path that goes on where the file system ends: download.zip/stage_2_train.
"""

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from models.common.errors import InputError
from models.common.patience import patiently
from models.common.progress import progress_bar
from models.common.repair import command_of
from models.preprocessing.archives import ArchiveError, File, Member, archive_of, is_archive, is_packed, members
from models.preprocessing.dicomdir import NAME as DICOMDIR

_FOLDER = re.compile(r"stage_(?P<stage>[12])_(?P<split>train|test)(_images)?")
_TABLE = re.compile(r"stage_[12]_(train|sample_submission)\.csv(\.zip)?")  # Kaggle packs a single file
NESTED = "rsna-intracranial-hemorrhage-detection"  # the zip of `kaggle competitions download` holds this folder

_LISTED = 1000  # names after which a bar moves
_OWN = re.compile(r"cache|runs|blend|pseudonyms\.key|submission\.csv|by_file\.csv|report_\w+\.html")


@dataclass(frozen=True)
class RawFolder:
    """One stage of the challenge's data; or, with no stage, labels or training slices, any tree of DICOM files."""

    root: Path
    stage: int | None
    train: Path | None
    test: Path
    labels: File | None
    sample_submission: File | None
    work: Path | None = None  # the working folder: what this project writes there is no data

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of "train" and "test" that are there."""
        return ("test",) if self.train is None else ("train", "test")

    @property
    def folder(self) -> Path:
        """The folder from which files are named to a person: the archive that they may lie in is told."""
        archive = archive_of(self.root)
        return self.root if archive is None else archive.parent

    def files(self, split: str) -> list[File]:
        """The slices of "train" or "test", sorted by name; of a tree every file that is not hidden.

        Raises InputError for a folder or archive that may not be listed: what is in it must not be lost in silence.
        """
        folder = getattr(self, split)
        if self.stage is None:
            return sorted(walk(folder, self.work), key=lambda file: file.parts)
        if archive_of(folder):
            below = patiently(lambda: _members_below(folder), folder)
            return [file for name, file in below if "/" not in name and _is_slice(name)]
        return [folder / name for name in sorted(_slice_names(folder))]


def find_raw(data: Path, stage: int | None = None, work: Path | None = None) -> RawFolder:
    """Recognise a stage of the challenge in `data`, in any of the folder names that Kaggle has used, or a DICOM tree.

    Without `stage`, the second is taken where both are there. What is written into `work`, the working folder, is no
    data, also where it lies in `data`. Raises InputError naming what is missing, or may not be read.
    """
    return patiently(lambda: _recognise(data, stage, work), data)


def _recognise(data: Path, stage: int | None, work: Path | None) -> RawFolder:
    data = data.parent if data.name.upper() == DICOMDIR and data.is_file() else data
    _require(data)
    place = _find_place(data)
    root, folders, tables = place.root, place.folders, place.tables
    if stage is None and not folders and not tables:
        if not walk(root, work):
            raise InputError(f"{root} holds no files; name another folder with --data")
        return RawFolder(root, None, None, root, None, None, work)
    stage = stage or max({number for number, _ in folders} or {int(name[6]) for name in tables})
    for split in ("train", "test"):
        if (stage, split) not in folders:
            name = f"stage_{stage}_{split}"
            raise InputError(f"no folder {name} (or {name}_images) in {root}; unzip the challenge's data there")
    labels, sample = (_table(place, f"stage_{stage}_{name}.csv") for name in ("train", "sample_submission"))
    return RawFolder(root, stage, folders[stage, "train"], folders[stage, "test"], labels, sample)


def _require(data: Path) -> None:
    """Raise InputError unless this is a folder or an archive."""
    if data.is_dir() or (data.is_file() and is_archive(data)):
        return
    if data.is_file():
        reason = "a packed archive cannot be read in place" if is_packed(data.name) else "it is no folder, zip or tar"
        raise InputError(f"{data}: {reason}; unpack it (gunzip makes a .tar of a .tar.gz), or pack it as a zip")
    raise InputError(
        f"no data folder at {data}; name it with --data or RSNA_DATA, "
        f"or draw a phantom: {command_of('make_phantom', data)}"
    )


class _Place(NamedTuple):
    """A place where the challenge's data may lie, and what of them is there."""

    root: Path
    folders: dict[tuple[int, str], Path]  # by stage and split
    tables: dict[str, File]  # by name


def _find_place(data: Path) -> _Place:
    """Where the challenge's data lie: in the folder, or one of the zip's name in it, or in an archive in either."""
    if archive_of(data):
        inside = [_look_into(data / NESTED), _look_into(data)]
        return next((place for place in inside if place.folders), inside[-1])
    place = _look_into(data / NESTED if (data / NESTED).is_dir() else data)
    if place.folders:
        return place
    packed = []
    for archive in sorted(path for path in place.root.iterdir() if is_archive(path) and path.is_file()):
        try:
            packed += [found for root in (archive / NESTED, archive) if (found := _look_into(root)).folders]
        except ArchiveError:
            if archive.stem == NESTED:
                raise
    if len(packed) > 1:
        raise InputError(f"{packed[0].root} and {packed[1].root} hold the challenge's data; name one with --data")
    return packed[0] if packed else place


def _look_into(root: Path) -> _Place:
    if archive_of(root):
        below = _members_below(root)
        files = {name: file for name, file in below if "/" not in name}
        names = {name.partition("/")[0] for name, _ in below if "/" in name}
    else:
        entries = sorted(root.iterdir())
        files = {path.name: path for path in entries}
        names = {path.name for path in entries if path.is_dir()}
    folders = {(int(m["stage"]), m["split"]): root / m[0] for name in sorted(names) if (m := _FOLDER.fullmatch(name))}
    return _Place(root, folders, {name: file for name, file in files.items() if _TABLE.fullmatch(name)})


def _table(place: _Place, name: str) -> File:
    """A table of the challenge, also where it is packed alone. Raises InputError if there is none."""
    file, packed = place.tables.get(name), place.tables.get(f"{name}.zip")
    if isinstance(file, Member) or (isinstance(file, Path) and file.is_file()):
        return file
    if isinstance(packed, Path):
        for member in members(packed):
            if member.name == name:
                return member
    raise InputError(
        f"no {place.root / name}; it belongs to the challenge's data, download it beside the folders of slices"
    )


def _members_below(place: Path) -> list[tuple[str, Member]]:
    """The members of an archive that stand in a folder of it, at any depth, each with its name as seen from there.

    Raises ArchiveError, and OSError.
    """
    archive = archive_of(place)
    if archive is None:
        return []
    inner = "".join(f"{part}/" for part in place.relative_to(archive).parts)
    return [(file.inner[len(inner) :], file) for file in members(archive) if file.inner.startswith(inner)]


def _is_slice(name: str) -> bool:
    return name.strip().lower().endswith(".dcm")  # some names on Kaggle ended in a newline


def _slice_names(folder: Path) -> list[str]:
    def list_names() -> list[str]:
        # The challenge's folders hold up to 750,000 names, for which a disk of a network may need minutes.
        with os.scandir(folder) as entries, progress_bar(f"{folder.name}: files", None, unit_scale=True) as bar:
            names = []
            while some := [entry.name for entry in islice(entries, _LISTED)]:
                names += some
                bar.update(len(some))
            return [name for name in names if not name.startswith(".")]

    return [name for name in patiently(list_names, folder) if _is_slice(name)]


def walk(root: Path, work: Path | None = None) -> list[File]:
    """Every file below a place that is not hidden, nor this project's own; linked folders are followed, each once."""
    if archive_of(root):
        return [file for _, file in _members_below(root)]
    own = None if work is None or not work.is_dir() else _identity(work)
    seen, found, waiting = set(), [], [root]
    while waiting:
        folder = waiting.pop()
        identity, files, folders = patiently(lambda folder=folder: _list(folder), folder)
        if identity not in seen:
            found += [path for path in files if identity != own or not _OWN.fullmatch(path.name)]
            kept = [path for path in folders if identity != own or not _OWN.fullmatch(path.name)]
            waiting += sorted(kept, reverse=True)  # of two links to a folder the same one counts every time
        seen.add(identity)
    return [file for path in found for file in (_unfold(path) if is_archive(path) else (path,))]


def _unfold(archive: Path) -> Iterable[File]:
    """The members of an archive that lies among files; where it cannot be read in place, itself."""
    try:
        return patiently(lambda: members(archive), archive)
    except ArchiveError:
        return (archive,)


def _list(folder: Path) -> tuple[tuple[int, int], list[Path], list[Path]]:
    """What tells a folder from others under any name, its files and its folders, none hidden. Raises OSError."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):  # .nfs0123... too
                (folders if _is_folder(entry) else files).append(Path(entry.path))
    return _identity(folder), files, folders


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
