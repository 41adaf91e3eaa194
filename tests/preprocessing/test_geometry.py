"""Laws of a series' order: along the normal of its slices, the same on every machine, whatever is odd about it."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.preprocessing import geometry
from models.preprocessing.dicom import read_file
from models.preprocessing.problems import Problem

UPRIGHT = (1, 0, 0, 0, 1, 0)
FEET_UP = (1, 0, 0, 0, -1, 0)  # the normal points to the feet
angles = st.floats(-0.6, 0.6)


def order_series(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """The table in its order, with where the slices are, and the problems."""
    order, where, problems = geometry.order_series(table)
    return table.iloc[order].reset_index(drop=True).assign(**where), problems


def header_table(positions, orientation=UPRIGHT, series_id="ID_series", image_ids=None) -> pd.DataFrame:
    """The columns that order_series needs, a row a position (slices, 3)."""
    names = image_ids or [f"ID_{number:03d}" for number in range(len(positions))]
    table = pd.DataFrame({"image_id": names, "series_id": series_id})
    table[[f"image_position_{i}" for i in range(3)]] = np.asarray(positions, float)
    table[["instance_number", "slice_location"]] = np.nan
    table[[f"image_orientation_{i}" for i in range(6)]] = np.tile(np.asarray(orientation, float), (len(table), 1))
    return table


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return table.sample(frac=1, random_state=seed)


def along_z(heights) -> list[tuple[float, float, float]]:
    return [(-125.0, -125.0, height) for height in heights]


@given(st.lists(st.integers(-200, 200), min_size=1, max_size=20), st.integers(0, 99))
def test_upright_slices_are_ordered_from_the_feet_to_the_head(heights, seed):
    ordered, _ = order_series(shuffled(header_table(along_z(heights)), seed))
    assert list(ordered["z"]) == sorted(heights)
    assert list(ordered["image_position_2"]) == sorted(heights)


@given(angles, angles, st.permutations(range(8)))
def test_slices_are_ordered_by_the_projection_on_their_normal(pitch, roll, order):
    row = np.array([np.cos(roll), 0, -np.sin(roll)])
    column = np.cross([np.sin(roll) * np.cos(pitch), np.sin(pitch), np.cos(roll) * np.cos(pitch)], row)
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    table = header_table([np.array([-120.0, -130, 40]) + 5 * place * normal for place in order], [*row, *column])
    ordered, _ = order_series(table)
    assert [order[int(name[3:])] for name in ordered["image_id"]] == list(range(8))
    assert np.allclose(np.diff(ordered["z"]), 5)


@pytest.mark.parametrize("upside_down", [0, 1, 2, 3])
def test_below_is_towards_the_feet_whichever_way_the_normals_point(upside_down):
    tables = [
        header_table(along_z([height]), FEET_UP if number < upside_down else UPRIGHT, image_ids=[f"ID_{number}"])
        for number, height in enumerate((10, 0, 5))
    ]
    ordered, problems = order_series(pd.concat(tables))
    assert list(ordered["z"]) == list(ordered["image_position_2"]) == [0, 5, 10]
    assert problems == []


@pytest.mark.parametrize(
    ("axis", "orientations"),
    [(0, [(0, 1, 0, 0, 0, -1), (0, -1, 0, 0, 0, -1)]), (1, [(1, 0, 0, 0, 0, -1), (1, 0, 0, 0, 0, 1)])],
    ids=["sagittal", "coronal"],
)
def test_other_planes_are_ordered_to_the_left_and_to_the_back(axis, orientations):
    positions = np.zeros((3, 3))
    positions[:, axis] = 4, 0, 2
    for orientation in orientations:
        ordered, problems = order_series(header_table(positions, orientation))
        assert list(ordered["z"]) == list(ordered[f"image_position_{axis}"]) == [0, 2, 4]
        assert problems == []


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(0, 99))
def test_slices_at_one_position_keep_one_order(heights, seed):
    table = header_table(along_z(heights))
    pd.testing.assert_frame_equal(order_series(shuffled(table, seed))[0], order_series(table)[0])


def test_a_slice_without_a_position_is_the_last_of_its_series():
    positions = along_z([5, 0, 10])
    positions[1] = (np.nan,) * 3
    ordered, problems = order_series(header_table(positions))
    assert list(ordered["image_id"]) == ["ID_000", "ID_002", "ID_001"]
    assert np.isnan(ordered["z"].iloc[-1])
    assert problems == [Problem.NO_POSITION]


@given(st.lists(st.integers(-500, 500), min_size=1, max_size=12, unique=True))
def test_gaps_lead_from_slice_to_slice(tenths):
    ordered, _ = order_series(header_table(along_z([tenth / 10 for tenth in tenths])))
    assert np.allclose(ordered["z"].to_numpy()[:-1] + ordered["gap_above"].to_numpy()[:-1], ordered["z"].to_numpy()[1:])
    assert np.array_equal(ordered["gap_below"].to_numpy()[1:], ordered["gap_above"].to_numpy()[:-1])
    assert np.isnan(ordered["gap_below"].iloc[0])
    assert np.isnan(ordered["gap_above"].iloc[-1])


@given(angles)
def test_the_tilt_is_the_angle_of_the_gantry(angle):
    table = header_table(along_z([0, 5]), (1, 0, 0, 0, np.cos(angle), np.sin(angle)))
    assert np.allclose(order_series(table)[0]["tilt"], np.degrees(abs(angle)), atol=0.02)


def tilted(degrees: float) -> tuple[float, ...]:
    return (1, 0, 0, 0, float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees))))


def test_the_normal_of_most_slices_orders_a_series_of_two_tilts():
    minority = header_table(along_z([0, 5]), tilted(20), image_ids=["ID_a", "ID_b"])
    majority = header_table(along_z([10, 15, 20]), image_ids=["ID_c", "ID_d", "ID_e"])
    ordered, problems = order_series(pd.concat([minority, majority]))
    assert list(ordered["z"]) == [0, 5, 10, 15, 20]
    assert list(ordered["tilt"]) == [20, 20, 0, 0, 0]
    assert problems == [Problem.MIXED_ORIENTATION]


def test_what_is_even_is_not_reported():
    assert order_series(header_table(along_z([0, 5, 10, 15.4]), tilted(12)))[1] == []


def test_shared_positions_and_uneven_gaps_are_reported():
    assert order_series(header_table(along_z([0, 5, 5, 10])))[1] == [Problem.DUPLICATE_POSITIONS]
    assert order_series(header_table(along_z([0, 5, 10, 18])))[1] == [Problem.UNEVEN_SPACING]


def test_instance_numbers_order_slices_at_one_position():
    table = header_table(along_z([0, 0, 0])).assign(instance_number=[3.0, 1.0, 2.0])
    assert list(order_series(table)[0]["image_id"]) == ["ID_001", "ID_002", "ID_000"]


def test_without_positions_slice_location_is_z_and_else_instance_number_the_order():
    nowhere = header_table([(np.nan,) * 3] * 3).assign(instance_number=[3.0, 1.0, 2.0])
    located, problems = order_series(nowhere.assign(slice_location=[10.0, 20.0, 15.0]))
    assert (list(located["z"]), problems) == ([10, 15, 20], [Problem.BY_LOCATION])
    numbered, problems = order_series(nowhere)
    assert (list(numbered["instance_number"]), problems) == ([1, 2, 3], [Problem.BY_NUMBER])
    assert numbered["z"].isna().all()
    named, problems = order_series(nowhere.assign(instance_number=np.nan))
    assert (list(named["image_id"]), problems) == (["ID_000", "ID_001", "ID_002"], [Problem.BY_NAME])


@pytest.mark.parametrize(
    "orientation", [(np.nan,) * 6, (0,) * 6, (1, 0, 0, 1, 0, 0)], ids=["none", "zeros", "parallel"]
)
def test_without_an_orientation_positions_are_ordered_along_the_body(orientation):
    ordered, problems = order_series(header_table(along_z([5, 0]), orientation))
    assert list(ordered["z"]) == [0, 5]
    assert ordered["tilt"].isna().all()
    assert problems == [Problem.NO_ORIENTATION]


def test_a_slice_without_an_orientation_is_ordered_as_the_others_of_its_series():
    table = header_table([(0, -5 * place, 10 * place) for place in range(4)], tilted(30))
    table.loc[2, [f"image_orientation_{i}" for i in range(6)]] = np.nan
    ordered, problems = order_series(shuffled(table, 0))
    assert np.allclose(np.diff(ordered["z"]), 10 * np.cos(np.radians(30)) + 5 * np.sin(np.radians(30)), atol=2e-3)
    assert problems == [Problem.NO_ORIENTATION]


def test_slices_at_one_position_are_ordered_by_slice_location():
    table = header_table(along_z([0, 0, 0]))
    ordered, problems = order_series(table.assign(slice_location=[10.0, 20.0, 15.0]))
    assert (list(ordered["z"]), problems) == ([10, 15, 20], [Problem.ONE_POSITION])
    for told in ([7.0, 7.0, 7.0], [10.0, np.nan, 15.0]):
        ordered, problems = order_series(table.assign(slice_location=told))
        assert (list(ordered["z"]), problems) == ([0, 0, 0], [Problem.DUPLICATE_POSITIONS])


LOST = [3, 5, 6]  # in the middle of a series of seven, and at its end


def with_lost_positions(lost=LOST) -> pd.DataFrame:
    table = header_table(along_z([0, 5, 10, 15, 20, 25, 30]))
    table.loc[lost, "image_position_1"] = np.nan  # one coordinate will do
    return table


@pytest.mark.parametrize("way", [1, -1])  # some tables count from the head
@pytest.mark.parametrize(
    ("column", "key", "problem"),
    [
        ("slice_location", np.arange(7) * 5.0 + 100, Problem.SOME_BY_LOCATION),
        ("instance_number", np.arange(7.0), Problem.SOME_BY_NUMBER),
    ],
)
def test_slices_without_a_position_are_placed_among_the_others(column, key, problem, way):
    ordered, problems = order_series(shuffled(with_lost_positions().assign(**{column: way * key}), 1))
    assert list(ordered["image_id"]) == [f"ID_{number:03d}" for number in range(7)]
    assert list(ordered["z"]) == [0, 5, 10, 15, 20, 25, 30]
    assert problems == [problem]


def test_slice_location_comes_before_instance_number_and_reaches_from_a_single_position():
    table = with_lost_positions([0, 1, 2, 4, 5, 6]).assign(instance_number=np.arange(7.0))
    ordered, problems = order_series(table.assign(slice_location=np.arange(7) * 5.0 + 100))
    assert (list(ordered["z"]), problems) == ([0, 5, 10, 15, 20, 25, 30], [Problem.SOME_BY_LOCATION])
    assert order_series(table)[1] == [Problem.NO_POSITION]


@pytest.mark.parametrize(
    "number",
    [[0, 2, 1, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, np.nan], [0, 1, 1, 3, 4, 5, 6]],
    ids=["another order", "one lacks", "one twice"],
)
def test_numbers_that_do_not_run_with_the_positions_place_nothing(number):
    ordered, problems = order_series(with_lost_positions().assign(instance_number=number))
    assert list(ordered["z"])[:4] == [0, 5, 10, 20]
    assert set(ordered["image_id"][4:]) == {f"ID_{lost:03d}" for lost in LOST}
    assert problems[0] == Problem.NO_POSITION


def test_the_real_sample_is_ordered_as_its_table_moved(real_sample):
    rows = pd.DataFrame([item.row for path in real_sample.glob("stage_2_*/*.dcm") for item in read_file(path)])
    assert len(rows) == 302
    found = {}
    for name, series in rows.groupby("series_id"):
        ordered, found[name] = order_series(series)
        assert ordered["image_position_2"].is_monotonic_increasing
    assert {name: problems for name, problems in found.items() if problems} == {
        "ID_16e0773a58": [Problem.UNEVEN_SPACING],
        "ID_72952d87fa": [Problem.DUPLICATE_POSITIONS],
    }


@pytest.fixture(scope="module")
def real_headers(real_labels) -> pd.DataFrame:
    """Positions and orientations of 2,214 real series."""
    headers = pd.read_csv(real_labels / "labels_plus_metadata_stage1test_78545.csv.gz")
    vectors = {
        name: np.array(headers[tag].str.findall(r"-?[\d.]+").tolist(), float)
        for name, tag in (("position", "ImagePositionPatient"), ("orientation", "ImageOrientationPatient"))
    }
    table = header_table(
        vectors["position"], UPRIGHT, headers["SeriesInstanceUID"].to_numpy(), list(headers["SOPInstanceUID"])
    )
    table[[f"image_orientation_{i}" for i in range(6)]] = vectors["orientation"]
    return table


def test_real_series_are_ordered_as_their_table_moved(real_headers):
    """The table moves upwards between the slices of one tilt; three series mix two."""
    reported = Counter()
    for _, series in real_headers.groupby("series_id"):
        ordered, problems = order_series(series)
        reported.update(problems)
        assert len(ordered) == len(series)
        if Problem.MIXED_ORIENTATION not in problems:
            assert ordered["image_position_2"].diff().min() >= -2e-3
    assert reported[Problem.MIXED_ORIENTATION] == 3
    exact = ["series_id", *(f"image_position_{i}" for i in range(3))]
    repeating = real_headers.loc[real_headers.duplicated(exact), "series_id"].nunique()  # 25; rounding finds a few more
    assert 20 < repeating <= reported[Problem.DUPLICATE_POSITIONS] < 2 * repeating
    assert reported[Problem.NO_POSITION] == reported[Problem.BY_NAME] == 0
