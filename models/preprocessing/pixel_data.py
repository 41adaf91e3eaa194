"""PixelData -> the stored values of each frame: one law, whichever way the bytes came."""

import math
from collections.abc import Iterator

import numpy as np
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLETransferSyntaxes,
)

from models.preprocessing.decoding import DecodingError, decode_guarded, missing_decoder
from models.preprocessing.elements import number_of, text_of
from models.preprocessing.large_pixels import LargePixels
from models.preprocessing.reasons import Reason, UnreadableSliceError

Pixels = bytes | memoryview | LargePixels
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def stored_frames(header: dict, syntax: UID, frames: int) -> Iterator[np.ndarray]:
    """The stored values of each frame (rows, columns), integers. Raises UnreadableSliceError."""
    pixels = header.get("PixelData")
    if not isinstance(pixels, bytes | memoryview | LargePixels) or not pixels:
        raise UnreadableSliceError(Reason.NO_PIXELS)
    options, lowest_bit = _pixel_options(header, frames)
    bits = options["bits_stored"]
    length = pixels.length if isinstance(pixels, LargePixels) else len(pixels)
    if syntax in _NATIVE and length < frames * _frame_bytes(options):
        raise UnreadableSliceError(Reason.TRUNCATED)
    if syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        for cells in _native_frames(pixels, options):
            yield _of_cells(cells, bits, lowest_bit)
        return
    if syntax in (ExplicitVRBigEndian, *RLETransferSyntaxes):
        options["bits_stored"] = options["bits_allocated"]  # the cells as they are: the law below is for all
    else:
        lowest_bit = 0  # a codestream holds the values themselves (PS3.5 8.2)
    for cells in _decoded_frames(pixels, syntax, options):
        yield _of_cells(cells, bits, lowest_bit)


def _of_cells(cells: np.ndarray, bits: int, lowest_bit: int) -> np.ndarray:
    """The values in pixel cells (rows, columns), of which each takes so many bits from `lowest_bit` up.

    The other bits mean nothing (PS3.5 8.1.1), overlays of old among them: they are dropped, and the sign is extended.
    """
    above = 8 * cells.itemsize - bits - lowest_bit
    if lowest_bit == 0 and above <= 0:
        return cells
    if cells.dtype.kind == "u":
        cells = cells >> lowest_bit if lowest_bit else cells
        return cells & cells.dtype.type((1 << bits) - 1)
    return (cells << above) >> (above + lowest_bit)


def _pixel_options(header: dict, frames: int) -> tuple[dict, int]:
    """The checked pixel format, named as pydicom's decoders take it, and the lowest bit that a cell's value takes."""
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel", "HighBit")
    rows, columns, allocated, bits, representation, samples, high = (number_of(header, name) for name in names)
    photometric = text_of(header, "PhotometricInterpretation")
    known = allocated in (8, 16, 32) and 1 <= bits <= allocated and representation in (0, 1) and samples == 1
    if not known or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableSliceError(Reason.PIXEL_FORMAT)
    # A high bit that cannot be is taken for a slip of the pen, as other readers take it.
    possible = not math.isnan(high) and bits - 1 <= high < allocated
    return {
        "rows": int(rows),
        "columns": int(columns),
        "number_of_frames": frames,
        "samples_per_pixel": 1,
        "photometric_interpretation": photometric,
        "bits_allocated": int(allocated),
        "bits_stored": int(bits),
        "pixel_representation": int(representation),
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }, int(high + 1 - bits) if possible else 0


def _frame_bytes(options: dict) -> int:
    """The bytes of a frame that is not compressed."""
    return options["rows"] * options["columns"] * options["bits_allocated"] // 8


def _native_frames(pixels: Pixels, options: dict) -> Iterator[np.ndarray]:
    """The pixel cells of each frame."""
    shape = options["rows"], options["columns"]
    kind = np.dtype(f"<{'i' if options['pixel_representation'] else 'u'}{options['bits_allocated'] // 8}")
    size = _frame_bytes(options)
    for frame in range(options["number_of_frames"]):
        if isinstance(pixels, LargePixels):
            yield np.frombuffer(pixels.native(frame * size, size), kind).reshape(shape)
        else:
            yield np.frombuffer(pixels, kind, size // kind.itemsize, frame * size).reshape(shape)


def _decoded_frames(pixels: Pixels, syntax: UID, options: dict) -> Iterator[np.ndarray]:
    """The pixel cells of each frame, from compressed or big-endian bytes."""
    if (missing := missing_decoder(syntax)) is not None:
        raise UnreadableSliceError(Reason.NO_DECODER if missing else Reason.COMPRESSION)
    try:
        for part, count in _parts(pixels, syntax, options):
            for frame in decode_guarded(part, syntax, options | {"number_of_frames": count}):
                if frame.shape != (options["rows"], options["columns"]):
                    raise UnreadableSliceError(Reason.DECODING)
                yield frame.astype(frame.dtype.newbyteorder("="), copy=False)
    except DecodingError as error:
        raise UnreadableSliceError(Reason.DECODING) from error


def _parts(pixels: Pixels, syntax: UID, options: dict) -> Iterator[tuple[bytes, int]]:
    """What is decoded at once, and how many frames it holds: all of them, or one of a large file."""
    frames = options["number_of_frames"]
    if not isinstance(pixels, LargePixels):
        yield bytes(pixels), frames
        return
    if syntax == ExplicitVRBigEndian:  # which nobody writes any more
        raise UnreadableSliceError(Reason.UNREASONABLE)
    most = 2 * options["rows"] * options["columns"] * options["bits_allocated"] // 8  # larger than not compressed
    yield from ((frame, 1) for frame in pixels.encapsulated(frames, most))
