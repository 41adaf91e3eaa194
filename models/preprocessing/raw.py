"""The raw folder: which files of a download are slices, labels and the sample submission."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError

_FOLDER = re.compile(r"stage_(?P<stage>[12])_(?P<split>train|test)(_images)?")
_NESTED = "rsna-intracranial-hemorrhage-detection"  # the zip of `kaggle competitions download` holds this folder


@dataclass(frozen=True)
class RawFolder:
    """One stage of the challenge's data."""

    stage: int
    train: Path
    test: Path
    labels: Path
    sample_submission: Path

    def files(self, split: str) -> list[Path]:
        """The slices of "train" or "test", sorted by name."""
        return sorted(path for path in getattr(self, split).iterdir() if path.suffix == ".dcm")

    def fingerprint(self) -> str:
        """A hash of the names and sizes of all files: another download has another one."""
        files = [*self.files("train"), *self.files("test"), self.labels, self.sample_submission]
        lines = "\n".join(f"{path.relative_to(self.labels.parent)} {path.stat().st_size}" for path in files)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


def find_raw(data: Path) -> RawFolder:
    """Recognise the stage-2, else the stage-1 layout in `data`, in any of the folder names that Kaggle has used.

    Raises InputError naming what is missing.
    """
    if not data.is_dir():
        raise InputError(
            f"no data folder at {data}; name it with --data or RSNA_DATA, "
            f"or draw a phantom: python models/make_phantom.py {data}"
        )
    root = data / _NESTED if (data / _NESTED).is_dir() else data
    folders = {
        (int(m["stage"]), m["split"]): path
        for path in sorted(root.iterdir())
        if (m := _FOLDER.fullmatch(path.name)) and path.is_dir()
    }
    stage = 2 if any(stage == 2 for stage, _ in folders) else 1
    for split in ("train", "test"):
        if (stage, split) not in folders:
            name = f"stage_{stage}_{split}"
            raise InputError(f"no folder {name} (or {name}_images) in {root}; unzip the challenge's data there")
    labels, sample = root / f"stage_{stage}_train.csv", root / f"stage_{stage}_sample_submission.csv"
    for file in (labels, sample):
        if not file.is_file():
            raise InputError(f"no {file}; it belongs to the challenge's data, download it beside the folders of slices")
    return RawFolder(stage, folders[stage, "train"], folders[stage, "test"], labels, sample)
