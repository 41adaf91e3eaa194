"""Milliseconds from a stored slice to a network's input, ours beside the original's ways, on one core.

    python benchmarks/input_path.py --data ../shared/rsna_sample      # or any other folder in Kaggle's layout

original: `pydicom.dcmread` in every epoch, Hounsfield units, three windows as floats 0 ... 1, Albumentations with
Normalize. PNG: the same three windows cached as one 512 x 512 PNG, then the same Albumentations on its uint8. Ours:
`SliceDataset` on a prepared store, uint8, to be normalised on the device. Floor: ours without augmentation. All see the
same slices with the same random draws, and take turns. Where the network wants 224 pixels, the peers resize first,
which is the cheaper order for them. Without --data, or RSNA_DATA, a phantom is drawn at 512 pixels first.

Then through a DataLoader with one process, as in training: the original's way, ours hot, and ours cold: each slice is
that of another of 2,000 series, none of which the process has seen before, as nearly all are in the challenge. Their
files are copies with one slice each, 0.5 GB, in the page cache as the others are: cold is what was not opened.
"""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import pydicom
import torch
from comparison import BenchmarkOptions, Row, quiet, row, scratch, seconds, take_turns
from torch.utils.data import DataLoader, Dataset

from models.common.channels import Channel, Window
from models.common.cli import command
from models.common.config import Augment, TrainConfig
from models.common.folders import Work
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.raw import find_raw
from models.preprocessing.store import Series, compress_slice, write_series
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.dataset import SliceDataset
from models.training.loading import make_loader
from models.training.planes import open_series

SIZES = (512, 224)
ROUNDS, LOADER_ROUNDS = 7, 5
WINDOWS = (Window(40, 80), Window(80, 200), Window(40, 380))  # train_b2's
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
ORIGINAL, PNG, OURS, FLOOR = "original, DICOM on the fly", "PNG cache", "ours", "floor, ours without augmentation"
LOADED_ORIGINAL, HOT, COLD = "original, through a loader", "ours, through a loader", "the same, series not seen before"
SERIES = 2000  # that are not seen before
BATCH = 16

Times = dict[int, dict[str, float]]  # size -> input path -> milliseconds a slice
Read = Callable[[tuple[int, int]], Any]  # key (epoch, row) -> network input


def main(options: BenchmarkOptions) -> None:
    """Print the milliseconds a slice of each input path."""
    times = measure(options.data)
    for size, milliseconds in times.items():
        print(f"\n{f'{size} x {size}, hard augmentations':40}{'ms a slice':>10}{'times ours':>12}")
        for name, value in milliseconds.items():
            ours = milliseconds[HOT if name in (LOADED_ORIGINAL, HOT, COLD) else OURS]
            print(f"{name:40}{value:10.2f}{value / ours:12.2f}")


def rows(data: Path | None) -> list[Row]:
    """The rows of this benchmark: beside the original's ways, without and with a loader, and cold beside hot."""
    times = measure(data)
    pairs = {
        "input_{}_vs_original": (OURS, ORIGINAL),
        "input_{}_vs_png": (OURS, PNG),
        "input_{}_loader_vs_original": (HOT, LOADED_ORIGINAL),
        "input_{}_cold_vs_hot": (COLD, HOT),
    }
    return [
        row(name.format(size), times[size][here], times[size][peer], "ms a slice")
        for name, (here, peer) in pairs.items()
        for size in SIZES
    ]


def measure(data: Path | None) -> Times:
    """Medians over rounds in which all input paths take turns, each reading every training slice once."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with scratch(data) as (found, folder):
        raw, work = find_raw(found), Work(folder / "work")
        with quiet():
            prepare(PrepareOptions(data=raw.root, work=work.root, image_size=SIZES, folds=2, jobs=1))
        slices = read_slices(work, "train")
        slices = slices[slices["chunk"] != UNREADABLE].reset_index(drop=True)
        print(f"{len(slices)} slices, {ROUNDS} rounds")
        files = {path.stem: path for path in raw.files("train")}
        dicoms = [Path(str(files[image_id])) for image_id in slices["image_id"]]
        pngs = write_pngs(dicoms, folder)
        times = {}
        for size in SIZES:
            paths = {
                ORIGINAL: Peer(lambda row: float_windows(dicoms[row]), size, brightest=1.0),
                PNG: Peer(lambda row: read_png(pngs[row]), size, brightest=255.0),
                OURS: ours(slices, work, size, "hard"),
                FLOOR: ours(slices, work, size, "none"),
            }
            turns = {name: partial(milliseconds, read, count(), len(slices)) for name, read in paths.items()}
            times[size] = take_turns(turns, ROUNDS) | measure_loaders(slices, work, size, paths[ORIGINAL])
    return times


def measure_loaders(slices: pd.DataFrame, work: Work, size: int, original: Read) -> dict[str, float]:
    """The same through loader processes, of which each has read all its slices once before."""
    chosen = np.random.default_rng(0).permutation(np.arange(SERIES) % len(slices))
    seen = slices.iloc[chosen].reset_index(drop=True)
    peer = DataLoader(Rows(original, len(slices)), BATCH, num_workers=1, persistent_workers=True)
    hot = make_loader(SliceDataset(seen, work, config(size), "hard"), BATCH, workers=1)
    cold = make_loader(ColdDataset(separate(seen, work, size), work, config(size), "hard"), BATCH, workers=1)
    loaders = {LOADED_ORIGINAL: (peer, len(slices)), HOT: (hot, SERIES), COLD: (cold, SERIES)}
    return take_turns({name: partial(load, *loader) for name, loader in loaders.items()}, LOADER_ROUNDS, warm_up=1)


def load(loader: DataLoader, length: int) -> float:
    """Milliseconds a slice over all batches."""
    return 1000 / length * seconds(lambda: [len(batch) for batch in loader])


class Rows(Dataset):
    """What an input path gives for each row."""

    def __init__(self, read: Read, length: int) -> None:
        self.read, self.length = read, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.read((0, index))


class ColdDataset(SliceDataset):
    """Slices of series that this process has forgotten."""

    def draw(self, index: tuple[int, int], grey: np.ndarray) -> None:
        """Write an image (channels, size, size)."""
        open_series.cache_clear()
        super().draw(index, grey)


def separate(slices: pd.DataFrame, work: Work, size: int) -> pd.DataFrame:
    """Store each slice as a series of its own; returns their rows."""
    rows = slices.assign(series_id=[f"copy_{number}" for number in range(len(slices))], chunk=0)
    for name, series, place in zip(rows["series_id"], slices["series_id"], slices["chunk"], strict=True):
        chunk = compress_slice(Series(work.series(size, series)).read(place))
        write_series(work.series(size, name), [chunk], (size, size), {})
    return rows


def milliseconds(read: Read, epochs: Iterator[int], length: int) -> float:
    """A slice, over the next epoch."""
    epoch = next(epochs)
    return 1000 / length * seconds(lambda: [read((epoch, row)) for row in range(length)])


def ours(slices: pd.DataFrame, work: Work, size: int, augment: Augment) -> Read:
    """What this project reads at `size` pixels."""
    return SliceDataset(slices, work, config(size), augment).__getitem__


def config(size: int) -> TrainConfig:
    """Three windows of a slice at `size` pixels."""
    channels = tuple(Channel(0, window) for window in WINDOWS)
    return TrainConfig(
        name="benchmark",
        network="efficientnet-b2",
        image_size=size,
        channels=channels,
        optimizer="adam",
        max_lr=1e-4,
        epochs=1,
        batch_size=56,
    )


class Peer:
    """Three windows (rows, columns, 3), then Albumentations as in the original, down to a tensor (3, size, size)."""

    def __init__(self, read: Callable[[int], np.ndarray], size: int, brightest: float) -> None:
        self.read, self.random = read, random.Random()
        hard = [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.RandomRotate90(p=0.5),
            A.ShiftScaleRotate(shift_limit=0.0625, scale_limit=0.1, rotate_limit=45, p=0.5),
            A.GridDistortion(num_steps=5, distort_limit=0.3, p=0.5),
            A.RandomGamma(gamma_limit=(80, 120), p=0.5),
        ]
        normalize = A.Normalize(MEAN, STD, max_pixel_value=brightest)
        self.pipeline = A.Compose([A.Resize(size, size), *hard, normalize, A.ToTensorV2()])
        self.pipeline.set_random_state(np.random.default_rng(0), self.random)
        self.pipeline.py_random = random.Random(0)  # a Compose draws whether it happens at all; ours does not

    def __call__(self, key: tuple[int, int]) -> torch.Tensor:
        epoch, row = key
        self.random.seed(f"0 {epoch} {row}")  # the draws of our seed 0
        return self.pipeline(image=self.read(row))["image"]


def float_windows(dicom: Path) -> np.ndarray:
    """Three windows of a DICOM file, float32 0 ... 1 (rows, columns, 3), as the original computed them."""
    file = pydicom.dcmread(dicom)
    hounsfield = file.pixel_array.astype(np.float32) * float(file.RescaleSlope) + float(file.RescaleIntercept)
    lows = [window.center - window.width / 2 for window in WINDOWS]
    return np.stack(
        [
            (np.clip(hounsfield, low, low + window.width) - low) / window.width
            for low, window in zip(lows, WINDOWS, strict=True)
        ],
        axis=-1,
        dtype=np.float32,
    )


def write_pngs(dicoms: list[Path], folder: Path) -> list[Path]:
    """Cache the three windows of each file as the colours of a PNG."""
    pngs = [folder / f"{dicom.stem}.png" for dicom in dicoms]
    for dicom, png in zip(dicoms, pngs, strict=True):
        cv2.imwrite(str(png), np.round(255 * float_windows(dicom)).astype(np.uint8))
    return pngs


def read_png(file: Path) -> np.ndarray:
    """Three windows of a slice, uint8 (rows, columns, 3)."""
    pixels = cv2.imread(str(file))
    assert pixels is not None, file
    return pixels


if __name__ == "__main__":
    command(main, BenchmarkOptions)
