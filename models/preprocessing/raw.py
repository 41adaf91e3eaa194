"""The raw folder: which files of a download are slices, labels and the sample submission."""

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import InputError
from models.common.patience import patiently

_FOLDER = re.compile(r"stage_(?P<stage>[12])_(?P<split>train|test)(_images)?")
_TABLE = re.compile(r"stage_[12]_(train|sample_submission)\.csv")
NESTED = "rsna-intracranial-hemorrhage-detection"  # the zip of `kaggle competitions download` holds this folder

_OWN = re.compile(r"cache|runs|blend|pseudonyms\.key|submission\.csv|by_file\.csv|report_\w+\.html")


@dataclass(frozen=True)
class RawFolder:
    """One stage of the challenge's data; or, with no stage, labels or training slices, any tree of DICOM files."""

    root: Path
    stage: int | None
    train: Path | None
    test: Path
    labels: Path | None
    sample_submission: Path | None
    work: Path | None = None  # the working folder: what this project writes there is no data

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of "train" and "test" that are there."""
        return ("test",) if self.train is None else ("train", "test")

    def files(self, split: str) -> list[Path]:
        """The slices of "train" or "test", sorted by name; of a tree every file that is not hidden.

        Raises InputError for a folder that may not be listed: what is in it must not be lost in silence.
        """
        folder = getattr(self, split)
        if self.stage is None:
            return sorted(_walk(folder, self.work))
        return [folder / name for name in sorted(_slice_names(folder))]

    def fingerprint(self) -> str:
        """A hash of the names and sizes of all files: another download has another one."""
        files = [path for split in self.splits for path in self.files(split)]
        files += [path for path in (self.labels, self.sample_submission) if path is not None]
        digest = hashlib.sha256()
        for path in files:
            digest.update(os.fsencode(f"{path.relative_to(self.root)} {_size(path)}\n"))
        return digest.hexdigest()[:16]


def find_raw(data: Path, stage: int | None = None, work: Path | None = None) -> RawFolder:
    """Recognise a stage of the challenge in `data`, in any of the folder names that Kaggle has used, or a DICOM tree.

    Without `stage`, the second is taken where both are there. What is written into `work`, the working folder, is no
    data, also where it lies in `data`. Raises InputError naming what is missing, or may not be read.
    """
    return patiently(lambda: _recognise(data, stage, work), data)


def _recognise(data: Path, stage: int | None, work: Path | None) -> RawFolder:
    if not data.is_dir():
        raise InputError(
            f"no data folder at {data}; name it with --data or RSNA_DATA, "
            f"or draw a phantom: python models/make_phantom.py {data}"
        )
    root = data / NESTED if (data / NESTED).is_dir() else data
    entries = sorted(root.iterdir())
    folders = {
        (int(m["stage"]), m["split"]): path for path in entries if (m := _FOLDER.fullmatch(path.name)) and path.is_dir()
    }
    if stage is None and not folders and not any(_TABLE.fullmatch(path.name) for path in entries):
        if not _walk(root, work):
            raise InputError(f"{root} holds no files; name another folder with --data")
        return RawFolder(root, None, None, root, None, None, work)
    stage = stage or _latest_stage(folders, entries)
    for split in ("train", "test"):
        if (stage, split) not in folders:
            name = f"stage_{stage}_{split}"
            raise InputError(f"no folder {name} (or {name}_images) in {root}; unzip the challenge's data there")
    labels, sample = root / f"stage_{stage}_train.csv", root / f"stage_{stage}_sample_submission.csv"
    for file in (labels, sample):
        if not file.is_file():
            raise InputError(f"no {file}; it belongs to the challenge's data, download it beside the folders of slices")
    return RawFolder(root, stage, folders[stage, "train"], folders[stage, "test"], labels, sample)


def _latest_stage(folders: dict[tuple[int, str], Path], entries: list[Path]) -> int:
    stages = {stage for stage, _ in folders} or {int(path.name[6]) for path in entries if _TABLE.fullmatch(path.name)}
    return max(stages)


def _slice_names(folder: Path) -> list[str]:
    def list_names() -> list[str]:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]

    # Some names on Kaggle ended in a newline.
    return [name for name in patiently(list_names, folder) if name.strip().lower().endswith(".dcm")]


def _walk(root: Path, work: Path | None) -> list[Path]:
    """Every file below a folder that is not hidden, nor this project's own; linked folders are followed, each once."""
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
    return found


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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link
        return -1
