"""One process at a time: locks of the operating system, which a kill sets free."""

import errno
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from models.common.errors import InputError
from models.common.files import require_writable, write_text

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def only_process(
    lock: Path, name: str, holder: Path | None = None, item: Path | None = None, patience: float = 0
) -> Generator[None]:
    """Hold a lock of the operating system, which is free again after a kill. Raises InputError if another has it.

    Where the file system knows no locks, a file with the process id stands for one.

    `holder` is a file for the process id and the host of who has it, which the others then name; `item` is what the
    lock is for, if not its folder; `patience` are seconds to wait for another process.
    """
    require_writable(lock.parent)
    # A moment of patience: who has just got the lock has yet to write down its name.
    mutex = _acquire(lock, patience if holder is None else 0.5, f"another {name}", holder, item or lock.parent)
    try:
        if holder is not None:
            write_text(holder, json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        if holder is not None:
            holder.unlink(missing_ok=True)
        mutex.release()


def _acquire(lock: Path, patience: float, name: str, holder: Path | None, item: Path) -> BaseFileLock:
    """The lock, held; a file that is there or not where the file system knows no locks. Raises InputError."""
    soft = lock.with_suffix(".softlock")
    for mutex in (FileLock(lock, timeout=patience), SoftFileLock(soft, timeout=patience)):
        try:
            mutex.acquire()
            return mutex
        except Timeout:
            left = f" (if it was killed on another machine, delete {soft})" if isinstance(mutex, SoftFileLock) else ""
            raise InputError(
                f"{name}{_read_holder(holder)} works in {item}; wait for it, or choose another with --work{left}"
            ) from None
        except (NotImplementedError, OSError) as error:  # a file system without locks
            if isinstance(mutex, SoftFileLock) or getattr(error, "errno", errno.ENOSYS) not in _NO_LOCKS:
                raise
    raise AssertionError  # not reached


def _read_holder(holder: Path | None) -> str:
    if holder is None:
        return ""
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f" (process {who['process']} on {who['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
