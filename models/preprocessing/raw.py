"""The raw folder: which files of a download are slices, labels and the sample submission."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import InputError

_FOLDER = re.compile(r"stage_(?P<stage>[12])_(?P<split>train|test)(_images)?")
_TABLE = re.compile(r"stage_[12]_(train|sample_submission)\.csv")
NESTED = "rsna-intracranial-hemorrhage-detection"  # the zip of `kaggle competitions download` holds this folder


@dataclass(frozen=True)
class RawFolder:
    """One stage of the challenge's data; or, with no stage, labels or training slices, any tree of DICOM files."""

    root: Path
    stage: int | None
    train: Path | None
    test: Path
    labels: Path | None
    sample_submission: Path | None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of "train" and "test" that are there."""
        return ("test",) if self.train is None else ("train", "test")

    def files(self, split: str) -> list[Path]:
        """The slices of "train" or "test", sorted by name; of a tree every file that is not hidden."""
        folder = getattr(self, split)
        if self.stage is None:
            return sorted(_walk(folder))
        with os.scandir(folder) as entries:  # some names on Kaggle ended in a newline
            names = [entry.name for entry in entries if entry.name.strip().lower().endswith(".dcm")]
        return [folder / name for name in sorted(names)]

    def fingerprint(self) -> str:
        """A hash of the names and sizes of all files: another download has another one."""
        files = [path for split in self.splits for path in self.files(split)]
        files += [path for path in (self.labels, self.sample_submission) if path is not None]
        digest = hashlib.sha256()
        for path in files:
            digest.update(os.fsencode(f"{path.relative_to(self.root)} {_size(path)}\n"))
        return digest.hexdigest()[:16]


def find_raw(data: Path, stage: int | None = None) -> RawFolder:
    """Recognise a stage of the challenge in `data`, in any of the folder names that Kaggle has used, or a DICOM tree.

    Without `stage`, the second is taken where both are there. Raises InputError naming what is missing.
    """
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
        if next(_walk(root), None) is None:
            raise InputError(f"{root} holds no files; name another folder with --data")
        return RawFolder(root, None, None, root, None, None)
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


def _walk(root: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden; linked folders are followed, each folder once."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link
        return -1
