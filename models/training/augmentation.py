"""What chance does to a training slice: the original's hard augmentations, as Albumentations defines and draws them."""

import random
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.geometric.functional import normalize_grid_distortion_steps

from models.common.channels import Window
from models.common.config import Augment, TrainConfig
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE

_ALL_GREY_VALUES = np.arange(256, dtype=np.uint8)


class Draw(NamedTuple):
    """What happens to one sample."""

    geometry: dict[str, dict[str, Any]]
    """the transforms that happen, by the names of `transforms`, each with its parameters"""
    gamma: np.ndarray | None
    """table of 256 grey values"""
    windows: list[Window]
    """of each channel"""


def transforms(augment: Augment) -> dict[str, A.BasicTransform]:
    """Probabilities and ranges, in the order in which they are drawn.

    Flips, quarter turns and shift-scale-rotate ("light"), then grid distortion and gamma 0.8 ... 1.2 ("hard").
    """
    outside = {"border_mode": cv2.BORDER_CONSTANT, "fill": HOUNSFIELD_RANGE[0]}  # what comes in is air
    light = {
        "horizontal": A.HorizontalFlip(p=0.5),
        "vertical": A.VerticalFlip(p=0.5),
        "quarters": A.RandomRotate90(p=0.5),
        "affine": A.ShiftScaleRotate(shift_limit=0.0625, scale_limit=0.1, rotate_limit=45, p=0.5, **outside),
    }
    hard = {
        **light,
        "grid": A.GridDistortion(num_steps=5, distort_limit=0.3, p=0.5, **outside),
        "gamma": A.RandomGamma(gamma_limit=(80, 120), p=0.5),
    }
    return {"hard": hard, "light": light, "none": {}}[augment]


class Augmentation:
    """Draws what happens to a sample, as a function of its key alone.

    Not by calling an `A.Compose`: that interpolates once for each transform, where `models/training/warping.py` does
    it once for all of them. And its `seed` gives, in Albumentations 2.0.8, every transform the same random numbers, so
    that with p=0.5 all of them happen together or not at all.
    """

    def __init__(self, config: TrainConfig, augment: Augment) -> None:
        self.transforms = transforms(augment)
        self.windows = [channel.window for channel in config.channels]
        self.jitter = 0.0 if augment == "none" else config.window_jitter
        self.random = random.Random()
        for transform in self.transforms.values():
            transform.set_random_state(np.random.default_rng(0), self.random)  # none of them uses numpy's

    def draw(self, key: tuple[int, ...], shape: tuple[int, int]) -> Draw:
        """The draw of a key, for example of (seed, epoch, row), for slices of a shape (rows, columns)."""
        self.random.seed(" ".join(map(str, key)))
        happens = {
            name: draw_parameters(transform, shape)
            for name, transform in self.transforms.items()
            if transform.should_apply()
        }
        gamma = happens.pop("gamma", None)
        table = None if gamma is None else self.transforms["gamma"].apply(_ALL_GREY_VALUES, **gamma)
        return Draw(happens, table, self.jittered_windows() if self.jitter else self.windows)

    def jittered_windows(self) -> list[Window]:
        """The windows of the channels, moved at random; equal ones alike, so that slices in them can be compared."""
        moved = {window: self.jittered(window) for window in dict.fromkeys(self.windows)}
        return [moved[window] for window in self.windows]

    def jittered(self, window: Window) -> Window:
        """A window whose centre and width have moved by at most `jitter` of its width."""
        shift, stretch = (self.random.uniform(-self.jitter, self.jitter) * window.width for _ in range(2))
        return Window(window.center + shift, window.width + stretch)


def draw_parameters(transform: A.BasicTransform, shape: tuple[int, int]) -> dict[str, Any]:
    """What Albumentations draws for a transform that happens, but of a grid distortion its `grid_lines`."""
    if isinstance(transform, A.GridDistortion):
        return grid_lines(transform, shape)
    return transform.get_params() | transform.get_params_dependent_on_data({"shape": shape}, {})


def grid_lines(transform: A.GridDistortion, shape: tuple[int, int]) -> dict[str, tuple[list[int], list[float]]]:
    """Draw a (normalized) grid distortion as the lines of its grid: {"x": (pixels, where they show), "y": ...}.

    The same draws and the same distortion as its `get_params_dependent_on_data`. That moves whole columns and whole
    rows, evenly within a cell, but spells it out in two maps of all pixels, in as much time as it takes to warp them.
    """
    low, high = transform.distort_limit
    cells = transform.num_steps + 1  # the last one is what is left over, fewer pixels than there are steps
    drawn = [[1 + transform.py_random.uniform(low, high) for _ in range(cells)] for _ in "xy"]
    steps = normalize_grid_distortion_steps(shape, transform.num_steps, *drawn)
    return {
        "x": cell_ends(shape[1], shape[1] // transform.num_steps, steps["steps_x"]),
        "y": cell_ends(shape[0], shape[0] // transform.num_steps, steps["steps_y"]),
    }


def cell_ends(length: int, cell: int, steps: np.ndarray) -> tuple[list[int], list[float]]:
    """First and last pixel of each cell on an axis, and what they show: a cell ends on what the next begins with."""
    pixels, shown = [], [0.0]
    starts = range(0, length - 1, cell)  # a single pixel that is left over shows what the one before it shows
    for start, step in zip(starts, steps.tolist(), strict=False):
        pixels += [start, min(start + cell, length) - 1]
        shown += [shown[-1] + cell * step] * 2
    return pixels, shown[:-1]
