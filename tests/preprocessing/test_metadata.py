"""Laws of the header table: anatomical order, one row an image, and a line for what is left out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.preprocessing.metadata import PROBLEM_COLUMNS, collect_headers, order_slices, problem

IMAGE = np.zeros((4, 4), np.int16)
UPRIGHT = (1, 0, 0, 0, 1, 0)
FEET_UP = (1, 0, 0, 0, -1, 0)  # the normal points to the feet
angles = st.floats(-0.6, 0.6)


def header_table(positions, orientation=UPRIGHT, series_id="ID_series", image_ids=None) -> pd.DataFrame:
    """The columns that order_slices needs, a row a position (slices, 3)."""
    names = image_ids or [f"ID_{number:03d}" for number in range(len(positions))]
    table = pd.DataFrame({"image_id": names, "series_id": series_id})
    table[[f"image_position_{i}" for i in range(3)]] = np.asarray(positions, float)
    table[[f"image_orientation_{i}" for i in range(6)]] = np.tile(np.asarray(orientation, float), (len(table), 1))
    return table


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return table.sample(frac=1, random_state=seed)


def along_z(heights) -> list[tuple[float, float, float]]:
    return [(-125.0, -125.0, height) for height in heights]


@given(st.lists(st.integers(-200, 200), min_size=1, max_size=20), st.integers(0, 99))
def test_upright_slices_are_ordered_from_the_feet_to_the_head(heights, seed):
    ordered = order_slices(shuffled(header_table(along_z(heights)), seed))
    assert list(ordered["z"]) == sorted(heights)
    assert list(ordered["image_position_2"]) == sorted(heights)


@given(angles, angles, st.permutations(range(8)))
def test_slices_are_ordered_by_the_projection_on_their_normal(pitch, roll, order):
    row = np.array([np.cos(roll), 0, -np.sin(roll)])
    column = np.cross([np.sin(roll) * np.cos(pitch), np.sin(pitch), np.cos(roll) * np.cos(pitch)], row)
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    table = header_table([np.array([-120.0, -130, 40]) + 5 * place * normal for place in order], [*row, *column])
    ordered = order_slices(table)
    assert [order[int(name[3:])] for name in ordered["image_id"]] == list(range(8))
    assert np.allclose(np.diff(ordered["z"]), 5)


def test_a_mirrored_series_is_ordered_along_its_own_normal():
    ordered = order_slices(header_table(along_z([0, 5, 10]), FEET_UP))
    assert list(ordered["image_position_2"]) == [10, 5, 0]
    assert list(ordered["z"]) == [-10, -5, 0]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(0, 99))
def test_slices_at_one_position_keep_one_order(heights, seed):
    table = header_table(along_z(heights))
    pd.testing.assert_frame_equal(order_slices(shuffled(table, seed)), order_slices(table))


def test_series_do_not_mix():
    tables = [header_table(along_z([10, 0, 5]), series_id=name) for name in ("ID_b", "ID_a", "ID_c")]
    ordered = order_slices(shuffled(pd.concat(tables), seed=1))
    assert list(ordered["series_id"]) == ["ID_a"] * 3 + ["ID_b"] * 3 + ["ID_c"] * 3
    assert list(ordered["z"]) == [0, 5, 10] * 3


def test_a_slice_without_a_position_is_the_last_of_its_series():
    positions = along_z([5, 0, 10])
    positions[1] = (np.nan,) * 3
    ordered = order_slices(header_table(positions))
    assert list(ordered["image_id"]) == ["ID_000", "ID_002", "ID_001"]
    assert np.isnan(ordered["z"].iloc[-1])


def test_the_real_sample_is_ordered_as_its_table_moved(real_sample):
    headers, problems = collect_headers(sorted(real_sample.glob("stage_2_*/*.dcm")), jobs=1, title="real")
    ordered = order_slices(headers)
    assert problems == []
    assert len(ordered) == 302
    for _, series in ordered.groupby("series_id"):
        assert series["image_position_2"].is_monotonic_increasing


def test_real_series_of_one_tilt_are_ordered_as_their_table_moved(real_labels):
    headers = pd.read_csv(real_labels / "labels_plus_metadata_stage1test_78545.csv.gz")
    vectors = {
        name: np.array(headers[tag].str.findall(r"-?[\d.]+").tolist(), float)
        for name, tag in (("position", "ImagePositionPatient"), ("orientation", "ImageOrientationPatient"))
    }
    table = header_table(
        vectors["position"], UPRIGHT, headers["SeriesInstanceUID"].to_numpy(), list(headers["SOPInstanceUID"])
    )
    orientation = [f"image_orientation_{i}" for i in range(6)]
    table[orientation] = vectors["orientation"]
    tilts = table.groupby("series_id")[orientation].nunique().max(axis=1)
    ordered = order_slices(table[table["series_id"].map(tilts) == 1])
    rises = ordered.groupby("series_id")["image_position_2"].diff().dropna()
    assert len(rises) > 70_000
    assert (rises >= -1e-6).all()


def test_a_row_a_file_with_its_path_and_identifiers(write_dicom, tmp_path):
    files = [write_dicom(tmp_path / f"ID_{name}.dcm", IMAGE) for name in "cab"]
    table, problems = collect_headers(files, jobs=1, title="test")
    assert list(table["image_id"]) == ["ID_c", "ID_a", "ID_b"]
    assert list(table["path"]) == files
    assert problems == []


def test_the_table_does_not_depend_on_the_number_of_processes(write_dicom, tmp_path):
    files = [write_dicom(tmp_path / f"ID_{name}.dcm", IMAGE) for name in "abcdef"]
    (tmp_path / "ID_d.dcm").write_bytes(b"damaged")
    one, two = (collect_headers(files, jobs, "test") for jobs in (1, 2))
    pd.testing.assert_frame_equal(one[0], two[0])
    assert one[1] == two[1]


def test_of_two_files_with_one_image_id_the_first_is_kept(write_dicom, tmp_path):
    files = [write_dicom(tmp_path / f"ID_{name}.dcm", IMAGE, SOPInstanceUID="ID_same") for name in "ab"]
    table, problems = collect_headers(files, jobs=1, title="test")
    assert list(table["path"]) == files[:1]
    assert problems == [problem("ID_b.dcm", "SOPInstanceUID of another file", "left out")]


@pytest.mark.parametrize("tag", ["SOPInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("name", ["../x", "..", "/tmp/x", "a/b", "a\\b", "", None, ".hidden", "a b", "a\nb"])
def test_an_id_that_is_no_plain_name_is_left_out(write_dicom, tmp_path, tag, name):
    files = [write_dicom(tmp_path / "ID_a.dcm", IMAGE), write_dicom(tmp_path / "ID_b.dcm", IMAGE, **{tag: name})]
    table, problems = collect_headers(files, jobs=1, title="test")
    assert list(table["image_id"]) == ["ID_a"]
    assert [line["item"] for line in problems] == ["ID_b.dcm"]
    assert "plain name" in problems[0]["problem"]


def test_a_file_that_is_no_dicom_is_a_problem_and_the_others_are_read(write_dicom, tmp_path):
    (tmp_path / "ID_a.dcm").write_text("no DICOM")
    files = [tmp_path / "ID_a.dcm", write_dicom(tmp_path / "ID_b.dcm", IMAGE)]
    table, problems = collect_headers(files, jobs=1, title="test")
    assert list(table["image_id"]) == ["ID_b"]
    assert [list(line) for line in problems] == [PROBLEM_COLUMNS]
    assert problems[0]["problem"] == "not a DICOM file"


@pytest.mark.parametrize("content", [[], [b"no DICOM"]], ids=["no file", "no readable file"])
def test_no_readable_file_at_all_is_an_input_error(tmp_path, content):
    for number, text in enumerate(content):
        (tmp_path / f"ID_{number}.dcm").write_bytes(text)
    with pytest.raises(InputError, match="DICOM"):
        collect_headers(sorted(tmp_path.iterdir()), jobs=1, title="train: headers")
