"""Laws of the one interpolation: what Albumentations does in several, exact where pixels only change place."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.windows import BRAIN
from models.training.augmentation import Augmentation, transforms
from models.training.warping import turn
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


def draw_geometry(seed, augment="hard", shape=(SIZE, SIZE)):
    values = {"name": "test", "network": "small", "image_size": SIZE, "channels": (Channel(0, BRAIN),)}
    config = TrainConfig(**values, optimizer="radam", max_lr=1e-3, epochs=1, batch_size=2)
    return Augmentation(config, augment).draw((seed,), shape).geometry


def albumentations_order(image, seed, size, crop, augment="hard"):
    """The same draws, applied one after the other by Albumentations itself."""
    steps = [transform for name, transform in transforms(augment).items() if name != "gamma"]
    pipeline = A.Compose([*steps, A.Resize(size, size), A.CenterCrop(crop, crop)])
    generator = random.Random(str(seed))
    pipeline.set_random_state(np.random.default_rng(0), generator)
    pipeline.py_random = random.Random(0)  # a Compose draws whether it happens at all
    return pipeline(image=image)["image"]


def interpolates(geometry):
    return "affine" in geometry or "grid" in geometry


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
        assert difference.mean() < 0.5, (seed, sorted(geometry))  # of waves of 600 HU, rounded two or three times
        assert difference.max() <= 4, (seed, sorted(geometry))


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
    np.testing.assert_array_equal(warp(noise, {}, SIZE, SIZE), noise)
    np.testing.assert_array_equal(warp(noise, {}, SIZE, 76), noise[10:86, 10:86])


@pytest.mark.parametrize("name", ["affine", "grid"])
def test_a_transform_that_moves_nothing_changes_nothing(noise, name):
    line = ([0, SIZE - 1], [0.0, SIZE - 1.0])
    still = {"affine": {"matrix": np.eye(3)}, "grid": {"x": line, "y": line}}
    np.testing.assert_array_equal(warp(noise, {name: still[name]}, SIZE, SIZE), noise)
    np.testing.assert_array_equal(warp(noise, {name: still[name]}, SIZE, 76), noise[10:86, 10:86])


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
        if {"affine", "grid"} <= (geometry := draw_geometry(seed)).keys()
    ]
    ours, theirs = np.mean(kept, axis=0)
    assert ours > 1.1 * theirs
