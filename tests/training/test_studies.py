"""Laws of batches of studies: what belongs together stays together, and nothing is seen twice or left out."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.common.recurrence import Recurrence
from models.training.studies import OrderedStudies, ShuffledStudies, split_studies, thinned
from models.training.study_places import places, study_lengths

many_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(np.array)
batch_sizes, seeds, counts = st.integers(1, 8), st.integers(0, 1000), st.integers(1, 4)


@st.composite
def drawn_studies(draw) -> ShuffledStudies:
    recurrence = Recurrence(shortest=draw(st.floats(0.01, 1)), reverse=draw(st.booleans()))
    longest = draw(st.none() | st.integers(1, 50))
    return ShuffledStudies(draw(many_lengths), draw(batch_sizes), draw(seeds), recurrence, longest)


def study_of(lengths: np.ndarray) -> np.ndarray:
    """The number of the study that each row belongs to."""
    return np.repeat(np.arange(len(lengths)), lengths)


def rows_of(batches) -> list[list[int]]:
    return [[row for _, row in batch] for batch in batches]


@given(drawn_studies())
def test_a_study_is_one_stretch_of_its_rows_in_order_or_reversed(sampler):
    number = study_of(sampler.lengths)
    for rows in (rows for batch in sampler.studies() for rows in batch):
        assert len(set(number[rows])) == 1
        assert {int(step) for step in np.diff(rows)} in (set(), {1}, {-1})
        assert sampler.recurrence.reverse or rows[0] <= rows[-1]


@given(drawn_studies())
def test_a_stretch_is_no_longer_and_no_shorter_than_asked(sampler):
    number = study_of(sampler.lengths)
    for rows in (rows for batch in sampler.studies() for rows in batch):
        whole = int(sampler.lengths[number[rows[0]]])
        longest = sampler.longest or whole
        assert min(math.ceil(sampler.recurrence.shortest * whole), longest) <= len(rows) <= min(longest, whole)


@given(many_lengths, seeds)
def test_without_shortening_studies_are_whole(lengths, seed):
    sampler = ShuffledStudies(lengths, 1, seed, Recurrence())
    assert sorted(row for rows in rows_of(sampler) for row in rows) == list(range(sum(lengths)))


@given(drawn_studies())
def test_each_study_is_seen_once_an_epoch_at_most_and_batches_are_whole(sampler):
    number = study_of(sampler.lengths)
    batches = rows_of(sampler)
    assert len(batches) == len(sampler) == len(sampler.lengths) // sampler.batch_size
    seen = [study for rows in batches for study in set(number[rows])]
    assert len(seen) == len(set(seen)) == len(batches) * sampler.batch_size
    assert all(len(set(number[rows])) == sampler.batch_size for rows in batches)


@given(drawn_studies(), counts)
def test_the_shares_of_several_processes_are_the_batch_and_its_size_counts_them_all(sampler, count):
    samplers = [
        ShuffledStudies(
            sampler.lengths, sampler.batch_size, sampler.seed, sampler.recurrence, sampler.longest, rank, count
        )
        for rank in range(count)
    ]
    least = min(len(range(sampler.batch_size)[rank::count]) for rank in range(count))
    assert {share.smallest for share in samplers} == {least}
    shares = [rows_of(share) for share in samplers]
    for number, rows in enumerate(sampler.rows()):
        parts = [share[number] for share in shares]
        assert sorted(row for part in parts for row in part) == sorted(rows)
        assert sum(map(len, parts)) == sampler.size(number) == len(rows)


@given(drawn_studies(), st.integers(0, 5))
def test_a_run_that_goes_on_in_an_epoch_sees_the_batches_that_are_left(sampler, start):
    whole = rows_of(sampler)
    sampler.start = start
    assert rows_of(sampler) == whole[start:]
    assert len(sampler) == len(whole)


def sampler_of_forty(seed: int = 3) -> ShuffledStudies:
    return ShuffledStudies(np.arange(20, 60), 4, seed, Recurrence(shortest=0.5))


def test_epochs_differ_and_the_same_seed_and_epoch_draw_the_same():
    one, other = sampler_of_forty(), sampler_of_forty()
    draws = []
    for epoch in (0, 1, 2):
        one.epoch = other.epoch = epoch
        assert list(one) == list(one) == list(other)
        assert {key[0] for batch in one for key in batch} == {epoch}
        draws.append(rows_of(one))
    assert draws[0] != draws[1] != draws[2] != draws[0]
    one.epoch = 0
    assert rows_of(one) == draws[0] != rows_of(sampler_of_forty(seed=4))


def test_about_every_other_study_is_turned_and_stretches_begin_anywhere():
    sampler = sampler_of_forty()
    turned, begins, ends = 0, set(), set()
    for epoch in range(10):
        sampler.epoch = epoch
        for rows in (rows for batch in sampler.studies() for rows in batch):
            turned += rows[0] > rows[-1]
            if study_of(sampler.lengths)[rows[0]] == 39:  # the last study, of 59 slices
                begins.add(min(rows))
                ends.add(max(rows))
    assert 150 < turned < 250  # of 400
    assert len(begins) > 3
    assert len(ends) > 3


@given(st.lists(st.floats(0, 12), min_size=1, max_size=60), st.floats(0.5, 20), seeds)
def test_of_so_many_millimetres_one_slice_is_shown(gaps, spacing, seed):
    z = np.cumsum(gaps)
    shown = thinned(z, spacing, np.random.default_rng(seed))
    assert shown[0] == 0
    assert len(shown) <= (z[-1] - z[0]) / spacing + 2
    nearest = shown[np.searchsorted(shown, np.arange(len(z)), side="right") - 1]  # the last one shown, up to each slice
    assert (z - z[nearest] < spacing + 1e-9).all()


@pytest.mark.parametrize(("gap", "every"), [(5.0, 1), (2.0, 2), (1.0, 4)])
def test_thin_series_are_thinned_and_thick_ones_are_whole(gap, every):
    lengths, recurrence = np.full(20, 30), Recurrence(spacing=4, reverse=False)
    sampler = ShuffledStudies(lengths, 1, 0, recurrence, z=np.tile(gap * np.arange(30), 20) - 70)
    rows = [rows - 30 * (rows[0] // 30) for (rows,) in sampler.studies()]
    for some in rows:
        assert set(np.diff(some[1:])) == {every}  # the first stretch may have begun before the study
    assert len({tuple(some) for some in rows}) == every  # and begins anywhere


def test_a_stretch_is_drawn_of_the_slices_that_are_shown():
    z = np.tile(np.arange(100.0), 50)
    sampler = ShuffledStudies(np.full(50, 100), 5, 0, Recurrence(spacing=4, shortest=0.5), 20, z=z)
    drawn = [rows for batch in sampler.studies() for rows in batch]
    lengths = {len(rows) for rows in drawn}
    assert lengths <= set(range(13, 21))
    assert {15, 20} <= lengths
    assert all(set(np.abs(np.diff(np.sort(rows)))[1:]) == {4} for rows in drawn)


@given(many_lengths, batch_sizes, counts)
def test_in_order_every_row_comes_once_and_processes_part_where_a_study_ends(lengths, batch_size, count):
    samplers = [OrderedStudies(lengths, batch_size, rank, count) for rank in range(count)]
    number, last = study_of(lengths), np.cumsum(lengths) - 1
    stretches = [[row for rows in rows_of(sampler) for row in rows] for sampler in samplers]
    assert [row for stretch in stretches for row in stretch] == list(range(sum(lengths)))
    for sampler, stretch in zip(samplers, stretches, strict=True):
        assert list(sampler.stretch) == stretch
        assert len(sampler) == len(list(sampler))
        for rows in rows_of(sampler):
            assert rows[-1] in last
            assert 1 <= len(set(number[rows])) <= batch_size


# ---- tables ----


def table(z: dict[str, list[float]], tilt: float = 3.0) -> pd.DataFrame:
    """A metadata table of series, from the z of their slices."""
    rows = [(series, value, tilt) for series, values in z.items() for value in values]
    return pd.DataFrame(rows, columns=["series_id", "z", "tilt"])


@given(many_lengths)
def test_lengths_are_those_of_the_series_in_their_order(lengths):
    slices = pd.DataFrame({"series_id": [f"s{number}" for number in study_of(lengths)]})
    assert list(study_lengths(slices)) == list(lengths)


def test_an_empty_table_has_no_studies():
    assert list(study_lengths(table({}))) == []


def test_slices_that_do_not_stand_together_are_refused():
    slices = table({"a": [0, 5, 10], "b": [0, 5]})
    with pytest.raises(ValueError, match="must stand together"):
        study_lengths(slices.iloc[[0, 1, 3, 2, 4]])


def test_a_place_is_study_z_and_tilt():
    slices = table({"a": [-7.5, -2.5, 2.5], "b": [100.0, 103.0]}, tilt=12.5)
    expected = [[0, -7.5, 12.5], [0, -2.5, 12.5], [0, 2.5, 12.5], [1, 100, 12.5], [1, 103, 12.5]]
    np.testing.assert_array_equal(places(slices), np.array(expected, np.float32))
    assert places(slices).dtype == np.float32


def test_unknown_positions_are_five_millimetres_apart_and_an_unknown_tilt_is_none():
    """One slice without a position is enough: order is all that is known of its series, and of that one alone."""
    nan = float("nan")
    slices = table({"a": [3.0, 4.0], "b": [nan, 7.0, nan], "c": [nan]}, tilt=nan)
    np.testing.assert_array_equal(places(slices)[:, 1], [3, 4, 0, 5, 10, 0])
    np.testing.assert_array_equal(places(slices)[:, 2], 0)


def test_slices_at_one_position_keep_it_and_a_study_may_be_one_slice():
    slices = table({"a": [5.0, 5.0, 10.0], "b": [8.0], "c": [8.0]})
    np.testing.assert_array_equal(places(slices)[:, :2], [[0, 5], [0, 5], [0, 10], [1, 8], [2, 8]])


@given(many_lengths)
def test_a_batch_tells_its_studies_by_their_places(lengths):
    place = torch.zeros(int(sum(lengths)), 3)
    place[:, 0] = torch.from_numpy(study_of(lengths) * 7 % 31)  # numbers in any order
    assert split_studies(place) == list(lengths)
    assert all(one != other for one, other in pairwise((np.arange(len(lengths)) * 7 % 31).tolist()))
