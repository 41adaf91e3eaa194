"""Milliseconds from a stored slice to a network's input, ours beside the original's ways, on one core.

    python benchmarks/input_path.py --data ../shared/rsna_sample      # or any other folder in Kaggle's layout

original: `pydicom.dcmread` in every epoch, Hounsfield units, three windows as floats 0 ... 1, Albumentations with
Normalize. PNG: the same three windows cached as one 512 x 512 PNG, then the same Albumentations on its uint8. Ours:
`SliceDataset` on a prepared store, uint8, to be normalised on the device. Floor: ours without augmentation. All see the
same slices with the same random draws, and take turns. Where the network wants 224 pixels, the peers resize first,
which is the cheaper order for them. Without --data, or RSNA_DATA, a phantom is drawn at 512 pixels first.
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

from models.common.channels import Channel, Window
from models.common.cli import command
from models.common.config import Augment, TrainConfig
from models.common.folders import Work
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.raw import find_raw
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.dataset import SliceDataset

SIZES = (512, 224)
ROUNDS = 7
WINDOWS = (Window(40, 80), Window(80, 200), Window(40, 380))  # train_b2's
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
ORIGINAL, PNG, OURS, FLOOR = "original, DICOM on the fly", "PNG cache", "ours", "floor, ours without augmentation"

Times = dict[int, dict[str, float]]  # size -> input path -> milliseconds a slice
Read = Callable[[tuple[int, int]], Any]  # key (epoch, row) -> network input


def main(options: BenchmarkOptions) -> None:
    """Print the milliseconds a slice of each input path."""
    times = measure(options.data)
    for size, milliseconds in times.items():
        print(f"\n{f'{size} x {size}, hard augmentations':40}{'ms a slice':>10}{'times ours':>12}")
        for name, value in milliseconds.items():
            print(f"{name:40}{value:10.2f}{value / milliseconds[OURS]:12.2f}")


def rows(data: Path | None) -> list[Row]:
    """The rows of this benchmark, each beside one of the original's ways."""
    times = measure(data)
    pairs = [("input_512_vs_original", 512, ORIGINAL), ("input_224_vs_original", 224, ORIGINAL)]
    pairs += [("input_512_vs_png", 512, PNG), ("input_224_vs_png", 224, PNG)]
    return [row(name, times[size][OURS], times[size][peer], "ms a slice") for name, size, peer in pairs]


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
            times[size] = take_turns(turns, ROUNDS)
    return times


def milliseconds(read: Read, epochs: Iterator[int], length: int) -> float:
    """A slice, over the next epoch."""
    epoch = next(epochs)
    return 1000 / length * seconds(lambda: [read((epoch, row)) for row in range(length)])


def ours(slices: pd.DataFrame, work: Work, size: int, augment: Augment) -> Read:
    """What this project reads at `size` pixels."""
    channels = tuple(Channel(0, window) for window in WINDOWS)
    config = TrainConfig(
        name="benchmark",
        network="efficientnet-b2",
        image_size=size,
        channels=channels,
        optimizer="adam",
        max_lr=1e-4,
        epochs=1,
        batch_size=56,
    )
    return SliceDataset(slices, work, config, augment).__getitem__


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
