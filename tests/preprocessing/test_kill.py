"""Laws of being killed: prepare.py may die at any moment, and the same command goes on where it was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from once import HANG
from torture import (
    ENVIRONMENT,
    FOLDS,
    SIZES,
    command,
    large,
    require_one_line,
    require_same_cache,
    run_prepare,
    small,
    undisturbed,
)

from models.common.folders import Work
from models.preprocessing import truth
from models.preprocessing.preparation import PrepareOptions, prepare

# ---- kills at any moment ----


def start(data: Path, work: Path, **pipes: int) -> subprocess.Popen:
    """prepare.py in a process group of its own, with all that it starts."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | pipes
    return subprocess.Popen(command(data, work), start_new_session=True, env=ENVIRONMENT, text=True, **pipes)


def kill_group(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Wait until something is so; False if the process has ended before."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.0005)
    return False


def stored(work: Path) -> dict[Path, int]:
    """The finished files of the store, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in work.glob("cache/slices_*/[!.]*")}


def finished(work: Path) -> dict[Path, int]:
    """Those of series whose record is written, which comes last: they are not to be made again."""
    return {path: time for path, time in stored(work).items() if (work / f"cache/manifest/{path.stem}.json").is_file()}


def is_writing(work: Path) -> bool:
    return any(True for _ in work.glob("cache/**/.*"))


class Ordeal:
    """Kills in one working folder, each followed by the next call of the same command."""

    def __init__(self, data: Path, work: Path, seconds: float, files: int, seed: int) -> None:
        """An undisturbed call takes so many seconds and writes so many files into the store."""
        self.data, self.work, self.seconds, self.files = data, work, seconds, files
        self.rng = random.Random(seed)
        self.kills: list[str] = []
        self.finished: dict[Path, int] = {}
        self.started: list[subprocess.Popen] = []

    def kill(self, whole_group: bool, in_write: bool) -> None:
        """Kill a call at a random moment, or in a write at a random stage; nothing, if it ends before that."""
        process = start(self.data, self.work)
        self.started.append(process)
        moment, stage = time.monotonic() + self.rng.uniform(0, self.seconds), self.rng.uniform(0, 1)
        goal = len(self.finished) + round(stage * (self.files - len(self.finished)))
        alive = wait_for(
            lambda: is_writing(self.work) and len(stored(self.work)) >= goal if in_write else time.monotonic() > moment,
            process,
        )
        process.kill()
        process.wait()
        if whole_group:
            kill_group(process)
        if alive:
            left = "" if whole_group else ", its workers left to themselves"
            place = " in a write" if in_write else ""
            self.kills.append(f"killed{place} with {len(stored(self.work))} files in the store{left}")
        self._require_untouched()
        self.finished |= finished(self.work)

    def end(self, other: Path) -> None:
        """Call it once more, undisturbed: the cache must be that of the other working folder."""
        done = run_prepare(self.data, self.work)
        assert done.returncode == 0, done.stderr
        self._require_untouched()
        require_same_cache(self.work, other)
        print("\n".join(self.kills))

    def _require_untouched(self) -> None:
        now = stored(self.work)
        assert {path: now.get(path) for path in self.finished} == self.finished


@contextmanager
def ordeal(*arguments: object) -> Iterator[Ordeal]:
    """An ordeal; no process of it is left."""
    trial = Ordeal(*arguments)
    try:
        yield trial
    finally:
        for process in trial.started:
            kill_group(process)


def test_a_killed_run_goes_on_to_the_same_cache(tmp_path_factory, tmp_path):
    data = small(tmp_path_factory)
    with ordeal(data, tmp_path / "work", 2, 8, 0) as trial:
        trial.kill(whole_group=True, in_write=True)
        trial.end(undisturbed(tmp_path_factory, data))


@pytest.mark.torture
def test_twenty_kills_change_no_byte(tmp_path_factory, tmp_path):
    data = large(tmp_path_factory)
    other = undisturbed(tmp_path_factory, data)
    before = time.monotonic()
    assert run_prepare(data, tmp_path / "timed").returncode == 0
    seconds, kills, number = time.monotonic() - before, 0, 0
    while kills < 20:
        number += 1
        with ordeal(data, tmp_path / str(number), seconds, 68, number) as trial:
            for attempt in range(5):
                trial.kill(whole_group=attempt != 3, in_write=attempt % 2 == 1)
            trial.end(other)
        kills += len(trial.kills)
    print(f"{kills} kills in {number} working folders")


# ---- a kill at each write ----


def die_at(write: int, renamed: bool) -> None:
    """Let this process die in its so-and-so-manieth write: before the file has its name, or right after."""
    name, target = ("replace", Path) if renamed else ("fsync", os)
    real, left = getattr(target, name), iter(range(write, 0, -1))

    def deadly(*arguments: object) -> object:
        last = next(left) == 1
        result = real(*arguments) if renamed or not last else None
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, name, deadly)


def in_child(function: Callable[[], None]) -> int:
    """Call a function in a fork of this process; returns the number of the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def die_and_go_on(options: PrepareOptions, write: int, renamed: bool) -> bool:
    """Die in a write, then go on to the end; False if there are not so many writes."""

    def dying() -> None:
        die_at(write, renamed)
        prepare(options)

    died = in_child(dying) == signal.SIGKILL
    if died:
        assert in_child(lambda: prepare(options)) == 0
    return died


def serve(data: Path, folder: Path, writes: list[int]) -> None:
    for write in writes:
        for renamed in (False, True):
            work = folder / f"{write}_{'after' if renamed else 'before'}"
            options = PrepareOptions(data=data, work=work, image_size=SIZES, folds=FOLDS, jobs=1)
            if not die_and_go_on(options, write, renamed):
                return


def require_mended(factory: pytest.TempPathFactory, folder: Path, writes: list[int]) -> int:
    """Die in each of these writes, in a working folder for each; returns how many deaths there were."""
    data = small(factory)
    words = [sys.executable, __file__, data, folder, json.dumps(writes)]
    done = subprocess.run([str(word) for word in words], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    works = sorted(path for path in folder.iterdir() if (path / "cache" / "prepare.json").is_file())
    for work in works:
        require_same_cache(work, undisturbed(factory, data))
    return len(works)


def test_a_kill_in_a_write_is_mended(tmp_path_factory, tmp_path):
    assert require_mended(tmp_path_factory, tmp_path, [2, 6]) == 4


@pytest.mark.torture
def test_a_kill_in_any_write_is_mended(tmp_path_factory, tmp_path):
    deaths = require_mended(tmp_path_factory, tmp_path, list(range(1, 100)))
    print(f"{deaths} deaths, before and after each rename")
    assert deaths >= 2 * 16


# ---- two processes at once ----


@pytest.mark.torture
@pytest.mark.parametrize("delay", [0, 0.1, 0.5, 1, 2, 4])
def test_of_two_at_once_one_refuses_or_both_agree(tmp_path_factory, tmp_path, delay):
    data, work = small(tmp_path_factory), tmp_path / "work"
    first = start(data, work, stderr=subprocess.PIPE)
    time.sleep(delay)
    second = start(data, work, stderr=subprocess.PIPE)
    ended = []
    for process in (first, second):
        _, errors = process.communicate(timeout=HANG)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, "", errors))
    refused = [done for done in ended if done.returncode != 0]
    assert len(refused) < 2
    for done in refused:
        require_one_line(done, "another prepare.py works in", str(work), "--work")
    require_same_cache(work, undisturbed(tmp_path_factory, data))
    print(f"{len(refused)} of two refused")


def test_what_another_process_has_finished_meanwhile_is_kept(tmp_path_factory, tmp_path, monkeypatch):
    data = small(tmp_path_factory)
    options = PrepareOptions(data=data, work=tmp_path, image_size=(SIZES[0],), folds=FOLDS, jobs=1)
    other, real = replace(options, image_size=(SIZES[1],)), truth.read_labels
    waiting = [other]

    def read_labels(path: Path) -> object:  # takes half a minute on the challenge's table
        if waiting:
            prepare(waiting.pop())
        return real(path)

    monkeypatch.setattr(truth, "read_labels", read_labels)
    prepare(options)
    assert json.loads((Work(tmp_path).tables / "prepare.json").read_text())["image_size"] == list(SIZES)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
