"""Laws of reading a slice: Hounsfield units of every pixel family, one repair, and a reason for what is no slice."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from models.preprocessing.dicom import (
    HOUNSFIELD_RANGE,
    UnreadableSliceError,
    read_header,
    read_slice,
    read_stored,
    to_hounsfield,
)

AIR = HOUNSFIELD_RANGE[0]
CANARIES = {
    "PatientName": "CANARY^NAME",
    "PatientBirthDate": "19010203",
    "StudyDate": "19040506",
    "InstitutionName": "CANARY HOSPITAL",
    "ReferringPhysicianName": "CANARY^DOCTOR",
    "AccessionNumber": "CANARYNUMBER",
    "StudyDescription": "CANARY STUDY",
    "PatientComments": "CANARY COMMENT",
}
CANARY_TEXTS = ("CANARY", "19010203", "19040506")

# bits stored, type, intercept, lowest and highest Hounsfield units that the family can hold
FAMILIES = {
    "12/unsigned/-1024": (12, np.uint16, "-1024", -1024, 3071),
    "12/unsigned/-1000": (12, np.uint16, "-1000", -1000, 3095),
    "16/signed/-1024": (16, np.int16, "-1024", -3024, 26_452),
    "16/signed/0": (16, np.int16, "0", -1024, 3071),
    "12/signed/0": (12, np.int16, "0", -1024, 2047),
}
every_family = pytest.mark.parametrize(("bits", "kind", "intercept", "low", "high"), FAMILIES.values(), ids=FAMILIES)


def ramp(low: int, high: int, columns: int = 64) -> np.ndarray:
    """An image (rows, columns) int32 that holds every value from low to high."""
    values = np.arange(low, high + 1)
    return np.resize(values, (-(-len(values) // columns), columns)).astype(np.int32)


def small_slice() -> np.ndarray:
    return np.arange(1000, 1064, dtype=np.int16).reshape(8, 8)


def hounsfield_by_fastai(path: Path) -> np.ndarray:
    import fastai.medical.imaging  # noqa: F401 - gives pydicom's Dataset its scaled_px, in five seconds

    return pydicom.dcmread(path).scaled_px.numpy()


def reason(function, path: Path) -> str:
    with pytest.raises(UnreadableSliceError) as caught:
        function(path)
    return str(caught.value)


@every_family
def test_a_family_gives_the_hounsfield_units_that_were_stored(write_dicom, tmp_path, bits, kind, intercept, low, high):
    hounsfield = ramp(low, high)
    path = write_dicom(tmp_path / "a.dcm", (hounsfield - int(intercept)).astype(kind), bits, intercept)
    assert np.array_equal(to_hounsfield(*read_stored(path)), hounsfield)
    stored = read_slice(path)
    assert stored.dtype == np.int16
    assert np.array_equal(stored, np.clip(hounsfield, *HOUNSFIELD_RANGE))


@every_family
def test_a_family_follows_fastai(write_dicom, tmp_path, bits, kind, intercept, low, high):
    path = write_dicom(tmp_path / "a.dcm", (ramp(low, high) - int(intercept)).astype(kind), bits, intercept)
    assert np.array_equal(to_hounsfield(*read_stored(path)), hounsfield_by_fastai(path))


def test_the_real_slices_follow_fastai(real_sample):
    compared = 0
    for path in sorted(real_sample.glob("stage_2_*/*.dcm")):
        stored, rescale = read_stored(path)
        if not rescale.has_wrapped:
            assert np.array_equal(to_hounsfield(stored, rescale), hounsfield_by_fastai(path)), path
            compared += 1
    assert compared > 250


@pytest.mark.parametrize("intercept", ["0", "1", "-99"])
def test_values_that_have_wrapped_come_back(write_dicom, tmp_path, intercept):
    hounsfield = ramp(-1000, 3095)
    path = write_dicom(tmp_path / "a.dcm", (hounsfield % 4096).astype(np.uint16), 12, intercept)
    assert np.array_equal(to_hounsfield(*read_stored(path)), hounsfield)


def test_padding_becomes_air(write_dicom, tmp_path):
    stored = small_slice()
    stored[0] = -2000
    assert (read_slice(write_dicom(tmp_path / "a.dcm", stored))[0] == AIR).all()


@pytest.mark.parametrize(
    ("elements", "factor", "shift"),
    [({"RescaleSlope": "2"}, 2, -1024), ({"RescaleSlope": None}, 1, -1024), ({"RescaleIntercept": None}, 1, 0)],
)
def test_an_absent_rescale_changes_nothing(write_dicom, tmp_path, elements, factor, shift):
    path = write_dicom(tmp_path / "a.dcm", small_slice(), **elements)
    assert np.array_equal(to_hounsfield(*read_stored(path)), small_slice().astype(float) * factor + shift)


def test_a_slice_need_not_be_square(write_dicom, tmp_path):
    stored = small_slice().reshape(4, 16)
    path = write_dicom(tmp_path / "a.dcm", stored)
    assert np.array_equal(read_slice(path), stored - 1024)
    row = read_header(path)
    assert (row["rows"], row["columns"]) == (4, 16)


def test_a_header_row_holds_what_stands_in_the_header(write_dicom, tmp_path):
    position = [-125, -141.986969, 134.079391]
    orientation = [1, 0, 0, 0, 0.970296, -0.241922]
    elements = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PatientID": " ID_p "}
    row = read_header(write_dicom(tmp_path / "ID_a.dcm", small_slice(), **elements))
    assert [row[name] for name in ("image_id", "series_id", "study_id", "patient_id")] == [
        "ID_a",
        "ID_series",
        "ID_study",
        "ID_p",
    ]
    assert [row[f"image_position_{i}"] for i in range(3)] == position
    assert [row[f"image_orientation_{i}"] for i in range(6)] == orientation
    assert [row[f"pixel_spacing_{i}"] for i in range(2)] == [0.5, 0.5]
    assert (row["bits_stored"], row["pixel_representation"]) == (16, 1)
    assert (row["rescale_intercept"], row["rescale_slope"]) == (-1024, 1)


def test_of_two_windows_the_first_counts(write_dicom, tmp_path):
    elements = {"WindowCenter": ["00036", "00040"], "WindowWidth": ["00080", "00150"]}
    row = read_header(write_dicom(tmp_path / "a.dcm", small_slice(), **elements))
    assert (row["window_center"], row["window_width"]) == (36, 80)


@pytest.mark.parametrize(
    ("tag", "columns"),
    [
        ("ImagePositionPatient", ["image_position_0", "image_position_2"]),
        ("ImageOrientationPatient", ["image_orientation_0", "image_orientation_5"]),
        ("PixelSpacing", ["pixel_spacing_0", "pixel_spacing_1"]),
        ("WindowCenter", ["window_center"]),
        ("WindowWidth", ["window_width"]),
        ("RescaleIntercept", ["rescale_intercept"]),
        ("RescaleSlope", ["rescale_slope"]),
    ],
)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_an_absent_number_is_nan_and_all_others_stay(write_dicom, tmp_path, tag, columns, value):
    whole = read_header(write_dicom(tmp_path / "a.dcm", small_slice()))
    row = read_header(write_dicom(tmp_path / "a.dcm", small_slice(), **{tag: value}))
    assert list(row) == list(whole)
    assert all(np.isnan(row[column]) for column in columns)
    kept = [name for name in whole if not name.startswith(columns[0].removesuffix("_0"))]
    assert [row[name] for name in kept] == [whole[name] for name in kept]


def test_nothing_that_names_a_patient_is_in_a_header_row(write_dicom, tmp_path):
    row = read_header(write_dicom(tmp_path / "ID_a.dcm", small_slice(), **CANARIES))
    assert not any(text in str(row) for text in CANARY_TEXTS)
    assert list(row) == list(read_header(write_dicom(tmp_path / "ID_a.dcm", small_slice())))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", ""), (b"no DICOM here\n" * 50, "not a DICOM file"), (b"\0" * 128, "not a DICOM file")],
    ids=["empty", "text", "zeros"],
)
@pytest.mark.parametrize("function", [read_header, read_slice])
def test_what_is_no_dicom_file_says_so(tmp_path, content, words, function):
    (tmp_path / "a.dcm").write_bytes(content)
    assert words in reason(function, tmp_path / "a.dcm")


def test_a_file_that_is_not_there_has_a_reason(tmp_path):
    assert reason(read_header, tmp_path / "absent.dcm")


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelData": None},
        {"PixelData": b""},
        {"BitsStored": None},
        {"PixelRepresentation": None},
        {"Rows": 0},
        {"Rows": 9},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "Rows": 4, "Columns": 2},
        {"NumberOfFrames": "2", "Rows": 4},
    ],
    ids=", ".join,
)
def test_what_gives_no_grey_scale_slice_has_a_reason_on_one_line(write_dicom, tmp_path, elements):
    stored = np.zeros((8, 8), np.int16)
    message = reason(read_slice, write_dicom(tmp_path / "a.dcm", stored, **elements))
    assert message.strip() == message != ""
    assert "\n" not in message


@pytest.mark.parametrize("tag", ["Rows", "Columns"])
def test_a_header_without_a_size_has_a_reason(write_dicom, tmp_path, tag):
    assert "Rows or Columns" in reason(read_header, write_dicom(tmp_path / "a.dcm", small_slice(), **{tag: None}))


def test_a_file_that_is_cut_off_has_a_reason_that_names_no_patient(write_dicom, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", small_slice(), **CANARIES)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        message = reason(read_slice, path)
        assert "\n" not in message
        assert not any(text in message for text in CANARY_TEXTS)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("function", [read_header, read_slice])
def test_a_damaged_file_gives_a_result_or_a_reason_but_never_another_error(write_dicom, tmp_path, function):
    path = write_dicom(tmp_path / "a.dcm", small_slice(), **CANARIES)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    messages = []
    for position in generator.integers(128, len(whole), size=500):
        damaged = bytearray(whole)
        damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            function(path)
        except UnreadableSliceError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


def test_the_identifiers_of_the_challenge_are_read_without_a_warning(write_dicom, tmp_path, recwarn):
    read_slice(write_dicom(tmp_path / "ID_a.dcm", small_slice()))
    assert not [warning for warning in recwarn if "Invalid value" in str(warning.message)]
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.IGNORE
