"""Laws of a prepared series: what fastai says of the same files, each slice in its place, whatever else is wrong."""

import json
import math

import numpy as np
import pandas as pd
import pydicom
import pytest

from models.common.folders import Work
from models.preprocessing import dicom
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.grouping import group_by_series, peek_batch
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.problems import NOT_USED, Problem
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder, find_raw
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


def prepare_tree(folder, work=None, sizes=()) -> list[SeriesNotes]:
    """The series of a folder of files, in the order of their identifiers."""
    raw = RawFolder(folder, None, None, folder, None, None)
    pseudonyms = Pseudonyms(b"", challenge=True)
    tasks, _ = group_by_series(peek_batch(raw.files("test")), raw, Work(work or folder), sizes, pseudonyms)
    return [prepare_series(task) for task in tasks]


def test_columns_and_statistics_agree_with_fastai_on_the_real_sample(real_sample):
    import fastai.medical.imaging

    raw = find_raw(real_sample)
    files = raw.files("train") + raw.files("test")
    theirs = pd.DataFrame.from_dicoms(files, px_summ=True, window=fastai.medical.imaging.dicom_windows.brain)
    theirs = theirs.set_index("SOPInstanceUID")
    tasks, problems = group_by_series(peek_batch(files), raw, Work(raw.root), (), Pseudonyms(b"", challenge=True))
    assert problems == []
    ours = pd.concat([prepare_series(task).table for task in tasks]).set_index("image_id").loc[theirs.index]
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
        write_dicom(tmp_path / "raw" / f"ID_{number}.dcm", IMAGE + number, ImagePositionPatient=position)
    (first,) = prepare_tree(tmp_path / "raw", tmp_path, (4, 8))
    assert list(first.table["image_id"]) == ["ID_1", "ID_0", "ID_2"]
    stores = sorted(tmp_path.glob("cache/slices_*/*.b2nd"))
    assert [path.parent.name for path in stores] == ["slices_4", "slices_8"]
    assert np.array_equal(Series(stores[1]).read(0), IMAGE + 1 - 1024)
    for path in (tmp_path / "raw").iterdir():  # of the same size and beginning, but not to be read again
        path.write_bytes(path.read_bytes())
    (again,) = prepare_tree(tmp_path / "raw", tmp_path, (8,))
    pd.testing.assert_frame_equal(again.table, first.table)


def test_notes_are_kept_as_in_the_stores_that_are_there_already():
    kept = {
        "source": "5f1c0e6a9d3b2847",
        "slices": {"image_id": ["ID_a", "ID_b"], "z": [-12.5, math.nan], "chunk": [0, UNREADABLE]},
        "problems": [["ID_b", "pixels are cut off", "left out"]],
    }
    notes = SeriesNotes.from_json(json.loads(json.dumps(kept)))
    assert list(notes.table["chunk"]) == [0, UNREADABLE]
    assert notes.problems == [("ID_b", "pixels are cut off", "left out")]
    assert json.dumps(notes.to_json()) == json.dumps(kept)


def test_of_two_files_with_one_image_the_first_is_kept(write_dicom, tmp_path):
    for name, values in (("a", IMAGE), ("b", IMAGE + 9)):
        write_dicom(tmp_path / "raw" / f"{name}.dcm", values, SOPInstanceUID="ID_same")
    (series,) = prepare_tree(tmp_path / "raw", tmp_path, (8,))
    assert list(series.table["chunk"]) == [0]
    assert (("ID_same", *Problem.REPEATED_IMAGE.value)) in series.problems
    (store,) = tmp_path.glob("cache/slices_8/*.b2nd")
    assert len(Series(store)) == 1
    assert np.array_equal(Series(store).read(0), IMAGE - 1024)


def test_a_damaged_copy_of_a_slice_is_left_out(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", IMAGE, SOPInstanceUID="ID_same")
    copy = write_dicom(tmp_path / "b.dcm", IMAGE, SOPInstanceUID="ID_same")
    copy.write_bytes(copy.read_bytes()[:-2])
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["chunk"]) == [0]
    assert [problem[1:] for problem in series.problems] == [(Reason.TRUNCATED.value, NOT_USED)]


def test_a_file_that_fails_half_way_keeps_the_frames_before(write_dicom, tmp_path, monkeypatch):
    def stored_frames(*_):
        yield IMAGE
        raise UnreadableSliceError(Reason.DECODING)

    monkeypatch.setattr(dicom, "stored_frames", stored_frames)
    write_dicom(tmp_path / "ID_0.dcm", IMAGE, NumberOfFrames="2")
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["image_id"]) == ["ID_0_0001", "ID_0_0002"]
    assert list(series.table["chunk"]) == [0, UNREADABLE]
    assert Problem.REPEATED_IMAGE.value[0] not in {problem for _, problem, _ in series.problems}


def test_a_slice_of_one_value_is_not_said_to_be_padding(write_dicom, tmp_path):
    write_dicom(tmp_path / "ID_0.dcm", np.full_like(IMAGE, -2000))
    (series,) = prepare_tree(tmp_path)
    assert series.problems == [("ID_0", *Problem.CONSTANT.value)]


def test_a_slice_without_a_usable_header_keeps_a_row_in_its_series(write_dicom, tmp_path):
    for number in range(3):
        write_dicom(tmp_path / f"ID_{number}.dcm", IMAGE, ImagePositionPatient=["0", "0", str(number)])
    write_dicom(tmp_path / "ID_3.dcm", IMAGE, Rows=60_000)
    (series,) = prepare_tree(tmp_path)
    row = series.table.iloc[-1]
    assert (row["image_id"], row["chunk"], row["patient_id"]) == (
        "ID_3",
        UNREADABLE,
        series.table["patient_id"].iloc[0],
    )
    assert any(reason == Reason.UNREASONABLE.value for _, reason, _ in series.problems)


@pytest.mark.parametrize("elements", [{"Modality": "SR"}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}])
def test_what_never_was_a_slice_is_due_no_row(write_dicom, tmp_path, elements):
    write_dicom(tmp_path / "ID_0.dcm", IMAGE)
    write_dicom(tmp_path / "ID_1.dcm", IMAGE, **elements)
    (series,) = prepare_tree(tmp_path)
    assert list(series.table["image_id"]) == ["ID_0"]
    assert [treatment for _, _, treatment in series.problems] == ["left out"]


def test_patients_without_a_name_are_told_apart_by_their_studies(write_dicom, tmp_path):
    write_dicom(tmp_path / "a.dcm", IMAGE, PatientID="", SeriesInstanceUID="ID_1", StudyInstanceUID="ID_a")
    write_dicom(tmp_path / "b.dcm", IMAGE, PatientID="", SeriesInstanceUID="ID_2", StudyInstanceUID="ID_b")
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
