"""Scripts of this project as processes of their own that start at once: forks of one that has imported what they need.

That saves the seconds of CPU time in which Python, torch and fastai start. All else is as in a program that a person
starts: its words, what it says, its session, signals, the end of the interpreter and the code at the end.

    script = parent().start(["models/train_small.py", "--fold", "0"])     # much like a subprocess.Popen
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

# What takes seconds to import, and what several processes need beside it.
SECONDS = ("models.training.fold", "models.inference.predict", "torch._dynamo", "accelerate")


@lru_cache(maxsize=1)
def parent() -> "Parent":
    """The one of this process, for scripts that train and infer, with one thread each."""
    return Parent(SECONDS)


class Parent:
    """A process that has imported some modules and waits for scripts to start; it ends with the one that made it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="forked-"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, __file__, *modules], env=environment, **pipes)
        self._count = 0
        atexit.register(self.close)

    def start(self, words: list[str], environment: Mapping[str, str] = MappingProxyType({})) -> "Forked":
        """Start a script with its arguments; of the environment only what is different is told."""
        self._count += 1
        output = self._folder / str(self._count)
        request = {"words": words, "environment": dict(environment), "output": str(output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()), output)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self._folder)


class Forked:
    """A script that runs, with what `subprocess.Popen` tells of it."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid, self._output, self._code = pid, output, output.with_suffix(".code")

    @property
    def returncode(self) -> int | None:
        """The code with which it has ended, the negative number of a signal that has ended it; None while it runs."""
        return int(self._code.read_text()) if self._code.exists() else None

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Wait until it ends; what it has said."""
        end = time.monotonic() + timeout
        while self.returncode is None:
            assert time.monotonic() < end, f"process {self.pid} still runs"
            time.sleep(0.01)
        return self._output.read_text(), None


def serve() -> dict | None:
    """Fork for each request; in the child, give the request. In the parent, None when no more will come."""
    running, requests = {}, os.fdopen(os.dup(0), "rb", buffering=0)
    while True:
        readable, _, _ = select.select([requests], [], [], 0.02)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = running.pop(ended[0])
            draft = code.with_suffix(".draft")
            draft.write_text(str(os.waitstatus_to_exitcode(ended[1])))
            draft.replace(code)
        if not readable:
            continue
        if not (line := requests.readline()):
            return None
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            requests.close()
            return request
        running[pid] = Path(request["output"]).with_suffix(".code")
        os.write(1, b"%d\n" % pid)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # or at its end each child would look through all of it, and copy its pages
    if request := serve():
        os.setsid()
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(request["environment"])
        sys.argv = request["words"]
        sys.path[0] = str(Path(sys.argv[0]).parent)  # as Python does
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        os._exit(0)
