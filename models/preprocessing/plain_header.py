"""The elements of a plain data set, little endian and without sequences: those of nearly all files, read at once.

Whatever is not plain, or not as it should be, is left to pydicom (parser.py).
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from models.preprocessing.beginning import read_syntax

_HEAD = 1024  # bytes that hold the file meta information, but for odd files
_SHORT = {str(representation).encode() for representation in EXPLICIT_VR_LENGTH_16}
_LONG = {str(representation).encode() for representation in EXPLICIT_VR_LENGTH_32}
_TEXTS = ("CS", "DS", "IS", "LO", "SH", "UI")
_PIXELS = ("OB", "OW", "OB or OW")
_MAX_VALUE = 1 << 12  # bytes of any element but the pixels
_MAX_ELEMENTS = 10_000
_PIXEL_DATA, _LAST = 0x7FE00010, 0xFFFFFFFF


class Wanted(NamedTuple):
    """An element that is asked for."""

    keyword: str
    representation: str


def wanted(*keywords: str) -> dict[int, Wanted]:
    """What `plain_values` is to look for, by tag."""
    tags = [(tag, keyword) for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]
    return {tag: Wanted(keyword, dictionary_VR(tag)) for tag, keyword in tags}


def plain_values(data: bytes, asked: Mapping[int, Wanted], last: int = _LAST) -> tuple[dict[str, Any], UID] | None:
    """Keyword -> value of the asked elements up to the tag `last`, and the transfer syntax, of the bytes of a file.

    Texts are split and numbers read as `elements.values_of` does; pixels are a view of the data. None for what is not
    plain: another transfer syntax, a sequence among the asked elements or one of undefined length, tags out of order,
    or data that ends before `last`, unless it ends with an element.
    """
    found = read_syntax(data[:_HEAD])
    if found is None or found[0] not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        return None
    syntax, place = found
    is_implicit = syntax == ImplicitVRLittleEndian
    values: dict[str, Any] = {}
    for tag, representation, start, length in _elements(data, place, is_implicit):
        if tag > last:
            return values, syntax
        if (element := asked.get(tag)) is not None:
            value = _value(data, start, length, element.representation if is_implicit else representation.decode(), tag)
            if value is None:
                return None
            values[element.keyword] = value
        place = start + length
    return (values, syntax) if place == len(data) and last == _LAST else None


def _elements(data: bytes, place: int, is_implicit: bool) -> Iterator[tuple[int, bytes, int, int]]:
    """Tag, representation, start and length of each value, from a place on, as far as all is as it should be."""
    before, end = 0, len(data) - 8
    for _ in range(_MAX_ELEMENTS):
        if place > end:
            return
        group, number, representation, length = struct.unpack_from("<HH2sH", data, place)
        tag, start = group << 16 | number, place + 8
        if is_implicit:
            (length,) = struct.unpack_from("<L", data, place + 4)
        elif representation in _LONG and place + 4 <= end:
            (length,) = struct.unpack_from("<L", data, place + 8)
            start = place + 12
        elif representation not in _SHORT:
            return
        place = start + length  # far beyond the end where the length is undefined
        if tag <= before or place > len(data):
            return
        before = tag
        yield tag, representation, start, length


def _value(data: bytes, start: int, length: int, representation: str, tag: int) -> Any:
    """The value of an element; None for one that is not plain."""
    if tag == _PIXEL_DATA:
        return memoryview(data)[start : start + length] if representation in _PIXELS else None
    if length > _MAX_VALUE:
        return None
    if representation in _TEXTS:
        parts = [part.strip(" \0") for part in data[start : start + length].decode("latin-1").split("\\")]
        return parts if len(parts) > 1 else parts[0]
    if representation not in ("US", "SS") or length != 2:
        return None
    return int.from_bytes(data[start : start + 2], "little", signed=representation == "SS")
