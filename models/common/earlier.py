"""What earlier sessions left: their working folders are read, never written to, and this one goes on from them."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from models.common.errors import InputError
from models.common.folders import Work
from models.common.patience import patiently

_KEY = "pseudonyms.key"  # the names of own files follow from it


def go_on_from(folders: Iterable[Path], work: Work) -> None:
    """Take what the working folders of earlier sessions hold and this one lacks; of two that have it the first counts.

    The files of the cache are linked, one by one, so that what is made anew stands in their place and not in theirs;
    folds of runs are copied whole, checkpoints and half-made predictions with them. Several processes may do this at a
    time, and one that was killed has left nothing half-done. Raises InputError for a folder that holds neither.
    """
    for folder in folders:
        earlier = Work(folder)
        if not (earlier.cache.is_dir() or earlier.runs.is_dir()):
            raise InputError(
                f"{folder} holds neither cache/ nor runs/; name working folders of earlier sessions with --work-from"
            )
        if folder.resolve() == work.root.resolve():
            raise InputError(f"{folder} is the working folder itself; name an earlier one with --work-from")
        linked = sum(_link(earlier.cache / name, work.cache / name) for name in _files(earlier.cache))
        copied = sum(_copy_fold(fold, work.runs / fold.relative_to(earlier.runs)) for fold in _folds(earlier.runs))
        _link(folder / _KEY, work.root / _KEY)
        if linked or copied:
            print(f"{folder}: {copied:,} folds of runs copied, {linked:,} files of the cache linked")


def _files(root: Path) -> Iterator[Path]:
    """The files below a folder that are not hidden, as seen from there; hidden ones are locks, or half-written."""
    waiting = [root] if root.is_dir() else []
    while waiting:
        folder = waiting.pop()
        for entry in patiently(lambda folder=folder: list(os.scandir(folder)), folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append(Path(entry.path))
            elif entry.is_file():  # no link that leads nowhere
                yield Path(entry.path).relative_to(root)


def _folds(runs: Path) -> list[Path]:
    return sorted(path for path in runs.glob("[!.]*/[!.]*") if path.is_dir())


def _link(file: Path, own: Path) -> bool:
    """Link to a file, unless there is one of that name, or none to link to; whether it was done."""
    if own.exists() or not file.is_file():
        return False
    own.parent.mkdir(parents=True, exist_ok=True)
    own.unlink(missing_ok=True)  # a link that leads nowhere
    with suppress(FileExistsError):  # another process was faster
        own.symlink_to(file.resolve())
        return True
    return False


def _copy_fold(fold: Path, own: Path) -> bool:
    """Copy the folder of a fold, whole or not at all, unless there is one; whether it was done."""
    if own.exists():
        return False
    own.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{own.name}.", dir=own.parent))
    try:
        copy = draft / own.name
        # Bytes alone: what is read-only there is not to be so here.
        shutil.copytree(fold, copy, ignore=shutil.ignore_patterns(".*"), copy_function=shutil.copyfile)
        copy.chmod(0o755)
        for folder in copy.rglob("*/"):
            folder.chmod(0o755)
        with suppress(OSError):  # another process was faster
            copy.rename(own)
            return True
        return False
    finally:
        shutil.rmtree(draft, ignore_errors=True)
