"""Contact sheets: a few slices through several windows on one page."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from models.common.channels import Window
from models.preprocessing.windows import BONE, BRAIN, SUBDURAL, apply_window

WINDOWS = {"brain": BRAIN, "subdural": SUBDURAL, "bone": BONE}
_GAP = 4  # pixels between tiles
_HEADER = 26  # pixels of a caption line
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK, _FAINT = 18, 235, 140


def contact_sheet(
    hounsfield: np.ndarray,
    captions: Sequence[str],
    windows: Mapping[str, Window] = WINDOWS,
    columns: int = 6,
    tile: int = 224,
    title: str | None = None,
) -> np.ndarray:
    """Lay slices out as a page: a column a slice, headed by its caption, and a tile a window; above all the title.

    Takes slices (n, height, width) in Hounsfield units, square or not, and a caption for each; returns a grey image
    (rows, columns) uint8.
    """
    if len(hounsfield) != len(captions):
        raise ValueError(f"{len(hounsfield)} slices but {len(captions)} captions")
    columns = min(columns, len(hounsfield))
    blocks = []
    for first in range(0, len(hounsfield), columns):
        strips = [
            _strip(image, caption, windows, tile, named=number == 0)
            for number, (image, caption) in enumerate(
                zip(hounsfield[first : first + columns], captions[first : first + columns], strict=True)
            )
        ]
        strips += [np.full_like(strips[0], _PAPER)] * (columns - len(strips))
        blocks.append(np.hstack(strips))
    if title is not None:
        blocks.insert(0, _line(title, blocks[0].shape[1]))
    return np.pad(np.vstack(blocks), _GAP, constant_values=_PAPER)


def _line(text: str, width: int) -> np.ndarray:
    """A line of text on paper, (_HEADER, width)."""
    line = np.full((_HEADER, width), _PAPER, np.uint8)
    cv2.putText(line, text, (2, _HEADER - 8), _FONT, _fitting_scale(text, width - 4 - _GAP), _INK, 1, cv2.LINE_AA)
    return line


def _strip(image: np.ndarray, caption: str, windows: Mapping[str, Window], tile: int, named: bool) -> np.ndarray:
    """One slice through every window, one below the other, under its caption."""
    parts = [_line(caption, tile + _GAP)]
    small = _letterbox(image.astype(np.float32), tile)  # once: it takes longer than all windows
    for name, window in windows.items():
        grey = apply_window(small, window)
        if named:
            text = f"{name} {window.center}/{window.width}"
            cv2.putText(grey, text, (5, tile - 7), _FONT, 0.4, _FAINT, 1, cv2.LINE_AA)
        parts.append(np.pad(grey, ((0, _GAP), (0, _GAP)), constant_values=_PAPER))
    return np.vstack(parts)


def _letterbox(image: np.ndarray, tile: int) -> np.ndarray:
    """Scale a float32 image (height, width) to fit into a square tile, on what is black through every window."""
    height, width = image.shape
    ratio = tile / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)
    square = np.full((tile, tile), np.float32(-1e4))
    top, left = (tile - size[1]) // 2, (tile - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = scaled
    return square


def _fitting_scale(text: str, width: int) -> float:
    """The largest font scale up to 0.45 at which a text is no wider than `width` pixels."""
    (taken, _), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    return 0.45 * min(1.0, width / max(taken, 1))
