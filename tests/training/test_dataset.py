import numpy as np
import pandas as pd
import pytest

from models.config import Channel, TrainConfig
from models.errors import InputError
from models.labels import LABELS
from models.preprocessing.store import Series
from models.preprocessing.windows import BONE, BRAIN, LOW_INFORMATION, apply_window
from models.training.dataset import SliceDataset, read_slices, split_fold
from models.training.loading import make_loader
from models.training.warping import warp


def config(*channels, **changes):
    values = {"name": "test", "network": "small", "image_size": 64, "optimizer": "radam", "max_lr": 1e-3}
    return TrainConfig(channels=channels or (Channel(0, BRAIN),), epochs=1, batch_size=4, **values | changes)


def test_folds_split_every_labelled_slice_by_patient(prepared):
    slices = read_slices(prepared, "train")
    seen = []
    for fold in range(5):
        train, valid = split_fold(prepared, fold, skip_low_information=False)
        assert set(train["patient_id"]).isdisjoint(valid["patient_id"])
        assert len(train) + len(valid) == len(slices)
        seen += list(valid["image_id"])
    assert sorted(seen) == sorted(slices["image_id"])


def test_low_information_slices_leave_training_but_never_validation(prepared):
    train, valid = split_fold(prepared, 0, skip_low_information=False)
    skipped, same = split_fold(prepared, 0, skip_low_information=True)
    assert (train["img_pct_window"] < LOW_INFORMATION).any()
    assert (skipped["img_pct_window"] >= LOW_INFORMATION).all()
    assert set(skipped["image_id"]) == set(train.loc[train["img_pct_window"] >= LOW_INFORMATION, "image_id"])
    pd.testing.assert_frame_equal(valid, same)


def test_fold_out_of_range_is_named_beside_the_range(prepared):
    with pytest.raises(InputError, match=r"no fold 7: .*folds.csv holds folds 0 to 4"):
        split_fold(prepared, 7, skip_low_information=False)


def test_missing_store_is_named_with_the_command_that_makes_it(prepared):
    with pytest.raises(InputError, match=r"slices_512; make it with: python models/prepare.py --image-size 512"):
        SliceDataset(read_slices(prepared, "train"), prepared, config(image_size=512), augment="none")


def test_channels_are_the_declared_windows_of_the_declared_neighbours(prepared):
    slices = read_slices(prepared, "train")
    channels = (Channel(0, BRAIN), Channel(-1, BONE), Channel(2, BRAIN))
    dataset = SliceDataset(slices, prepared, config(*channels), augment="none")
    for row in (0, 1, 5, len(slices) - 1):
        series = Series(prepared.series(64, slices["series_id"][row]))
        for plane, channel in zip(dataset[0, row][0].numpy(), channels, strict=True):
            place = min(max(slices["chunk"][row] + channel.offset, 0), len(series) - 1)  # the ends repeat themselves
            np.testing.assert_array_equal(plane, apply_window(series.read(place), channel.window))


def test_augmentation_is_geometry_on_hounsfield_units_then_windows_then_gamma(prepared):
    slices = read_slices(prepared, "train")
    channels = (Channel(0, BRAIN), Channel(-1, BONE), Channel(1, BRAIN))
    dataset = SliceDataset(slices, prepared, config(*channels, crop_size=48, window_jitter=0.1), augment="hard")
    for row in range(20):
        draw = dataset.augmentation.draw((0, 3, row), (64, 64))
        gamma = np.arange(256, dtype=np.uint8) if draw.gamma is None else draw.gamma
        stored, sources = dataset.read(row)
        planes = [warp([stored[source]], draw.geometry, 64, 48)[0] for source in sources]
        expected = [gamma[apply_window(plane, window)] for plane, window in zip(planes, draw.windows, strict=True)]
        grey, _ = dataset[3, row]
        assert grey.shape == (3, 48, 48)
        np.testing.assert_array_equal(grey.numpy(), expected)


def test_window_jitter_reaches_training_and_never_validation(prepared):
    slices = read_slices(prepared, "train")
    plain, jittered = config(), config(window_jitter=0.2)
    row = int(slices["img_pct_window"].argmax())
    for augment, changes in (("light", True), ("none", False)):
        one, other = (SliceDataset(slices, prepared, c, augment)[0, row][0].numpy() for c in (plain, jittered))
        assert (one != other).any() == changes


def test_targets_are_the_labels_in_their_order(prepared):
    slices = read_slices(prepared, "train")
    dataset = SliceDataset(slices, prepared, config(), augment="none")
    np.testing.assert_array_equal(dataset[0, 3][1].numpy(), slices.loc[3, list(LABELS)].to_numpy(float))


@pytest.mark.parametrize("workers", [1, 2])
def test_number_of_workers_changes_no_bit(prepared, workers):
    slices = read_slices(prepared, "train").head(24)

    def batches(workers):
        dataset = SliceDataset(slices, prepared, config(), augment="hard")
        return [grey.numpy() for grey, _ in make_loader(dataset, 4, workers, shuffle_seed=0)]

    np.testing.assert_array_equal(np.stack(batches(0)), np.stack(batches(workers)))


def test_each_epoch_has_an_order_and_augmentation_of_its_own(prepared):
    dataset = SliceDataset(read_slices(prepared, "train").head(24), prepared, config(), augment="hard")
    loader = make_loader(dataset, 4, 0, shuffle_seed=0)
    orders = []
    for epoch in range(3):
        loader.batch_sampler.epoch = epoch
        orders.append([row for batch in loader.batch_sampler for _, row in batch])
        assert sorted(orders[-1]) == list(range(24))
    assert orders[0] != orders[1] != orders[2]
    assert not np.array_equal(dataset[0, 1][0], dataset[1, 1][0])


def test_training_drops_the_incomplete_batch_and_validation_keeps_it(prepared):
    dataset = SliceDataset(read_slices(prepared, "train").head(10), prepared, config(), augment="none")
    assert sum(len(grey) for grey, _ in make_loader(dataset, 4, 0, shuffle_seed=0)) == 8
    assert sum(len(grey) for grey, _ in make_loader(dataset, 4, 0)) == 10
