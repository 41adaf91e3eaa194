"""The original's augmentations as Albumentations defines, draws and applies them: the oracle of ours."""

import random
from typing import Any

import albumentations as A
import cv2
import numpy as np

from models.preprocessing.hounsfield import HOUNSFIELD_RANGE


def transforms(augment: str = "hard") -> dict[str, A.BasicTransform]:
    """Those of a level, in their order."""
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


class Oracle:
    """Draws with Albumentations, of one generator for all transforms."""

    def __init__(self, augment: str = "hard") -> None:
        self.transforms = transforms(augment)
        self.random = random.Random()
        for transform in self.transforms.values():
            transform.set_random_state(np.random.default_rng(0), self.random)  # none of them uses numpy's

    def draw(self, seed: str, shape: tuple[int, int]) -> dict[str, dict[str, Any]]:
        """Parameters of the transforms that happen, by name, for slices of a shape (rows, columns)."""
        self.random.seed(seed)
        return {
            name: self.parameters(name, shape)
            for name, transform in self.transforms.items()
            if transform.should_apply()
        }

    def parameters(self, name: str, shape: tuple[int, int]) -> dict[str, Any]:
        """Those that Albumentations draws next for a transform, under its own names."""
        transform = self.transforms[name]
        return transform.get_params() | transform.get_params_dependent_on_data({"shape": shape}, {})


def apply(image: np.ndarray, seed: str, size: int, crop: int, augment: str = "hard") -> np.ndarray:
    """All geometry of a level, one transform after the other, then Resize and CenterCrop."""
    steps = [transform for name, transform in transforms(augment).items() if name != "gamma"]
    pipeline = A.Compose([*steps, A.Resize(size, size), A.CenterCrop(crop, crop)])
    pipeline.set_random_state(np.random.default_rng(0), random.Random(seed))
    pipeline.py_random = random.Random(0)  # a Compose draws whether it happens at all
    return pipeline(image=image)["image"]
