"""Slices a second of `models/prepare.py` beside fastai's way from DICOM to a table and pictures, on one core.

    python benchmarks/prepare.py --data ../shared/rsna_sample      # or any other folder in Kaggle's layout

fastai: `DataFrame.from_dicoms` with the pixel summary, then `save_jpg` of three windows, 8 bits each. Here: all of
prepare.py, with a lossless store at 512 and 224. Without --data a phantom is drawn at 512 pixels first.
"""

import gc
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import fastai.medical.imaging
import numpy as np
import pandas as pd
import pydicom
import torch
from comparison import RATE, BenchmarkOptions, Row, quiet, row, scratch, seconds, take_turns
from isal.isal_zlib import crc32

from models.common.cli import command
from models.common.folders import Work
from models.preprocessing.dicom import read_slices
from models.preprocessing.grouping import SeriesTask, group_by_series, look_at, named_files
from models.preprocessing.parallel import progress_batches
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder, find_raw
from models.preprocessing.series import prepare_batch
from models.preprocessing.store import Series, compress_slice

SIZES = (512, 224)
REPEATS = 3
COPIES = 4  # of the few series, so that two processes end at nearly the same time
WINDOWS = [getattr(fastai.medical.imaging.dicom_windows, name) for name in ("brain", "subdural", "brain_bone")]


class Setting(NamedTuple):
    """What is prepared, and where."""

    raw: RawFolder
    files: list[Path]
    folder: Path  # to work in


def main(options: BenchmarkOptions) -> None:
    """Print both ways, the floor, what a second process brings, and what checksums cost."""
    with setting(options.data) as at:
        pixels = [next(iter(read_slices(path))) for path in at.files]
        shape = f"{pixels[0].shape[0]} x {pixels[0].shape[1]} pixels"
        print(f"{len(at.files)} slices of {shape}; milliseconds a slice, one core")
        medians = compare_with_fastai(at)
        ours, theirs = medians["ours"], medians["fastai"]
        print(f"fastai: table with pixel summary and a jpg of three windows   {theirs:6.2f}")
        print(f"prepare.py: table, report, lossless store at 512 and 224      {ours:6.2f}")
        print(f"prepare.py is {theirs / ours:.1f} times as fast")
        floor = print_floor(at.files, pixels)
        print(f"prepare.py takes {ours / floor:.1f} times the floor")
        speed = compare_processes(at)
        print(f"two processes: {speed[2] / speed[1]:.2f} times the slices a second of one")
        print_checking(at.folder / "work" / "cache")


def rows(data: Path | None) -> list[Row]:
    """The rows of this benchmark: beside fastai, and two processes beside one."""
    with setting(data) as at:
        milliseconds, speed = compare_with_fastai(at), compare_processes(at)
    return [
        row("prepare_vs_fastai", milliseconds["ours"], milliseconds["fastai"], "ms a slice"),
        row("prepare_two_processes", speed[2], speed[1], RATE),  # the peer is one process
    ]


@contextmanager
def setting(data: Path | None) -> Generator[Setting]:
    """The slices, or a phantom's if none are given, with one thread for each library."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with scratch(data) as (slices, folder):
        raw = find_raw(slices)
        files = [path for split in raw.splits for path in raw.files(split) if isinstance(path, Path)]
        yield Setting(raw, files, folder)


def compare_with_fastai(at: Setting) -> dict[str, float]:
    """Milliseconds a slice, on one core."""

    def fastai_way() -> None:
        for path in at.files:
            # pyrefly: ignore[missing-attribute]  # fastai adds it to Path
            path.dcmread().save_jpg(at.folder / "slice.jpg", WINDOWS, bins=0)
        # pyrefly: ignore[missing-attribute]  # fastai adds it to DataFrame
        pd.DataFrame.from_dicoms(at.files, px_summ=True, window=fastai.medical.imaging.dicom_windows.brain)

    ways = {"ours": partial(seconds_to_prepare, at.raw, at.folder / "work"), "fastai": partial(seconds, fastai_way)}
    gc.freeze()  # a run of prepare.py has not the peer's libraries in memory, to be searched for garbage
    medians = take_turns(ways, REPEATS)
    gc.unfreeze()
    return {name: 1000 * median / len(at.files) for name, median in medians.items()}


def seconds_to_prepare(raw: RawFolder, work: Path) -> float:
    """All of prepare.py, from an empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    options = PrepareOptions(data=raw.root, work=work, image_size=SIZES, folds=2, jobs=1)
    with quiet():
        return seconds(lambda: prepare(options))


def print_floor(files: list[Path], pixels: list[np.ndarray]) -> float:
    """What cannot be avoided, in milliseconds a slice: one parse by pydicom, which reads the bytes, and one encode.

    `pixels` are int16 (rows, columns).
    """
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


def compare_processes(at: Setting) -> dict[int, float]:
    """Slices a second of one and of two processes that run already, on every series COPIES times."""
    ways = {jobs: partial(seconds_of_processes, at.raw, at.folder / "processes", jobs) for jobs in (1, 2)}
    medians = take_turns(ways, REPEATS, warm_up=1)  # which starts them
    return {jobs: COPIES * len(at.files) / median for jobs, median in medians.items()}


def seconds_of_processes(raw: RawFolder, folder: Path, jobs: int) -> float:
    """Preparing every series COPIES times, from an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    tasks = [task for copy in range(COPIES) for task in series_tasks(raw, Work(folder / str(copy)))]
    with quiet():
        return seconds(lambda: progress_batches(prepare_batch, tasks, jobs, "series", len(tasks)))


def series_tasks(raw: RawFolder, work: Work) -> list[SeriesTask]:
    """What there is to do, a task a series."""
    files = [path for split in raw.splits for path in raw.files(split)]
    pseudonyms = Pseudonyms(b"", challenge=True)
    looks = look_at(pseudonyms, named_files(files, raw.root, pseudonyms, {}))
    return group_by_series(looks, raw, work, SIZES, pseudonyms)[0]


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
