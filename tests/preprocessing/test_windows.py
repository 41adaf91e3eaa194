"""Laws of windows: the plain formula, and fastai's share of brain."""

import numpy as np
import pydicom
import pytest

from models.common.channels import Window
from models.preprocessing.dicom import read_stored
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE, to_hounsfield
from models.preprocessing.windows import BONE, BRAIN, SOFT_TISSUE, SUBDURAL, apply_window, fraction_in_window

WINDOWS = [BRAIN, SUBDURAL, SOFT_TISSUE, BONE, Window(20, 40), Window(60, 40), Window(100, 40), Window(300, 1000)]
ALL_VALUES = np.arange(HOUNSFIELD_RANGE[0], HOUNSFIELD_RANGE[1] + 1, dtype=np.int16)
every_window = pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window.center}/{window.width}")


def exact(hounsfield: np.ndarray, window: Window) -> np.ndarray:
    """PS3.3 C.11.2.1.3, the linear exact function: grey values 0 ... 255, not rounded."""
    share = (hounsfield.astype(float) - (window.center - window.width / 2)) / window.width
    return 255 * np.clip(share, 0, 1)


def assert_rounded(grey: np.ndarray, expected: np.ndarray) -> None:
    assert grey.dtype == np.uint8
    assert np.abs(grey - expected).max() <= 0.5 + 1e-4


@every_window
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_window_is_the_plain_formula_rounded(window, kind):
    image = ALL_VALUES[None].astype(kind)
    assert_rounded(apply_window(image, window), exact(image, window))


@every_window
def test_a_window_maps_fractions_of_hounsfield_units_too(window):
    image = np.random.default_rng(0).uniform(-1100, 2100, (64, 64)).astype(np.float32)
    assert_rounded(apply_window(image, window), exact(image, window))


@every_window
def test_what_lies_outside_is_black_or_white_and_more_is_never_darker(window):
    grey = apply_window(ALL_VALUES[None], window)[0]
    distance = ALL_VALUES - window.center
    assert (grey[distance <= -window.width / 2] == 0).all()
    assert (grey[distance >= window.width / 2] == 255).all()
    assert (np.diff(grey.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda image: image[::2, ::3],
        lambda image: image.T,
        lambda image: image[::-1, ::-1],
        lambda image: image.reshape(4, 20, 80),
        lambda image: image.reshape(20, 80, 4)[..., ::2],
    ],
    ids=["strided", "transposed", "reversed", "stack of slices", "strided channels"],
)
def test_the_layout_in_memory_changes_nothing(view):
    image = view(np.resize(ALL_VALUES, (80, 80)))
    grey = apply_window(image, SUBDURAL)
    assert grey.shape == image.shape
    assert_rounded(grey, exact(image, SUBDURAL))


@pytest.mark.parametrize(("value", "inside"), [(0, False), (1, True), (79, True), (80, False)])
def test_the_ends_of_a_window_are_outside_of_it(value, inside):
    assert fraction_in_window(np.full((4, 4), value, np.int16), BRAIN) == inside


def test_the_share_in_a_window_counts_pixels():
    image = np.full((10, 10), -1000, np.int16)
    image[:3] = 40
    assert fraction_in_window(image) == pytest.approx(0.3)


@pytest.mark.parametrize("window", [BRAIN, SUBDURAL, Window(40, 81)], ids=str)
def test_the_share_in_a_window_is_fastais(write_dicom, tmp_path, window):
    import fastai.medical.imaging  # noqa: F401 - gives pydicom's Dataset its pct_in_window

    stored = np.random.default_rng(0).integers(924, 1224, (64, 64)).astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", stored)
    share = fraction_in_window(to_hounsfield(*read_stored(path)), window)
    assert share == pytest.approx(pydicom.dcmread(path).pct_in_window(window.width, window.center), abs=1e-6)
    assert 0.1 < share < 0.9
