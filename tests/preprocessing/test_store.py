"""Laws of the slice store: exact, self-checking, and readable from forked workers."""

import errno
import io
import json
import os
import tracemalloc
from pathlib import Path
from zlib import crc32

import blosc2
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from once import HANG
from torch.utils.data import DataLoader, Dataset

from models.common import patience
from models.common.errors import InputError
from models.preprocessing.hounsfield import AIR, HOUNSFIELD_RANGE
from models.preprocessing.store import Series, compress_slice, fit_to_square, write_series

NOTES = {"source": "a1", "slices": [{"image_id": "ID_a", "z": 1.25}, {"image_id": "ID_b", "z": float("inf")}]}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(*HOUNSFIELD_RANGE, size=shape, endpoint=True).astype(np.int16)


def head(count: int, size: int) -> np.ndarray:
    """Slices (count, size, size) that compress: noise in the middle, air around it."""
    slices = np.full((count, size, size), AIR, np.int16)
    slices[:, size // 4 : -size // 4, size // 4 : -size // 4] = noise(count, size // 2, size // 2)
    return slices


def write(path, slices: np.ndarray) -> None:
    write_series(path, [compress_slice(hounsfield) for hounsfield in slices], slices.shape[1:], NOTES)


def write_frame(path, slices: np.ndarray) -> None:
    """Write a series as older versions did (commit e3e31d8)."""
    path.parent.mkdir(exist_ok=True)
    urlpath, text = str(path.with_suffix(".b2nd")), json.dumps(NOTES).encode()
    compression = {"codec": blosc2.Codec.LZ4, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    shape = (1, *slices.shape[1:])
    array = blosc2.empty(slices.shape, np.int16, chunks=shape, blocks=shape, cparams=compression, urlpath=urlpath)
    for index, hounsfield in enumerate(slices):
        array.schunk.update_chunk(index, compress_slice(hounsfield))
    array.schunk.vlmeta["crc32"] = [crc32(array.schunk.get_chunk(index)) for index in range(len(slices))]
    array.schunk.vlmeta["notes"] = text
    array.schunk.vlmeta["notes_crc32"] = crc32(text)


WRITERS = {"series": write, "frame": write_frame}


@pytest.fixture
def stored(tmp_path):
    """A stored series, and the slices in it."""
    path, slices = tmp_path / "slices_16" / "ID_a.slices", head(5, 16)
    write(path, slices)
    return path, slices


class StoredSlices(Dataset):
    def __init__(self, path):
        self.series = Series(path)

    def __len__(self):
        return len(self.series)

    def __getitem__(self, index):
        return torch.from_numpy(self.series.read(index))


@pytest.mark.parametrize(
    "slices",
    [
        noise(7, 33, 33),
        head(20, 64),
        np.full((1, 512, 512), AIR, np.int16),
        np.stack([np.full((8, 8), value, np.int16) for value in (-1000, 0, 2000, -32768, 32767)]),
    ],
    ids=["noise", "head", "one slice of air", "extremes"],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_slices_come_back_exactly_in_any_order(tmp_path, slices, kind):
    WRITERS[kind](tmp_path / "a.slices", slices)
    series = Series(tmp_path / "a.slices")
    assert len(series) == len(slices)
    some = [len(slices) - 1, 0, 0]
    np.testing.assert_array_equal(series.read_some(some), slices[some])
    assert series.notes() == NOTES
    for index in reversed(range(len(slices))):
        read = series.read(index)
        assert read.dtype == np.int16
        assert np.array_equal(read, slices[index])


def test_what_is_read_can_be_written_to(stored):
    path, slices = stored
    series = Series(path)
    series.read(0)[:] = 0
    assert np.array_equal(series.read(0), slices[0])


def test_the_same_slices_give_the_same_bytes(stored, tmp_path):
    path, slices = stored
    write(tmp_path / "again.slices", slices)
    assert (tmp_path / "again.slices").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("index", [-1, 5, 2**40])
def test_a_slice_that_is_not_there_is_an_error(stored, index):
    with pytest.raises(IndexError, match=r"ID_a\.slices has no slice"):
        Series(stored[0]).read(index)


def test_no_file_stays_open(stored):
    series = Series(stored[0])
    series.read(0)
    assert str(stored[0]) not in {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}


def test_a_chunk_that_claims_to_be_larger_is_not_written_beyond_its_slice(tmp_path):
    """blosc2 believes what a chunk says of its size; where it is hostile, so are its checksums."""
    path = tmp_path / "slices_16" / "ID_a.slices"
    write_series(path, [compress_slice(noise(256, 256))], (16, 16), {})
    with pytest.raises(InputError, match="slice 0 is of another size"):
        Series(path).read(0)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_flipped_bit_is_seen_or_harmless(tmp_path, kind):
    path, slices = tmp_path / "slices_16" / "ID_a.slices", head(5, 16)
    WRITERS[kind](path, slices)
    path = Series(path).path
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    # The header is a few hundred bytes: half of the flips go there.
    positions = [*generator.integers(len(whole), size=200), *generator.integers(300, size=200)]
    seen = []
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            series = Series(path)
            read = np.stack([series.read(index) for index in range(len(series))])
            notes = series.notes()
        except InputError as error:
            seen.append(str(error))
        else:
            assert np.array_equal(read, slices)
            assert notes == NOTES
    assert len(seen) == len(positions) if kind == "series" else len(seen) > 100  # no byte of ours is without a use
    assert all(str(path) in message and "--image-size 16" in message for message in seen)


def test_a_frame_that_lacks_a_checksum_is_refused(tmp_path):
    write_frame(tmp_path / "slices_16" / "ID_a.slices", head(3, 16))
    array = blosc2.open(str(tmp_path / "slices_16" / "ID_a.b2nd"), mode="a")
    array.schunk.vlmeta["crc32"] = array.schunk.vlmeta["crc32"][:2]
    with pytest.raises(InputError, match=r"ID_a\.b2nd is damaged"):
        Series(tmp_path / "slices_16" / "ID_a.slices")


def test_a_damaged_length_takes_no_memory(stored):
    path, _ = stored
    content = bytearray(path.read_bytes())
    content[8:12] = b"\xff" * 4  # the header's
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match="is damaged"):
        Series(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize("length", [0, 1, 50, 200, -200, -1])
def test_a_file_that_is_cut_off_is_seen(stored, length):
    path, slices = stored
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="--image-size 16"):
        [Series(path).read(index) for index in range(len(slices))]


def test_a_missing_series_is_named_with_the_command_that_makes_it(tmp_path):
    path = tmp_path / "slices_224" / "ID_a.slices"
    with pytest.raises(InputError, match=r"python models/prepare.py --image-size 224") as caught:
        Series(path)
    assert str(path) in str(caught.value)


class Failing(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, *_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_store_that_the_system_does_not_let_be_seen_is_not_said_to_be_missing_or_damaged(kind, tmp_path, monkeypatch):
    path = tmp_path / "slices_16" / "ID_a.slices"
    WRITERS[kind](path, head(2, 16))
    series, real = Series(path), Path.open

    def stale(self: Path, *more: object, **named: object) -> object:
        if self == series.path:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        return real(self, *more, **named)

    monkeypatch.setattr(patience, "WAITS", (0,))
    monkeypatch.setattr(Path, "open", stale)
    for read in (lambda: Series(path), lambda: series.read(0)):
        with pytest.raises(InputError, match=f"cannot read {series.path}: "):
            read()
    monkeypatch.setattr(Path, "open", lambda self, *_: Failing() if self == series.path else real(self, "rb"))
    with pytest.raises(InputError, match=f"cannot read {path}: "):
        Series(path)


def test_a_passing_error_of_the_system_is_waited_for(stored, monkeypatch):
    path, slices = stored
    series, left, real = Series(path), [errno.EIO, errno.EMFILE], Path.open

    def fails_twice(self: Path, *more: object, **named: object) -> object:
        if left:
            raise OSError(left.pop(), "not now", str(self))
        return real(self, *more, **named)

    monkeypatch.setattr(patience, "WAITS", (0, 0))
    monkeypatch.setattr(Path, "open", fails_twice)
    assert np.array_equal(series.read(1), slices[1])
    assert not left


def test_workers_that_are_forked_after_the_parent_has_read_read_the_same(stored):
    path, slices = stored
    dataset = StoredSlices(path)
    assert np.array_equal(dataset[0].numpy(), slices[0])
    for _ in range(2):
        loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=HANG)
        assert np.array_equal(torch.cat(list(loader)).numpy(), slices)


@pytest.mark.parametrize("size", [1, 16, 512])
def test_a_square_of_the_right_size_is_left_as_it_is(size):
    image = noise(size, size)
    assert np.array_equal(fit_to_square(image, size), image)


@pytest.mark.parametrize(("rows", "columns"), [(638, 490), (666, 512), (490, 638), (5, 4), (1, 8)])
def test_a_slice_that_is_not_square_is_padded_with_air_about_its_centre(rows, columns):
    image, side = noise(rows, columns), max(rows, columns)
    square = fit_to_square(image, side)
    top, left = (side - rows) // 2, (side - columns) // 2
    assert np.array_equal(square[top : top + rows, left : left + columns], image)
    assert (square == AIR).sum() == side * side - rows * columns + (image == AIR).sum()


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks(factor):
    image = noise(12 * factor, 12 * factor)
    means = image.reshape(12, factor, 12, factor).mean(axis=(1, 3))
    assert np.abs(fit_to_square(image, 12) - means).max() <= 0.5


@pytest.mark.parametrize(("side", "size"), [(64, 28), (64, 32), (64, 48), (64, 63), (63, 28), (30, 1)])
def test_shrinking_misses_no_pixel(side, size):
    for place in range(side):
        image = np.zeros((side, side), np.int16)
        image[place, side - 1 - place] = 2000
        assert fit_to_square(image, size).any()


@pytest.mark.parametrize("size", [15, 24, 61])
def test_growing_is_linear(size):
    image = noise(12, 12)
    expected = cv2.resize(image.astype(np.float64), (size, size), interpolation=cv2.INTER_LINEAR)
    assert np.abs(fit_to_square(image, size) - expected).max() <= 0.5 + 1e-3


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 48))
def test_every_shape_becomes_a_square_within_the_range_of_its_values(rows, columns, size):
    image = noise(rows, columns)
    square = fit_to_square(image, size)
    assert square.shape == (size, size)
    assert square.dtype == np.int16
    assert min(image.min(), AIR) <= square.min() <= square.max() <= image.max()


@pytest.mark.parametrize("size", [8, 16, 40])
def test_air_stays_air_at_every_size(size):
    assert (fit_to_square(np.full((16, 12), AIR, np.int16), size) == AIR).all()
