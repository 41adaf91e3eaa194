"""Laws of the one interpolation: what Albumentations does in several, exact where pixels only change place."""

import cv2
import numpy as np
import pytest
from albumentations_oracle import apply

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.windows import BRAIN
from models.training.augmentation import Augmentation
from models.training.warping import Affine, Geometry, sample, turn
from models.training.warping import warp as warp_all

SIZE = 96
AIR = HOUNSFIELD_RANGE[0]
SEEDS = range(200)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(-1000, 2000, (SIZE, SIZE), dtype=np.int16)


@pytest.fixture
def smooth(noise):
    """Waves of some 30 pixels and 600 Hounsfield units, which one interpolation changes little."""
    waves = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 6)
    return (600 * waves / np.abs(waves).max()).astype(np.int16)


def warp(image, *arguments):
    return warp_all([image], *arguments)[0]


def draw_geometry(seed, augment="hard"):
    values = {"name": "test", "network": "small", "image_size": SIZE, "channels": (Channel(0, BRAIN),)}
    config = TrainConfig(**values, optimizer="radam", max_lr=1e-3, epochs=1, batch_size=2)
    return Augmentation(config, augment).draw((seed,)).geometry


def albumentations_order(image, seed, size, crop, augment="hard"):
    """The same draws, applied one after the other by Albumentations itself."""
    return apply(image, str(seed), size, crop, augment)


def interpolates(geometry):
    return geometry.affine is not None or geometry.grid is not None


def inside(result, expected):
    """Pixels away from the rim, and from air that came in: there two interpolations fade it over more pixels."""
    air = ((result < AIR + 300) | (expected < AIR + 300)).astype(np.uint8)
    near = cv2.dilate(air, np.ones((13, 13), np.uint8)) > 0
    near[:6] = near[-6:] = near[:, :6] = near[:, -6:] = True
    return ~near


@pytest.mark.parametrize("augment", ["light", "hard"])
@pytest.mark.parametrize(("size", "crop"), [(SIZE, SIZE), (SIZE, 76), (64, 64), (128, 128), (128, 100)])
def test_one_interpolation_gives_what_albumentations_gives_in_several(smooth, augment, size, crop):
    for seed in SEEDS:
        geometry = draw_geometry(seed, augment)
        result = warp(smooth, geometry, size, crop)
        expected = albumentations_order(smooth, seed, size, crop, augment)
        assert result.shape == expected.shape == (crop, crop)
        assert result.dtype == np.int16
        difference = np.abs(result.astype(float) - expected)[inside(result, expected)]
        assert difference.size > 0.4 * crop**2
        assert difference.mean() < 0.5, (seed, geometry)  # of waves of 600 HU, rounded two or three times
        assert difference.max() <= 4, (seed, geometry)


def test_slices_of_a_sample_are_warped_alike(noise):
    for seed in SEEDS:
        geometry = draw_geometry(seed)
        alone = [warp(image, geometry, SIZE, 76) for image in (noise, noise // 2, noise)]
        np.testing.assert_array_equal(warp_all([noise, noise // 2, noise], geometry, SIZE, 76), alone)


@pytest.mark.parametrize("crop", [SIZE, 76, 75])
def test_where_pixels_only_change_place_the_result_is_exact(noise, crop):
    turns = 0
    for seed in SEEDS:
        geometry = draw_geometry(seed)
        if not interpolates(geometry):
            expected = albumentations_order(noise, seed, SIZE, crop)
            np.testing.assert_array_equal(warp(noise, geometry, SIZE, crop), expected)
            turns += 1
    assert turns > 30


def test_without_a_draw_a_stored_slice_is_not_touched(noise):
    np.testing.assert_array_equal(warp(noise, Geometry(), SIZE, SIZE), noise)
    np.testing.assert_array_equal(warp(noise, Geometry(), SIZE, 76), noise[10:86, 10:86])


def test_a_transform_that_moves_nothing_changes_nothing(noise):
    still = Geometry(affine=Affine(shift=(0, 0), scale=(1, 1), rotation=0))
    np.testing.assert_array_equal(warp(noise, still, SIZE, SIZE), noise)
    np.testing.assert_array_equal(warp(noise, still, SIZE, 76), noise[10:86, 10:86])
    every = np.arange(SIZE)
    np.testing.assert_array_equal(sample([noise], every, every, np.eye(3)[:2])[0], noise)


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("factor", range(4))
def test_turns_are_numpys(noise, horizontal, vertical, factor):
    step = [-1 if flipped else 1 for flipped in (vertical, horizontal)]
    expected = np.rot90(noise[:: step[0], :: step[1]], factor)
    np.testing.assert_array_equal(turn(noise, horizontal, vertical, factor), expected)


def test_a_flat_slice_stays_flat_and_air_comes_in_from_outside():
    results = np.stack([warp(np.full((SIZE, SIZE), 40, np.int16), draw_geometry(s), SIZE, SIZE) for s in SEEDS])
    assert set(np.unique(results[:, 48, 48])) == {40}
    assert results.min() == AIR
    assert results.max() == 40


def test_the_whole_hounsfield_range_survives(noise):
    extremes = np.where(noise > 500, HOUNSFIELD_RANGE[1], AIR).astype(np.int16)
    for seed in SEEDS:
        result = warp(extremes, draw_geometry(seed), SIZE, SIZE)
        assert (result.min(), result.max()) == HOUNSFIELD_RANGE


def test_warping_leaves_the_slice_that_it_is_given_alone(noise):
    before = noise.copy()
    for seed in SEEDS:
        warp(noise, draw_geometry(seed), SIZE, SIZE)
    np.testing.assert_array_equal(noise, before)


def test_blurs_less_than_several_interpolations(noise):
    """What one interpolation is for, beside time: fine structures keep more of their contrast."""
    kept = [
        (warp(noise, geometry, SIZE, SIZE).std(), albumentations_order(noise, seed, SIZE, SIZE).std())
        for seed in SEEDS
        if (geometry := draw_geometry(seed)).affine and geometry.grid
    ]
    ours, theirs = np.mean(kept, axis=0)
    assert ours > 1.1 * theirs
