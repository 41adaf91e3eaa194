"""Laws of the draws: what they depend on, how often each transform happens, and what moves a window."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing.windows import BONE, BRAIN
from models.training.augmentation import Augmentation, draw_parameters, transforms

SHAPE = (32, 32)


def config(**changes):
    values = {"name": "test", "network": "small", "image_size": 32, "channels": (Channel(0, BRAIN), Channel(1, BONE))}
    return TrainConfig(**values, optimizer="radam", max_lr=1e-3, epochs=1, batch_size=2, **changes)


def draws(augmentation, count=400):
    return [augmentation.draw((0, 0, row), SHAPE) for row in range(count)]


def test_the_same_key_gives_the_same_draw_whatever_was_drawn_before():
    one, other = Augmentation(config(), "hard"), Augmentation(config(), "hard")
    draws(other, 7)
    assert repr(one.draw((1, 2, 3), SHAPE)) == repr(other.draw((1, 2, 3), SHAPE))
    assert repr(one.draw((1, 2, 3), SHAPE)) == repr(other.draw((1, np.int64(2), 3), SHAPE))


def test_every_part_of_the_key_counts():
    augmentation = Augmentation(config(), "hard")
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 11), (0, 11, 0), (1, 1, 0), (1, 10, 0)]
    assert len({repr(augmentation.draw(key, SHAPE)) for key in keys}) == len(keys)


def test_each_transform_happens_with_its_own_probability_and_independently_of_the_others():
    drawn = draws(Augmentation(config(), "hard"), 2000)
    names = ["horizontal", "vertical", "quarters", "affine", "grid"]
    happened = np.array([[name in draw.geometry for name in names] + [draw.gamma is not None] for draw in drawn])
    np.testing.assert_allclose(happened.mean(0), 0.5, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(happened.T), np.eye(6), atol=0.1)
    factors = Counter(draw.geometry["quarters"]["factor"] for draw in drawn if "quarters" in draw.geometry)
    assert sorted(factors) == [0, 1, 2, 3]
    assert min(factors.values()) > 180


@pytest.mark.parametrize(("augment", "expected"), [("none", 0), ("light", 4), ("hard", 6)])
def test_a_level_draws_its_transforms_and_no_others(augment, expected):
    seen = set()
    for draw in draws(Augmentation(config(), augment)):
        seen |= set(draw.geometry) | ({"gamma"} if draw.gamma is not None else set())
    assert seen == set(transforms(augment))
    assert len(seen) == expected


def test_ranges_are_those_of_the_original():
    drawn = draws(Augmentation(config(), "hard"), 2000)
    affine = [draw.geometry["affine"] for draw in drawn if "affine" in draw.geometry]
    angles = np.array([parameters["rotate"] for parameters in affine])
    scales = np.array([list(parameters["scale"].values()) for parameters in affine])
    for values, (low, high) in ((angles, (-45, 45)), (scales, (0.9, 1.1))):
        margin = (high - low) / 50
        assert low <= values.min() < low + margin
        assert high - margin < values.max() <= high


@pytest.mark.parametrize("shape", [(512, 512), (224, 224), (96, 101), (100, 99), (64, 32)])
def test_lines_of_the_grid_are_albumentations_maps(shape):
    grid, random_state = transforms("hard")["grid"], random.Random()
    grid.set_random_state(np.random.default_rng(0), random_state)
    for seed in range(50):
        random_state.seed(seed)
        maps = grid.get_params_dependent_on_data({"shape": shape}, {})
        after = random_state.getstate()
        random_state.seed(seed)
        lines = draw_parameters(grid, shape)
        assert random_state.getstate() == after
        x, y = (np.interp(np.arange(length), *lines[axis]) for axis, length in (("x", shape[1]), ("y", shape[0])))
        np.testing.assert_allclose(maps["map_x"], np.broadcast_to(x, shape), atol=1e-3)
        np.testing.assert_allclose(maps["map_y"], np.broadcast_to(y[:, None], shape), atol=1e-3)


def test_gamma_is_albumentations_and_keeps_black_and_white():
    augmentation = Augmentation(config(), "hard")
    grey = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    for row in range(50):
        table = augmentation.draw((0, 0, row), SHAPE).gamma
        *steps, gamma = augmentation.transforms.values()
        augmentation.random.seed(f"0 0 {row}")
        for step in steps:
            step(image=np.zeros(SHAPE, np.uint8))
        image = gamma(image=grey)["image"]
        np.testing.assert_array_equal(image, grey if table is None else table[grey])
        assert table is None or (table[0], table[255]) == (0, 255)


def test_without_jitter_the_windows_are_the_declared_ones():
    for draw in draws(Augmentation(config(), "hard"), 20):
        assert draw.windows == [BRAIN, BONE]


def test_jitter_moves_centre_and_width_by_at_most_its_share_of_the_width():
    drawn = draws(Augmentation(config(window_jitter=0.1), "hard"))
    for channel, declared in enumerate((BRAIN, BONE)):
        windows = np.array([draw.windows[channel] for draw in drawn])
        changes = np.abs(windows - declared).max(axis=0) / declared.width
        assert (changes <= 0.1 + 1e-9).all()
        assert (changes > 0.09).all()
    assert all(draw.windows[0].center / BRAIN.width != draw.windows[1].center / BONE.width for draw in drawn)


def test_jitter_changes_no_other_draw():
    plain, jittered = Augmentation(config(), "hard"), Augmentation(config(window_jitter=0.1), "hard")
    for one, other in zip(draws(plain, 50), draws(jittered, 50), strict=True):
        assert repr(one[:2]) == repr(other[:2])


def test_channels_of_one_window_move_together_and_change_no_draw_of_the_others():
    channels = (Channel(0, BRAIN), Channel(0, BONE), Channel(-5, BRAIN, "mm"), Channel(1, BRAIN))
    repeated = Augmentation(replace(config(window_jitter=0.1), channels=channels), "hard")
    for draw, plain in zip(
        draws(repeated, 50), draws(Augmentation(config(window_jitter=0.1), "hard"), 50), strict=True
    ):
        brain, bone = plain.windows
        assert draw.windows == [brain, bone, brain, brain]


def test_jitter_never_reaches_validation():
    assert Augmentation(config(window_jitter=0.1), "none").draw((0, 0, 0), SHAPE).windows == [BRAIN, BONE]


def test_every_draw_comes_from_the_one_generator_that_the_key_seeds():
    augmentation = Augmentation(config(), "hard")
    for transform in augmentation.transforms.values():
        before = repr(transform.random_generator.bit_generator.state)
        draws(augmentation, 20)
        assert repr(transform.random_generator.bit_generator.state) == before
