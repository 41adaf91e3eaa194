"""Laws of neighbours in millimetres: the nearest readable slice, the same from both ends, whatever the spacing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.common.errors import InputError
from models.preprocessing.geometry import USUAL_GAP
from models.preprocessing.neighbours import nearest_places, neighbour_chunks, neighbour_rows
from models.preprocessing.tables import UNREADABLE

micrometres = st.integers(-30_000, 30_000).map(lambda count: count / 1000)
heights = st.lists(micrometres, min_size=1, max_size=40).map(sorted).map(np.array)
crowded = (
    st.lists(st.integers(0, 6), min_size=1, max_size=20).map(sorted).map(lambda z: np.array(z, float))
)  # many ties
some_heights = st.one_of(heights, crowded)
some_offsets = st.lists(st.one_of(micrometres, st.integers(-6, 6).map(float)), min_size=1, max_size=4)


def table(z, unreadable=(), series_id="ID_a") -> pd.DataFrame:
    """The metadata of a series, some of whose rows are unreadable."""
    readable = ~np.isin(np.arange(len(z)), list(unreadable))
    chunks = np.where(readable, readable.cumsum() - 1, UNREADABLE)
    return pd.DataFrame({"series_id": series_id, "chunk": chunks, "z": np.array(z, float)})


@given(some_heights, some_offsets)
def test_no_slice_is_nearer_and_none_as_near_is_fewer_places_away(z, offsets):
    for place, chosen in enumerate(nearest_places(z, offsets)):
        for offset, found in zip(offsets, chosen, strict=True):
            away = [(round(abs(z[place] + offset - other), 3), abs(place - at)) for at, other in enumerate(z)]
            assert away[found] == min(away)
            assert away.count(away[found]) == 1  # nothing is left to chance


@given(st.sampled_from([0.6, 1.25, 2.5, 5.0]), st.integers(0, 600), micrometres)
def test_thin_and_thick_series_see_the_same_anatomy(spacing, start, offset):
    z = np.round(start / 1000 + np.arange(int(150 / spacing)) * spacing, 3)
    inside = (z + offset >= z[0]) & (z + offset <= z[-1])
    seen = z[nearest_places(z, [offset])[:, 0]]
    assert (np.abs(seen - z - offset)[inside] <= spacing / 2 + 0.001).all()
    assert (seen[z + offset < z[0]] == z[0]).all()
    assert (seen[z + offset > z[-1]] == z[-1]).all()


def test_five_millimetres_are_one_thick_slice_or_eight_thin_ones():
    assert nearest_places(np.arange(5) * 5.0, [-5, 5]).tolist() == [[0, 1], [0, 2], [1, 3], [2, 4], [3, 4]]
    assert nearest_places(np.round(np.arange(20) * 0.6, 3), [-5, 5])[10].tolist() == [2, 18]


@given(some_heights, some_offsets)
def test_a_series_seen_from_its_other_end_has_the_same_neighbours(z, offsets):
    mirrored = nearest_places(-z[::-1], [-offset for offset in offsets])
    np.testing.assert_array_equal(nearest_places(z, offsets), len(z) - 1 - mirrored[::-1])


@given(st.integers(1, 40), some_offsets)
def test_a_series_without_z_has_the_same_neighbours_from_its_other_end(count, offsets):
    z = np.full(count, np.nan)
    mirrored = nearest_places(z, [-offset for offset in offsets])
    np.testing.assert_array_equal(nearest_places(z, offsets), count - 1 - mirrored[::-1])


@given(some_heights)
def test_an_offset_of_0_is_the_slice_itself(z):
    for heights in (z, np.full(len(z), np.nan)):
        np.testing.assert_array_equal(nearest_places(heights, [0])[:, 0], np.arange(len(z)))


def test_of_two_equally_near_slices_the_one_fewer_places_away_is_taken():
    assert nearest_places(np.array([0.0, 4, 6]), [5])[0].tolist() == [1]
    assert nearest_places(np.array([0.0, 4, 6]), [-1])[2].tolist() == [2]  # 5 is as near to itself as to 4
    assert nearest_places(np.array([0.0, 5, 5, 5, 10]), [5, -5])[[0, 4]].tolist() == [[1, 0], [4, 3]]
    assert nearest_places(np.array([5.0, 5, 5, 10]), [-1])[:3].tolist() == [[0], [1], [2]]


@given(some_offsets)
def test_a_single_slice_is_all_its_neighbours(offsets):
    for height in (12.5, np.nan):
        assert nearest_places(np.array([height]), offsets).tolist() == [[0] * len(offsets)]


def test_without_z_slices_lie_as_far_apart_as_they_usually_do():
    z = np.full(7, np.nan)
    offsets = [-2 * USUAL_GAP, -USUAL_GAP, -0.5, 0, 0.5, USUAL_GAP, 8, 2 * USUAL_GAP]
    assert nearest_places(z, offsets)[3].tolist() == [1, 2, 2, 3, 4, 4, 5, 5]
    assert nearest_places(z, offsets)[0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


@given(heights, st.integers(1, 3), some_offsets)
def test_slices_without_z_among_others_are_their_own_neighbours_alone(z, lost, offsets):
    found = nearest_places(np.append(z, [np.nan] * lost), offsets)
    np.testing.assert_array_equal(found[: len(z)], nearest_places(z, offsets))
    assert (found[len(z) :] == np.arange(len(z), len(z) + lost)[:, None]).all()


@given(some_heights, st.sets(st.integers(0, 39)), some_offsets)
def test_unreadable_slices_are_never_chosen_and_change_nothing(z, unreadable, offsets):
    whole = table(z, unreadable)
    readable = whole[whole["chunk"] != UNREADABLE]
    assume(len(readable))
    found = neighbour_chunks(readable, whole, offsets)
    assert found.shape == (len(readable), len(offsets))
    assert found.min() >= 0
    np.testing.assert_array_equal(found, nearest_places(readable["z"].to_numpy(), offsets))


@given(st.lists(some_heights, min_size=1, max_size=4), some_offsets, st.randoms(use_true_random=False))
def test_neighbours_stay_in_their_series_and_depend_on_no_other_row(all_heights, offsets, random):
    whole = pd.concat([table(z, series_id=f"ID_{number}") for number, z in enumerate(all_heights)], ignore_index=True)
    expected = np.concatenate([nearest_places(z, offsets) for z in all_heights])
    rows = random.sample(range(len(whole)), random.randint(1, len(whole)))
    shuffled = whole.sample(frac=1, random_state=random.randint(0, 99))
    np.testing.assert_array_equal(neighbour_chunks(whole.iloc[rows], shuffled, offsets), expected[rows])
    np.testing.assert_array_equal(neighbour_chunks(whole.iloc[rows * 2], whole, offsets), expected[rows * 2])


def test_places_that_the_metadata_lacks_are_no_neighbours():
    whole = table(np.arange(5) * 5.0).drop(index=2)  # such as an image that another series has, too
    assert neighbour_chunks(whole, whole, [-5.0, 5.0]).tolist() == [[0, 1], [0, 1], [3, 4], [3, 4]]


def test_no_slices_have_no_neighbours():
    whole = table(np.arange(5))
    assert neighbour_chunks(whole.head(0), whole, [-5.0, 5.0]).shape == (0, 2)


def test_a_slice_that_the_metadata_lacks_is_named_by_its_series():
    with pytest.raises(InputError, match=r"series ID_b; make it anew with prepare.py"):
        neighbour_chunks(table([0, 5], series_id="ID_b"), table([0, 5]), [5.0])
    with pytest.raises(InputError, match="series ID_a"):
        neighbour_chunks(table([0, 5, 10]), table([0, 5]), [5.0])


@given(st.lists(heights, min_size=1, max_size=4), some_offsets, st.randoms())
def test_rows_of_a_table_are_the_places_in_its_series(all_heights, offsets, random):
    series = [pd.DataFrame({"series_id": f"S{number}", "z": z}) for number, z in enumerate(all_heights)]
    series.append(pd.DataFrame({"series_id": ["unknown"] * 3, "z": np.nan}))
    loose = pd.DataFrame({"series_id": [None], "z": [0.0]})
    random.shuffle(series)
    table = pd.concat([series[0], loose, *series[1:]], ignore_index=True)
    found = neighbour_rows(table, offsets)
    assert (found[len(series[0])] == len(series[0])).all()
    for _, own in table.groupby("series_id"):
        expected = own.index[0] + nearest_places(own["z"].to_numpy(float), offsets)
        if own["z"].isna().all():
            expected = own.index[0] + nearest_places(USUAL_GAP * np.arange(3.0), offsets)
        wanted = own["z"].to_numpy()[:, None] + np.array(offsets)
        z = table["z"].to_numpy()
        distance = [np.abs(z[rows] - wanted) for rows in (found[own.index], expected)]
        np.testing.assert_allclose(*distance, atol=2e-3)
        assert table.loc[found[own.index].ravel(), "series_id"].eq(own["series_id"].iloc[0]).all()
        if own["z"].is_unique or own["z"].isna().all():
            np.testing.assert_array_equal(found[own.index], expected)
