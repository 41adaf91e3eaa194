"""The law of the short way through a header: what it tells is what pydicom tells, or it tells nothing."""

import io
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from models.preprocessing import dicom
from models.preprocessing.elements import BoundedReader, numbers_of, values_of
from models.preprocessing.parser import parse
from models.preprocessing.plain_header import plain_values
from models.preprocessing.reasons import UnreadableSliceError

IMAGE = np.arange(900, 964, dtype=np.int16).reshape(8, 8)
NUMBERS = ("Rows", "BitsStored", "RescaleIntercept", "WindowCenter", "ImagePositionPatient", "PixelPaddingValue")


def by_pydicom(data: bytes) -> tuple[dict, str]:
    dataset, syntax = parse(BoundedReader(io.BytesIO(data)), dicom._TAGS)
    return values_of(dataset), syntax


def assert_same(found: dict, expected: dict) -> None:
    """The same pixels, texts and numbers; what is absent may be told as empty."""
    assert bytes(found.get("PixelData", b"")) == (expected.get("PixelData") or b"")
    for name in set(found) | set(expected):
        if name in NUMBERS:
            np.testing.assert_equal(numbers_of(found, name, 3), numbers_of(expected, name, 3))
        elif name != "PixelData" and not isinstance(expected.get(name), Exception):
            ours, theirs = (value if isinstance(value, list) else [value] for value in map(of(name), (found, expected)))
            assert [str(part or "") for part in ours] == [str(part or "") for part in theirs], name


def of(name: str):
    return lambda header: header.get(name)


@pytest.fixture
def plain(write_dicom, tmp_path) -> Path:
    more = {"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ConvolutionKernel": "H31s"}
    return write_dicom(
        tmp_path / "a.dcm", IMAGE, **more, WindowCenter=["40", "80"], PatientName="Doe^Jane", PixelPaddingValue=-2000
    )


def test_a_plain_file_is_told_as_by_pydicom(plain):
    data = plain.read_bytes()
    found = plain_values(data, dicom._ELEMENTS)
    assert found is not None
    assert_same(found[0], by_pydicom(data)[0])
    assert found[1] == by_pydicom(data)[1] == ExplicitVRLittleEndian
    assert "PatientName" not in found[0]


def test_the_real_sample_goes_the_short_way(real_sample):
    for path in sorted(real_sample.glob("stage_2_*/*.dcm"))[::20]:
        data = path.read_bytes()
        found = plain_values(data, dicom._ELEMENTS)
        assert found is not None
        assert_same(found[0], by_pydicom(data)[0])
        head = plain_values(data[:4096], dicom._NAMES, dicom._SERIES)
        assert head is not None
        assert head[0] == {name: found[0][name] for name in head[0]}
        assert set(head[0]) == set(dicom.IDENTIFIERS.values())


def sequence() -> list[Dataset]:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    return [item]


@pytest.mark.parametrize(
    "elements",
    [
        {"ModalityLUTSequence": sequence()},
        {"Rows": None, "NumberOfFrames": "2", "SharedFunctionalGroupsSequence": sequence()},
    ],
)
def test_what_is_not_plain_is_left_to_pydicom(write_dicom, tmp_path, elements):
    assert plain_values(write_dicom(tmp_path / "a.dcm", IMAGE, **elements).read_bytes(), dicom._ELEMENTS) is None


def test_a_sequence_that_nobody_asks_for_is_stepped_over(write_dicom, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", IMAGE, ReferencedImageSequence=sequence())
    found = plain_values(path.read_bytes(), dicom._ELEMENTS)
    assert found is not None
    assert_same(found[0], by_pydicom(path.read_bytes())[0])


@pytest.mark.parametrize("where", ["meta information", "elements", "pixels"])
def test_what_is_cut_off_is_left_to_pydicom(plain, where):
    data = plain.read_bytes()
    end = {"meta information": 200, "elements": len(data) - IMAGE.nbytes - 30, "pixels": len(data) - 5}[where]
    assert plain_values(data[:end], dicom._ELEMENTS) is None


@pytest.mark.parametrize("seed", range(4))
def test_of_any_damage_it_tells_what_pydicom_tells_or_nothing(plain, seed):
    generator, whole = random.Random(seed), plain.read_bytes()
    told = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2, 5))):
            data[generator.randrange(132, len(data) - IMAGE.nbytes)] = generator.randrange(256)
        found = plain_values(bytes(data), dicom._ELEMENTS)
        if found is not None:
            try:
                expected, syntax = by_pydicom(bytes(data))
            except UnreadableSliceError:
                continue  # for an element that nobody asks for
            told += 1
            assert found[1] == syntax
            assert_same(found[0], expected)
    assert told > 100


def test_a_header_without_end_ends(plain):
    data = plain.read_bytes()
    place = data.index(b"\x08\x00")
    elements = b"".join(
        (group << 16 | 2 * number).to_bytes(4, "little")[2:] + (2 * number).to_bytes(2, "little") + b"LO\0\0"
        for group in range(8, 12)
        for number in range(20_000)
    )
    assert plain_values(data[:place] + elements, dicom._ELEMENTS) is None


def test_implicit_elements_are_told_too_unless_others_tell_their_kind(plain, tmp_path):
    dataset = pydicom.dcmread(plain)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True)
    assert plain_values((tmp_path / "b.dcm").read_bytes(), dicom._ELEMENTS) is None  # PixelPaddingValue
    del dataset.PixelPaddingValue
    dataset.save_as(tmp_path / "c.dcm", implicit_vr=True, little_endian=True)
    data = (tmp_path / "c.dcm").read_bytes()
    found = plain_values(data, dicom._ELEMENTS)
    assert found is not None
    assert found[1] == ImplicitVRLittleEndian
    assert_same(found[0], by_pydicom(data)[0])
