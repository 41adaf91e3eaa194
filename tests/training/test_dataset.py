import numpy as np
import pandas as pd
import pytest

from models.common.channels import Channel, Window
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.preprocessing.store import Series, compress_slice, write_series
from models.preprocessing.tables import UNREADABLE, read_slices, split_fold
from models.preprocessing.windows import BONE, BRAIN, LOW_INFORMATION, apply_window
from models.training import planes as module
from models.training.augmentation import gamma_table
from models.training.dataset import SliceDataset
from models.training.loading import make_loader
from models.training.planes import open_series
from models.training.warping import warp

SIZE = 16  # of the series that are drawn here
WIDE = Window(50, 400)


def config(*channels, **changes):
    values = {"name": "test", "network": "small", "image_size": 64, "optimizer": "radam", "max_lr": 1e-3}
    return TrainConfig(channels=channels or (Channel(0, BRAIN),), epochs=1, batch_size=4, **values | changes)


@pytest.fixture
def stored(tmp_path):
    """A working folder, its readable slices of ID_a to ID_d, and the values of each series (slices, SIZE, SIZE)."""
    work, nan = Work(tmp_path), np.nan
    series = {
        "ID_a": [0, 5, 10, 15],
        "ID_b": [0, 2.5, 5, 7.5, 10, 12.5, 15],
        "ID_c": [nan, nan, nan],
        "ID_d": [7.5],
        "ID_e": [0, 5, 10, 15],
    }
    table = pd.DataFrame([(name, z) for name, heights in series.items() for z in heights], columns=["series_id", "z"])
    readable = ~((table["series_id"] == "ID_b") & (table["z"] == 7.5))
    table["chunk"] = np.where(readable, readable.groupby(table["series_id"]).cumsum() - 1, UNREADABLE)
    table = table.assign(**dict.fromkeys(LABELS, 0.0), image_id=[f"ID_{number}" for number in range(len(table))])
    values = {}
    for number, (name, count) in enumerate(table[readable].groupby("series_id").size().items()):
        shape = (1 if name == "ID_e" else count, SIZE, SIZE)
        noise = np.random.default_rng(number).integers(-150, 250, shape).astype(np.int16)
        values[name] = np.broadcast_to(noise, (count, SIZE, SIZE))
        path = work.series(SIZE, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_series(path, [compress_slice(image) for image in values[name]], (SIZE, SIZE), {})
    write_parquet(work.metadata("train"), table)
    return work, table[readable & (table["series_id"] != "ID_e")].reset_index(drop=True), values


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
    with pytest.raises(InputError, match=r"slices_512; make it with: .*/prepare.py --image-size 64 512 --data"):
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


def test_channels_in_millimetres_are_the_nearest_slices_of_the_series(stored):
    work, slices, values = stored
    channels = (Channel(0, WIDE), Channel(-5, WIDE, "mm"), Channel(5, WIDE, "mm"), Channel(-2, WIDE))
    dataset = SliceDataset(slices, work, config(*channels, image_size=SIZE), augment="none")
    expected = {  # thick; 2.5 mm with an unreadable slice at 7.5 mm; without z; a single slice
        "ID_a": [(0, 0, 1, 0), (1, 0, 2, 0), (2, 1, 3, 0), (3, 2, 3, 1)],
        "ID_b": [(0, 0, 2, 0), (1, 0, 2, 0), (2, 0, 3, 0), (3, 2, 5, 1), (4, 3, 5, 2), (5, 3, 5, 3)],
        "ID_c": [(0, 0, 1, 0), (1, 0, 2, 0), (2, 1, 2, 0)],
        "ID_d": [(0, 0, 0, 0)],
    }
    for row, (series_id, chunk) in enumerate(zip(slices["series_id"], slices["chunk"], strict=True)):
        planes = [apply_window(values[series_id][place], WIDE) for place in expected[series_id][chunk]]
        np.testing.assert_array_equal(dataset[0, row][0].numpy(), planes)


@pytest.mark.parametrize("augment", ["none", "hard"])
def test_some_slices_of_a_series_see_the_neighbours_that_they_have_among_all(prepared, augment):
    slices = read_slices(prepared, "train").head(60)
    settings = config(Channel(-5, BRAIN, "mm"), Channel(0, BONE), Channel(7.5, BRAIN, "mm"), Channel(1, BRAIN))
    whole = SliceDataset(slices, prepared, settings, "none")
    part = SliceDataset(slices.iloc[5::7].reset_index(drop=True), prepared, settings, augment)
    for row, place in enumerate(range(5, 60, 7)):
        (ours, sources), (theirs, others) = part.read(row), whole.read(place)
        np.testing.assert_array_equal([ours[source] for source in sources], [theirs[source] for source in others])
        if augment == "none":
            np.testing.assert_array_equal(part[0, row][0], whole[0, place][0])


def test_test_slices_have_neighbours_where_there_is_no_training_table(stored, tmp_path):
    work, slices, _ = stored
    settings = config(Channel(5, WIDE, "mm"), image_size=SIZE)
    expected = SliceDataset(slices, work, settings, augment="none")[0, 1][0]
    work.metadata("train").rename(work.metadata("test"))
    np.testing.assert_array_equal(SliceDataset(slices, work, settings, augment="none")[0, 1][0], expected)


def test_channels_in_slices_need_no_metadata(stored):
    work, slices, _ = stored
    settings = config(Channel(0, WIDE), Channel(1, WIDE), image_size=SIZE)
    work.metadata("train").unlink()
    assert SliceDataset(slices, work, settings, augment="none")[0, 0][0].shape == (2, SIZE, SIZE)


@pytest.mark.parametrize("augment", ["light", "hard"])
def test_all_channels_of_a_sample_are_moved_alike(stored, augment):
    work, slices, _ = stored  # the series ID_e looks the same at every height
    channels = [Channel(offset, WIDE, "mm") for offset in (-5, 0, 5)] + [Channel(-1, WIDE), Channel(0, WIDE)]
    settings = config(*channels, image_size=SIZE, crop_size=12, window_jitter=0.2)
    slices = slices.assign(series_id="ID_e", chunk=np.arange(len(slices)) % 4)
    dataset = SliceDataset(slices, work, settings, augment)
    assert dataset.places[1].tolist() == [0, 1, 2, 0, 1]
    seen = set()
    for epoch in range(3):
        for row in range(len(slices)):
            planes = dataset[epoch, row][0].numpy()
            assert (planes == planes[0]).all()
            seen.add(planes[0].tobytes())
    assert len(seen) > 20


def test_each_slice_of_a_sample_is_decoded_once_from_one_file(stored, monkeypatch):
    work, slices, _ = stored
    opened, read = [], []

    class Counted(Series):
        def __init__(self, path):
            opened.append(path)
            super().__init__(path)

        def read_some(self, indexes):
            read.append(list(indexes))
            return super().read_some(indexes)

    monkeypatch.setattr(module, "Series", Counted)
    channels = [
        Channel(0, BRAIN),
        Channel(0, BONE),
        Channel(-5, WIDE, "mm"),
        Channel(-1, BRAIN),
        Channel(5, BONE, "mm"),
    ]
    dataset = SliceDataset(slices, work, config(*channels, image_size=SIZE), augment="none")
    for row, distinct in ((0, [0, 1]), (1, [1, 0, 2]), (3, [3, 2]), (len(slices) - 1, [0])):
        open_series.cache_clear()
        opened.clear()
        read.clear()
        dataset[0, row]
        assert (len(opened), read) == (1, [distinct])


def test_augmentation_is_geometry_on_hounsfield_units_then_windows_then_gamma(prepared):
    slices = read_slices(prepared, "train")
    channels = (Channel(0, BRAIN), Channel(-1, BONE), Channel(1, BRAIN))
    dataset = SliceDataset(slices, prepared, config(*channels, crop_size=48, window_jitter=0.1), augment="hard")
    for row in range(20):
        draw = dataset.augmentation.draw((0, 3, row))
        gamma = np.arange(256, dtype=np.uint8) if draw.gamma is None else gamma_table(draw.gamma)
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
