"""Where files lie, and how they are written: whole or not at all."""

import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro
from filelock import FileLock, Timeout
from pyarrow import parquet

from models.common.errors import InputError


def _from_environment(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, default))


@dataclass(frozen=True)
class Work:
    """The working folder: `cache/` holds what is derived from the raw data, `runs/` holds results.

    Tables that were asked for by the stage of the challenge stand in `cache/stage_<n>/`; all share one slice store.
    """

    root: Path
    stage: int | None = None

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def blend(self) -> Path:
        """What blending.ipynb has made of the runs."""
        return self.root / "blend"

    @property
    def tables(self) -> Path:
        return self.cache / f"stage_{self.stage}" if self.stage else self.cache

    @property
    def stages(self) -> tuple["Work", ...]:
        """The same folder as each stage of the challenge sees it, and as it is without one."""
        return tuple(Work(self.root, stage) for stage in (None, 1, 2))

    @property
    def flag(self) -> str:
        """What makes a command that is named in a message one of this stage."""
        return f" --stage {self.stage}" if self.stage else ""

    @property
    def folds(self) -> Path:
        return self.tables / "folds.csv"

    @property
    def problems(self) -> Path:
        return self.tables / "problems.csv"

    @property
    def contact_sheet(self) -> Path:
        return self.tables / "contact_sheet.png"

    @property
    def raw(self) -> Path:
        """Which raw folder the cache is made from."""
        return self.tables / "raw.json"

    @property
    def prepared(self) -> Path:
        """The mark that the cache is complete: its settings, and the hashes of the files that have no checksum."""
        return self.tables / "prepare.json"

    def metadata(self, split: str) -> Path:
        return self.tables / f"metadata_{split}.parquet"

    def pseudolabels(self, name: str, fold: int) -> Path:
        return self.tables / f"pseudolabels_{name}_fold{fold}.parquet"

    def slices(self, image_size: int) -> Path:
        return self.cache / f"slices_{image_size}"

    def series(self, image_size: int, series_id: str) -> Path:
        return self.slices(image_size) / f"{series_id}.b2nd"

    def run(self, name: str, fold: int) -> Path:
        return self.runs / name / f"fold{fold}"

    def prediction(self, name: str, fold: int, split: str) -> Path:
        """A prediction file of a fold. A stage has test slices of its own; what was validated is the fold's, always."""
        of_stage = f"_stage_{self.stage}" if self.stage and split != "valid" else ""
        return self.run(name, fold) / f"{split}{of_stage}.parquet"


DataFolder = Annotated[Path, tyro.conf.arg(help="raw folder in Kaggle's layout; never written to (or set RSNA_DATA)")]
WorkFolder = Annotated[Path, tyro.conf.arg(help="folder that holds cache/ and runs/ (or set RSNA_WORK)")]
_STAGE = "stage of the challenge, its tables in cache/stage_<n>/; none: the one that is there, its tables in cache/"
Stage = Annotated[Literal[1, 2] | None, tyro.conf.arg(help=_STAGE)]


def default_data() -> Path:
    return _from_environment("RSNA_DATA", "data")


def default_work() -> Path:
    return _from_environment("RSNA_WORK", ".")


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` once the block has ended well.

    The file is flushed to the disk before the rename, so that after a power cut the name holds the old file or the
    whole new one. Raises InputError if the folder cannot be written to.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(mode)  # mkstemp makes files that only their owner reads
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Make a folder, and raise InputError if it cannot be written to: before hours of work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(folder, error) from error


@contextmanager
def without_temporaries(folder: Path) -> Iterator[None]:
    """Delete what killed processes have left in a folder: those of another run before the block, its own after it."""
    remove_temporaries(folder)
    try:
        yield
    finally:
        remove_temporaries(folder)


def remove_temporaries(folder: Path) -> None:
    """Delete what `replacing` has left in a folder and those below it because its process was killed."""
    for temporary in folder.rglob(".*"):
        temporary.unlink(missing_ok=True)


@contextmanager
def only_process(lock: Path, name: str, holder: Path | None = None, item: Path | None = None) -> Iterator[None]:
    """Hold a lock of the operating system, which is free again after a kill. Raises InputError if another has it.

    `holder` is a file for the process id and the host of who has it, which the others then name; `item` is what the
    lock is for, if not its folder.
    """
    require_writable(lock.parent)
    # A moment of patience: who has just got the lock has yet to write down its name.
    mutex = FileLock(lock, timeout=0 if holder is None else 0.5)
    try:
        mutex.acquire()
    except Timeout:
        who = f"another {name}{_read_holder(holder)}"
        raise InputError(f"{who} works in {item or lock.parent}; wait for it, or choose another with --work") from None
    try:
        if holder is not None:
            write_text(holder, json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        if holder is not None:
            holder.unlink(missing_ok=True)
        mutex.release()


def _read_holder(holder: Path | None) -> str:
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f" (process {who['process']} on {who['host']})"
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return ""


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(f"cannot write {path}: {reason}; make room or mend it, or choose another folder with --work")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write with a checksum on every page: a flipped bit is an error when read, not another number."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True)


def read_parquet(path: Path, repair: str) -> pd.DataFrame:
    """Read a table of this project, page checksums verified. `repair` tells how to make the file anew."""
    if not path.is_file():
        raise InputError(f"no {path}; make it with: {repair}")
    try:
        table = pd.read_parquet(path, page_checksum_verification=True)
        footer = parquet.read_metadata(path)
        names = [column["name"] for column in json.loads(footer.metadata[b"pandas"])["columns"]]
        # No checksum covers the footer, but it counts the rows and names the columns twice.
        if len(table) != footer.num_rows or list(table.columns) != names:
            raise ValueError("its footer contradicts itself")
        return table
    except Exception as error:  # a damaged footer fails in any of the parsers of pyarrow and pandas
        raise damaged(path, repair) from error


def write_json(path: Path, content: dict) -> None:
    """Write a small JSON file with a checksum of its content."""
    write_text(path, json.dumps({**content, "sha256": _hash_json(content)}, indent=1))


def read_json(path: Path, repair: str) -> dict:
    """Read what `write_json` wrote. Raises InputError if it has changed since; `repair` tells how to make it anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("sha256") != _hash_json(content):
            raise ValueError
        return content
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, repair) from error


def _hash_json(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def damaged(path: Path, repair: str) -> InputError:
    """The error for a file whose bytes have changed since it was written."""
    return InputError(f"{path} is damaged; delete it and make it anew with: {repair}")


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hex."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()
