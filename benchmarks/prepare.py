"""Slices a second of `models/prepare.py` beside fastai's way from DICOM to a table and pictures, on one core.

    python benchmarks/prepare.py --data ../shared/rsna_sample      # or any other folder in Kaggle's layout
    python benchmarks/prepare.py --copies 7 --old ../old           # 2,000 slices, beside another checkout

fastai: `DataFrame.from_dicoms` with the pixel summary, then `save_jpg` of three windows, 8 bits each. Here: all of
prepare.py, with a lossless store at 512 and 224. Without --data a phantom is drawn at 512 pixels first.
"""

import gc
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import fastai.medical.imaging
import numpy as np
import pandas as pd
import pydicom
import pydicom.config
import torch
from comparison import RATE, BenchmarkOptions, Row, quiet, row, scratch, seconds, take_turns
from isal.isal_zlib import crc32
from joblib.externals.loky import get_reusable_executor

from models.common.cli import command
from models.common.folders import Work
from models.common.labels import LABELS
from models.preprocessing.dicom import IDENTIFIERS, read_file, read_slices
from models.preprocessing.grouping import SeriesTask, group_by_series, look_at, named_files
from models.preprocessing.hounsfield import clip, to_hounsfield
from models.preprocessing.parallel import progress_batches
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder, find_raw
from models.preprocessing.series import prepare_batch
from models.preprocessing.slices import pixel_statistics
from models.preprocessing.store import Series, compress_slice, fit_to_square

REPOSITORY = Path(__file__).parent.parent
SIZES = (512, 224)
REPEATS = 3
COPIES = 4  # of the few series, so that two processes end at nearly the same time
WINDOWS = [getattr(fastai.medical.imaging.dicom_windows, name) for name in ("brain", "subdural", "brain_bone")]


class Setting(NamedTuple):
    """What is prepared, and where."""

    raw: RawFolder
    files: list[Path]
    folder: Path  # to work in


@dataclass(frozen=True)
class PrepareBenchmarkOptions(BenchmarkOptions):
    """The command line of this benchmark."""

    copies: int = 1
    """how often each series is there, under other names: of few slices fixed costs are a large part"""
    old: Path | None = None
    """the checkout of another commit, to be compared with"""


def main(options: PrepareBenchmarkOptions) -> None:
    """Print both ways, the floor, the other commit, what a second process brings, and what checksums cost."""
    with setting(options.data, options.copies) as at:
        pixels = [next(iter(read_slices(path))) for path in at.files]
        shape = f"{pixels[0].shape[0]} x {pixels[0].shape[1]} pixels"
        print(f"{len(at.files)} slices of {shape}; milliseconds a slice, one core")
        medians = compare_with_fastai(at)
        ours, theirs = medians["ours"], medians["fastai"]
        print(f"fastai: table with pixel summary and a jpg of three windows   {theirs:6.2f}")
        print(f"prepare.py: table, report, lossless store at 512 and 224      {ours:6.2f}")
        print(f"prepare.py is {theirs / ours:.1f} times as fast")
        floor = floor_of(at)
        print(f"the floor: read, HU, statistics, two sizes, two LZ4, a write  {floor:6.2f}")
        print(f"prepare.py takes {ours / floor:.1f} times the floor")
        if options.old:
            turns = compare_with_old(at, options.old)
            print(f"in turns with that of {options.old}: {turns['ours']:.2f} here, {turns['old']:.2f} there")
            print(f"prepare.py is {turns['old'] / turns['ours']:.2f} times as fast as that")
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
def setting(data: Path | None, copies: int = 1) -> Generator[Setting]:
    """The slices, or a phantom's if none are given, each so many times; with one thread for each library."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with scratch(data) as (slices, folder):
        raw = find_raw(multiply(slices, folder / "copies", copies) if copies > 1 else slices)
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


def multiply(data: Path, folder: Path, copies: int) -> Path:
    """Write a raw folder that holds each series of another so many times, under other names."""
    raw, rows = find_raw(data), {"train": [], "test": []}
    for copy, split in itertools.product(range(copies), raw.splits):
        (folder / f"stage_2_{split}").mkdir(parents=True, exist_ok=True)
        for path in raw.files(split):
            with pydicom.config.disable_value_validation():
                slice_ = pydicom.dcmread(str(path))
                for name in IDENTIFIERS.values():
                    value = str(slice_[name].value)
                    other = hashlib.sha256(f"{value} {copy}".encode()).hexdigest()
                    setattr(slice_, name, f"ID_{other[: len(value) - 3]}")
                slice_.save_as(folder / f"stage_2_{split}" / f"{slice_.SOPInstanceUID}.dcm")
            rows[split] += [(f"{slice_.SOPInstanceUID}_{label}", 0) for label in LABELS]
    for split, name in (("train", "train"), ("test", "sample_submission")):
        pd.DataFrame(rows[split], columns=["ID", "Label"]).to_csv(folder / f"stage_2_{name}.csv", index=False)
    return folder


def floor_of(at: Setting) -> float:
    """What cannot be avoided, in milliseconds a slice.

    The bytes are read, become Hounsfield units, are summed up and clipped, brought to each size and compressed, and the
    chunks of a file are written in one go. Where its pixels stand, and how they are scaled, is known already.
    """
    known = [(path, next(read_file(path))) for path in at.files]

    def work() -> None:
        for path, item in known:
            data = path.read_bytes()
            stored = np.frombuffer(data, item.stored.dtype, item.stored.size, len(data) - item.stored.nbytes)
            hounsfield = to_hounsfield(stored.reshape(item.stored.shape), item.rescale)
            pixel_statistics(item.stored, hounsfield)
            clipped = clip(hounsfield)
            chunks = b"".join(compress_slice(fit_to_square(clipped, size)) for size in SIZES)
            (at.folder / "floor").write_bytes(chunks)

    return 1000 * float(np.median([seconds(work) for _ in range(REPEATS)])) / len(at.files)


# In a process of its own each: two commits cannot be imported into one.
_PREPARE = """
import sys, time, shutil
try:
    from models.preprocessing.preparation import PrepareOptions, prepare
except ImportError:  # where it was
    from models.prepare import PrepareOptions, prepare
from pathlib import Path
for _ in range(2):  # the second counts
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    start = time.perf_counter()
    prepare(PrepareOptions(data=Path(sys.argv[1]), work=Path(sys.argv[2]), image_size=(512, 224), folds=2, jobs=1))
    took = time.perf_counter() - start
print("took", took)
"""


def compare_with_old(at: Setting, old: Path) -> dict[str, float]:
    """Milliseconds a slice of this commit and of another one, on one core."""

    def measure(checkout: Path) -> float:
        words = [sys.executable, "-c", _PREPARE, str(at.raw.root.resolve()), str(at.folder / "in turns")]
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout.rpartition("took")[2])

    medians = take_turns({"ours": partial(measure, REPOSITORY), "old": partial(measure, old)}, REPEATS)
    return {name: 1000 * median / len(at.files) for name, median in medians.items()}


def compare_processes(at: Setting) -> dict[int, float]:
    """Slices a second of one and of two processes that run already, on every series COPIES times."""
    ways = {jobs: partial(seconds_of_processes, at.raw, at.folder / "processes", jobs) for jobs in (1, 2)}
    medians = take_turns(ways, REPEATS, warm_up=1)  # which starts them
    get_reusable_executor().shutdown()  # a process of `separately` would wait for them until they have idled 5 minutes
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
    """What the checksums add to reading a slice of 512 x 512, measured where they are computed: on bytes just made."""
    series = [Series(path) for path in sorted((cache / "slices_512").iterdir())]
    places = [(one, index) for one in series for index in range(len(one))]
    rounds = []
    for _ in range(REPEATS):
        reading = seconds(lambda: [one.read(index) for one, index in places])
        chunks = (compress_slice(one.read(index)) for one, index in places)
        checking = sum(seconds(lambda chunk=chunk: crc32(chunk)) for chunk in chunks)
        rounds.append((reading, checking / reading))
    reading, share = np.median(rounds, axis=0)
    print(f"reading a stored slice of 512 x 512: {reading / len(places) * 1000:.2f} ms, {share:.1%} of it the checksum")


if __name__ == "__main__":
    command(main, PrepareBenchmarkOptions)
