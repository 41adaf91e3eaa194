"""Hounsfield units -> grey values, and how much brain a slice shows."""

import cv2
import numpy as np

from models.common.channels import Window

BRAIN = Window(center=40, width=80)
SUBDURAL = Window(center=80, width=200)
SOFT_TISSUE = Window(center=40, width=380)
SKULL = Window(center=300, width=1000)
BONE = Window(center=600, width=2800)

# Three narrow windows side by side, 0 ... 120 HU: fluid and oedema, grey and white matter, blood.
FLUID = Window(center=20, width=40)
TISSUE = Window(center=60, width=40)
CLOT = Window(center=100, width=40)

# The original's measure of a slice that is not worth training on: `img_pct_window` below 2 %.
LOW_INFORMATION = 0.02


def apply_window(hounsfield: np.ndarray, window: Window, out: np.ndarray | None = None) -> np.ndarray:
    """Map Hounsfield units (height, width), int16 or float32, to grey values uint8, rounded to the nearest.

    Writes them to `out`, if given. For several windows of one slice, convert it to float32 once.
    """
    scale = 255.0 / window.width
    black = window.center - window.width / 2
    # addWeighted is OpenCV's one call for a * x + b with saturation to the target type; it is slower on int16.
    values = hounsfield.astype(np.float32, copy=False)
    return cv2.addWeighted(values, scale, values, 0.0, -black * scale, dst=out, dtype=cv2.CV_8U)


def fraction_in_window(hounsfield: np.ndarray, window: Window = BRAIN) -> float:
    """Share of Hounsfield units, of any shape, strictly inside the window, 0 ... 1 (fastai's `img_pct_window`)."""
    low, high = window.center - window.width // 2, window.center + window.width // 2
    if hounsfield.dtype == np.int16:
        return cv2.countNonZero(cv2.inRange(hounsfield, low + 1, high - 1)) / hounsfield.size
    return float(((hounsfield > low) & (hounsfield < high)).mean())
