"""Laws of reading files that nobody vouches for: slices or a reason, in little time and memory, and nothing else.

Files are read in a process of their own (`Watch`), which may hang, crash or bloat without harm to the tests.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hostile import HEALTHY, HOSTILE, WITHOUT_SLICE, pixels
from hostile_archives import HOSTILE_ARCHIVES

SECONDS = 15.0  # of CPU time for a file: five times what the longest needs on a quiet core, for shared ones are slow
PATIENCE = 10  # times as long by the clock, and it waits for something
MEGABYTES = 512  # beyond what the reading process has before its first file, its own processes included

Judge = Callable[[Path], dict]  # {"outcome": "accepted" | "rejected" | "broken", "why": ...}


# ---- the watch ----


class Watch:
    """Reads files in one long-lived process, which is replaced when it was lost. Linux alone: it reads /proc.

    with Watch() as watch:
        watch.read(path)   # {"outcome", "why", "seconds", "megabytes"}
    """

    def __init__(self, reader: str = "project", seconds: float = SECONDS, megabytes: float = MEGABYTES) -> None:
        command = [sys.executable, __file__, reader, str(seconds), str(megabytes)]
        # Memory is given back as it is for users: the tests keep it (conftest.py), which would count as needed.
        usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        environment = {**usual, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # Forked from a process without threads, which this one may not be.
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()

    def read(self, path: Path) -> dict:
        print(json.dumps(str(path)), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def serve(reader: str, seconds: float, megabytes: float) -> None:
    """Read the files that standard input names, one a line; answer each with a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a decoder prints is no answer
    judge = READERS[reader]()
    worker = None
    for line in sys.stdin:
        worker = worker or Worker(judge, seconds, megabytes)
        verdict = worker.read(Path(json.loads(line)))
        if not worker.is_usable:
            worker.stop()
            worker = None
        print(json.dumps(verdict), file=answers, flush=True)
    if worker:
        worker.stop()


class Worker:
    """The process that reads, seen from the process that watches it."""

    def __init__(self, judge: Judge, seconds: float, megabytes: float) -> None:
        self.seconds, self.megabytes = seconds, megabytes
        self.is_usable = True
        self._connection, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_read_all, args=(theirs, judge))
        self._process.start()
        theirs.close()
        self._dead_children = self._connection.recv()
        self._base = _megabytes(self._process.pid, "VmRSS")

    def read(self, path: Path) -> dict:
        for pid in (self._process.pid, *_children(self._process.pid)):
            _forget_peak(pid)
        before = self._cpu_seconds()
        self._connection.send(path)
        verdict, peak = self._wait(before)
        self.is_usable = verdict["outcome"] != "broken"
        return {**verdict, "seconds": round(self._cpu_seconds() - before, 2), "megabytes": round(peak)}

    def _wait(self, before: float) -> tuple[dict, float]:
        peak, end = 0.0, time.monotonic() + PATIENCE * self.seconds
        while not self._connection.poll(0.01):
            peak = max(peak, self._memory())
            if peak > self.megabytes:
                return _broken(f"needs more than {self.megabytes} MB"), peak
            if self._cpu_seconds() - before > self.seconds or time.monotonic() > end:
                return _broken(f"takes more than {self.seconds} s"), peak
        try:
            verdict, dead_children = self._connection.recv()
        except EOFError:
            self._process.join()
            return _broken(f"ends the process with {self._process.exitcode}"), peak
        if dead_children > self._dead_children:  # between two looks
            self._dead_children, peak = dead_children, max(peak, dead_children)
        peak = max(peak, self._memory())
        return (_broken(f"needs {peak:.0f} MB") if peak > self.megabytes else verdict), peak

    def _memory(self) -> float:
        pid = self._process.pid
        return _megabytes(pid, "VmHWM") - self._base + sum(_megabytes(child, "VmHWM") for child in _children(pid))

    def _cpu_seconds(self) -> float:
        return sum(map(_cpu_seconds, (self._process.pid, *_children(self._process.pid))))

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a group of its own, children included
        self._process.join()


def _read_all(connection: Connection, judge: Judge) -> None:
    os.setpgid(0, 0)
    connection.send(_dead_children())
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        connection.send((judge(path), _dead_children()))


def _dead_children() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # MB


def _children(pid: int) -> list[int]:
    """Processes below a process, at any depth."""
    try:
        direct = [
            int(child)
            for task in os.listdir(f"/proc/{pid}/task")
            for child in _text(f"{pid}/task/{task}/children").split()
        ]
    except FileNotFoundError:
        return []
    return direct + [below for child in direct for below in _children(child)]


def _cpu_seconds(pid: int) -> float:
    """Of a process and of its children that have ended."""
    ticks = _text(f"{pid}/stat").rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _megabytes(pid: int, field: str) -> float:
    lines = _text(f"{pid}/status").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), 0.0)


def _text(name: str) -> str:
    try:
        return Path("/proc", name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _forget_peak(pid: int) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _broken(why: str) -> dict:
    return {"outcome": "broken", "why": why}


# ---- readers ----


def judge_project() -> Judge:
    """This repository's reader, and what it must keep to."""
    return _judge_reader(read_all)


def judge_volume() -> Judge:
    """Its reader of NIfTI, slice by slice as it gives them: a large volume is not to be held."""
    # A second, before the watch begins.
    from models.preprocessing import nifti
    from models.preprocessing.hounsfield import clip, to_hounsfield

    def read(path: Path) -> list[np.ndarray]:
        slices = (clip(to_hounsfield(item.stored, item.rescale)) for item in nifti.read_file(path, path.name))
        return [values if _problem(values) else values[:1, :1].copy() for values in slices]

    return _judge_reader(read)


def _judge_reader(read: Callable[[Path], list[np.ndarray]]) -> Judge:
    # A second, before the watch begins.
    from models.preprocessing.archives import ArchiveError
    from models.preprocessing.elements import Reason, UnreadableSliceError

    def judge(path: Path) -> dict:
        try:
            slices = read(path)
        except ArchiveError:
            return {"outcome": "rejected", "why": "ArchiveError"}
        except UnreadableSliceError as error:
            if not isinstance(error.reason, Reason):
                return _broken(f"rejected without a Reason: {error.reason!r}")
            return {"outcome": "rejected", "why": error.reason.name}
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and what a library's Rust code panics with are broken readers, too
            return _broken(f"raises {type(error).__name__}: {str(error)[:200]}")
        problems = [] if slices else ["accepted, but gives no slice"]
        problems += [problem for hounsfield in slices if (problem := _problem(hounsfield))]
        return _broken(problems[0]) if problems else {"outcome": "accepted", "why": f"{len(slices)} slices"}

    return judge


def read_all(path: Path) -> list[np.ndarray]:
    """The slices of a file; of an archive those of the members that can be read, else why the last one cannot."""
    from models.preprocessing.archives import is_archive, members
    from models.preprocessing.dicom import read_slices
    from models.preprocessing.elements import Reason, UnreadableSliceError

    if not is_archive(path):
        return read_slices(path)
    slices, wrong = [], UnreadableSliceError(Reason.ARCHIVE)
    for member in members(path):
        try:
            slices += read_slices(member)
        except UnreadableSliceError as error:
            wrong = error
    if slices:
        return slices
    raise wrong


def _problem(hounsfield: np.ndarray) -> str | None:
    if hounsfield.ndim != 2 or hounsfield.dtype != np.int16 or not hounsfield.size:
        return f"gives {hounsfield.dtype} of shape {hounsfield.shape}"
    if hounsfield.min() < -1000 or hounsfield.max() > 2000:
        return f"gives {hounsfield.min()} ... {hounsfield.max()} HU"
    return None  # what is int16 is finite


def judge_pydicom() -> Judge:
    """Plain pydicom, to compare with: every exception is a rejection."""
    import pydicom

    def judge(path: Path) -> dict:
        try:
            shape = pydicom.dcmread(path).pixel_array.shape
        except Exception as error:
            return {"outcome": "rejected", "why": type(error).__name__}
        return {"outcome": "accepted", "why": str(shape)}

    return judge


def judge_harm() -> Judge:
    """Does the harm that a file asks for."""

    def allocate() -> None:
        harm = np.ones(100 << 20, np.uint8)
        time.sleep(5 + harm[0])

    harms = {
        "sleep": lambda: time.sleep(30),
        "bloat": allocate,
        "bloat below": lambda: subprocess.run([sys.executable, "-c", "print(len(b'1' * (100 << 20)))"], check=True),
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "exit": lambda: sys.exit(0),
        "none": lambda: None,
    }

    def judge(path: Path) -> dict:
        harms[path.read_text()]()
        return {"outcome": "accepted", "why": ""}

    return judge


READERS = {"project": judge_project, "volume": judge_volume, "pydicom": judge_pydicom, "harm": judge_harm}


# ---- the laws ----


def read_each(folder: Path, files: dict) -> dict[str, dict]:
    """Make each file, read it under watch, remove it; after what a decoder could not decode, it must decode again."""
    verdicts = {}
    sound = HEALTHY["j2k"](folder)
    with Watch() as watch:
        for name, writer in files.items():
            place = folder / name
            place.mkdir()
            verdicts[name] = watch.read(writer(place))
            shutil.rmtree(place)
            if verdicts[name]["why"] == "DECODING" and watch.read(sound)["outcome"] != "accepted":
                verdicts[name] |= _broken("leaves a decoder that does not decode a sound file")
    return verdicts


def listed(verdicts: dict[str, dict]) -> str:
    """A line a file, for a message."""
    return "\n" + "\n".join(f"{name}: {verdict}" for name, verdict in verdicts.items())


@pytest.fixture(scope="module", params=["every fifth", pytest.param("all", marks=pytest.mark.torture)])
def verdicts(request, tmp_path_factory) -> dict[str, dict]:
    names = list(HOSTILE) if request.param == "all" else list(HOSTILE)[::5]
    return read_each(tmp_path_factory.mktemp("hostile"), {name: HOSTILE[name] for name in names})


def test_a_hostile_file_gives_slices_or_a_reason_and_does_no_harm(verdicts):
    harmed = {name: verdict for name, verdict in verdicts.items() if verdict["outcome"] == "broken"}
    assert not harmed, listed(harmed)


def test_a_file_without_a_whole_slice_is_rejected(verdicts):
    accepted = {
        name: verdicts[name] for name in WITHOUT_SLICE & set(verdicts) if verdicts[name]["outcome"] == "accepted"
    }
    assert not accepted, listed(accepted)


@pytest.mark.parametrize("name", HEALTHY)
def test_the_files_that_the_hostile_ones_are_made_from_are_read(tmp_path, name):
    from models.preprocessing.dicom import read_slices
    from models.preprocessing.elements import Reason, UnreadableSliceError

    expected = (pixels() >> 4 if name == "jpeg" else pixels()).astype(int) - 1024
    try:
        (hounsfield,) = read_slices(HEALTHY[name](tmp_path))
    except UnreadableSliceError as error:
        if error.reason is Reason.NO_DECODER:
            pytest.skip("this decoder is not installed")
        raise
    difference = np.abs(hounsfield - np.clip(expected, -1000, 2000)).max()
    assert difference <= (2 if name == "jpeg" else 0)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, dict]:
    return read_each(tmp_path_factory.mktemp("archives"), HOSTILE_ARCHIVES)


def test_a_hostile_archive_does_no_harm(archives):
    harmed = {name: verdict for name, verdict in archives.items() if verdict["outcome"] == "broken"}
    assert not harmed, listed(harmed)


def test_the_watch_sees_harm_and_survives_it(tmp_path):
    words = {
        "sleep": "takes more than 1.0 s",
        "bloat": "needs more than 90.0 MB",
        "bloat below": "MB",
        "crash": "ends the process with -11",
        "exit": "ends the process with 0",
    }
    with Watch("harm", seconds=1, megabytes=90) as watch:
        for harm, why in words.items():
            (tmp_path / "harm").write_text(harm)
            verdict = watch.read(tmp_path / "harm")
            assert verdict["outcome"] == "broken"
            assert why in verdict["why"]
            (tmp_path / "harm").write_text("none")
            assert watch.read(tmp_path / "harm")["outcome"] == "accepted"


if __name__ == "__main__":
    serve(sys.argv[1], *map(float, sys.argv[2:]))
