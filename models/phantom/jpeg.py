"""An encoder for lossless JPEG (Process 14, selection value 1), which scanners write and no Python package does.

ITU-T T.81: annex H for the prediction, F.1.2.1 for the Huffman code of a difference, annex B for the markers.
"""

import struct
from itertools import pairwise

import numpy as np

# Codes of 2 to 14 bits for the 17 categories of a difference: the table K.3 of T.81, continued.
_CODES_OF_LENGTH = (0, 1, 5, *[1] * 11, 0, 0)
_LENGTHS = np.repeat(np.arange(1, 17), _CODES_OF_LENGTH)  # (17,) of the code of each category


def encode_jpeg_lossless(values: np.ndarray, bits: int) -> bytes:
    """Encode unsigned integers (rows, columns) below 2 ** bits, at most 16, as one JPEG file."""
    rows, columns = values.shape
    frame = struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0)
    table = bytes([0, *_CODES_OF_LENGTH, *range(len(_LENGTHS))])
    scan = struct.pack(">BBBBBB", 1, 1, 0, 1, 0, 0)  # predictor 1: the pixel to the left
    segments = _segment(0xC3, frame) + _segment(0xC4, table) + _segment(0xDA, scan)
    return b"\xff\xd8" + segments + _entropy_code(_differences(values, bits)) + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _differences(values: np.ndarray, bits: int) -> np.ndarray:
    """What each pixel adds to its prediction, modulo 65536. # (pixels,) in [-32767, 32768]"""
    values = values.astype(np.int64)
    prediction = np.empty_like(values)
    prediction[:, 1:] = values[:, :-1]
    prediction[1:, 0] = values[:-1, 0]
    prediction[0, 0] = 1 << (bits - 1)
    return ((values - prediction + 32767) % 65536 - 32767).ravel()


def _entropy_code(differences: np.ndarray) -> bytes:
    """Code of the category, then as many bits as the category says; a byte 0xFF is followed by 0."""
    category = np.frexp(np.abs(differences).astype(float))[1]  # bits of the magnitude
    extra = np.where(category == 16, 0, category)  # 32768 is a category of its own
    additional = np.where(differences < 0, differences - 1, differences) & ((1 << extra) - 1)
    words = _codes()[category] << extra | additional
    lengths = _LENGTHS[category] + extra
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    stream = np.repeat(words, lengths) >> (np.repeat(lengths, lengths) - 1 - position) & 1
    padding = np.ones(-len(stream) % 8, stream.dtype)
    return np.packbits(np.concatenate([stream, padding]).astype(bool)).tobytes().replace(b"\xff", b"\xff\x00")


def _codes() -> np.ndarray:
    """Codes in the order of their lengths: each is the one before plus one (T.81, figure C.2). # (17,)"""
    codes = [0]
    for before, length in pairwise(_LENGTHS):
        codes.append((codes[-1] + 1) << int(length - before))
    return np.array(codes)
