"""The first bytes of a DICOM file: in which transfer syntax it goes on, and whether it is one without a preamble."""

import struct

from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRBigEndian
from pydicom.valuerep import VR

_META_GROUP, _TRANSFER_SYNTAX = b"\x02\x00", b"\x02\x00\x10\x00"
_LONG = (b"OB", b"UN")  # the value representations in the file meta information with a length of four bytes
# Big-endian files, which nobody writes any more, are left to pydicom.
_SYNTAXES = {str(uid).encode(): uid for uid in AllTransferSyntaxes if uid != ExplicitVRBigEndian}
_REPRESENTATIONS = {str(representation).encode() for representation in VR}
_FIRST_GROUPS = (0x0002, 0x0008)
_MAX_FIRST = 1024  # bytes of an element at the start of a data set


def read_syntax(head: bytes) -> tuple[UID, int] | None:
    """The transfer syntax in the file meta information (PS3.10 7.1), and where that ends; None if not as usual."""
    place, syntax = 132, None
    while head[place : place + 2] == _META_GROUP and place + 12 <= len(head):
        if head[place + 4 : place + 6].isupper():
            is_long = head[place + 4 : place + 6] in _LONG
            (length,) = struct.unpack_from("<L" if is_long else "<H", head, place + (8 if is_long else 6))
            start = place + (12 if is_long else 8)
        else:  # without a representation: a second group, which some writers leave in an implicit data set
            (length,) = struct.unpack_from("<L", head, place + 4)
            start = place + 8
        if head[place : place + 4] == _TRANSFER_SYNTAX and syntax is None:  # of two groups the first describes the file
            syntax = head[start : start + length].rstrip(b"\0 ")
        place = start + length
    if head[128:132] != b"DICM" or syntax is None or place >= len(head) or syntax not in _SYNTAXES:
        return None
    return _SYNTAXES[syntax], place


def begins_data_set(head: bytes) -> bool:
    """Whether two elements of a data set, or of the file meta information, stand where a preamble is due.

    Old software writes such files, in little endian, with representations or without.
    """
    place, before = 0, -1
    for _ in range(2):
        if place + 12 > len(head):
            return False
        group, number, representation, length = struct.unpack_from("<HH2sH", head, place)
        if representation not in _REPRESENTATIONS:
            (length,) = struct.unpack_from("<L", head, place + 4)
        elif representation in _LONG:
            (length,) = struct.unpack_from("<L", head, place + 8)
            place += 4
        tag = group << 16 | number
        if group not in _FIRST_GROUPS or tag <= before or length > _MAX_FIRST:
            return False
        place, before = place + 8 + length, tag
    return True
