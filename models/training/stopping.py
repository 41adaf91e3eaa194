"""Ctrl-C, SIGTERM and the end of a budget: noted while a run can still save itself, obeyed at once otherwise."""

import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from models.common.session import UNFINISHED

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the second is what Slurm, Kaggle and Docker send before they kill
ALARM = signal.SIGALRM  # of a process's own clock, when its --budget-hours are nearly over
_WAITS = ("step", "checkpoint")  # what lies between the alarm and the end of the process


class Interrupted(KeyboardInterrupt):
    """The run was told to stop; not an Exception, so that nothing on the way up takes it for an error."""

    def __init__(self, number: int) -> None:
        is_alarm = number == ALARM
        super().__init__("the end of --budget-hours" if is_alarm else signal.Signals(number).name)
        self.number = number
        self.code = UNFINISHED if is_alarm else 128 + number  # with which the process ends


class Stop:
    """Whether the process has been told to stop, and how long it may go on.

    How early it has to stop so that it has ended in time is not guessed, but follows from what has taken longest so
    far: a step, in which it cannot be stopped, and a checkpoint. What is lost if it is cut short, a validation, is not
    begun if the time for it is not there.
    """

    def __init__(self, hours: float | None = None) -> None:
        self.number: int | None = None  # of the signal
        self.at_once = True
        self.end = math.inf if hours is None else time.monotonic() + 3600 * hours
        self.longest: dict[str, float] = {}  # seconds of what has been done: "step", "checkpoint", "validation"

    def measured(self, what: str, seconds: float) -> None:
        """Note how long a step, a checkpoint or a validation has taken."""
        if seconds > self.longest.get(what, 0):
            self.longest[what] = seconds
            self.set_alarm()

    def set_alarm(self) -> None:
        """Set the alarm so that a step and a checkpoint still fit before the end of the budget."""
        if self.end < math.inf:
            left = self.end - time.monotonic() - sum(self.longest.get(what, 0) for what in _WAITS)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))

    def allows(self, validations: int) -> bool:
        """Whether there is time for so many validations; for the first, which nobody has measured, there always is."""
        needed = validations * self.longest.get("validation", 0) + self.longest.get("checkpoint", 0)
        return time.monotonic() + needed < self.end

    def notice(self, number: int, _: object) -> None:
        """Handle a signal: note the first one while the run is to save itself, else raise Interrupted.

        The alarm adds nothing to a signal that was there before: what is being saved is saved to its end.
        """
        before = self.number
        if number == ALARM and before is not None:
            return
        self.number = number
        if self.at_once or before not in (None, ALARM):
            raise Interrupted(number)

    @contextmanager
    def after_saving(self) -> Generator[None]:
        """Within the block a first signal is only noted; whoever finds it saves and raises Interrupted."""
        self.at_once = False
        try:
            yield
        finally:
            self.at_once = True


@contextmanager
def stop_signals(budget_hours: float | None = None) -> Generator[Stop]:
    """Within the block Ctrl-C, SIGTERM and the end of a budget go to the Stop that it yields.

    Only the main thread can receive signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    stop = Stop(budget_hours)
    received = SIGNALS if budget_hours is None else (*SIGNALS, ALARM)  # a clock of somebody else's goes on
    before = {number: signal.signal(number, stop.notice) for number in received}
    stop.set_alarm()
    try:
        yield stop
    finally:
        if ALARM in received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_signals() -> Generator[None]:
    """Within the block Ctrl-C and SIGTERM wait; in a process that is started there, until it calls `let_signals_in`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_in() -> None:
    """Receive Ctrl-C and SIGTERM in this process, those too that have waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def is_one_of_several() -> bool:
    """Whether torchrun has started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def same_command() -> str:
    """The command line that has started this process, to be typed again: on several machines, on each its own."""
    machines = int(os.environ.get("GROUP_WORLD_SIZE", "1"))  # set by torchrun
    elsewhere = f"  # and on the other {'machine' if machines == 2 else 'machines'}, as before" if machines > 1 else ""
    return shlex.join(launcher_words() or [Path(sys.executable).name, *sys.argv]) + elsewhere


def launcher_words() -> list[str]:
    """The words of the torchrun that has started this process, which it does not tell; none if there is no such."""
    count = os.environ.get("LOCAL_WORLD_SIZE")  # set by torchrun
    if count is None:
        return []
    import psutil

    launcher = psutil.Process().parent()
    program, *words = (launcher and launcher.cmdline()) or [""]
    if words[-len(sys.argv) :] != sys.argv:  # another launcher has told what torchrun tells
        return ["torchrun", "--nproc-per-node", count, *sys.argv]
    if Path(words[0]).parent == Path(program).parent:  # a script of the environment, as torchrun is
        return [Path(words[0]).name, *words[1:]]
    return [Path(program).name, *words]
