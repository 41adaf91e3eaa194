"""Errors of the system, made to order: the n-th call that opens, reads, lists, writes ... below a folder fails.

Calls are counted where Python makes them: what a library does in C (the store's and the tables' bytes) is left to the
tests of a full disk.
"""

import builtins
import errno
import fcntl
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ERRORS = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ENOSPC, errno.EACCES)
READING = ("open", "list", "stat", "read")
_TEMPORARY = re.compile(r"\.(.+)\.writing-.*")


class Call(NamedTuple):
    """A call that may fail."""

    what: str  # open, create, list, stat, read, write, flush, rename, make, delete, mode or lock
    path: Path  # a temporary file has the name of the one that it becomes


class Faults:
    """Counts the calls below a folder, and lets one of them fail: once, or whenever it is made again."""

    def __init__(self, folder: Path, number: int | None = None, error: int = errno.EIO, for_ever: bool = False) -> None:
        """`number` is that of the call that fails, from 0; None: none does."""
        self.folder, self.number, self.error, self.for_ever = str(folder), number, error, for_ever
        self.calls: list[Call] = []
        self.failed: Call | None = None

    def note(self, what: str, path: object) -> None:
        """Count a call. Raises OSError where it is to fail."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not name.startswith(self.folder):
            return
        place = Path(name)
        match = _TEMPORARY.fullmatch(place.name)
        call = Call(what, place.with_name(match[1]) if match else place)
        self.calls.append(call)
        if len(self.calls) - 1 == self.number:
            self.failed = call
        elif not (self.for_ever and call == self.failed):
            return
        raise OSError(self.error, os.strerror(self.error), name)


def _opens(flags: int) -> str:
    return "create" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "open"


@contextmanager
def injected(faults: Faults) -> Iterator[None]:
    """Within the block the calls of this process are counted, and the one fails."""
    with pytest.MonkeyPatch.context() as patch:
        for name, what in {
            "scandir": "list",
            "listdir": "list",
            "stat": "stat",
            "pread": "read",
            "fsync": "flush",
            "replace": "rename",
            "rename": "rename",
            "mkdir": "make",
            "unlink": "delete",
            "chmod": "mode",
        }.items():
            patch.setattr(os, name, _noted(faults, getattr(os, name), what))
        real_lock, real_open = fcntl.flock, os.open

        def lock(handle: int, how: int) -> None:
            if not how & fcntl.LOCK_UN:  # to let go of a lock cannot fail
                faults.note("lock", handle)
            real_lock(handle, how)

        def open_handle(path: object, flags: int, *more: Any, **named: Any) -> int:
            faults.note(_opens(flags), path)
            return real_open(path, flags, *more, **named)

        patch.setattr(fcntl, "flock", lock)
        patch.setattr(os, "open", open_handle)
        _patch_files(patch, faults)
        yield


def _noted(faults: Faults, function: Callable, what: str) -> Callable:
    def noted(*arguments: Any, **named: Any) -> Any:
        faults.note(what, arguments[0] if arguments else ".")
        return function(*arguments, **named)

    return noted


def _patch_files(patch: pytest.MonkeyPatch, faults: Faults) -> None:
    """Let files that Python opens be such as may fail."""

    class File(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            faults.note("read", self.fileno())
            return super().readinto(buffer)

        def readall(self) -> bytes:
            faults.note("read", self.fileno())
            return super().readall()

        def write(self, data: Any) -> int | None:
            faults.note("write", self.fileno())
            return super().write(data)

    real = io.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        name = os.fsdecode(file) if isinstance(file, str | bytes | os.PathLike) else ""
        if not name.startswith(faults.folder) or "+" in mode or buffering == 0:
            return real(file, mode, buffering, *more, **named)
        is_read = "r" in mode
        faults.note("open" if is_read else "create", name)
        raw = File(name, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedReader(raw) if is_read else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *more, **named)

    patch.setattr(io, "FileIO", File)
    patch.setattr(io, "open", opened)
    patch.setattr(builtins, "open", opened)
