"""A NIfTI file -> what its header says, within bounds, and its bytes, inflated if need be. Nothing is trusted."""

import gzip
import io
import logging
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from isal.igzip import IGzipFile
from isal.igzip_lib import IsalError
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from models.preprocessing.archives import File
from models.preprocessing.dicom import MAX_FRAMES, MAX_SIDE
from models.preprocessing.elements import (
    MAX_BYTES,
    MAX_FILE,
    MAX_HEADER,
    PARSER_ERRORS,
    BoundedReader,
    LargeReader,
    open_bounded,
)
from models.preprocessing.hounsfield import Rescale
from models.preprocessing.reasons import Reason, UnreadableSliceError
from models.preprocessing.volume_grid import Grid, make_grid

MOST_PACKED = 32  # times; CT in 64 bits an element gets some fifteen times smaller
_MORE = 1 << 20  # bytes that may stand behind the last element
_BLOCK = 1 << 20  # bytes that are inflated at once where they are only checked
_GZIP = b"\x1f\x8b"
_KINDS = {348: Nifti1Header, 540: Nifti2Header}  # by the number that a header begins with, its bytes
# Codes of real numbers. Others are colours, complex numbers, bits, or of 128 bits, which machines differ in.
_DATATYPES = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
_ERRORS = (HeaderDataError, WrapStructError, *PARSER_ERRORS)
_SILENT = logging.Logger("nibabel", logging.CRITICAL + 1)  # for what nibabel mends in a header


class Volume(NamedTuple):
    """What the header of a volume says."""

    grid: Grid
    dtype: np.dtype  # of the file
    offset: int  # bytes before the first element
    slope: float
    intercept: float

    @property
    def is_as_stored(self) -> bool:
        """Whether values go further as they are: integers of up to 16 bits. Others are made Hounsfield units."""
        return self.dtype.kind in "iu" and self.dtype.itemsize <= 2

    @property
    def rescale(self) -> Rescale:
        """What turns the values that go further into Hounsfield units."""
        if not self.is_as_stored:
            return Rescale(32, 1, 0.0, 1.0, may_wrap=False)
        return Rescale(8 * self.dtype.itemsize, int(self.dtype.kind == "i"), self.intercept, self.slope, may_wrap=False)

    @property
    def end(self) -> int:
        """Bytes up to the end of the last element."""
        return self.offset + math.prod(self.grid.shape) * self.dtype.itemsize


@contextmanager
def open_volume(path: File) -> Generator[BoundedReader]:
    """A file of which as much may be read as its header, which is checked, says. Raises as `open_bounded` does."""
    with open_bounded(path) as file:
        if isinstance(file, LargeReader):
            file.left = 4 * MAX_FILE
        yield file


def is_packed(file: BoundedReader) -> bool:
    """Whether it is packed by gzip, whatever its name says. Leaves the file at its start."""
    file.seek(0)
    return file.peek(2)[:2] == _GZIP


def unpacked(file: BoundedReader) -> io.BufferedIOBase:
    """The bytes from the start on, inflated where they are packed: read them within `inflating`."""
    return IGzipFile(fileobj=file, mode="rb") if is_packed(file) else file


@contextmanager
def inflating(cut_off: Reason, damaged: Reason) -> Generator[None]:
    """A block in which bytes are inflated: what fails there for the file's fault becomes UnreadableSliceError."""
    try:
        yield
    except EOFError as error:
        raise UnreadableSliceError(cut_off) from error
    # pyrefly: ignore[not-a-type]  # isal's types have an error of it, not a class
    except (gzip.BadGzipFile, IsalError) as error:
        raise UnreadableSliceError(damaged) from error


def require_whole(file: BoundedReader, volume: Volume) -> None:
    """Raise UnreadableSliceError for what is packed, and cut off, of another checksum, or far more than it claims."""
    file.verify()
    if not is_packed(file):
        return
    left = volume.end + _MORE
    with inflating(Reason.TRUNCATED, Reason.DECODING):
        stream = unpacked(file)
        while block := stream.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise UnreadableSliceError(Reason.HEADER)


def read_header(file: BoundedReader, name: str) -> Volume:
    """What the header of a file of some name says. Raises UnreadableSliceError for what is no volume of slices."""
    is_half = name.lower().endswith(".hdr")
    with inflating(Reason.HEADER, Reason.HEADER):
        head = unpacked(file).read(max(_KINDS))
    numbers = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    size = next((number for number in numbers if number in _KINDS), 0)
    if size == 0 or len(head) < size:
        raise UnreadableSliceError(Reason.NOT_DICOM if is_half else Reason.HEADER)
    with _parsing():
        header = _KINDS[size](head[:size], check=False)
        if is_half or header["magic"].item() == header.pair_magic:
            raise UnreadableSliceError(Reason.PAIR)
        if int(header["datatype"]) not in _DATATYPES:
            raise UnreadableSliceError(Reason.PIXEL_FORMAT)
        header.check_fix(logger=_SILENT)
        if header["magic"].item() != header.single_magic:
            raise UnreadableSliceError(Reason.HEADER)
        shape = tuple(map(int, header.get_data_shape()))
        offset = max(header.get_data_offset(), header.single_vox_offset)
        dtype, affine, assumed = header.get_data_dtype(), _affine(header), header.get_base_affine()
        slope, intercept = _slope_and_intercept(header)
    volume = Volume(make_grid(_of_slices(shape), affine, assumed), dtype, offset, slope, intercept)
    _require_reasonable(volume, file)
    return volume


@contextmanager
def _parsing() -> Generator[None]:
    try:
        with np.errstate(all="ignore"):
            yield
    except _ERRORS as error:
        raise UnreadableSliceError(Reason.HEADER) from error


def _affine(header: Nifti1Header) -> np.ndarray | None:
    """The affine (4, 4) that nibabel takes, sform before qform; None where neither is told, or it makes no sense."""
    if not (header["sform_code"] or header["qform_code"]):
        return None
    try:
        return np.asarray(header.get_best_affine(), float)
    except _ERRORS:
        return None


def _slope_and_intercept(header: Nifti1Header) -> tuple[float, float]:
    """1 and 0 where none are told."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise UnreadableSliceError(Reason.RESCALE) from error
    slope, intercept = (1.0, 0.0) if slope is None or intercept is None else (slope, intercept)
    if not 1e-6 < abs(slope) < 1e6 or abs(intercept) > 1e6:
        raise UnreadableSliceError(Reason.RESCALE)
    return slope, intercept


def _of_slices(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The three dimensions of a volume. Raises UnreadableSliceError if they are not there, or it is several volumes."""
    if len(shape) < 2 or min(shape) < 1:
        raise UnreadableSliceError(Reason.HEADER)
    if math.prod(shape[3:]) > 1:
        raise UnreadableSliceError(Reason.VOLUMES)
    columns, rows, slices = (*shape, 1)[:3]
    return columns, rows, slices


def _require_reasonable(volume: Volume, file: BoundedReader) -> None:
    """Raise UnreadableSliceError for a volume that claims more than a CT series, or than its file, can hold."""
    shape, axis = volume.grid.shape, volume.grid.axis
    if max(shape[:axis] + shape[axis + 1 :]) > MAX_SIDE or shape[axis] > MAX_FRAMES:
        raise UnreadableSliceError(Reason.UNREASONABLE)
    if volume.offset > MAX_HEADER or volume.end > MAX_FILE:
        raise UnreadableSliceError(Reason.UNREASONABLE)
    if is_packed(file) and volume.end > max(MAX_BYTES, file.size * MOST_PACKED):
        raise UnreadableSliceError(Reason.UNREASONABLE)
    held = math.prod(shape) * (volume.dtype.itemsize if volume.is_as_stored else np.dtype(np.float32).itemsize)
    if not volume.grid.is_in_order and held > MAX_BYTES:
        raise UnreadableSliceError(Reason.UNREASONABLE)
