"""Laws of reading a slice: Hounsfield units of every pixel family, one repair, and a reason for what is no slice."""

import socket
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from models.preprocessing.dicom import peek, read_file, read_slices, read_stored
from models.preprocessing.elements import Reason, UnreadableSliceError, unvalidated
from models.preprocessing.hounsfield import AIR, HOUNSFIELD_RANGE, to_hounsfield

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


def read_slice(path: Path) -> np.ndarray:
    (hounsfield,) = read_slices(path)
    return hounsfield


def read_row(path: Path) -> dict:
    return next(read_file(path)).row


def reason(path: Path, function=read_slices) -> Reason:
    with pytest.raises(UnreadableSliceError) as caught:
        function(path)
    return caught.value.reason


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
    path = write_dicom(tmp_path / "ID_0a1b2c.dcm", (hounsfield % 4096).astype(np.uint16), 12, intercept)
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
    row = read_row(path)
    assert (row["rows"], row["columns"]) == (4, 16)


def test_a_header_row_holds_what_stands_in_the_header(write_dicom, tmp_path):
    position = [-125, -141.986969, 134.079391]
    orientation = [1, 0, 0, 0, 0.970296, -0.241922]
    elements = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PatientID": " ID_p "}
    row = read_row(write_dicom(tmp_path / "ID_a.dcm", small_slice(), **elements))
    assert [row[name] for name in ("image_id", "series_id", "study_id", "patient_id")] == [
        "ID_a",
        "ID_5e71e5",
        "ID_57d0a1",
        "ID_p",
    ]
    assert [row[f"image_position_{i}"] for i in range(3)] == position
    assert [row[f"image_orientation_{i}"] for i in range(6)] == orientation
    assert [row[f"pixel_spacing_{i}"] for i in range(2)] == [0.5, 0.5]
    assert (row["bits_stored"], row["pixel_representation"]) == (16, 1)
    assert (row["rescale_intercept"], row["rescale_slope"]) == (-1024, 1)


def test_of_two_windows_the_first_counts(write_dicom, tmp_path):
    elements = {"WindowCenter": ["00036", "00040"], "WindowWidth": ["00080", "00150"]}
    row = read_row(write_dicom(tmp_path / "a.dcm", small_slice(), **elements))
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
    whole = read_row(write_dicom(tmp_path / "a.dcm", small_slice()))
    row = read_row(write_dicom(tmp_path / "a.dcm", small_slice(), **{tag: value}))
    assert list(row) == list(whole)
    assert all(np.isnan(row[column]) for column in columns)
    kept = [name for name in whole if not name.startswith(columns[0].removesuffix("_0"))]
    assert [row[name] for name in kept] == [whole[name] for name in kept]


def test_nothing_that_names_a_patient_is_in_a_header_row(write_dicom, tmp_path):
    row = read_row(write_dicom(tmp_path / "ID_a.dcm", small_slice(), **CANARIES))
    assert not any(text in str(row) for text in CANARY_TEXTS)
    assert list(row) == list(read_row(write_dicom(tmp_path / "ID_a.dcm", small_slice())))


@pytest.mark.parametrize("content", [b"", b"no DICOM here\n" * 50, b"\0" * 128], ids=["empty", "text", "zeros"])
@pytest.mark.parametrize("function", [peek, read_slices])
def test_what_is_no_dicom_file_says_so(tmp_path, content, function):
    (tmp_path / "a.dcm").write_bytes(content)
    assert reason(tmp_path / "a.dcm", function) is Reason.NOT_DICOM


@pytest.mark.parametrize("function", [peek, read_slices])
def test_what_is_no_file_has_a_reason(tmp_path, function):
    (tmp_path / "broken.dcm").symlink_to(tmp_path / "absent.dcm")
    (tmp_path / "circle.dcm").symlink_to(tmp_path / "circle.dcm")
    (tmp_path / "folder.dcm").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.dcm"))
        for name in ("broken", "circle", "folder", "socket"):
            assert reason(tmp_path / f"{name}.dcm", function) is Reason.NOT_OPENED


@pytest.mark.parametrize("function", [peek, read_slices])
def test_a_file_that_has_vanished_is_no_property_of_the_data(tmp_path, function):
    with pytest.raises(FileNotFoundError):
        function(tmp_path / "absent.dcm")


RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "Rows": 4, "Columns": 2}


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PixelData": None}, Reason.NO_PIXELS),
        ({"PixelData": b""}, Reason.NO_PIXELS),
        ({"Rows": None}, Reason.NO_PIXELS),
        ({"Columns": None}, Reason.NO_PIXELS),
        ({"BitsStored": None}, Reason.PIXEL_FORMAT),
        ({"PixelRepresentation": None}, Reason.PIXEL_FORMAT),
        (RGB, Reason.PIXEL_FORMAT),
        ({"Rows": 0}, Reason.UNREASONABLE),
        ({"Rows": 5000}, Reason.UNREASONABLE),
        ({"NumberOfFrames": "100000"}, Reason.UNREASONABLE),
        ({"Rows": 9}, Reason.TRUNCATED),
        ({"NumberOfFrames": "2"}, Reason.TRUNCATED),
        ({"RescaleSlope": "0"}, Reason.RESCALE),
        ({"RescaleSlope": "1e30"}, Reason.RESCALE),
        ({"SOPInstanceUID": None}, Reason.NO_IDENTIFIER),
        ({"SeriesInstanceUID": ""}, Reason.NO_IDENTIFIER),
        ({"Modality": "MR"}, Reason.NOT_CT),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
    ],
    ids=str,
)
def test_what_gives_no_slice_has_its_reason(write_dicom, tmp_path, elements, expected):
    assert reason(write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.int16), **elements)) is expected


@pytest.mark.parametrize("slope", [b"NAN ", b"INF ", b"X1.0"])
def test_a_rescale_that_is_no_number_is_not_taken_for_absent(write_dicom, tmp_path, slope):
    path = write_dicom(tmp_path / "a.dcm", small_slice(), RescaleSlope="1.25")
    path.write_bytes(path.read_bytes().replace(b"1.25", slope))
    assert reason(path) is Reason.RESCALE


def test_pixels_that_are_cut_off_leave_the_header_row(write_dicom, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", small_slice())
    row = read_row(path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UnreadableSliceError) as caught:
        read_slices(path)
    assert caught.value.reason is Reason.TRUNCATED
    pd.testing.assert_frame_equal(pd.DataFrame(caught.value.rows), pd.DataFrame([row | {"reconstruction": ""}]))


def test_the_bits_above_the_stored_ones_mean_nothing(write_dicom, tmp_path):
    stored = small_slice().astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored | 0xF000, bits=12)
    assert np.array_equal(read_stored(path)[0], stored)
    assert np.array_equal(read_stored(path)[0], pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize(
    ("padding", "air"),
    [
        ({"PixelPaddingValue": 1000}, [1000]),
        ({"PixelPaddingValue": 1000, "PixelPaddingRangeLimit": 1007}, range(1000, 1008)),
        ({"PixelPaddingValue": 1007, "PixelPaddingRangeLimit": 1000}, range(1000, 1008)),
    ],
)
def test_a_padding_value_that_the_header_names_is_air(write_dicom, tmp_path, padding, air):
    expected = np.where(np.isin(small_slice(), air), AIR, small_slice() - 1024)
    assert np.array_equal(read_slice(write_dicom(tmp_path / "a.dcm", small_slice(), **padding)), expected)


def test_a_file_that_is_cut_off_anywhere_has_a_reason(write_dicom, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", small_slice(), **CANARIES)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert isinstance(reason(path), Reason)


def test_a_peek_tells_the_identifiers_however_long_the_header(write_dicom, tmp_path):
    others = ["ID_5e71e5", "ID_57d0a1", "ID_9a71e7"]
    assert peek(write_dicom(tmp_path / "a.dcm", small_slice())) == (["a", *others], ExplicitVRLittleEndian)
    long = write_dicom(tmp_path / "b.dcm", small_slice(), ImageComments="x" * 9000, SpecificCharacterSet="ISO_IR 100")
    assert peek(long) == (["b", *others], ExplicitVRLittleEndian)


def test_the_identifiers_of_the_challenge_are_read_without_a_warning(write_dicom, tmp_path, recwarn):
    before = pydicom.config.settings.reading_validation_mode
    read_slice(write_dicom(tmp_path / "ID_a.dcm", small_slice()))
    assert not [warning for warning in recwarn if "Invalid value" in str(warning.message)]
    assert pydicom.config.settings.reading_validation_mode == before != pydicom.config.IGNORE


def test_validation_comes_back_when_the_last_of_several_threads_has_read():
    def mode() -> int:
        return pydicom.config.settings.reading_validation_mode

    before, first, second = mode(), ExitStack(), ExitStack()
    first.enter_context(unvalidated)
    second.enter_context(unvalidated)
    first.close()
    assert mode() == pydicom.config.IGNORE
    second.close()
    assert mode() == before != pydicom.config.IGNORE


# ---- without a preamble ----


def headless(path: Path, how: str) -> Path:
    """The same file as old software writes it: without preamble, and without file meta information or with it."""
    dataset = pydicom.dcmread(path)
    if how == "meta information":
        path.write_bytes(path.read_bytes()[132:])
        return path
    implicit = how == "implicit"
    pydicom.dcmwrite(path, Dataset(dataset), implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"
    return path


@pytest.mark.parametrize("how", ["meta information", "explicit", "implicit"])
@pytest.mark.parametrize("first", ["ImageType", "SOPClassUID"])
def test_a_file_without_preamble_is_read(tmp_path, write_dicom, how, first):
    more = {first: ["ORIGINAL", "PRIMARY"] if first == "ImageType" else CTImageStorage, "Modality": "CT"}
    path = write_dicom(tmp_path / "a.dcm", small_slice(), **more)
    expected, told = read_slices(path), peek(path)[0]
    assert peek(headless(path, how))[0] == told
    np.testing.assert_array_equal(read_slices(path), expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0",
        bytes(500),
        b"\x08\0\x05\0" * 100,
        b"\x02\0\x00\0UL\xff\xff" + bytes(400),
        b"\x08\0\x08\0CS\x04\0ABCD" + b"\x09\0\x08\0CS\x04\0ABCD" * 40,  # the second element is of another group
        b"\x08\0\x18\0UI\x04\0ABCD" + b"\x08\0\x08\0CS\x04\0ABCD" * 40,  # comes before the first
        b"\x08\0\x08\0\0\0\0\x10" + bytes(400),
        b"MZ\x90\0" + bytes(400),
        "a text, \N{GREEK SMALL LETTER ALPHA}".encode() * 100,
    ],
)
def test_what_does_not_begin_like_a_data_set_is_no_dicom_file(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    assert reason(path) is reason(path, peek) is Reason.NOT_DICOM
