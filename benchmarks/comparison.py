"""What the benchmarks share: their data, taking turns with a peer, the row that comes of it, processes of their own."""

import io
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any, TypeVar

from models.common.folders import default_data as data_of_environment
from models.phantom.dicom import write_phantom

Name = TypeVar("Name", str, int)
Row = dict[str, Any]  # name, ours, peer, unit, ratio
RATE = "slices/s"  # the unit of which more is better


def default_data() -> Path | None:
    """The folder that RSNA_DATA names, if any."""
    return data_of_environment() if "RSNA_DATA" in os.environ else None


@dataclass(frozen=True)
class BenchmarkOptions:
    """What the command lines of the benchmarks share."""

    data: Path | None = field(default_factory=default_data)
    """folder in Kaggle's layout (or set RSNA_DATA); none: a phantom of some 200 slices"""


def row(name: str, ours: float, peer: float, unit: str) -> Row:
    """A row of the table; its ratio is above 1 where we are better, be it by less time or by more slices a second."""
    ratio = ours / peer if unit == RATE else peer / ours
    return {"name": name, "ours": round(ours, 4), "peer": round(peer, 4), "unit": unit, "ratio": round(ratio, 2)}


def table(rows: list[Row]) -> str:
    """The rows as lines to print, below a heading."""
    lines = [f"{'':28}{'ours':>10}{'peer':>10}  {'unit':14}{'ratio':>6}   (above 1: ours is better)"]
    lines += ["{name:28}{ours:10.2f}{peer:10.2f}  {unit:14}{ratio:6.2f}".format(**row) for row in rows]
    return "\n".join(lines)


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_memory() -> int:
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def take_turns(measures: dict[Name, Callable[[], float]], rounds: int, warm_up: int = 0) -> dict[Name, float]:
    """The median of each measure over the rounds, in each of which all take a turn: other load meets them alike.

    Each round has an order of its own: in a fixed one each would always meet the memory that the same other has left.
    """
    order, shuffle = list(measures), random.Random(0).shuffle
    results: dict[Name, list[float]] = {name: [] for name in measures}
    for _ in range(warm_up + rounds):
        shuffle(order)
        for name in order:
            results[name].append(measures[name]())
    return {name: statistics.median(times[warm_up:]) for name, times in results.items()}


def separately(function: Callable, *arguments: Any) -> Any:
    """Call in a new process: benchmarks set their own numbers of threads, some of them when they are imported."""
    with ProcessPoolExecutor(1, get_context("spawn"), as_usual) as processes:
        return processes.submit(function, *arguments).result()


def as_usual() -> None:
    """Let this process start others as a user's does: one that was spawned would spawn them, too."""
    set_start_method(None, force=True)


@contextmanager
def quiet() -> Generator[None]:
    """Without what a stage of the pipeline prints and the bars that it shows."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


@contextmanager
def scratch(data: Path | None) -> Generator[tuple[Path, Path]]:
    """The folder of the slices, a phantom at 512 pixels if none is given, and an empty one to work in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if data is None:  # seven studies are about 200 slices
            data = folder / "phantom"
            write_phantom(data, studies=6, test_studies=1, image_size=512)
        yield data, folder
