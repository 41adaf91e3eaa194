from collections import Counter

import numpy as np
import pytest

from models.config import Channel, TrainConfig
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.windows import BRAIN
from models.training.augmentation import geometry, grey_values, seed_transforms


def config(slices=1, **changes):
    channels = tuple(Channel(offset, BRAIN) for offset in range(slices))
    values = {"name": "test", "network": "small", "image_size": 32, "channels": channels}
    return TrainConfig(**values, optimizer="radam", max_lr=1e-3, epochs=1, batch_size=2, **changes)


@pytest.fixture
def hounsfield():
    return np.random.default_rng(0).integers(-1000, 2000, (32, 32), dtype=np.int16)


def test_without_augmentation_a_stored_slice_is_not_touched(hounsfield):
    np.testing.assert_array_equal(geometry(config(), augment="none")(image=hounsfield)["image"], hounsfield)


def test_crop_is_the_centre_in_training_and_in_inference(hounsfield):
    plain = geometry(config(crop_size=20), augment="none")(image=hounsfield)["image"]
    np.testing.assert_array_equal(plain, hounsfield[6:26, 6:26])
    assert geometry(config(crop_size=20), augment="hard")(image=hounsfield)["image"].shape == (20, 20)


def test_the_same_key_gives_the_same_augmentation(hounsfield):
    pipeline = geometry(config(), augment="hard")

    def augmented(*key):
        seed_transforms(key, pipeline)
        return pipeline(image=hounsfield)["image"]

    np.testing.assert_array_equal(augmented(1, 2, 3), augmented(1, 2, 3))
    assert len({augmented(0, 0, row).tobytes() for row in range(20)}) > 15


def test_transforms_of_a_pipeline_happen_independently_of_each_other():
    pipeline = geometry(config(), augment="hard")
    flips = pipeline.transforms[:2]
    corner = np.arange(4, dtype=np.int16).reshape(2, 2)

    def flipped(row):
        seed_transforms((0, 0, row), pipeline)
        image = corner
        for flip in flips:
            image = flip(image=image)["image"]
        return image.tobytes()

    counts = Counter(flipped(row) for row in range(400))
    assert len(counts) == 4  # none, horizontal, vertical, both
    assert min(counts.values()) > 60


def test_augmentation_stays_within_hounsfield_range_and_brings_in_air(hounsfield):
    pipeline = geometry(config(), augment="hard")
    seed_transforms((0,), pipeline)
    results = np.stack([pipeline(image=np.full((32, 32), 40, np.int16))["image"] for _ in range(50)])
    assert results.dtype == np.int16
    assert set(np.unique(results[:, 16, 16])) == {40}
    assert results.min() == HOUNSFIELD_RANGE[0]
    assert results.max() <= 40


@pytest.mark.parametrize("slices", [2, 3, 5])
def test_neighbouring_slices_get_the_same_geometry_and_the_same_air(hounsfield, slices):
    pipeline = geometry(config(slices), augment="hard")
    seed_transforms((0,), pipeline)
    for _ in range(20):
        stack = pipeline(image=np.dstack([hounsfield] * slices))["image"]
        for plane in range(1, slices):
            np.testing.assert_array_equal(stack[..., 0], stack[..., plane])


def test_gamma_keeps_black_and_white_and_changes_all_channels_alike():
    pipeline = grey_values("hard")
    seed_transforms((0,), pipeline)
    grey = np.dstack([np.tile(np.arange(256, dtype=np.uint8), (4, 1))] * 3)
    changed = 0
    for _ in range(20):
        result = pipeline(image=grey)["image"]
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result[..., 0], result[..., 2])
        np.testing.assert_array_equal(result[:, [0, 255]], grey[:, [0, 255]])
        changed += not np.array_equal(result, grey)
    assert 3 < changed < 18
