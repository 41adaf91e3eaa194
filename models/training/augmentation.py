"""What chance does to a training slice: the original's hard augmentations, with the numbers of Albumentations 2.0.8.

And, for learning on drawings, a look that changes from sample to sample (appearance.py).
"""

import random
from typing import NamedTuple

import numpy as np

from models.common.channels import Window
from models.common.config import Augment, TrainConfig
from models.training.appearance import Appearance, draw_appearance, draw_strong, draw_window
from models.training.warping import Affine, Geometry, Grid

_STRONG_JITTER = 0.1  # of a window's width: 8 HU of the brain window, more than scanners are calibrated apart


class Draw(NamedTuple):
    """What happens to one sample."""

    geometry: Geometry
    gamma: float | None
    """exponent of the grey values, see `gamma_table`"""
    windows: list[Window]
    """of each channel"""
    appearance: Appearance | None = None
    """what happens before the windows"""


class Augmentation:
    """Draws what happens to a sample, as a function of its key alone.

    Flips, quarter turns and shift-scale-rotate ("light"), then grid distortion and gamma 0.8 ... 1.2 ("hard"), each in
    half of the samples. "randomised": the hard ones, then other windows in each sample and the parts of an Appearance.
    "strong": flips, any rotation and a scale of 0.8 ... 1.2, windows moved by a tenth of their width, in half of the
    samples gamma, then some parts of an Appearance.
    Takes numbers from `random.Random` in the order in which Albumentations does: the same key
    gives the same draw as there, which the tests compare, and as in every run that an earlier version has begun.

    Its `Compose` would not do: it interpolates once for each transform, where `models/training/warping.py` does it once
    for all of them. And its `seed` gives every transform the same random numbers, so that all of them happen together
    or not at all.
    """

    def __init__(self, config: TrainConfig, augment: Augment) -> None:
        self.augment, self.hard, self.randomised = augment, augment in ("hard", "randomised"), augment == "randomised"
        self.strong = augment == "strong"
        self.windows = [channel.window for channel in config.channels]
        self.jitter = 0.0 if augment == "none" else max(config.window_jitter, _STRONG_JITTER if self.strong else 0.0)
        self.random = random.Random()

    def draw(self, key: tuple[int, ...]) -> Draw:
        """The draw of a key, for example of (seed, epoch, row)."""
        self.random.seed(" ".join(map(str, key)))
        if self.strong:
            return self.draw_strong()
        geometry = Geometry() if self.augment == "none" else self.geometry()
        gamma = self.random.uniform(80, 120) / 100 if self.hard and self.happens() else None
        windows = self.moved_windows() if self.jitter or self.randomised else self.windows
        return Draw(geometry, gamma, windows, draw_appearance(self.random) if self.randomised else None)

    def draw_strong(self) -> Draw:
        """A strong draw, from the numbers that come next; each part of it happens once, geometry in one map."""
        scale, shift = self.random.uniform(0.8, 1.2), (self.random.uniform(-0.1, 0.1), self.random.uniform(-0.1, 0.1))
        affine = Affine(shift, (scale, scale), self.random.uniform(-180, 180))
        geometry = Geometry(self.happens(), self.happens(), affine=affine)
        gamma = self.random.uniform(0.8, 1.2) if self.happens() else None
        return Draw(geometry, gamma, self.moved_windows(), draw_strong(self.random))

    def geometry(self) -> Geometry:
        """Which pixels go where, drawn from the numbers that come next."""
        horizontal, vertical = self.happens(), self.happens()
        quarters = self.random.randint(0, 3) if self.happens() else 0
        affine = self.affine() if self.happens() else None
        grid = self.grid() if self.hard and self.happens() else None
        return Geometry(horizontal, vertical, quarters, affine, grid)

    def happens(self) -> bool:
        """True in half of the samples."""
        return self.random.random() < 0.5

    def affine(self) -> Affine:
        """Shifts by up to 1/16 of a side, scales of 0.9 ... 1.1, a rotation by up to 45 degrees."""
        shift = self.random.uniform(-0.0625, 0.0625), self.random.uniform(-0.0625, 0.0625)
        _shear = self.random.random(), self.random.random()  # by 0 degrees, for which Albumentations takes numbers too
        scale = self.random.uniform(0.9, 1.1), self.random.uniform(0.9, 1.1)
        return Affine(shift, scale, self.random.uniform(-45, 45))

    def grid(self) -> Grid:
        """Five cells and what is left over, on either axis, each showing up to 30 % more or less."""
        x, y = ([1 + self.random.uniform(-0.3, 0.3) for _ in range(6)] for _ in "xy")
        return Grid(x, y)

    def moved_windows(self) -> list[Window]:
        """The windows of the channels, moved at random; equal ones alike, so that slices in them can be compared."""
        moved = {window: self.moved(window) for window in dict.fromkeys(self.windows)}
        return [moved[window] for window in self.windows]

    def moved(self, window: Window) -> Window:
        """A window as the kind of augmentation moves it, then by the jitter."""
        moved = draw_window(self.random, window) if self.randomised else window
        return self.jittered(moved) if self.jitter else moved

    def jittered(self, window: Window) -> Window:
        """A window whose centre and width have moved by at most `jitter` of its width."""
        shift, stretch = (self.random.uniform(-self.jitter, self.jitter) * window.width for _ in range(2))
        return Window(window.center + shift, window.width + stretch)


def gamma_table(gamma: float) -> np.ndarray:
    """What each of the 256 grey values becomes, uint8 (256,)."""
    return ((np.arange(256) * (1 / 255)) ** gamma * 255).astype(np.uint8)  # * (1 / 255): rounds as Albumentations does
