"""Laws of the randomised look: what it changes, what it leaves, and that each part of it happens."""

import time
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.preprocessing import windows
from models.preprocessing.tables import read_slices
from models.preprocessing.windows import BONE, BRAIN, apply_window
from models.train_b0_recurrent import CONFIG as RECURRENT
from models.train_small import CONFIG as SMALL
from models.training import appearance as module
from models.training.appearance import Appearance, Cut, change_appearance, draw_appearance, draw_window
from models.training.augmentation import Augmentation
from models.training.dataset import SliceDataset, StudyDataset

SIZE = 128
AIR = -1000.0


def config(**changes):
    values = {"name": "test", "network": "small", "image_size": 64, "channels": (Channel(0, BRAIN), Channel(1, BONE))}
    return TrainConfig(**values, optimizer="adam", max_lr=1e-3, epochs=1, batch_size=2, **changes)


@pytest.fixture(scope="module")
def head():
    """A disc of brain with fine detail in it, a ring of bone around it, in air, (SIZE, SIZE)."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    radius = np.hypot(x, y)
    brain = 32 + 8 * np.sign(np.sin(x * 1.5) * np.sin(y * 1.5))
    return np.select([radius < 40, radius < 46], [brain, 900.0], AIR).astype(np.float32)


def drawn(count=2000):
    random = Random(0)
    return [draw_appearance(random) for _ in range(count)]


PARTS = {
    "blur": Appearance(blur=1.0),
    "fewer pixels": Appearance(reduction=1.7),
    "white noise": Appearance(white=5.0),
    "correlated noise": Appearance(correlated=5.0, grain=3.0),
    "a cut": Appearance(cuts=(Cut(0.4, 0.4, 0.1, 0.2, 60.0, 0.0),)),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_changes_the_brain_and_neither_shape_nor_type_nor_what_it_was_given(head, part):
    given = head.copy()
    (changed,) = change_appearance([given], part, 0)
    assert (changed.shape, changed.dtype) == (head.shape, np.float32)
    inside = head > AIR
    assert (changed[inside] != head[inside]).mean() > 0.02
    assert np.abs(changed - head)[inside].mean() > 0.2
    np.testing.assert_array_equal(given, head)


def test_without_a_part_nothing_happens(head):
    np.testing.assert_array_equal(change_appearance([head], Appearance(), 0)[0], head)


def test_blur_and_fewer_pixels_take_away_detail_and_keep_the_mean(head):
    brain = np.s_[44:84, 44:84]
    for part in ("blur", "fewer pixels"):
        (changed,) = change_appearance([head], PARTS[part], 0)
        assert changed[brain].std() < 0.9 * head[brain].std()
        assert changed[brain].mean() == pytest.approx(head[brain].mean(), abs=0.5)


def test_white_noise_has_no_neighbours_and_correlated_noise_has(head):
    plain = np.zeros((SIZE, SIZE), np.float32)
    noise = {part: change_appearance([plain], PARTS[part], 0)[0] for part in ("white noise", "correlated noise")}
    beside = {part: np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1] for part, one in noise.items()}
    assert abs(beside["white noise"]) < 0.05
    assert beside["correlated noise"] > 0.5
    assert noise["white noise"].std() == pytest.approx(5, rel=0.05)
    assert 3 < noise["correlated noise"].std() < 6


def test_a_cut_is_where_it_says_and_alike_in_all_slices(head):
    cut = Cut(0.25, 0.5, 0.125, 0.25, 60.0, 0.0)
    for changed in change_appearance([head, head + 1], Appearance(cuts=(cut,)), 0):
        assert (changed[64:96, 32:48] == 60).all()
        assert (changed == 60).sum() == 32 * 16
    for size in (1, 2, 3, 16):  # at any size it stays within
        tiny = np.zeros((size, size), np.float32)
        for appearance in drawn(200):
            assert change_appearance([tiny], appearance, 0)[0].shape == (size, size)


def test_a_seed_is_the_same_bytes_and_noise_is_each_slices_own(head):
    noisy = Appearance(white=5.0, correlated=3.0, grain=3.0, cuts=(Cut(0.4, 0.4, 0.2, 0.2, 60.0, 5.0),), seed=7)
    one, other = (change_appearance([head, head], noisy, 3) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert (one[0] != one[1])[head > AIR].mean() > 0.9
    assert (change_appearance([head], noisy, 4)[0] != one[0]).mean() > 0.9
    assert (change_appearance([head], noisy._replace(seed=8), 3)[0] != one[0]).mean() > 0.9


def test_each_part_happens_in_half_of_the_samples_apart_from_the_others_and_within_its_range():
    draws = drawn()
    happened = np.array([(a.blur > 0, a.reduction > 1, a.white > 0, a.correlated > 0, len(a.cuts) > 0) for a in draws])
    np.testing.assert_allclose(happened.mean(0), [0.5] * 5, atol=0.04)
    np.testing.assert_allclose(np.corrcoef(happened.T), np.eye(5), atol=0.08)
    values = {
        module.BLUR: [a.blur for a in draws if a.blur],
        module.REDUCTION: [a.reduction for a in draws if a.reduction > 1],
        module.NOISE: [a.white for a in draws if a.white] + [a.correlated for a in draws if a.correlated],
        module.GRAIN: [a.grain for a in draws],
        module.SIDE: [side for a in draws for cut in a.cuts for side in (cut.width, cut.height)],
        module.FILL: [cut.mean for a in draws for cut in a.cuts],
    }
    for (low, high), seen in values.items():
        assert low <= min(seen) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(seen) <= high
    assert {len(a.cuts) for a in draws} == {0, *range(module.CUTS[0], module.CUTS[1] + 1)}
    assert len({a.seed for a in draws}) == len(draws)


def test_a_window_is_shifted_by_units_and_stretched_about_its_middle():
    random = Random(0)
    for declared in (BRAIN, windows.SUBDURAL):
        moved = np.array([draw_window(random, declared) for _ in range(1000)])
        shift, contrast = declared.center - moved[:, 0], declared.width / moved[:, 1]
        for values, (low, high) in ((shift, module.SHIFT), (contrast, module.CONTRAST)):
            assert low <= values.min() < low + 0.02 * (high - low)
            assert high - 0.02 * (high - low) < values.max() <= high
        assert abs(np.corrcoef(shift, contrast)[0, 1]) < 0.1


@pytest.mark.parametrize("window", [BRAIN, windows.SUBDURAL, windows.SOFT_TISSUE, BONE], ids=str)
def test_air_stays_black_but_for_the_edge_of_the_head_and_cuts(head, window):
    """In the bone window, whose black is close to air, nearly so."""
    radius = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2))
    random = Random(1)
    for row, appearance in enumerate(drawn(200)):
        (changed,) = change_appearance([head], appearance._replace(cuts=()), row)
        grey = apply_window(changed, draw_window(random, window))
        assert grey.dtype == np.uint8
        assert grey[radius > 56].max() <= (8 if window == BONE else 0)


def test_it_costs_less_than_a_millisecond_a_slice(head):
    draws = drawn(300)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        for row, appearance in enumerate(draws):
            change_appearance([head], appearance, row)
        seconds.append((time.process_time() - start) / len(draws))
    assert min(seconds) < 1e-3


# ---- as a kind of augmentation ----


def test_the_hard_draws_are_in_it_and_each_channel_of_a_window_is_moved_alike():
    channels = (Channel(0, BRAIN), Channel(0, BONE), Channel(-5, BRAIN, "mm"))
    settings = replace(config(), channels=channels)
    hard, randomised = Augmentation(settings, "hard"), Augmentation(settings, "randomised")
    for row in range(50):
        expected, draw = hard.draw((0, 0, row)), randomised.draw((0, 0, row))
        assert repr(draw[:2]) == repr(expected[:2])
        assert draw.windows[0] == draw.windows[2] != BRAIN
        assert draw.windows[1] != BONE
        assert (expected.appearance, draw.appearance is None) == (None, False)
        assert expected.windows == [BRAIN, BONE, BRAIN]


def test_the_same_key_gives_the_same_look_whatever_was_drawn_before():
    one, other = Augmentation(config(), "randomised"), Augmentation(config(), "randomised")
    other.draw((0, 0, 1))
    assert repr(one.draw((1, 2, 3))) == repr(other.draw((1, 2, 3)))
    assert len({repr(one.draw((0, epoch, 3)).appearance) for epoch in range(20)}) == 20


def test_jitter_moves_windows_further():
    plain, jittered = (Augmentation(config(window_jitter=jitter), "randomised") for jitter in (0.0, 0.1))
    assert plain.draw((0, 0, 0)).windows != jittered.draw((0, 0, 0)).windows


def test_a_sample_is_geometry_then_look_then_windows(prepared):
    slices = read_slices(prepared, "train")
    dataset, hard = (SliceDataset(slices, prepared, config(), augment) for augment in ("randomised", "hard"))
    changed = 0
    for row in range(40):
        grey = dataset[0, row][0].numpy()
        assert (grey.dtype, grey.shape) == (np.uint8, (2, 64, 64))
        np.testing.assert_array_equal(grey, dataset[0, row][0].numpy())
        changed += (grey != hard[0, row][0].numpy()).any()
    assert changed > 30


def test_neither_validation_nor_the_other_kinds_change_their_look(prepared, monkeypatch):
    slices = read_slices(prepared, "train")
    monkeypatch.setattr("models.training.dataset.change_appearance", lambda *_: pytest.fail("changed"))
    for augment in ("none", "light", "hard"):
        SliceDataset(slices, prepared, config(), augment)[0, 0]


def test_slices_of_a_study_share_their_look_and_not_their_noise(prepared, monkeypatch):
    seen = []

    def note(slices, appearance, row):
        seen.append((appearance, row))
        return slices

    monkeypatch.setattr("models.training.dataset.change_appearance", note)
    settings = replace(RECURRENT, image_size=64, augment="randomised")
    dataset = StudyDataset(read_slices(prepared, "train"), prepared, settings, "randomised")
    for row in (0, 1):
        dataset[0, row]
    (one, first), (other, second) = seen
    assert one == other
    assert (first, second) == (0, 1)


def test_any_preset_takes_it_and_config_json_keeps_it():
    for settings in (replace(SMALL, augment="randomised"), config(augment="randomised", window_jitter=0.1)):
        assert TrainConfig.from_json(settings.to_json()) == settings
