"""JPEG for pydicom by imagecodecs, whose libjpeg-turbo decodes lossless JPEG of 2 to 16 bits exactly.

A plug-in as pydicom asks for it (its guide "Pixel data decoder plugins"); for lossless JPEG pydicom itself knows GPL-3
packages alone.
"""

from contextlib import suppress

from imagecodecs import jpeg8_decode
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGTransferSyntaxes

LABEL = "imagecodecs"
DECODER_DEPENDENCIES = {syntax: ("imagecodecs>=2025.3",) for syntax in JPEGTransferSyntaxes}


def register() -> None:
    """Tell pydicom's decoders of JPEG of this one. Calling it again changes nothing."""
    for syntax in JPEGTransferSyntaxes:
        with suppress(ValueError):  # it knows this one already
            get_decoder(syntax).add_plugin(LABEL, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Whether this kind can be decoded here; pydicom asks."""
    return uid in JPEGTransferSyntaxes


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """The pixels of one codestream, a byte each up to 8 bits, else two; pydicom is told which."""
    frame = jpeg8_decode(source)
    runner.set_option("bits_allocated", 8 * frame.itemsize)
    return bytearray(frame.tobytes())
