"""Laws of a prepared series: what fastai says of the same files, each slice in its place, whatever else is wrong."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pydicom
import pytest
from reading import prepare_tree, tasks_of

from models.common.folders import Work
from models.preprocessing import dicom
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.hounsfield import AIR, HOUNSFIELD_RANGE
from models.preprocessing.manifest import FORMAT, Known, Mark, Record, known_files, read_record, write_record
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.problems import COPY_IS_READ, Problem
from models.preprocessing.pseudonyms import Names
from models.preprocessing.raw import find_raw
from models.preprocessing.series import prepare_series
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE

IMAGE = np.arange(900, 964, dtype=np.int16).reshape(8, 8)
SAME = {  # our column -> fastai's
    "series_id": "SeriesInstanceUID",
    "study_id": "StudyInstanceUID",
    "patient_id": "PatientID",
    "rows": "Rows",
    "columns": "Columns",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "rescale_intercept": "RescaleIntercept",
    "rescale_slope": "RescaleSlope",
    "window_center": "WindowCenter",
    "window_width": "WindowWidth",
    "image_position_0": "ImagePositionPatient",
    "image_position_1": "ImagePositionPatient1",
    "image_position_2": "ImagePositionPatient2",
    "image_orientation_0": "ImageOrientationPatient",
    "image_orientation_1": "ImageOrientationPatient1",
    "image_orientation_2": "ImageOrientationPatient2",
    "image_orientation_3": "ImageOrientationPatient3",
    "image_orientation_4": "ImageOrientationPatient4",
    "image_orientation_5": "ImageOrientationPatient5",
    "pixel_spacing_0": "PixelSpacing",
    "pixel_spacing_1": "PixelSpacing1",
    "img_min": "img_min",
    "img_max": "img_max",
    "img_mean": "img_mean",
    "img_std": "img_std",
    "img_pct_window": "img_pct_window",
}


def test_columns_and_statistics_agree_with_fastai_on_the_real_sample(real_sample):
    import fastai.medical.imaging

    raw = find_raw(real_sample)
    files = raw.files("train") + raw.files("test")
    theirs = pd.DataFrame.from_dicoms(files, px_summ=True, window=fastai.medical.imaging.dicom_windows.brain)
    theirs = theirs.set_index("SOPInstanceUID")
    parts = [part for task in tasks_of(raw, files, raw.root) for part in prepare_series(task)]
    ours = pd.concat([part.table for part in parts]).set_index("image_id").loc[theirs.index]
    assert len(ours) == 302
    for name, other in SAME.items():
        if name.endswith("_id"):
            assert list(ours[name]) == list(theirs[other]), name
        else:
            assert np.allclose(ours[name].astype(float), theirs[other].astype(float), rtol=1e-12), name
    statistics = {name for name in theirs if name.startswith("img_")}
    assert statistics == {name for name in ours if name.startswith("img_")}


def test_a_store_is_written_at_every_size_and_read_instead_of_the_files_then(write_dicom, tmp_path):
    for number, height in enumerate("102"):
        position = ["0", "0", height]
        write_dicom(tmp_path / "raw" / f"ID_00000{number}.dcm", IMAGE + number, ImagePositionPatient=position)
    (first,) = prepare_tree(tmp_path / "raw", tmp_path, (4, 8))
    assert list(first.table["image_id"]) == ["ID_000001", "ID_000000", "ID_000002"]
    stores = sorted(tmp_path.glob("cache/slices_*/*.slices"))
    assert [path.parent.name for path in stores] == ["slices_4", "slices_8"]
    assert np.array_equal(Series(stores[1]).read(0), IMAGE + 1 - 1024)
    for path in (tmp_path / "raw").iterdir():  # of the same size and beginning, but not to be read again
        path.write_bytes(path.read_bytes())
    (again,) = prepare_tree(tmp_path / "raw", tmp_path, (8,))
    pd.testing.assert_frame_equal(again.table, first.table)


@pytest.mark.parametrize("padding", [None, 3, 63536])
@pytest.mark.parametrize("highest", [4000, 32767, 32768, 65535])
def test_values_of_16_bits_without_sign_are_taken_as_they_are(write_dicom, tmp_path, highest, padding):
    stored = np.append(np.arange(63), highest).astype(np.uint16).reshape(8, 8)
    path = tmp_path / "raw" / "ID_000001.dcm"
    write_dicom(path, stored, 16, "-1010", PixelPaddingValue=padding)
    (part,) = prepare_tree(tmp_path / "raw", tmp_path, (8,))
    expected = np.clip(stored.astype(int) - 1010, *HOUNSFIELD_RANGE)
    expected[stored == padding] = AIR
    (store,) = tmp_path.glob("cache/slices_8/*.slices")
    np.testing.assert_array_equal(Series(store).read(0), expected)
    row = part.table.iloc[0]
    assert (row["img_min"], row["img_max"]) == (0, highest)
    np.testing.assert_allclose((row["img_mean"], row["img_std"]), (stored.mean(), stored.std()), rtol=1e-9)


def test_a_record_is_kept_as_it_was_written(tmp_path):
    names, z, chunk = np.array(["ID_a", "ID_b"]), np.array([-12.5, math.nan]), np.array([0, UNREADABLE])
    columns = {"image_id": names, "z": z, "chunk": chunk}
    part = SeriesNotes("ID_s", "ID_w", columns, [("ID_b", "pixels are cut off", "left out")], {"unit": "HU"})
    mark = Mark(524_288, 1_700_000_000_123_456_789, 4_294_967_295, "1.2.840.10008.1.2", "ID_a")
    record = Record("ID_s", Names("ID_a", "ID_s", "ID_t", "ID_p"), {"a.dcm": mark}, [8], {"one": "1"}, ["ID_b"], [part])
    write_record(Work(tmp_path), record)
    path = Work(tmp_path).manifest / "ID_s.json"
    read = read_record(path)
    assert replace(read, parts=[]) == replace(record, parts=[])
    pd.testing.assert_frame_equal(read.parts[0].table, part.table)
    assert replace(read.parts[0], columns={}) == replace(part, columns={})
    assert known_files(path) == [("a.dcm", Known(mark, record.names, "ID_s"))]


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace("ID_a", "ID_c"), lambda _: ""])
def test_a_damaged_record_is_none(tmp_path, damage):
    record = Record("ID_s", Names("ID_a", "ID_s", "ID_t", "ID_p"), {}, [8], {}, [], [])
    write_record(Work(tmp_path), record)
    path = Work(tmp_path).manifest / "ID_s.json"
    path.write_text(damage(path.read_text()))
    assert read_record(path) is None


def test_a_record_of_another_format_is_none(tmp_path):
    record = Record("ID_s", Names("ID_a", "ID_s", "ID_t", "ID_p"), {}, [8], {}, [], [], format=FORMAT - 1)
    write_record(Work(tmp_path), record)
    assert read_record(Work(tmp_path).manifest / "ID_s.json") is None


def test_of_two_files_with_one_image_the_first_is_kept(write_dicom, tmp_path):
    for name, values in (("a", IMAGE), ("b", IMAGE + 9)):
        write_dicom(tmp_path / "raw" / f"{name}.dcm", values, SOPInstanceUID="ID_5a3e00")
    (series,) = prepare_tree(tmp_path / "raw", tmp_path, (8,))
    assert list(series.table["chunk"]) == [0]
    assert [problem[1:] for problem in series.problems] == [Problem.REPEATED_IMAGE.value]
    (store,) = tmp_path.glob("cache/slices_8/*.slices")
    assert len(Series(store)) == 1
    assert np.array_equal(Series(store).read(0), IMAGE - 1024)


def test_a_damaged_copy_of_a_slice_is_left_out(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", IMAGE, SOPInstanceUID="ID_5a3e00")
    copy = write_dicom(tmp_path / "b.dcm", IMAGE, SOPInstanceUID="ID_5a3e00")
    copy.write_bytes(copy.read_bytes()[:-2])
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["chunk"]) == [0]
    assert [problem[1:] for problem in series.problems] == [(Reason.TRUNCATED.value, COPY_IS_READ)]


def test_a_file_that_fails_half_way_keeps_the_frames_before(write_dicom, tmp_path, monkeypatch):
    def stored_frames(*_):
        yield IMAGE
        raise UnreadableSliceError(Reason.DECODING)

    monkeypatch.setattr(dicom, "stored_frames", stored_frames)
    write_dicom(tmp_path / "ID_000000.dcm", IMAGE, NumberOfFrames="2")
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["image_id"]) == ["ID_000000_0001", "ID_000000_0002"]
    assert list(series.table["chunk"]) == [0, UNREADABLE]
    assert Problem.REPEATED_IMAGE.value[0] not in {problem for _, problem, _ in series.problems}


def test_a_slice_of_one_value_is_not_said_to_be_padding(write_dicom, tmp_path):
    write_dicom(tmp_path / "ID_000000.dcm", np.full_like(IMAGE, -2000))
    (series,) = prepare_tree(tmp_path)
    assert series.problems == [("ID_000000", *Problem.CONSTANT.value)]


def test_a_slice_without_a_usable_header_keeps_a_row_in_its_series(write_dicom, tmp_path):
    for number in range(3):
        write_dicom(tmp_path / f"ID_00000{number}.dcm", IMAGE, ImagePositionPatient=["0", "0", str(number)])
    write_dicom(tmp_path / "ID_000003.dcm", IMAGE, Rows=60_000)
    (series,) = prepare_tree(tmp_path)
    row = series.table.iloc[-1]
    assert (row["image_id"], row["chunk"], row["patient_id"]) == (
        "ID_000003",
        UNREADABLE,
        series.table["patient_id"].iloc[0],
    )
    assert any(reason == Reason.UNREASONABLE.value for _, reason, _ in series.problems)


@pytest.mark.parametrize("elements", [{"Modality": "SR"}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}])
def test_what_never_was_a_slice_is_due_no_row(write_dicom, tmp_path, elements):
    write_dicom(tmp_path / "ID_000000.dcm", IMAGE)
    write_dicom(tmp_path / "ID_000001.dcm", IMAGE, **elements)
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["image_id"]) == ["ID_000000"]
    assert [treatment for _, _, treatment in series.problems] == ["left out"]


def test_patients_without_a_name_are_told_apart_by_their_studies(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", IMAGE, PatientID="", SeriesInstanceUID="ID_000001", StudyInstanceUID="ID_00000a")
    write_dicom(tmp_path / "b.dcm", IMAGE, PatientID="", SeriesInstanceUID="ID_000002", StudyInstanceUID="ID_00000b")
    one, two = prepare_tree(tmp_path)
    assert one.table["patient_id"].iloc[0] != two.table["patient_id"].iloc[0]


def test_a_files_element_that_repeats_is_no_reason_to_warn(write_dicom, tmp_path, recwarn):
    path = write_dicom(tmp_path / "a.dcm", IMAGE)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData * 2  # as if of two frames: pydicom warns
    dataset.save_as(path)
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["chunk"]) == [0]
    assert not recwarn.list
