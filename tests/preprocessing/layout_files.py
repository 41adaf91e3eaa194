"""A drawn slice -> the bytes of a DICOM file, in any pixel format and transfer syntax, and the values that are due.

What is due is computed from what was drawn, by the rules of DICOM, never by the code under test.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from test_values import OF_CELLS, SYNTAXES, encode, group

AIR, HIGHEST = -1000, 2000  # Hounsfield units, as docs/data.md promises
NATIVE = ("explicit", "implicit", "big endian", "deflated")
OF_FRAMES = ("explicit", "implicit", "RLE", "JPEG 2000")


@dataclass(frozen=True)
class Format:
    """How the values of a series are stored."""

    syntax: str  # of SYNTAXES
    bits: int = 16
    signed: bool = False
    intercept: float = -1024.0
    slope: float = 1.0
    kind: str = "plain"  # padding, overlay, shifted, table, wrapped or bare: no rescale
    beginning: str = "whole"  # no preamble: the group 0002 comes first; no meta: the data set does

    @property
    def low(self) -> int:
        """The lowest value that can be stored."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The highest."""
        return self.low + (1 << self.bits) - 1

    @property
    def padding(self) -> int:
        """The stored value of what is no image."""
        return -2000 if self.signed else self.high - 3


def draw_format(rng: np.random.Generator, syntaxes: tuple[str, ...] = tuple(SYNTAXES)) -> Format:
    """Any format of these transfer syntaxes."""
    syntax = str(rng.choice(syntaxes))
    form = Format(syntax, int(rng.choice([12, 16])), bool(rng.integers(2)), float(rng.choice([-1024, -1000])))
    if form.signed:
        form = replace(form, intercept=float(rng.choice([-1024, 0])))
    kinds = ["plain", "plain", "padding", "half steps"]
    kinds += ["overlay", "wrapped"] if form.bits == 12 else []
    kinds += ["shifted"] if form.bits == 12 and syntax in OF_CELLS else []
    kinds += ["table"] if syntax != "big endian" and not form.signed else []
    kind = str(rng.choice(kinds))
    if kind == "half steps":
        return replace(form, slope=0.5, kind="plain")
    if kind == "wrapped":
        return replace(form, signed=False, intercept=0.0, kind=kind)
    if kind in ("padding", "table"):  # a padding of 12 bits must be no value of the image
        form = replace(form, bits=16 if kind == "padding" else 12)
    beginnings = {"explicit": ["no preamble", "no meta"], "implicit": ["no preamble", "no meta"]}.get(syntax, [])
    beginning = str(rng.choice(beginnings)) if beginnings and rng.random() < 0.3 else "whole"
    return replace(form, kind=kind, beginning=beginning)


def draw_stored(rng: np.random.Generator, form: Format, rows: int, columns: int) -> np.ndarray:
    """Stored values (rows, columns) of a noisy slice, of which a third is air, and a corner what the kind asks for."""
    hounsfield = rng.integers(0, 90, (rows, columns))
    hounsfield[: rows // 3] = rng.integers(-1000, -950, (rows // 3, columns))
    hounsfield[-1, -2:] = rng.integers(900, 1000, 2)
    if form.kind == "bare":
        return hounsfield + 1024
    if form.kind == "wrapped":
        return hounsfield % 4096
    if form.bits == 16 and form.slope == 1:
        hounsfield[-1, 0] = 2500  # metal
    stored = np.clip(np.rint((hounsfield - form.intercept) / form.slope), form.low, form.high).astype(int)
    if form.kind == "padding":
        stored[:2, :2] = form.padding
    return stored


def due_values(stored: np.ndarray, form: Format) -> np.ndarray:
    """Hounsfield units, int16, of stored values."""
    if form.kind == "wrapped":
        values = np.where(stored >= 3096, stored - 4096, stored).astype(float)
    elif form.kind == "table":
        values = stored - 1024.0
    elif form.kind == "bare":
        values = stored.astype(float)
    else:
        values = stored * form.slope + form.intercept
    values = np.rint(np.clip(values, AIR, HIGHEST))
    if form.kind == "padding":
        values[stored == form.padding] = AIR
    return values.astype(np.int16)


def file_of(stored: np.ndarray, form: Format, elements: dict, torn: bool = False) -> bytes:
    """A DICOM file of stored values (rows, columns), or of several frames; an element that is None is left out.

    Where it is `torn` noise stands in place of its compressed pixels.
    """
    data = _pixels(stored, form)
    if torn:
        data.PixelData = encapsulate([np.random.default_rng(0).bytes(200)])
    _rescale(data, form)
    with pydicom.config.disable_value_validation():
        for name, value in elements.items():
            if value is not None:
                setattr(data, name, value)
            elif name in data:
                delattr(data, name)
        if form.kind == "padding":
            data.add_new("PixelPaddingValue", "SS" if form.signed else "US", form.padding)
        return _written(data, form)


def frames_of(stored: np.ndarray, forms: list[Format], elements: dict, of_frames: list[dict]) -> bytes:
    """An enhanced CT file of frames (frames, rows, columns), each with a rescale and elements of its own."""
    groups = []
    for form, own in zip(forms, of_frames, strict=True):
        rescale = group(RescaleIntercept=f"{form.intercept:g}", RescaleSlope=f"{form.slope:g}", RescaleType="HU")
        frame = group(
            PlanePositionSequence=[group(ImagePositionPatient=own["ImagePositionPatient"])],
            PlaneOrientationSequence=[group(ImageOrientationPatient=own["ImageOrientationPatient"])],
            PixelMeasuresSequence=[group(PixelSpacing=own["PixelSpacing"])],
            PixelValueTransformationSequence=[rescale],
        )
        groups.append(frame)
    of_all = {name: None for name in (*of_frames[0], "RescaleIntercept", "RescaleSlope")} | elements
    of_all |= {"PerFrameFunctionalGroupsSequence": groups, "NumberOfFrames": len(groups)}
    return file_of(stored, forms[0], of_all | {"SOPClassUID": EnhancedCTImageStorage})


def _pixels(stored: np.ndarray, form: Format) -> Dataset:
    """A data set of the pixels alone, encoded."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.Rows, data.Columns = stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, form.bits, form.bits - 1
    data.PixelRepresentation, data.NumberOfFrames = int(form.signed), len(stored) if stored.ndim == 3 else 1
    cells = stored.astype("<i4").astype("<u2")
    if form.kind == "overlay":
        drawing = (np.indices(stored.shape).sum(axis=0) % 3 == 0).astype("<u2")
        cells = (cells & 0xFFF) | (drawing << 12)
    if form.kind == "shifted":
        cells, data.BitsStored, data.HighBit = ((cells & 0xFFF) << 2) | 0x1, 16, 15
    data.PixelData = cells.tobytes()
    data["PixelData"].VR = "OW"
    encode(data, SYNTAXES[form.syntax], cells, precise=form.kind not in ("overlay", "shifted"))
    if form.kind == "shifted":
        data.BitsStored, data.HighBit = 12, 13
    if data.NumberOfFrames == 1:
        del data.NumberOfFrames
    return data


def _rescale(data: Dataset, form: Format) -> None:
    if form.kind == "table":
        item = group(LUTDescriptor=[4096, 0, 16], ModalityLUTType="HU")
        item.add_new("LUTData", "OW", (np.arange(4096) - 1024).astype("<i2").tobytes())
        data.ModalityLUTSequence = [item]
    elif form.kind != "bare":
        data.RescaleIntercept, data.RescaleSlope = f"{form.intercept:g}", f"{form.slope:g}"


def _written(data: Dataset, form: Format) -> bytes:
    buffer, syntax = io.BytesIO(), SYNTAXES[form.syntax]
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if form.beginning == "no meta":
        data.file_meta = FileMetaDataset()
        pydicom.dcmwrite(buffer, data, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        return buffer.getvalue()
    pydicom.dcmwrite(buffer, data, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()[132 if form.beginning == "no preamble" else 0 :]
