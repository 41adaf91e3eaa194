"""The trained runs, and files of weights, that another run builds on."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from models.common.config import StudyConfig, TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.repair import command_of_fold
from models.training.run_record import RunRecord, field_differences, read_record, read_run

_FILES = (".safetensors", ".pth")  # of weights; those of a .pth are ImageNet's, and nothing else is read
_SAME = (
    "network",
    "channels",
    "pooling",
)  # of a start; the size of its images may be another, as in progressive resizing


class Source(NamedTuple):
    """A trained fold, whose network looks at single slices."""

    name: str
    folder: Path
    record: RunRecord
    config: TrainConfig  # the record's

    def store(self, work: Work, views: str, apart: bool = False) -> Path:
        """Where its embeddings lie, their mean over some views or those of each: others have another folder."""
        fold, weights = self.folder.name, self.record.weights_sha256[:12]
        return work.cache / "embeddings" / f"{self.name}_{fold}_{weights}_{views}{'_apart' if apart else ''}"


def find_source(name: str, folder: Path, flag: str) -> Source:
    """The fold of another run that the one in `folder` builds on: runs/<name>/fold<k> beside it.

    Raises InputError, naming the `flag` that chooses it, if it is not trained, or is no network of single slices.
    """
    return _source_in(folder.parent.parent / name / folder.name, flag)


def find_start(config: TrainConfig, folder: Path) -> Source | Path | None:
    """What the run in `folder` starts from: a trained fold, or a file of which nobody has noted how it was trained.

    A file that is the weights of a fold is that fold, wherever it lies. None where the configuration names nothing.
    Raises InputError if there is nothing, or the network is another one or sees something else.
    """
    if config.start is None:
        return None
    path = trained = Path(config.start)
    if config.start.endswith(_FILES):
        if not path.is_file():
            raise InputError(f"no weights at {path}; name a file with --start, or start with --no-pretrained")
        trained = _fold_of(path.resolve(), folder.parent.parent)
        if trained is None:
            return path
    elif re.fullmatch(r"\w[\w.-]*", config.start):
        trained = folder.parent.parent / config.start / folder.name
    elif (public := timm_file(path)) is not None:
        if not public.is_file():
            raise InputError(f"no weights at {public}, as timm's hub calls them; name another folder with --start")
        return public
    start = _source_in(trained, "--start")
    if different := field_differences(config, start.config, _SAME):
        raise InputError(f"{start.folder} has {', '.join(different)}; make it equal, or name another with --start")
    return start


def timm_file(folder: Path) -> Path | None:
    """The weights in a folder that is laid out as timm's hub is, whose config.json names an architecture; else None."""
    with suppress(OSError, ValueError, TypeError):
        if "architecture" in json.loads((folder / "config.json").read_text()):
            return folder / "model.safetensors"
    return None


def _fold_of(file: Path, runs: Path) -> Path | None:
    """The folder of the fold whose weights a file is: where it lies, or one of all `runs`.

    Raises InputError for another file in the folder of a fold.
    """
    if file.suffix == ".pth":
        return None
    sha256, home = hash_file(file), file.parent
    for folder in (home, *sorted(runs.glob("*/fold*"))):
        try:
            record = read_record(folder)
        except InputError:  # it is damaged, and not asked for
            continue
        if isinstance(record, RunRecord) and record.weights_sha256 == sha256:
            return folder
    if (home / "config.json").is_file() and timm_file(home) is None:
        raise InputError(f"{file} lies in the folder of a run, and is not the weights that it has; move it elsewhere")
    return None


def _source_in(folder: Path, flag: str) -> Source:
    name = folder.absolute().parent.name
    record = read_run(folder)
    if record is None:
        train = command_of_fold("train", folder)
        raise InputError(f"no trained network in {folder}; train it with: {train}, or name another run with {flag}")
    config = record.config
    if not isinstance(config, TrainConfig) or isinstance(config, StudyConfig):
        raise InputError(f"{folder} holds no network of single slices; name another run with {flag}")
    return Source(name, folder, record, config)
