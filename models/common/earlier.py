"""What earlier sessions left: their working folders are read, never written to, and this one goes on from them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from models.common.errors import InputError
from models.common.files import replacing
from models.common.folders import Work
from models.common.locks import only_process
from models.common.patience import patiently
from models.common.session import Session

_PATIENCE = 3600.0  # seconds, of a process while another one copies the same


def go_on_from(session: Session, work: Work) -> None:
    """Take what the working folders of earlier sessions hold and this one lacks; of two that have it the first counts.

    The files of the cache are linked, one by one, so that what is made anew stands in their place and not in theirs;
    its tables, which tell of all the others, only where prepare.py has not begun to make its own. Folds of runs are
    copied whole, checkpoints and half-made predictions with them; a folder without files, which a run leaves that was
    refused or killed before it had anything, is none. Several processes may do this at a time, and what one that was
    killed has half done is done anew. Raises InputError for a folder that holds neither, and where the copies have no
    room.
    """
    for folder in session.work_from:
        earlier = Work(folder)
        if not (earlier.cache.is_dir() or earlier.runs.is_dir()):
            raise InputError(
                f"{folder} holds neither cache/ nor runs/; name working folders of earlier sessions with --work-from"
            )
        if folder.resolve() == work.root.resolve():
            raise InputError(f"{folder} is the working folder itself; name an earlier one with --work-from")
        if needed := sum(map(_size, _lacking(earlier, work))):
            work.root.mkdir(parents=True, exist_ok=True)
            session.require_room(work.root, needed, f"runs of {folder}", "or name fewer of them with --work-from")
        names = [name for name in _files(earlier.cache) if not (_is_table(name) and work.begun.exists())]
        linked = sum(_link(earlier.cache / name, work.cache / name) for name in names)
        copied = sum(_copy_fold(fold, work.runs / fold.relative_to(earlier.runs)) for fold in _lacking(earlier, work))
        if earlier.key.is_file() and not work.key.exists():  # the next session may have this one alone
            with replacing(work.key, mode=0o600) as copy:
                copy.write_text(earlier.key.read_text())
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


def _is_table(name: Path) -> bool:
    """Whether prepare.py writes this file of a cache anew, and last, whenever a series has changed."""
    is_of_stage = len(name.parts) == 1 or name.parts[0].startswith("stage_")
    return is_of_stage and not name.name.startswith("pseudolabels_")


def _lacking(earlier: Work, work: Work) -> list[Path]:
    """The folds of an earlier session that this one does not have."""
    folds = sorted(path for path in earlier.runs.glob("[!.]*/[!.]*") if _has_files(path))
    return [fold for fold in folds if not _has_files(work.runs / fold.relative_to(earlier.runs))]


def _has_files(fold: Path) -> bool:
    return any(_files(fold))


def _size(fold: Path) -> int:
    return sum(file.stat().st_size for file in fold.rglob("*") if file.is_file())


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
    """Copy the folder of a fold, whole or not at all, unless there is one with files; whether it was done.

    Raises InputError where it cannot be copied.
    """
    own.parent.mkdir(parents=True, exist_ok=True)
    with only_process(own.parent / f".{own.name}.lock", "copy", item=own, patience=_PATIENCE):
        if _has_files(own):  # another process was faster
            return False
        draft = own.parent / f".{own.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
        try:
            # Bytes alone: what is read-only there is not to be so here.
            shutil.copytree(fold, draft, ignore=shutil.ignore_patterns(".*"), copy_function=shutil.copyfile)
            for folder in (draft, *draft.rglob("*/")):
                folder.chmod(0o755)
            shutil.rmtree(own, ignore_errors=True)  # no files but hidden ones, half-written
            draft.rename(own)
        except shutil.Error as error:
            _, _, reason = error.args[0][0]
            raise InputError(f"{fold} cannot be copied to {own}: {reason}; make room, or mend it there") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return True
