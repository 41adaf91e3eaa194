"""How files are written, whole or not at all, and read back, so that a flipped bit is seen."""

import errno
import hashlib
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from models.common.errors import InputError
from models.common.patience import patiently

_MARK = "writing-"  # in the name of a temporary file: then the machine and the process that write it
_TEMPORARY = re.compile(rf"\..+\.{_MARK}(?P<machine>[0-9a-f]{{8}})-(?P<process>\d+)-\w{{8}}(\.\w+)?")
_DAY = 86_400  # seconds


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Generator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` once the block has ended well.

    The file is flushed to the disk before the rename, so that after a power cut the name holds the old file or the
    whole new one. Raises InputError if the folder cannot be written to.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}.{_MARK}{_this_machine()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with _unless_unknown_here():
            temporary.chmod(mode)  # mkstemp makes files that only their owner reads
        with temporary.open("rb") as written, _unless_unknown_here():
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
def without_temporaries(folder: Path) -> Generator[None]:
    """Delete what killed processes have left in a folder: those of another run before the block, its own after it."""
    remove_temporaries(folder)
    try:
        yield
    finally:
        remove_temporaries(folder)


def remove_temporaries(folder: Path, pattern: str = "**/.*") -> None:
    """Delete what `replacing` has left in a folder and those below it because its process was killed.

    Nothing else that is hidden is touched, nor what a living process writes; what another machine writes, whose
    processes cannot be seen from here, is living for a day.
    """
    for path in folder.glob(pattern):
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and not _is_being_written(path, match["machine"], match["process"]):
            with suppress(OSError):  # it does no harm
                path.unlink()


def _is_being_written(path: Path, machine: str, process: str) -> bool:
    if machine != _this_machine():
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime < _DAY
        return True
    try:
        os.kill(int(process), 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # another's
        pass
    return True


@cache
def _this_machine() -> str:
    """What tells the processes of this machine, or of this container, from those of others."""
    space = Path("/proc/self/ns/pid")
    name = f"{socket.gethostname()} {space.readlink() if space.is_symlink() else ''}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]


@contextmanager
def _unless_unknown_here() -> Generator[None]:
    """Let a call pass that the file system does not know: on many disks of a network nobody can set modes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def legible(path: Path) -> str:
    """A path as text that can be written down; bytes that are no UTF-8 as \\xfc."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(
        f"cannot write {path}: {reason}; make room or mend it, or choose another folder with --work or --output"
    )


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all. Raises InputError if it cannot be written, as do all that write here."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write with a checksum on every page: a flipped bit is an error when read, not another number."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False, write_page_checksum=True)


def read_parquet(path: Path, repair: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table of this project, or some columns of it, page checksums verified.

    `repair` tells how to make the file anew. Raises InputError if it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"no {path}; make it with: {repair}")
    try:
        table = pd.read_parquet(path, columns=columns, page_checksum_verification=True)
        footer = parquet.read_metadata(path)
        names = [column["name"] for column in json.loads(footer.metadata[b"pandas"])["columns"]]
        # No checksum covers the footer, but it counts the rows and names the columns twice.
        if len(table) != footer.num_rows or list(table.columns) != (columns or names):
            raise ValueError("its footer contradicts itself")
        return table
    except Exception as error:  # a damaged footer fails in any of the parsers of pyarrow and pandas
        require_readable(path)
        raise damaged(path, repair) from error


def read_notes(path: Path, repair: str) -> dict[str, Any]:
    """What a table of this project tells of itself (its `attrs`), from the end of its file alone.

    An older one may tell nothing. `repair` tells how to make it anew. Raises InputError if it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"no {path}; make it with: {repair}")
    try:
        return json.loads((parquet.read_schema(path).metadata or {}).get(b"PANDAS_ATTRS", b"{}"))
    except Exception as error:  # a damaged footer fails in any of the parsers of pyarrow
        require_readable(path)
        raise damaged(path, repair) from error


def write_json(path: Path, content: dict, indent: int | None = 1) -> None:
    """Write a small JSON file with a checksum of its content; without `indent` on one line, which is faster."""
    write_text(path, json.dumps({**content, "sha256": _hash_json(content)}, indent=indent))


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


def require_readable(path: Path) -> None:
    """Raise InputError for a file that the system does not let this process read: it is not to be called damaged."""
    patiently(partial(hash_file, path), path)


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


def first_changed(folder: Path, sha256_of: Mapping[str, str]) -> Path | None:
    """A file of a folder that is missing, or has another sha256, if there is one."""
    paths = {folder / name: sha256 for name, sha256 in sha256_of.items()}
    return next((path for path, sha256 in paths.items() if not path.is_file() or hash_file(path) != sha256), None)
