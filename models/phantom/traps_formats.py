"""Traps in how a series is written to files: in one file, or compressed. See traps.py."""

from collections.abc import Callable, Sequence
from importlib import import_module

import pydicom
import pydicom.config
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from models.common.errors import InputError
from models.phantom.draft import Draft, Items, Slice, edited, image_of
from models.phantom.jpeg import encode_jpeg_lossless


def enhanced(draft: Draft) -> Items:
    """A series in one file with many frames (Enhanced CT, PS3.3 A.38), which do not stand in anatomical order.

    Its images are then named after file and frame, <SOPInstanceUID>_<0001 ...>, also in the tables. The RSNA has none.
    """
    (series,) = draft.take_series()
    frames = [series[index] for index in draft.rng.permutation(len(series))]
    with pydicom.config.disable_value_validation():
        data = _join([pydicom.dcmread(piece.path) for piece in frames])
        for piece in frames:
            piece.path.unlink()
        data.save_as(frames[0].path, enforce_file_format=True)
    _rename_rows(draft, frames)
    yield frames[0].series


def rle(draft: Draft) -> Items:
    """A series in RLE (PS3.5 annex G)."""
    yield _compress(draft, lambda data: data.compress(RLELossless, encoding_plugin="pydicom", **_KEEP_NAME))


def jpeg_ls(draft: Draft) -> Items:
    """A series in lossless JPEG-LS. Raises InputError without its encoder."""
    _require(draft, "jpeg_ls", "pyjpegls")
    yield _compress(draft, lambda data: data.compress(JPEGLSLossless, encoding_plugin="pyjpegls", **_KEEP_NAME))


def jpeg_2000(draft: Draft) -> Items:
    """A series in lossless JPEG 2000. Raises InputError without its encoder."""
    _require(draft, "openjpeg", "pylibjpeg pylibjpeg-openjpeg")
    yield _compress(draft, lambda data: data.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", **_KEEP_NAME))


def jpeg_lossless(draft: Draft) -> Items:
    """A series in lossless JPEG, Process 14 with selection value 1: what many scanners and archives send."""
    yield _compress(draft, _to_jpeg_lossless)


def deflated(draft: Draft) -> Items:
    """A series whose data sets are deflated (PS3.5 A.5)."""
    yield _compress(draft, _deflate)


_KEEP_NAME = {"generate_instance_uid": False}


def _compress(draft: Draft, change: Callable[[Dataset], None]) -> tuple[str, str]:
    (series,) = draft.take_series()
    for piece in series:
        with edited(piece.path) as data:
            change(data)
    return series[0].series


def _require(draft: Draft, module: str, packages: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        raise InputError(f"the trap {draft.trap} needs an encoder; install it with: pip install {packages}") from error


def _to_jpeg_lossless(data: Dataset) -> None:
    values = data.pixel_array.astype("<u2")  # negative values as their two's complement
    data.PixelData = encapsulate([encode_jpeg_lossless(values, data.BitsStored)])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1


def _deflate(data: Dataset) -> None:
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def _join(frames: Sequence[Dataset]) -> Dataset:
    """One Enhanced CT data set from the data sets of its frames (functional groups: PS3.3 C.7.6.16)."""
    places = [_group(ImagePositionPatient=frame.ImagePositionPatient) for frame in frames]
    data = frames[0]
    data.SOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = len(frames)
    data.PixelData = b"".join(frame.PixelData for frame in frames)
    data.PerFrameFunctionalGroupsSequence = [_group(PlanePositionSequence=[place]) for place in places]
    data.SharedFunctionalGroupsSequence = [
        _group(
            PixelMeasuresSequence=[_move(data, "PixelSpacing")],
            PlaneOrientationSequence=[_move(data, "ImageOrientationPatient")],
            PixelValueTransformationSequence=[_move(data, "RescaleIntercept", "RescaleSlope")],
            FrameVOILUTSequence=[_move(data, "WindowCenter", "WindowWidth")],
        )
    ]
    del data.ImagePositionPatient
    data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _move(data: Dataset, *keywords: str) -> Dataset:
    """Take elements out of a data set into one of their own."""
    group = _group(**{keyword: data[keyword].value for keyword in keywords})
    for keyword in keywords:
        delattr(data, keyword)
    return group


def _group(**elements) -> Dataset:
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def _rename_rows(draft: Draft, frames: Sequence[Slice]) -> None:
    file = frames[0].image_id
    names = {piece.image_id: f"{file}_{number:04d}" for number, piece in enumerate(frames, start=1)}

    def rename(rows: list[str]) -> list[str]:
        return [names.get(image := image_of(row), image) + row[len(image) :] for row in rows]

    draft.edit_rows(frames[0].split, rename)
