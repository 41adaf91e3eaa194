"""What chance does to a training slice: the original's hard augmentations, as Albumentations defines and draws them."""

import random
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np

from models.config import Augment, TrainConfig, Window
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE

_ALL_GREY_VALUES = np.arange(256, dtype=np.uint8)


class Draw(NamedTuple):
    """What happens to one sample."""

    geometry: dict[str, dict[str, Any]]
    """the transforms that happen, by the names of `transforms`, each with the parameters that Albumentations drew"""
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
            name: transform.get_params() | transform.get_params_dependent_on_data({"shape": shape}, {})
            for name, transform in self.transforms.items()
            if transform.should_apply()
        }
        gamma = happens.pop("gamma", None)
        table = None if gamma is None else self.transforms["gamma"].apply(_ALL_GREY_VALUES, **gamma)
        windows = [self.jittered(window) for window in self.windows] if self.jitter else self.windows
        return Draw(happens, table, windows)

    def jittered(self, window: Window) -> Window:
        """A window whose centre and width have moved by at most `jitter` of its width."""
        shift, stretch = (self.random.uniform(-self.jitter, self.jitter) * window.width for _ in range(2))
        return Window(window.center + shift, window.width + stretch)
