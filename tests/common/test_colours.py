"""The law of the colours: people who see no red, or no green, tell them apart."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from models.common.colours import LABEL_COLOURS, LABEL_DASHES
from models.common.labels import LABELS

# What is left of linear RGB (G. Machado et al., IEEE TVCG 2009, severity 1).
BLINDNESS = {
    "none": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def seen(colour: str, matrix: np.ndarray) -> np.ndarray:
    """A colour as CIE L*a*b*."""
    value = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    left = np.clip(np.asarray(matrix) @ linear, 0, 1)
    again = np.where(left <= 0.0031308, left * 12.92, 1.055 * left ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(again[None, None].astype(np.float32), cv2.COLOR_RGB2Lab)[0, 0]


@pytest.mark.parametrize("matrix", BLINDNESS.values(), ids=BLINDNESS)
def test_labels_are_told_apart(matrix):
    assert len(set(LABEL_COLOURS)) == len(LABELS) == len(LABEL_DASHES)
    for one, other in combinations(LABEL_COLOURS, 2):
        assert np.linalg.norm(seen(one, matrix) - seen(other, matrix)) > 11, (one, other)  # 2.3 is just noticeable


def test_red_and_green_are_not_told_apart_by_all():
    assert np.linalg.norm(seen("#008000", BLINDNESS["no green"]) - seen("#a05000", BLINDNESS["no green"])) < 11
