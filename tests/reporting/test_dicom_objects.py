"""Laws of what is written beside a study: whatever its header holds, there is an object, or it is said why not."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pydicom
import pytest
from head_ct import data_of

from models.common.labels import ANY, LABELS
from models.inference.answer import Answer, row_of, to_json
from models.inference.judging import Check
from models.inference.operating import Point, Range
from models.preprocessing.dicom import read_slices
from models.preprocessing.grouping import Look
from models.reporting import answers, dicom_objects
from models.reporting.answer_page import sentence
from models.reporting.dicom_sources import Sources, find_sources
from models.reporting.key_slices import KeySlice

KEYS = [KeySlice(0, np.zeros((64, 64), np.int16), None)]


@pytest.fixture
def answer() -> Answer:
    """Of one slice, by a network that nobody has trained."""
    slices = pd.DataFrame({"image_id": ["ID_a"], "z": [0.0], "chunk": [0], "series_id": ["s"]})
    probability = np.full((1, len(LABELS)), 0.3)
    made = Answer(
        study="study",
        patient="patient",
        content="content",
        verdict="answered",
        checks=[Check("head", "passed", "")],
        notes=[],
        series=pd.DataFrame(),
        slices=slices,
        image_size=64,
        probability=probability,
        study_probability=probability[0],
        any_range=(0.1, 0.5),
    )
    made.folds.append(SimpleNamespace(name="b0/fold0", weights={"b0/fold0": "aa"}))
    return made


@pytest.fixture
def partly_read(answer) -> Answer:
    """Of three slices, of which the lowest cannot be read and has what its neighbour has."""
    slices = pd.DataFrame({"image_id": [*"abc"], "z": [0.0, 5.0, 10.0], "chunk": [-1, 0, 1], "series_id": "s"})
    return replace(answer, slices=slices, probability=np.array([0.9, 0.9, 0.2])[:, None].repeat(len(LABELS), axis=1))


def file_of(heads, folder: Path, **header) -> dict[str, Look]:
    """The first slice of a head, with some values of its header changed."""
    dataset = data_of(heads[0], 0)
    for name, value in header.items():
        setattr(dataset, name, value)
    dataset.save_as(folder / "a.dcm", enforce_file_format=True)
    return {"ID_a": Look(folder / "a.dcm", "a", "1", 1, 1, syntax=dataset.file_meta.TransferSyntaxUID)}


@pytest.mark.filterwarnings("ignore")  # of pydicom, about the values
@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("PatientSex", "F", "F"),
        ("PatientSex", "f", "F"),
        ("PatientSex", "U", ""),
        ("PatientBirthDate", "1960", ""),
        ("StudyDate", "2020-01-01", ""),
        ("StudyTime", "10:10:10", ""),
        ("StudyTime", "2510", ""),
        ("StudyTime", "101010.5", "101010.5"),
    ],
)
def test_what_is_no_value_of_its_kind_is_left_out(name, value, kept, heads, answer, tmp_path):
    objects = dicom_objects.make_objects(
        answer, KEYS, find_sources(answer.slices, file_of(heads, tmp_path, **{name: value}))
    )
    assert sorted(objects) == ["key_001.dcm", "report.dcm"]
    for content in objects.values():
        assert str(pydicom.dcmread(io.BytesIO(content))[name].value or "") == kept


def test_dates_and_times_of_the_patient_are_not_those_of_the_study(heads, answer, tmp_path):
    """They are dated as the study is; hours of a birth and the time points of a trial are none of their own."""
    of_patient = {
        "PatientBirthDate": "19600102",
        "PatientBirthTime": "031500",
        "PatientBirthDateInAlternativeCalendar": "1338-10-12",
        "LastMenstrualDate": "20231220",
        "ClinicalTrialTimePointID": "week 2",
        "ClinicalTrialTimePointDescription": "Two weeks later",
    }
    files = file_of(heads, tmp_path, **of_patient)
    objects = dicom_objects.make_objects(answer, KEYS, find_sources(answer.slices, files))
    report, picture = (pydicom.dcmread(io.BytesIO(objects[name])) for name in ("report.dcm", "key_001.dcm"))
    assert {name: report[name].value for name in of_patient} == of_patient
    for made in (report, picture):
        assert (made.StudyDate, made.StudyTime, made.ContentDate, made.ContentTime) == ("20240102", "101112") * 2


@pytest.mark.parametrize(
    ("sets", "person"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Παπαδόπουλος^Νίκος"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
    ids=["Latin", "Greek", "Japanese", "Korean"],
)
def test_names_stay_as_they_are_written(sets, person, heads, answer, tmp_path):
    files = file_of(heads, tmp_path, SpecificCharacterSet=sets, PatientName=person)
    for content in dicom_objects.make_objects(answer, KEYS, find_sources(answer.slices, files)).values():
        assert pydicom.dcmread(io.BytesIO(content)).PatientName == person


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ([1, 0, 0, 0, 0.97, -0.24], ["L", "P"]),  # as all that can be turned are, here of a tilted gantry
        ([0, 1, 0, -1, 0, 0], ["P", "R"]),  # a study of the challenge that lies on its side, and stays so
        ([-1, 0, 0, 0, -1, 0], ["R", "A"]),
        ([1, 0, 0, 0, 0, -1], ["L", "F"]),
        ([np.nan] * 6, None),
    ],
)
def test_a_picture_tells_left_and_back_where_they_are_and_nothing_where_nobody_knows(
    axes, told, heads, answer, tmp_path
):
    slices = answer.slices.assign(**{f"image_orientation_{i}": float(value) for i, value in enumerate(axes)})
    objects = dicom_objects.make_objects(
        replace(answer, slices=slices), KEYS, find_sources(slices, file_of(heads, tmp_path))
    )
    picture = pydicom.dcmread(io.BytesIO(objects["key_001.dcm"]))
    assert (list(picture.PatientOrientation) if picture.PatientOrientation else None) == told


def test_a_slice_that_cannot_be_read_is_never_the_most_suspicious_one(partly_read, monkeypatch):
    row = row_of(to_json(partly_read, "python models/predict.py PATH"), "folder")
    assert (partly_read.highest(), row["slice"]) == (1, 2)
    assert "The most suspicious slice is 2 of 3;" in sentence(partly_read)
    shown = []
    monkeypatch.setattr(dicom_objects, "_of_study", lambda *arguments: shown.append(arguments[3]))
    monkeypatch.setattr(dicom_objects.sr, "MeasurementReport", lambda **_: None)
    dicom_objects._content(partly_read, [], Sources({name: name for name in "abc"}), "identity")
    assert shown == ["b"] * len(LABELS)


@pytest.mark.parametrize(
    ("points", "value", "meaning"),
    [
        ({"sensitivity": 0.1, "specificity": 0.6}, 0.05, "Absent"),
        ({"sensitivity": 0.1, "specificity": 0.6}, 0.1, "Indeterminate"),
        ({"sensitivity": 0.1, "specificity": 0.6}, 0.6, "Present"),
        ({"sensitivity": 0.6, "specificity": 0.1}, 0.3, "Absent"),  # of an able network
        ({"sensitivity": 0.6, "specificity": 0.1}, 0.6, "Present"),
        ({"sensitivity": 0.1}, 0.05, "Absent"),
        ({"sensitivity": 0.1}, 0.99, "Indeterminate"),
        ({"specificity": 0.6}, 0.05, "Indeterminate"),
        ({"specificity": 0.6}, 0.6, "Present"),
        ({}, 0.99, "Indeterminate"),
    ],
)
def test_hemorrhage_is_present_where_an_alarm_is_specific_and_absent_where_none_is_missed(
    points, value, meaning, answer
):
    share = Range(0.95, 0.8, 1.0)
    told = {name: Point(threshold, share, share, 20, 20) for name, threshold in points.items()}
    said = replace(answer, points=told, study_probability=np.array([0.01, 0.01, 0.01, 0.01, 0.5, value]))
    kinds = [dicom_objects._presence(said, column).meaning for column in range(len(LABELS))]
    assert kinds[ANY] == kinds[LABELS.index("subdural")] == meaning
    assert kinds[0] == ("Absent" if meaning == "Absent" else "Indeterminate")  # it is less probable than a half


def test_of_what_no_object_can_be_made_it_is_said_and_the_other_studies_are_answered(
    heads, answer, tmp_path, monkeypatch, capsys
):
    def refuse(*_: object) -> None:
        raise ValueError("what highdicom says")

    monkeypatch.setattr(dicom_objects, "_report", refuse)
    answers._write_dicom(answer, KEYS, file_of(heads, tmp_path), tmp_path)
    assert (
        "study: no DICOM is written, for its header does not allow it (what highdicom says)" in capsys.readouterr().out
    )


@pytest.mark.parametrize("representation", ["FD", "QQ"], ids=["of a length that cannot be", "of no known kind"])
def test_of_a_header_with_a_damaged_element_that_no_slice_needs_it_is_said(
    representation, heads, answer, tmp_path, capsys
):
    files = file_of(heads, tmp_path, SpecificCharacterSet="ISO_IR 100", ProtocolName="ABCDEF")
    path, tag = files["ID_a"].path, b"\x18\x00\x30\x10"
    path.write_bytes(path.read_bytes().replace(tag + b"LO", tag + representation.encode()))
    assert len(read_slices(path)) == 1
    answers._write_dicom(answer, KEYS, files, tmp_path)
    assert "study: no DICOM is written, for the header of a file cannot be read" in capsys.readouterr().out
