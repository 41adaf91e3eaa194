"""One process at a time: locks of the operating system, which a kill sets free."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from models.common.errors import InputError
from models.common.files import require_writable, write_text


@contextmanager
def only_process(lock: Path, name: str, holder: Path | None = None, item: Path | None = None) -> Generator[None]:
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
    if holder is None:
        return ""
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f" (process {who['process']} on {who['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
