"""A session that ends before the work does, as on Kaggle: how long it lasts, and what it may fill."""

import shutil
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from models.common.errors import InputError

UNFINISHED = 75  # the exit code at the end of a budget: sysexits.h calls it a failure that passes, "try again"
_GB = 1e9


@dataclass(frozen=True)
class Session:
    """What a command may use of a session, and the folders of earlier ones.

    Raises InputError for what no session has.
    """

    budget_hours: float | None = None
    """end before so many hours are over, counted from the start of the command: saved, and with exit code 75"""
    keep_free_gb: float = 0.0
    """GB of the disk that stay free; what takes more is refused before it begins"""
    work_from: tuple[Path, ...] = ()
    """working folders of earlier sessions, which are only read: runs are copied from there, the cache is linked"""
    began: float = field(init=False, compare=False, repr=False, default_factory=time.monotonic)
    """when the command line was read"""

    def __post_init__(self) -> None:
        if self.budget_hours is not None and self.budget_hours <= 0:
            raise InputError(f"budget_hours must be above 0, not {self.budget_hours}; repair --budget-hours")
        if self.keep_free_gb < 0:
            raise InputError(f"keep_free_gb must not be negative, not {self.keep_free_gb}; repair --keep-free-gb")

    @property
    def hours_left(self) -> float | None:
        """Of the budget, 0 and more; None where there is none."""
        if self.budget_hours is None:
            return None
        gone = (time.monotonic() - self.began) / 3600
        return max(0.0, self.budget_hours - gone)

    def require_room(self, folder: Path, needed: float, what: str, repair: str) -> str:
        """One line on the disk that something will take, bytes. Raises InputError if it is not there.

        `what` begins the line, `repair` ends it where it is an error.
        """
        free = shutil.disk_usage(folder).free
        kept = f", of which {gigabytes(self.keep_free_gb * _GB)} are to stay so" if self.keep_free_gb else ""
        line = f"{what} will take about {gigabytes(needed)} more of {folder}; {gigabytes(free)} are free{kept}"
        if needed > free - self.keep_free_gb * _GB:
            raise InputError(f"{line}: make room, {repair}")
        return line


class OutOfTime(KeyboardInterrupt):
    """The budget is used up; like Ctrl-C no Exception, so that nothing on the way up takes it for an error."""


@contextmanager
def within(hours: float | None) -> Generator[None]:
    """Raise OutOfTime in the block when so many hours have gone: for work that can be stopped at any moment.

    Only the main thread of a process can be told.
    """
    if hours is None:
        yield
        return

    def end(*_: object) -> None:
        if not _is_ending():
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    # Again and again: Python drops an exception that is raised in a callback of its own.
    signal.setitimer(signal.ITIMER_REAL, max(3600 * hours, 1e-3), 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_ending() -> bool:
    """Whether an OutOfTime is on its way up, and what it meets there is being tidied."""
    error = sys.exception()
    while error is not None and not isinstance(error, OutOfTime):
        error = error.__context__
    return error is not None


def gigabytes(count: float) -> str:
    """So many bytes, in words."""
    return f"{count / 1e9:,.2f} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"
