"""Slices a second of `models/prepare.py` beside fastai's way from DICOM to a table and pictures, on one core.

    python benchmarks/prepare.py --data ../shared/rsna_sample      # or any other folder in Kaggle's layout

fastai: `DataFrame.from_dicoms` with the pixel summary, then `save_jpg` of three windows, 8 bits each. Here: all of
prepare.py, with a lossless store at 512 and 224. Without --data a phantom is drawn at 512 pixels first.
"""

import contextlib
import gc
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import fastai.medical.imaging
import numpy as np
import pandas as pd
import pydicom
import torch
from isal.isal_zlib import crc32

from models.cli import command
from models.paths import Work
from models.prepare import PrepareOptions, prepare
from models.preprocessing.dicom import read_slices
from models.preprocessing.parallel import progress_map
from models.preprocessing.phantom.dicom import write_phantom
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder, find_raw
from models.preprocessing.series import SeriesTask, group_by_series, peek_batch, prepare_series
from models.preprocessing.store import Series, compress_slice

SIZES = (512, 224)
REPEATS = 3
COPIES = 4  # of the few series, so that two processes end at nearly the same time
WINDOWS = [getattr(fastai.medical.imaging.dicom_windows, name) for name in ("brain", "subdural", "brain_bone")]


@dataclass(frozen=True)
class BenchmarkOptions:
    data: Path | None = None
    """folder in Kaggle's layout; none: a phantom of some 200 slices"""


def main(options: BenchmarkOptions) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.data is None:  # seven studies are about 200 slices
            write_phantom(folder / "phantom", studies=6, test_studies=1, image_size=512)
        raw = find_raw(options.data or folder / "phantom")
        files = raw.files("train") + raw.files("test")
        pixels = [next(iter(read_slices(path))) for path in files]
        print(
            f"{len(files)} slices of {pixels[0].shape[0]} x {pixels[0].shape[1]} pixels; milliseconds a slice, one core"
        )

        def fastai_way() -> None:
            for path in files:
                path.dcmread().save_jpg(folder / "slice.jpg", WINDOWS, bins=0)
            pd.DataFrame.from_dicoms(files, px_summ=True, window=fastai.medical.imaging.dicom_windows.brain)

        gc.freeze()  # a run of prepare.py has not the peer's libraries in memory, to be searched for garbage
        times = [(seconds_to_prepare(raw, folder / "work"), seconds(fastai_way)) for _ in range(REPEATS)]
        ours, theirs = np.median(times, axis=0) / len(files) * 1000
        gc.unfreeze()
        print(f"fastai: table with pixel summary and a jpg of three windows   {theirs:6.2f}")
        print(f"prepare.py: table, report, lossless store at 512 and 224      {ours:6.2f}")
        print(f"prepare.py is {theirs / ours:.1f} times as fast")
        floor = print_floor(files, pixels)
        print(f"prepare.py takes {ours / floor:.1f} times the floor")
        print_processes(raw, folder)
        print_checking(folder / "work" / "cache")


def seconds_to_prepare(raw: RawFolder, work: Path) -> float:
    shutil.rmtree(work, ignore_errors=True)
    options = PrepareOptions(data=raw.root, work=work, image_size=SIZES, folds=2, jobs=1)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return seconds(lambda: prepare(options))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def print_floor(files: list[Path], pixels: list[np.ndarray]) -> float:
    """What cannot be avoided: reading the bytes, one parse by pydicom, one encode at full size."""
    steps = {
        "reading the bytes": lambda: [path.read_bytes() for path in files],
        "pydicom.dcmread": lambda: [pydicom.dcmread(path) for path in files],
        "one encode at 512": lambda: [compress_slice(image) for image in pixels],
    }
    floor = 0.0
    for name, step in steps.items():
        cost = float(np.median([seconds(step) for _ in range(REPEATS)])) / len(files) * 1000
        floor += 0 if name == "reading the bytes" else cost  # dcmread reads them too
        print(f"  {name:58s}  {cost:6.2f}")
    print(f"the floor, dcmread and one encode                             {floor:6.2f}")
    return floor


def print_processes(raw: RawFolder, folder: Path) -> None:
    """Slices a second of one and of two processes that run already, on every series COPIES times."""
    times = {}
    for jobs in (1, 2):
        rounds = [seconds_of_processes(raw, folder / "processes", jobs) for _ in range(REPEATS + 1)]
        times[jobs] = float(np.median(rounds[1:]))  # the first starts them
    print(f"two processes: {times[1] / times[2]:.2f} times the slices a second of one")


def seconds_of_processes(raw: RawFolder, folder: Path, jobs: int) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    tasks = [task for copy in range(COPIES) for task in series_tasks(raw, Work(folder / str(copy)))]
    with contextlib.redirect_stderr(io.StringIO()):
        return seconds(lambda: progress_map(prepare_series, tasks, jobs, "series"))


def series_tasks(raw: RawFolder, work: Work) -> list[SeriesTask]:
    files = [path for split in raw.splits for path in raw.files(split)]
    return group_by_series(peek_batch(files), raw, work, SIZES, Pseudonyms(b"", challenge=True))[0]


def print_checking(cache: Path) -> None:
    """What the checksums add to reading a slice of 512 x 512, measured where they are computed: on bytes just read."""
    series = [Series(path) for path in sorted((cache / "slices_512").iterdir())]
    places = [(one, index) for one in series for index in range(len(one))]
    rounds = []
    for _ in range(REPEATS):
        reading = seconds(lambda: [one.read(index) for one, index in places])
        chunks = (one._array.schunk.get_chunk(index) for one, index in places)
        checking = sum(seconds(lambda chunk=chunk: crc32(chunk)) for chunk in chunks)
        rounds.append((reading, checking / reading))
    reading, share = np.median(rounds, axis=0)
    print(f"reading a stored slice of 512 x 512: {reading / len(places) * 1000:.2f} ms, {share:.1%} of it the checksum")


if __name__ == "__main__":
    command(main, BenchmarkOptions)
