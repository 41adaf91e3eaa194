"""What chance does to the look of a slice, on Hounsfield units, so that a network cannot rely on it.

For learning on drawings: what does not matter has to vary more than it does in reality (SynthSeg; Billot et al. 2023,
doi 10.1016/j.media.2023.102789). All of this happens before the windows, so air, of which they are far, stays black; in
the bone window nearly so.
"""

from random import Random
from typing import NamedTuple

import cv2
import numpy as np

from models.common.channels import Window

# Ranges, from which each part is drawn evenly where it happens.
BLUR = (0.3, 1.2)  # pixels: less is not seen, and more hides a thin subdural at 128 px
REDUCTION = (1.0, 2.0)  # fewer pixels by so much, a side: 128 px as if scanned at 64 ... 128, slices of other scanners
NOISE = (1.0, 7.0)  # HU: real slices have 2.3 to 3.7 at 512 px (benchmarks/realism.json); blood is some 25 brighter
GRAIN = (2.0, 6.0)  # pixels that move together in correlated noise: what a smooth kernel makes of noise
SHIFT = (-5.0, 5.0)  # HU: how far scanners are calibrated apart
CONTRAST = (0.85, 1.15)  # of grey levels about the middle of a window: kilovolts, hematocrit, age of the blood
CUTS = (1, 3)  # rectangles
SIDE = (0.05, 0.2)  # of the image's side: a network has to look at all of a bleed, and most of them stay in sight
FILL = (-20.0, 90.0)  # HU: from fat's edge to clotted blood, so that neither is a sign by itself


class Cut(NamedTuple):
    """A rectangle, as shares of the image's sides, and what fills it."""

    left: float
    top: float
    width: float
    height: float
    mean: float
    """HU"""
    noise: float
    """HU, standard deviation; 0: plain"""


class Appearance(NamedTuple):
    """What happens to the slices of a sample, in this order; 0 and 1 are nothing."""

    blur: float = 0.0
    """standard deviation, pixels"""
    reduction: float = 1.0
    """by how much a side has fewer pixels in between"""
    white: float = 0.0
    """noise of each pixel, HU"""
    correlated: float = 0.0
    """noise of grains, HU"""
    grain: float = 1.0
    """their side, pixels"""
    cuts: tuple[Cut, ...] = ()
    seed: int = 0
    """of the noise"""


def draw_appearance(random: Random) -> Appearance:
    """Each part in half of the samples, from the numbers that come next."""

    def sometimes(bounds: tuple[float, float], otherwise: float) -> float:
        value = random.uniform(*bounds)
        return value if random.random() < 0.5 else otherwise

    blur, reduction = sometimes(BLUR, 0.0), sometimes(REDUCTION, 1.0)
    white, correlated, grain = sometimes(NOISE, 0.0), sometimes(NOISE, 0.0), random.uniform(*GRAIN)
    count = random.randint(*CUTS) if random.random() < 0.5 else 0
    cuts = tuple(draw_cut(random) for _ in range(count))
    return Appearance(blur, reduction, white, correlated, grain, cuts, random.getrandbits(32))


def draw_strong(random: Random) -> Appearance:
    """Blur, noise of each pixel and cuts alone, for slices of people: each in half of the samples."""

    def happens() -> bool:
        return random.random() < 0.5

    blur = random.uniform(*BLUR) if happens() else 0.0
    white = random.uniform(*NOISE) if happens() else 0.0
    cuts = tuple(draw_cut(random) for _ in range(random.randint(*CUTS))) if happens() else ()
    return Appearance(blur=blur, white=white, cuts=cuts, seed=random.getrandbits(32))


def draw_cut(random: Random) -> Cut:
    """A rectangle within the image; every other one is noisy."""
    width, height = random.uniform(*SIDE), random.uniform(*SIDE)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    noise = random.uniform(*NOISE) if random.random() < 0.5 else 0.0
    return Cut(left, top, width, height, random.uniform(*FILL), noise)


def draw_window(random: Random, window: Window) -> Window:
    """A window through which grey levels are shifted by SHIFT and scaled by CONTRAST about its middle."""
    return Window(window.center - random.uniform(*SHIFT), window.width / random.uniform(*CONTRAST))


def change_appearance(slices: list[np.ndarray], appearance: Appearance, row: int) -> list[np.ndarray]:
    """Blur, reduce, add noise and cut out, float32 Hounsfield units (rows, columns) each.

    Alike in all slices but for the noise, whose numbers follow from the seed, the row of the sample and the slice's
    place in it: neighbours that share a draw do not share their noise.
    """
    normal = np.random.Generator(np.random.SFC64((appearance.seed, row)))
    return [_changed(image, appearance, normal) for image in slices]


def _changed(image: np.ndarray, appearance: Appearance, normal: np.random.Generator) -> np.ndarray:
    rows, columns = image.shape
    if appearance.blur:
        image = cv2.GaussianBlur(image, (0, 0), appearance.blur)
    if appearance.reduction > 1:
        fewer = _fewer(columns, appearance.reduction), _fewer(rows, appearance.reduction)
        image = cv2.resize(cv2.resize(image, fewer, interpolation=cv2.INTER_AREA), (columns, rows))
    if appearance.white:
        image = image + appearance.white * normal.standard_normal(image.shape, np.float32)
    if appearance.correlated:
        shape = _fewer(rows, appearance.grain), _fewer(columns, appearance.grain)
        grains = appearance.correlated * normal.standard_normal(shape, np.float32)
        image = image + cv2.resize(grains, (columns, rows), interpolation=cv2.INTER_CUBIC)
    if appearance.cuts:
        image = image.copy()
    for cut in appearance.cuts:
        left, top = int(cut.left * columns), int(cut.top * rows)
        inside = image[top : top + _fewer(rows * cut.height), left : left + _fewer(columns * cut.width)]
        inside[:] = cut.mean + cut.noise * normal.standard_normal(inside.shape, np.float32)
    return image


def _fewer(pixels: float, by: float = 1.0) -> int:
    return max(1, round(pixels / by))
