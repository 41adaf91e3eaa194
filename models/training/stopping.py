"""Ctrl-C and SIGTERM: noted while a run can still save itself, obeyed at once otherwise."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the second is what Slurm, Kaggle and Docker send before they kill


class Interrupted(KeyboardInterrupt):
    """The run was told to stop; not an Exception, so that nothing on the way up takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """Whether the process has been told to stop."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal
        self.at_once = True

    def notice(self, number: int, _: object) -> None:
        """Handle a signal: note the first one while the run is to save itself, else raise Interrupted."""
        if self.at_once or self.number is not None:
            raise Interrupted(number)
        self.number = number

    @contextmanager
    def after_saving(self) -> Generator[None]:
        """Within the block a first signal is only noted; whoever finds it saves and raises Interrupted."""
        self.at_once = False
        try:
            yield
        finally:
            self.at_once = True


@contextmanager
def stop_signals() -> Generator[Stop]:
    """Within the block Ctrl-C and SIGTERM go to the Stop that it yields. Only the main thread can receive signals."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.notice) for number in SIGNALS}
    try:
        yield stop
    finally:
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
