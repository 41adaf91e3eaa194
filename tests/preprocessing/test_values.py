"""One law for values, whichever way the bytes came: pydicom's own pipeline on the plain file is the oracle."""

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from models.phantom.jpeg import encode_jpeg_lossless
from models.preprocessing import jpeg_plugin
from models.preprocessing.dicom import read_file, read_slices, read_stored
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.hounsfield import AIR, HOUNSFIELD_RANGE, to_hounsfield

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "lossless JPEG": JPEGLosslessSV1,
}
OF_CELLS = ("explicit", "implicit", "big endian", "deflated", "RLE")  # whose bytes are pixel cells, unused bits and all
every_syntax = pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
every_sign = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
RESCALES = {"-1024 and 1": ("-1024", "1"), "half steps": ("-500.5", "0.5"), "a table": None}
PADDED = slice(0, 3)  # rows
IMAGE_ID = "1.2.3"


def values(bits: int, signed: bool) -> np.ndarray:
    """A noisy image (48, 48) of the whole range, the ends among it, whose first rows are padding."""
    low = -(1 << (bits - 1)) if signed else 0
    image = np.random.default_rng(bits).integers(low, low + (1 << bits), (48, 48))
    image[-1, :2] = low, low + (1 << bits) - 1
    image[PADDED] = padding(bits, signed)
    return image


def padding(bits: int, signed: bool) -> int:
    return -2000 if signed else (1 << bits) - 7


def draw(path: Path, image: np.ndarray, bits: int, signed: bool, overlay=None, syntax=ExplicitVRLittleEndian, **more):
    """Write an image with so many stored bits; an overlay stands in the bit above them. Returns the path."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, IMAGE_ID, "1.2.4"
    data.Modality, data.SamplesPerPixel, data.PhotometricInterpretation = "CT", 1, "MONOCHROME2"
    data.Rows, data.Columns = image.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, int(signed)
    data.RescaleIntercept, data.RescaleSlope = "-1024", "1"
    cells = image.astype("<i2").view("<u2")
    if overlay is not None:
        cells = (cells & ((1 << bits) - 1)) | (overlay.astype("<u2") << bits)
    data.PixelData = cells.tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    encode(data, syntax, cells, precise=overlay is None)
    for name, value in more.items():
        setattr(data, name, value)
    path.parent.mkdir(exist_ok=True)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(path, data, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


def encode(data: Dataset, syntax: str, cells: np.ndarray, precise: bool) -> None:
    """Write the pixel cells of a data set in another transfer syntax; if not precise, with all of their 16 bits."""
    told = data.BitsStored, data.PixelRepresentation
    if not precise:
        data.BitsStored, data.PixelRepresentation = 16, 0
    if syntax == JPEGLosslessSV1:
        data.PixelData = encapsulate([encode_jpeg_lossless(cells & ((1 << data.BitsStored) - 1), data.BitsStored)])
        data["PixelData"].VR = "OB"
    elif syntax.is_encapsulated and syntax != DeflatedExplicitVRLittleEndian:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        data.PixelData = cells.astype(">u2").tobytes()
    data.BitsStored, data.PixelRepresentation = told
    data.file_meta.TransferSyntaxUID = syntax


def rescaled(rescale: tuple[str, str] | None, signed: bool) -> dict:
    """The elements of a rescale: slope and intercept, or a table of Hounsfield units for the 256 lowest values."""
    if rescale is not None:
        return dict(zip(("RescaleIntercept", "RescaleSlope"), rescale, strict=True))
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [256, -100 if signed else 20, 16])
    item.add_new("LUTData", "US", [int(value) for value in np.linspace(0, 1500, 256)])
    item.ModalityLUTType = "HU"
    return {"ModalityLUTSequence": [item]}


def by_pydicom(path: Path) -> np.ndarray:
    """Hounsfield units as pydicom makes them, and air where the header says that there is no image."""
    data = pydicom.dcmread(path)
    stored = data.pixel_array.astype(np.int32)  # the table of pydicom overflows in 16 bits
    hounsfield = np.rint(np.clip(apply_modality_lut(stored, data), *HOUNSFIELD_RANGE))
    if "PixelPaddingValue" in data:
        hounsfield[stored == data.PixelPaddingValue] = AIR
    return hounsfield


@every_syntax
@every_sign
@pytest.mark.parametrize("bits", [12, 16])
def test_values_follow_pydicom_whichever_way_the_bytes_came(tmp_path, syntax, signed, bits):
    if syntax == JPEGLosslessSV1:
        jpeg_plugin.register()  # pydicom itself knows GPL-3 packages alone
    image = values(bits, signed)
    drawing = np.random.default_rng(0).integers(0, 2, image.shape) if bits < 16 else None
    tag = {
        "PixelPaddingValue": pydicom.DataElement("PixelPaddingValue", "SS" if signed else "US", padding(bits, signed))
    }
    for told, overlay, rescale in itertools.product(({}, tag), (None, drawing), RESCALES.values()):
        elements = {name: element.value for name, element in told.items()} | rescaled(rescale, signed)
        plain = draw(tmp_path / "plain.dcm", image, bits, signed, overlay, **elements)
        expected = by_pydicom(plain)
        (found,) = read_slices(draw(tmp_path / "other.dcm", image, bits, signed, overlay, syntax, **elements))
        np.testing.assert_array_equal(found, expected)
        if told:
            assert (found[PADDED] == AIR).all()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_pixels_that_are_cut_off_are_told_so_whichever_way_they_came(tmp_path, syntax):
    path = draw(tmp_path / "a.dcm", values(16, False), 16, False, syntax=syntax)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UnreadableSliceError, match=Reason.TRUNCATED.value):
        read_slices(path)


@pytest.mark.parametrize("syntax", [SYNTAXES[name] for name in OF_CELLS], ids=OF_CELLS)
@every_sign
@pytest.mark.parametrize("high", [11, 13, 15])
def test_values_may_stand_anywhere_in_their_cells(tmp_path, syntax, signed, high):
    image = values(12, signed)
    shifted = (((image & 0xFFF) << (high - 11)) | (0x7 & ((1 << (high - 11)) - 1))).astype("<u2").view("<i2")
    path = draw(tmp_path / "a.dcm", shifted, 16, False, syntax=syntax, BitsStored=12, HighBit=high, **sign(signed))
    assert np.array_equal(read_stored(path)[0], image)


@every_sign
@pytest.mark.parametrize("high", [3, 16, 99])
def test_a_high_bit_that_cannot_be_is_none(tmp_path, signed, high):
    path = draw(tmp_path / "a.dcm", values(12, signed), 12, signed, HighBit=high)
    assert np.array_equal(read_stored(path)[0], values(12, signed))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=["JPEG-LS", "JPEG 2000"])
@every_sign
def test_a_codestream_holds_the_values_themselves(tmp_path, syntax, signed):
    path = draw(tmp_path / "a.dcm", values(12, signed), 12, signed, syntax=syntax, HighBit=15)
    assert np.array_equal(read_stored(path)[0], values(12, signed))


def sign(signed: bool) -> dict:
    return {"PixelRepresentation": int(signed)}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize(
    ("signed", "value", "limit"),
    [(True, 65000, None), (False, 65000, None), (False, 64900, 65000), (True, 64900, 65000)],
)
def test_padding_is_of_the_sign_of_the_pixels_however_it_is_written(tmp_path, syntax, signed, value, limit):
    stored = np.full((8, 8), 40)
    stored[0], stored[1] = 65000, limit - 3 if limit else 40  # -536 where signed: not air of itself
    path = draw(tmp_path / "a.dcm", stored.astype("<u2").view("<i2"), 16, signed, RescaleIntercept="0")
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(path)
        data.add_new("PixelPaddingValue", "US", value)
        if limit:
            data.add_new("PixelPaddingRangeLimit", "US", limit)
        implicit = syntax == ImplicitVRLittleEndian
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, data, implicit_vr=implicit, little_endian=True)
    (found,) = read_slices(path)
    assert (found[: 2 if limit else 1] == AIR).all()
    assert (found[2:] == 40).all()


def test_every_frame_has_a_rescale_of_its_own(tmp_path):
    image = np.stack([values(12, False)[3:]] * 3)
    groups = [group(PixelValueTransformationSequence=[group(RescaleIntercept=i, RescaleSlope=s)]) for i, s in FRAMES]
    path = draw(tmp_path / "a.dcm", image, 12, False, NumberOfFrames=3, SOPClassUID=EnhancedCTImageStorage)
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(path)
        del data.RescaleIntercept, data.RescaleSlope
        data.PerFrameFunctionalGroupsSequence = groups
        data.save_as(path)
    for found, (intercept, slope) in zip(read_slices(path), FRAMES, strict=True):
        expected = np.clip(np.rint(image[0] * float(slope) + float(intercept)), *HOUNSFIELD_RANGE)
        np.testing.assert_array_equal(found, expected)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"-500", b"-5x0"))
    with pytest.raises(UnreadableSliceError, match=Reason.RESCALE.value):
        read_slices(path)


FRAMES = (("-1024", "1"), ("-500", "0.5"), ("0", "2"))


def group(**elements) -> Dataset:
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_table_in_words_may_hold_negative_hounsfield_units(tmp_path, syntax):
    item = group(LUTDescriptor=[4096, 0, 16], ModalityLUTType="HU")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    item.add_new("LUTData", "OW", (np.arange(4096) - 1024).astype(f"{order}i2").tobytes())
    image = values(12, False)
    path = draw(tmp_path / "a.dcm", image, 12, False, syntax=syntax, ModalityLUTSequence=[item])
    np.testing.assert_array_equal(to_hounsfield(*read_stored(path)), image - 1024)


@pytest.mark.parametrize(
    "elements",
    [{"LUTDescriptor": [256, 0, 16]}, {"LUTDescriptor": [256, 0]}, {"LUTData": None}, {"LUTDescriptor": None}],
    ids=str,
)
def test_a_table_that_cannot_be_used_has_its_reason(tmp_path, elements):
    item = Dataset()
    for name, value in ({"LUTDescriptor": [4, 0, 16], "LUTData": [1, 2, 3, 4]} | elements).items():
        if value is not None:
            item.add_new(name, "US", value)
    with pytest.raises(UnreadableSliceError, match=Reason.RESCALE.value):
        read_slices(draw(tmp_path / "a.dcm", values(12, False), 12, False, ModalityLUTSequence=[item]))


# ---- a second group 0002 ----


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize("second", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_of_two_groups_0002_the_first_describes_the_file(tmp_path, syntax, second, implicit):
    path = draw(tmp_path / "a.dcm", values(12, True), 12, True, syntax=syntax)
    content = path.read_bytes()
    again = FileMetaDataset()
    again.TransferSyntaxUID, again.MediaStorageSOPClassUID = second, CTImageStorage
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    pydicom.filewriter.write_dataset(buffer, Dataset(dict(again)), parent_encoding="ascii")
    end = 132 + 12 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[:end] + buffer.getvalue() + content[end:])
    assert np.array_equal(read_stored(path)[0], values(12, True))


# ---- values that have wrapped ----


def head(air: int) -> np.ndarray:
    """A slice in which air stands in half of the image at one value, and tissue in the other."""
    image = np.random.default_rng(0).integers(0, 80, (32, 32))
    image[:16] = air + image[:16] % 9
    return image


@pytest.mark.parametrize(
    ("image", "elements", "repaired"),
    [
        (head(3096), {"RescaleIntercept": "0"}, True),
        (head(0), {"RescaleIntercept": "0"}, False),
        (head(2096), {"RescaleIntercept": "0"}, False),
        (head(3096), {"RescaleIntercept": "0", "SOPInstanceUID": "1.2.9"}, True),
        (head(0), {"RescaleIntercept": "0", "SOPInstanceUID": "ID_0a1b2c3d4"}, True),
    ],
    ids=["air has wrapped", "air is 0", "padding alone", "another name", "of the challenge"],
)
def test_somebodys_own_values_are_repaired_where_they_show_it_alone(tmp_path, image, elements, repaired):
    with pydicom.config.disable_value_validation():
        path = draw(tmp_path / "a.dcm", image, 12, False, **elements)
    assert next(read_file(path)).rescale.has_wrapped is repaired
    if not repaired:
        assert np.array_equal(to_hounsfield(*read_stored(path)), image)


@pytest.mark.parametrize("name", [IMAGE_ID, "ID_0a1b2c3d4"])
def test_values_without_a_rescale_are_never_repaired(tmp_path, name):
    with pydicom.config.disable_value_validation():
        path = draw(tmp_path / "a.dcm", head(3096), 12, False, SOPInstanceUID=name, RescaleIntercept=None)
    assert not next(read_file(path)).rescale.has_wrapped
    assert np.array_equal(to_hounsfield(*read_stored(path)), head(3096))
