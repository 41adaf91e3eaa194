"""Heat over a slice, in colours as bright as they are hot, which people tell apart who see no red or green."""

import cv2
import numpy as np

from models.common.channels import Window
from models.preprocessing.windows import apply_window

_STRENGTH = 0.65  # of the colour where the heat is greatest


def under_heat(hounsfield: np.ndarray, heat: np.ndarray, window: Window) -> np.ndarray:
    """A slice (size, size) under heat of its size, 0 ... 1, as uint8 (size, size, 3) in OpenCV's order of colours."""
    grey = np.repeat(apply_window(hounsfield, window)[:, :, None], 3, axis=2)
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = _STRENGTH * heat[:, :, None]
    return ((1 - share) * grey + share * colours).astype(np.uint8)
