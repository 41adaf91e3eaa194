"""The steps of a session, as a notebook takes them: scripts of models/, each in a process of its own."""

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from subprocess import DEVNULL, PIPE, STDOUT

from models.common.errors import InputError
from models.common.session import UNFINISHED

_PLANNED = ("--network", "--image-size", "--batch-size")  # flags of a training that models/plan.py has, too
_LEAST = 1e-3  # hours: in less no step comes to anything


class Steps:
    """What is left of the hours is the budget of each step; once they are over, no further one is begun.

    Steps that are finished say so and are skipped, so that all of them are named again in every session.
    """

    def __init__(self, work: Path, hours: float, keep_free_gb: float = 0.0, work_from: Sequence[Path] = ()) -> None:
        """`hours` from now on; the rest is what scripts call --work, --keep-free-gb and --work-from."""
        self.work, self.work_from, self.end = work, work_from, time.monotonic() + 3600 * hours
        self.words: list[object] = ["--work", work, "--keep-free-gb", keep_free_gb]
        self.words += ["--work-from", *work_from] if work_from else []
        self.unfinished: list[str] = []

    def run(self, script: str, *words: object, log: Path | None = None) -> bool:
        """Run models/<script>.py with these words; whether it has ended well. Raises InputError if it has failed.

        What it says stands here, or in a `log`.
        """
        left = (self.end - time.monotonic()) / 3600
        if left < _LEAST:
            return self._leave(script)
        budget = [*self.words, "--budget-hours", f"{left:.4f}"]
        command = [str(word) for word in (sys.executable, "-m", f"models.{script}", *words, *budget)]
        if log is None:
            code = subprocess.run(command, stdin=DEVNULL, check=False).returncode
        else:
            with log.open("ab") as said:
                code = subprocess.run(command, stdin=DEVNULL, stdout=said, stderr=STDOUT, check=False).returncode
        if code == UNFINISHED:
            return self._leave(script)
        if code:
            where = "what it has said above" if log is None else str(log)
            raise InputError(
                f"models/{script}.py has ended with {code}: see {where}, mend that and run this cell again"
            )
        return True

    def run_folds(self, script: str, folds: Iterable[int], devices: Sequence[str], *words: object) -> bool:
        """The same for each fold, as many at a time as there are devices; whether all have ended well.

        What is said on the first device stands here, the rest in log_<script>_fold<k>.txt. Raises InputError if one has
        failed, once the others have ended.
        """
        free: SimpleQueue[str] = SimpleQueue()
        for device in devices:
            free.put(device)

        def one(fold: int) -> bool:
            device = free.get()
            log = None if device == devices[0] else self.work / f"log_{script}_fold{fold}.txt"
            try:
                return self.run(script, "--fold", fold, "--device", device, *words, log=log)
            finally:
                free.put(device)

        with ThreadPoolExecutor(len(devices)) as pool:
            ended = [pool.submit(one, fold) for fold in folds]
        return all([each.result() for each in ended])

    def epochs(self, preset: str, folds: Sequence[int], devices: Sequence[str], *words: object) -> int:
        """How many epochs models/plan.py counts for what is left of the hours, by some steps on the first device.

        `words` are those of the training. A preset that an earlier session has begun keeps its own. What is counted
        stands here, the number in its last line. Raises InputError if it has failed.
        """
        left = max(0.0, (self.end - time.monotonic()) / 3600)
        counted = ["--hours", f"{left:.4f}", "--folds", len(folds), "--gpus", len(devices), "--side-by-side"]
        places = ["--work", self.work, *(["--work-from", *self.work_from] if self.work_from else [])]
        asked = ["--preset", preset, "--measure", "--device", devices[0], "--own", *counted, *places]
        asked += _of_plan(words)
        command = [str(word) for word in (sys.executable, "-m", "models.plan", *asked)]
        done = subprocess.run(command, stdin=DEVNULL, stdout=PIPE, text=True, check=False)
        print(done.stdout, end="")
        number = re.search(rf"{re.escape(preset)}: (\d+) epoch.*\s*\Z", done.stdout)
        if done.returncode or number is None:
            raise InputError("models/plan.py has failed: see what it has said above, mend that and run this cell again")
        return int(number[1])

    def _leave(self, script: str) -> bool:
        self.unfinished.append(script)
        print(f"models/{script}.py is not finished: the hours of this session are over")
        return False


def _of_plan(words: Sequence[object]) -> list[object]:
    """Of the words of a training the flags that models/plan.py has, with their values."""
    known: list[object] = []
    for place, word in enumerate(words):
        flag, joined, _ = str(word).partition("=")
        if flag in _PLANNED:
            known += words[place : place + (1 if joined else 2)]
    return known
