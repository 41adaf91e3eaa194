"""The original's hard augmentations, from Albumentations: geometry on Hounsfield units, gamma on grey values."""

import random

import albumentations as A
import cv2
import numpy as np

from models.config import Augment, TrainConfig
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE


def geometry(config: TrainConfig, augment: Augment) -> A.Compose:
    """Flips, quarter turns and shift-scale-rotate ("light"), grid distortion ("hard"), resize and centre crop.

    Works on Hounsfield units (height, width, slices), before the windows: one distortion serves all windows of a
    slice, and the interpolation sees the values that a window would have cut off.
    """
    # What comes in from outside is air. Four times, because OpenCV would give a single number to the first channel
    # only, and takes images of more than four channels in fours.
    outside = {"border_mode": cv2.BORDER_CONSTANT, "fill": (HOUNSFIELD_RANGE[0],) * 4}
    light = [
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.RandomRotate90(p=0.5),
        A.ShiftScaleRotate(shift_limit=0.0625, scale_limit=0.1, rotate_limit=45, p=0.5, **outside),
    ]
    hard = [*light, A.GridDistortion(num_steps=5, distort_limit=0.3, p=0.5, **outside)]
    size = [A.Resize(config.image_size, config.image_size)]
    if config.crop_size:
        size.append(A.CenterCrop(config.crop_size, config.crop_size))
    return A.Compose([*{"hard": hard, "light": light, "none": []}[augment], *size])


def grey_values(augment: Augment) -> A.Compose:
    """Random gamma 0.8 ... 1.2 ("hard") on uint8 grey values (height, width, channels), alike for all channels."""
    return A.Compose([A.RandomGamma(gamma_limit=(80, 120), p=0.5)] if augment == "hard" else [])


def seed_transforms(key: tuple[int, ...], *pipelines: A.Compose) -> None:
    """Make the next call of each pipeline depend on `key` alone, for example on (seed, epoch, slice).

    Not `Compose(seed=...)`: in Albumentations 2.0.8 that gives every transform of a pipeline the same random numbers,
    so that with p=0.5 all of them happen together or not at all.
    """
    generator = np.random.default_rng(key)
    for pipeline in pipelines:
        pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
