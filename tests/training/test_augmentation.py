"""Laws of the draws: what they depend on, that they are Albumentations', and what moves a window."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from albumentations_oracle import Oracle, transforms
from scipy.stats import chi2_contingency, ks_2samp

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing.windows import BONE, BRAIN
from models.training.augmentation import Augmentation, gamma_table
from models.training.warping import grid_lines, source_matrix


def config(**changes):
    values = {"name": "test", "network": "small", "image_size": 32, "channels": (Channel(0, BRAIN), Channel(1, BONE))}
    return TrainConfig(**values, optimizer="radam", max_lr=1e-3, epochs=1, batch_size=2, **changes)


def draws(augmentation, count=400):
    return [augmentation.draw((0, 0, row)) for row in range(count)]


def test_the_same_key_gives_the_same_draw_whatever_was_drawn_before():
    one, other = Augmentation(config(), "hard"), Augmentation(config(), "hard")
    draws(other, 7)
    assert repr(one.draw((1, 2, 3))) == repr(other.draw((1, 2, 3)))
    assert repr(one.draw((1, 2, 3))) == repr(other.draw((1, np.int64(2), 3)))


def test_every_part_of_the_key_counts():
    augmentation = Augmentation(config(), "hard")
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 11), (0, 11, 0), (1, 1, 0), (1, 10, 0)]
    assert len({repr(augmentation.draw(key)) for key in keys}) == len(keys)


# ---- as Albumentations draws, from the same numbers ----


@pytest.mark.parametrize("augment", ["hard", "light", "none"])
def test_the_same_numbers_give_what_albumentations_draws_from_them(augment):
    augmentation, oracle = Augmentation(config(), augment), Oracle(augment)
    for row in range(400):
        draw, expected = augmentation.draw((0, 0, row)), oracle.draw(f"0 0 {row}", shape=(8, 9))
        assert what_happens(draw) == what_happens_there(expected)
        assert draw.gamma == expected.get("gamma", {"gamma": None})["gamma"]


@pytest.mark.parametrize("shape", [(512, 512), (224, 224), (96, 101), (100, 99), (64, 32)])
def test_the_same_numbers_move_pixels_as_in_albumentations(shape):
    augmentation, oracle = Augmentation(config(), "hard"), Oracle()
    rows, columns = shape
    for row in range(100):
        (*_, affine, grid), expected = augmentation.draw((0, 0, row)).geometry, oracle.draw(f"0 0 {row}", shape)
        if affine:
            to_source = np.linalg.inv(expected["affine"]["matrix"])[:2]
            np.testing.assert_allclose(source_matrix(affine, columns, rows), to_source, atol=1e-9)
        if grid:
            x = np.interp(np.arange(columns), *grid_lines(grid.x, columns))
            y = np.interp(np.arange(rows), *grid_lines(grid.y, rows))
            np.testing.assert_allclose(expected["grid"]["map_x"], np.broadcast_to(x, shape), atol=1e-3)
            np.testing.assert_allclose(expected["grid"]["map_y"], np.broadcast_to(y[:, None], shape), atol=1e-3)


def test_gamma_is_albumentations_and_keeps_black_and_white():
    grey, transform = np.arange(256, dtype=np.uint8), transforms()["gamma"]
    for gamma in np.linspace(0.8, 1.2, 401):
        table = gamma_table(gamma)
        np.testing.assert_array_equal(table, transform.apply(grey, gamma=gamma))
        assert (table.dtype, table[0], table[255]) == (np.uint8, 0, 255)


# ---- as Albumentations draws, in distribution: from other numbers, in whatever order they are taken ----

COUNT = 8000
GRID_SHAPE = (63, 54)  # five cells of 12 pixels and a rest of 3, five of 10 and a rest of 4
HUGE = 10**6  # of so many pixels that rounding a shift to whole ones does not show


@pytest.fixture(scope="module")
def drawn():
    return draws(Augmentation(config(), "hard"), COUNT)


@pytest.fixture(scope="module")
def oracle():
    return Oracle()


def what_happens(draw):
    geometry = draw.geometry
    others = geometry.affine is not None, geometry.grid is not None, draw.gamma is not None
    return geometry.horizontal, geometry.vertical, geometry.quarters, *others


def what_happens_there(draw):
    quarters = draw["quarters"]["factor"] if "quarters" in draw else 0
    return "horizontal" in draw, "vertical" in draw, quarters, "affine" in draw, "grid" in draw, "gamma" in draw


def test_transforms_happen_as_often_and_together_as_often_as_in_albumentations(drawn, oracle):
    ours = Counter(what_happens(draw) for draw in drawn)
    theirs = Counter(what_happens_there(oracle.draw(f"others {row}", shape=(8, 9))) for row in range(COUNT))
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2**5 * 4
    assert chi2_contingency([[counts[kind] for kind in ours] for counts in (ours, theirs)]).pvalue > 0.001
    happened = np.array([what_happens(draw) for draw in drawn]) > 0
    np.testing.assert_allclose(happened.mean(0), [0.5, 0.5, 0.5 * 3 / 4, 0.5, 0.5, 0.5], atol=0.025)
    np.testing.assert_allclose(np.corrcoef(happened.T), np.eye(6), atol=0.05)


def in_distribution(ours, theirs):
    """Whether parameters, each (draws, parameters), may all be of the same distributions, as those of these seeds."""
    assert ours.shape[1] == theirs.shape[1]
    assert len(ours) > 0.4 * COUNT
    return [ks_2samp(one, other).pvalue > 0.001 for one, other in zip(ours.T, theirs.T, strict=True)]


def test_shift_scale_and_rotation_are_distributed_as_in_albumentations(drawn, oracle):
    affine = [draw.geometry.affine for draw in drawn if draw.geometry.affine]
    ours = np.array([(*shift, *scale, rotation) for shift, scale, rotation in affine])
    oracle.random.seed("others")
    centre, theirs = np.array([HUGE / 2 - 0.5] * 2), []
    for _ in range(COUNT):
        there = oracle.parameters("affine", (HUGE, HUGE))
        shift = ((there["matrix"] @ (*centre, 1))[:2] - centre) / HUGE
        theirs.append((*shift, there["scale"]["x"], there["scale"]["y"], there["rotate"]))
    assert in_distribution(ours, np.array(theirs)) == [True] * 5


def test_lines_of_the_grid_are_distributed_as_in_albumentations(drawn, oracle):
    grids = [draw.geometry.grid for draw in drawn if draw.geometry.grid]
    ends_x, ends_y = range(9, 50, 10), range(11, 60, 12)  # last pixels of the cells
    x = [np.interp(ends_x, *grid_lines(grid.x, 54)) for grid in grids]
    y = [np.interp(ends_y, *grid_lines(grid.y, 63)) for grid in grids]
    oracle.random.seed("others")
    maps = [oracle.parameters("grid", GRID_SHAPE) for _ in range(COUNT)]
    theirs = np.array([(*there["map_x"][0, ends_x], *there["map_y"][ends_y, 0]) for there in maps])
    assert in_distribution(np.hstack([x, y]), theirs) == [True] * 10


def test_gamma_is_distributed_as_in_albumentations(drawn, oracle):
    ours = np.array([[draw.gamma] for draw in drawn if draw.gamma is not None])
    oracle.random.seed("others")
    theirs = np.array([[oracle.parameters("gamma", (8, 9))["gamma"]] for _ in range(COUNT)])
    assert in_distribution(ours, theirs) == [True]


def test_parameters_are_drawn_independently_of_each_other(drawn):
    parameters = [
        (*affine.shift, *affine.scale, affine.rotation, *grid.x, *grid.y, gamma)
        for (*_, affine, grid), gamma, *_ in drawn
        if affine and grid and gamma
    ]
    assert len(parameters) > 900
    np.testing.assert_allclose(np.corrcoef(np.array(parameters).T), np.eye(18), atol=0.15)


# ---- windows ----


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
    assert Augmentation(config(window_jitter=0.1), "none").draw((0, 0, 0)).windows == [BRAIN, BONE]
