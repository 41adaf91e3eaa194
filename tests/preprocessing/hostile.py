"""DICOM files made by hand to harm whoever reads them: they lie about sizes, never end, or hold no slice at all.

HOSTILE names them; each is a function that writes its file into a folder and returns the path. HEALTHY are the sound
files that they are made from, one a transfer syntax; WITHOUT_SLICE are the hostile ones that no reader may accept.
"""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.encaps import generate_frames

from models.phantom.jpeg import encode_jpeg_lossless

Writer = Callable[[Path], Path]
Content = bytes | Callable[[], bytes]  # what is large is made when it is asked for

IMPLICIT, EXPLICIT, DEFLATED, BIG = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
RLE, JPEG, JPEG_LOSSLESS, JPEG_LS, J2K, MPEG = (
    f"1.2.840.10008.1.2.{end}" for end in ("5", "4.50", "4.70", "4.80", "4.90", "4.100")
)
ENCAPSULATED = {
    "rle": RLE,
    "jpeg": JPEG,
    "jpeg-lossless": JPEG_LOSSLESS,
    "jpeg-ls": JPEG_LS,
    "j2k": J2K,
}
CT, ENHANCED_CT, SR, DICOMDIR = (
    f"1.2.840.10008.{end}" for end in ("5.1.4.1.1.2", "5.1.4.1.1.2.1", "5.1.4.1.1.88.11", "1.3.10")
)
LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}  # VRs with a 32-bit length
UNDEFINED = 0xFFFFFFFF
WHOLE = "whole"  # in place of a VR: what follows is an encoded element
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
SIZE = 64
MANY = 1_000_000
DEPTH = 10_000
HUGE = 0xFFFF


def u16(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@cache
def pixels() -> np.ndarray:
    """Stored values of a sound slice, (SIZE, SIZE) uint16 of 12 bits."""
    rng = np.random.default_rng(0)
    return np.clip(np.arange(SIZE * SIZE).reshape(SIZE, SIZE) / 3 + rng.normal(0, 3, (SIZE, SIZE)), 0, 4095).astype(
        "<u2"
    )


def header() -> dict[str, bytes]:
    """The elements of a sound slice but its pixels."""
    return {
        "SOPClassUID": CT.encode(),
        "SOPInstanceUID": b"2.25.1",
        "Modality": b"CT",
        "PatientID": b"ID_9a71e7",
        "StudyInstanceUID": b"2.25.2",
        "SeriesInstanceUID": b"2.25.3",
        "InstanceNumber": b"1",
        "ImagePositionPatient": b"-125\\-125\\0",
        "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0",
        "SamplesPerPixel": u16(1),
        "PhotometricInterpretation": b"MONOCHROME2",
        "Rows": u16(SIZE),
        "Columns": u16(SIZE),
        "PixelSpacing": b"0.5\\0.5",
        "BitsAllocated": u16(16),
        "BitsStored": u16(12),
        "HighBit": u16(11),
        "PixelRepresentation": u16(0),
        "WindowCenter": b"40",
        "WindowWidth": b"80",
        "RescaleIntercept": b"-1024",
        "RescaleSlope": b"1",
    }


# ---- bytes ----


def element(tag: int, vr: str, value: bytes, length: int | None = None, implicit: bool = False) -> bytes:
    """One element; `length` is what it says of itself where that is not the truth."""
    name = u16(tag >> 16, tag & 0xFFFF)
    if len(value) % 2 and length is None:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    length = len(value) if length is None else length
    if implicit:
        return name + u32(length) + value
    return name + vr.encode() + (u16(0) + u32(length) if vr in LONG else u16(length)) + value


def body(changes: dict, implicit: bool = False) -> bytes:
    """A sound slice but for the changes: bytes, (VR, bytes[, length]), None for no element, or (WHOLE, element)."""
    elements = {**header(), "PixelData": pixels().tobytes(), **changes}
    encoded = {}
    for keyword, value in elements.items():
        if value is not None:
            tag = tag_for_keyword(keyword)
            usual = "OW" if keyword == "PixelData" else dictionary_VR(tag)[:2]
            parts = value if isinstance(value, tuple) else (usual, value)
            encoded[tag] = parts[1] if parts[0] == WHOLE else element(tag, *parts, implicit=implicit)
    return b"".join(encoded[tag] for tag in sorted(encoded))


def meta(syntax: str | None, kind: str = CT) -> bytes:
    """Preamble and file meta information."""
    rest = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", kind.encode())
    rest += element(0x00020003, "UI", b"2.25.1")
    if syntax is not None:
        rest += element(0x00020010, "UI", syntax.encode())
    return bytes(128) + b"DICM" + element(0x00020000, "UL", u32(len(rest))) + rest


def write(content: Content, name: str = "a.dcm") -> Writer:
    def writer(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return writer


def changed(syntax: str = EXPLICIT, before: Content = b"", after: Content = b"", **changes) -> Writer:
    """A sound slice with changed elements, and with bytes between its meta information and them, or after them.

    A change that is a function is called when the file is made.
    """

    def content() -> bytes:
        first, last = (part if isinstance(part, bytes) else part() for part in (before, after))
        made = {keyword: value() if callable(value) else value for keyword, value in changes.items()}
        return meta(syntax) + first + body(made, implicit=syntax == IMPLICIT) + last

    return write(content)


def items(*fragments: bytes, table: bytes = b"") -> bytes:
    """Fragments of compressed pixels as items, after their offset table, without an end."""
    return b"".join(ITEM + u32(len(part)) + part for part in (table, *(f + b"\0" * (len(f) % 2) for f in fragments)))


def compressed(*fragments: bytes, table: bytes = b"") -> tuple[str, bytes, int]:
    """PixelData of an encapsulated transfer syntax."""
    return "OB", items(*fragments, table=table) + SEQUENCE_END + u32(0), UNDEFINED


# ---- codestreams ----


@cache
def codestream(kind: str) -> bytes:
    """The sound slice in one of the ENCAPSULATED syntaxes; 8 bits in JPEG."""
    if kind == "jpeg":
        return cv2.imencode(".jpg", (pixels() >> 4).astype(np.uint8))[1].tobytes()
    if kind == "jpeg-lossless":
        return encode_jpeg_lossless(pixels(), bits=12)
    dataset = pydicom.dcmread(BytesIO(meta(EXPLICIT) + body({})))
    lossless = {"rle": RLE, "jpeg-ls": JPEG_LS, "j2k": J2K}[kind]
    dataset.compress(lossless, generate_instance_uid=False)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def resized(kind: str, rows: int, columns: int, tiles: bool = False) -> bytes:
    """The sound codestream, whose header now says another size; `tiles`: JPEG 2000 keeps the size of its tiles."""
    stream = bytearray(codestream(kind))
    if kind == "j2k":
        at = stream.index(b"\xff\x51") + 6
        struct.pack_into(">II", stream, at, columns, rows)
        if not tiles:
            struct.pack_into(">II", stream, at + 16, columns, rows)
        return bytes(stream)
    marker = {"jpeg": b"\xff\xc0", "jpeg-lossless": b"\xff\xc3", "jpeg-ls": b"\xff\xf7"}[kind]
    struct.pack_into(">HH", stream, stream.index(marker) + 5, rows, columns)
    return bytes(stream)


def rle(*segments: bytes, offsets: list[int] | None = None, count: int | None = None) -> bytes:
    """An RLE frame; `offsets` and `count` are what its header says where that is not the truth."""
    if offsets is None:
        offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    said = len(segments) if count is None else count
    return u32(said, *(offsets + [0] * 15)[:15]) + b"".join(segments)


def endless_scans() -> bytes:
    """A JPEG of 16 megapixels whose one scan is there 3,000 times."""
    stream = resized("jpeg", 4096, 4096)
    start = stream.index(b"\xff\xda")
    return stream[:start] + stream[start:-2] * 3000 + stream[-2:]


# ---- families of hostile files ----


def _bits(kind: str) -> dict[str, bytes]:
    """What a header says of the pixels of a sound codestream."""
    return {"BitsAllocated": u16(8), "BitsStored": u16(8), "HighBit": u16(7)} if kind == "jpeg" else {}


def _frames_of(kind: str, *, syntax: str | None = None, **changes) -> Writer:
    pixel_data = changes.pop("PixelData", lambda: compressed(codestream(kind)))
    return changed(syntax or ENCAPSULATED[kind], PixelData=pixel_data, **{**_bits(kind), **changes})


def _sizes() -> dict[str, Writer]:
    """Headers that say more than the file holds."""
    large = {"Rows": u16(HUGE), "Columns": u16(HUGE)}
    made = {
        "native-of-65535-squared": changed(**large),
        "native-of-65535-squared-without-a-byte": changed(**large, PixelData=b""),
        "native-of-65535-squared-of-64-bits": changed(**large, BitsAllocated=u16(64)),
        "native-of-2-31-frames": changed(NumberOfFrames=b"2147483647"),
        "native-of-1e9-frames-of-nothing": changed(NumberOfFrames=b"1000000000", Rows=u16(0)),
        "native-of-minus-one-frames": changed(NumberOfFrames=b"-1"),
        "native-of-minus-2-31-frames": changed(NumberOfFrames=b"-2147483648"),
        "native-of-zero-frames": changed(NumberOfFrames=b"0"),
        "native-of-text-frames": changed(NumberOfFrames=b"many"),
        "native-of-two-counts-of-frames": changed(NumberOfFrames=b"1\\2"),
        "native-of-half-a-frame": changed(NumberOfFrames=b"0.5"),
        "frames-counted-in-5000-digits": changed(NumberOfFrames=b"9" * 5000),
        "frames-of-one-pixel": changed(Rows=u16(1), Columns=u16(1), NumberOfFrames=b"4096"),
        "a-million-frames-of-one-pixel": changed(
            Rows=u16(1), Columns=u16(1), NumberOfFrames=b"1000000", PixelData=lambda: bytes(2 * MANY)
        ),
    }
    for kind in ENCAPSULATED:
        made[f"{kind}-of-65535-squared"] = _frames_of(kind, **large)
        made[f"{kind}-of-2-31-frames"] = _frames_of(kind, NumberOfFrames=b"2147483647")
        made[f"{kind}-of-minus-one-frames"] = _frames_of(kind, NumberOfFrames=b"-1")
    return made


def _codestreams() -> dict[str, Writer]:
    """Codestreams that lie about their size, end too early, or belong to another syntax."""
    made = {}
    for kind in ("jpeg", "jpeg-lossless", "jpeg-ls", "j2k"):
        for rows, columns in ((HUGE, HUGE), (HUGE, SIZE), (SIZE + 1, SIZE), (0, SIZE), (SIZE, 0), (1, 1)):
            lie = lambda kind=kind, rows=rows, columns=columns: compressed(resized(kind, rows, columns))  # noqa: E731
            made[f"{kind}-stream-claims-{rows}x{columns}"] = _frames_of(kind, PixelData=lie)
        agreed = lambda kind=kind: compressed(resized(kind, HUGE, HUGE))  # noqa: E731
        made[f"{kind}-stream-and-header-claim-65535-squared"] = _frames_of(
            kind, PixelData=agreed, Rows=u16(HUGE), Columns=u16(HUGE)
        )
    for kind in ENCAPSULATED:
        for part, divisor in (("nine-tenths", 10 / 9), ("half", 2), ("head", 20)):
            cut = lambda k=kind, d=divisor: compressed(codestream(k)[: int(len(codestream(k)) / d)])  # noqa: E731
            made[f"{kind}-cut-to-{part}"] = _frames_of(kind, PixelData=cut)
        made[f"{kind}-of-zeros"] = _frames_of(kind, PixelData=compressed(bytes(4096)))
        made[f"{kind}-of-ones"] = _frames_of(kind, PixelData=compressed(b"\xff" * 4096))
        made[f"{kind}-said-to-be-8-bits"] = _frames_of(
            kind, BitsAllocated=u16(8), BitsStored=u16(8), HighBit=u16(7), PixelRepresentation=u16(1)
        )
        made[f"{kind}-said-to-be-32-bits"] = _frames_of(
            kind, BitsAllocated=u16(32), BitsStored=u16(32), HighBit=u16(31)
        )
    made["j2k-stream-claims-a-million-tiles"] = _frames_of(
        "j2k", PixelData=lambda: compressed(resized("j2k", HUGE, HUGE, tiles=True))
    )
    made["j2k-stream-claims-2-31-squared"] = _frames_of(
        "j2k", PixelData=lambda: compressed(resized("j2k", 2**31 - 1, 2**31 - 1))
    )
    made["jpeg-of-3000-scans"] = _frames_of(
        "jpeg", Rows=u16(4096), Columns=u16(4096), PixelData=lambda: compressed(endless_scans())
    )
    made["jpeg-ls-that-is-j2k"] = _frames_of("jpeg-ls", PixelData=lambda: compressed(codestream("j2k")))
    made["j2k-that-is-rle"] = _frames_of("j2k", PixelData=lambda: compressed(codestream("rle")))
    made["rle-that-is-jpeg"] = _frames_of("rle", PixelData=lambda: compressed(codestream("jpeg")))
    return made


def _run_lengths() -> dict[str, Writer]:
    """RLE frames whose segments lie elsewhere, or grow beyond every bound."""
    half = b"\x81\0" * (SIZE * SIZE // 128)
    frames: dict[str, Callable[[], bytes]] = {
        "rle-offsets-beyond-the-end": lambda: rle(half, half, offsets=[1 << 20, 1 << 30]),
        "rle-offsets-of-2-32": lambda: rle(half, half, offsets=[UNDEFINED, UNDEFINED - 1]),
        "rle-offsets-into-its-own-header": lambda: rle(half, half, offsets=[0, 4]),
        "rle-offsets-backwards": lambda: rle(half, half, offsets=[64 + len(half), 64]),
        "rle-without-a-segment": lambda: rle(half, half, count=0),
        "rle-of-2-32-segments": lambda: rle(half, half, count=UNDEFINED),
        "rle-of-15-segments": lambda: rle(*[half] * 15),
        "rle-of-one-segment": lambda: rle(half),
        "rle-shorter-than-its-header": lambda: u32(2, 64),
        "rle-that-ends-within-a-run": lambda: rle(half, half[:-4]),
        "rle-of-no-operations": lambda: rle(b"\x80" * 4096, b"\x80" * 4096),
        "rle-that-grows-to-a-gigabyte": lambda: rle(half, b"\x81\0" * (1 << 23)),
        "rle-that-is-a-little-too-long": lambda: rle(half + b"\x81\0", half + b"\x81\0"),
    }
    return {
        name: _frames_of("rle", PixelData=lambda frame=frame: compressed(frame())) for name, frame in frames.items()
    }


def _encapsulation() -> dict[str, Writer]:
    """Compressed pixels whose items are wrong."""
    stream = lambda: codestream("j2k")  # noqa: E731
    pixel_data: dict[str, Callable[[], bytes | tuple]] = {
        "encapsulated-without-an-item": lambda: ("OB", SEQUENCE_END + u32(0), UNDEFINED),
        "encapsulated-with-no-fragment": compressed,
        "encapsulated-with-an-empty-fragment": lambda: compressed(b""),
        "encapsulated-with-no-end": lambda: ("OB", items(stream()), UNDEFINED),
        "encapsulated-with-an-item-beyond-the-end": lambda: (
            "OB",
            items() + ITEM + u32(0x7FFFFFF0) + stream(),
            UNDEFINED,
        ),
        "encapsulated-with-an-item-of-undefined-length": lambda: (
            "OB",
            items() + ITEM + u32(UNDEFINED) + stream(),
            UNDEFINED,
        ),
        "encapsulated-with-offsets-beyond-the-end": lambda: compressed(stream(), table=u32(0, 1 << 30)),
        "encapsulated-with-an-offset-table-of-seven-bytes": lambda: compressed(stream(), table=b"\0" * 7),
        "encapsulated-with-another-tag-for-an-item": lambda: (
            "OB",
            items() + u16(16, 16) + u32(4) + b"1234",
            UNDEFINED,
        ),
        "encapsulated-with-a-length": lambda: ("OB", items(stream())),
        "encapsulated-with-100000-empty-fragments": lambda: compressed(*[b""] * 100_000, stream()),
        "encapsulated-in-fragments-of-two-bytes": lambda: compressed(
            *(stream()[at : at + 2] for at in range(0, len(stream()), 2))
        ),
        "encapsulated-frames-without-a-boundary": lambda: compressed(stream(), stream()),
        "native-pixels-said-to-be-encapsulated": lambda: pixels().tobytes(),
    }
    made = {name: _frames_of("j2k", PixelData=value) for name, value in pixel_data.items()}
    made["encapsulated-said-to-be-native"] = changed(PixelData=lambda: compressed(stream()))
    made["encapsulated-said-to-be-implicit"] = changed(IMPLICIT, PixelData=lambda: compressed(stream()))
    made["encapsulated-with-fewer-frames-than-it-says"] = _frames_of("j2k", NumberOfFrames=b"3")
    made["encapsulated-with-more-frames-than-it-says"] = _frames_of(
        "j2k", NumberOfFrames=b"1", PixelData=lambda: compressed(*[codestream("j2k")] * 50)
    )
    made["encapsulated-with-an-extended-table-of-garbage"] = _frames_of(
        "j2k", ExtendedOffsetTable=b"\xff" * 8, ExtendedOffsetTableLengths=b"\xff" * 8
    )
    made["encapsulated-with-an-extended-table-of-7-bytes"] = _frames_of(
        "j2k", ExtendedOffsetTable=b"\xff" * 7, ExtendedOffsetTableLengths=b""
    )
    return made


def nested(tag: int, undefined: bool) -> bytes:
    """Explicit sequences of one item each within one another, DEPTH deep."""
    name = u16(tag >> 16, tag & 0xFFFF) + b"SQ\0\0"
    if undefined:
        return (name + u32(UNDEFINED) + ITEM + u32(UNDEFINED)) * DEPTH + (
            ITEM_END + u32(0) + SEQUENCE_END + u32(0)
        ) * DEPTH
    left = ((DEPTH - level) * 20 for level in range(DEPTH))  # what follows: 12 bytes of sequence, 8 of item a level
    return b"".join(name + u32(rest - 12) + ITEM + u32(rest - 20) for rest in left)


def private_elements(implicit: bool = False) -> bytes:
    """A million private elements of two bytes, in order of their tags."""
    number = np.arange(MANY)
    kinds = [("group", "<u2"), ("element", "<u2"), *([] if implicit else [("vr", "S2")])]
    made = np.zeros(MANY, np.dtype([*kinds, ("length", "<u4" if implicit else "<u2"), ("value", "<u2")]))
    made["group"] = 0x0009 + 2 * (number // 0xEF00)
    made["element"] = 0x1000 + number % 0xEF00
    made["length"] = 2
    if not implicit:
        made["vr"] = b"US"
    return made.tobytes()


def _whole(content: Callable[[], bytes]) -> tuple[str, bytes]:
    return WHOLE, content()


def sequence(tag: int, *contents: bytes) -> bytes:
    """A sequence of undefined length with such items."""
    inside = b"".join(ITEM + u32(UNDEFINED) + content + ITEM_END + u32(0) for content in contents)
    return element(tag, "SQ", inside + SEQUENCE_END + u32(0), UNDEFINED)


def _structure() -> dict[str, Writer]:
    """Headers that are deep, long or wrongly nested."""
    any_sequence, shared, per_frame = 0x00081140, 0x52009229, 0x52009230
    made = {}
    for undefined in (True, False):
        for keyword, tag in (("ReferencedImageSequence", any_sequence), ("SharedFunctionalGroupsSequence", shared)):
            deep = partial(_whole, partial(nested, tag, undefined))
            made[f"{DEPTH}-deep-{keyword.lower()}-of-{'undefined' if undefined else 'said'}-length"] = changed(
                SOPClassUID=ENHANCED_CT.encode(), **{keyword: deep}
            )
    made |= {
        "a-million-private-elements": changed(before=private_elements),
        "a-million-private-elements-implicit": changed(IMPLICIT, before=lambda: private_elements(implicit=True)),
        "a-million-elements-in-a-sequence": changed(before=lambda: sequence(any_sequence, private_elements())),
        "a-million-items-in-a-sequence": changed(
            before=lambda: element(any_sequence, "SQ", (ITEM + u32(0)) * MANY + SEQUENCE_END + u32(0), UNDEFINED)
        ),
        "a-million-items-for-each-frame": changed(
            SOPClassUID=ENHANCED_CT.encode(),
            PerFrameFunctionalGroupsSequence=lambda: ("SQ", (ITEM + u32(0)) * MANY),
        ),
        "a-million-times-the-same-element": changed(before=lambda: element(0x00080060, "CS", b"CT") * MANY),
        "a-sequence-without-an-end": changed(before=element(any_sequence, "SQ", ITEM + u32(UNDEFINED), UNDEFINED)),
        "an-element-of-4-gb": changed(before=element(0x00091010, "OB", b"12", 0xFFFFFFFE)),
        "an-unknown-element-of-4-gb": changed(before=element(0x00091010, "UN", b"12", 0xFFFFFFFE)),
        "an-element-of-4-gb-implicit": changed(IMPLICIT, before=u16(9, 16) + u32(0xFFFFFFFE) + b"12"),
        "an-unknown-element-of-undefined-length": changed(before=element(0x00091010, "UN", b"12", UNDEFINED)),
        "a-text-of-undefined-length": changed(before=element(0x00091010, "UT", b"12", UNDEFINED)),
        "pixels-of-4-gb": changed(PixelData=("OW", pixels().tobytes(), 0xFFFFFFFE)),
        "pixels-in-a-sequence": changed(
            PixelData=None, before=lambda: sequence(0x00080000 + 0x2112, body({"Rows": u16(HUGE)}))
        ),
        "pixels-before-the-header": changed(before=lambda: body({})[-8204:], PixelData=None),
        "pixels-twice": changed(after=lambda: body({})[-8204:]),
        "rows-twice": changed(after=element(0x00280010, "US", u16(HUGE))),
        "zeros-after-the-pixels": changed(after=lambda: bytes(20 << 20)),
        "garbage-after-the-pixels": changed(after=lambda: np.random.default_rng(1).bytes(1 << 20)),
        "a-vr-that-does-not-exist": changed(before=element(0x00091010, "ZZ", b"12")),
        "a-vr-of-zeros": changed(before=u16(9, 16) + b"\0\0" + u16(2) + b"12"),
        "a-meta-length-of-4-gb": write(
            lambda: (meta(EXPLICIT) + body({})).replace(
                b"UL\4\0" + meta(EXPLICIT)[140:144], b"UL\4\0\xff\xff\xff\xff", 1
            )
        ),
        "a-meta-length-of-zero": write(
            lambda: (meta(EXPLICIT) + body({})).replace(b"UL\4\0" + meta(EXPLICIT)[140:144], b"UL\4\0\0\0\0\0", 1)
        ),
        "an-enhanced-ct-with-no-groups": changed(SOPClassUID=ENHANCED_CT.encode(), NumberOfFrames=b"2", Rows=u16(32)),
        "an-enhanced-ct-with-an-empty-group": changed(
            SOPClassUID=ENHANCED_CT.encode(),
            NumberOfFrames=b"2",
            Rows=u16(32),
            SharedFunctionalGroupsSequence=(WHOLE, sequence(shared)),
            PerFrameFunctionalGroupsSequence=(WHOLE, sequence(per_frame, b"")),
        ),
        "an-enhanced-ct-whose-groups-are-numbers": changed(
            SOPClassUID=ENHANCED_CT.encode(),
            SharedFunctionalGroupsSequence=("US", u16(1)),
            PerFrameFunctionalGroupsSequence=("DS", b"1\\2"),
        ),
    }
    return made


def _numbers() -> dict[str, Writer]:
    """Numbers that are none, or too large."""
    texts = {
        "nan": b"NaN",
        "inf": b"inf",
        "minus-inf": b"-inf",
        "1e308": b"1e308",
        "minus-1e308": b"-1e308",
        "1e400": b"1e400",
        "zero": b"0",
        "tiny": b"1e-320",
        "empty": b"",
        "text": b"Hounsfield",
        "two": b"1\\-1024",
        "5000-digits": b"9" * 5000,
        "bytes": b"\xff\xfe\0\x01",
    }
    made = {}
    for tag, name in (("RescaleSlope", "slope"), ("RescaleIntercept", "intercept")):
        made |= {f"{name}-{kind}": changed(**{tag: text}) for kind, text in texts.items()}
    both = {"RescaleSlope": b"1e308", "RescaleIntercept": b"-1e308"}
    made |= {
        "slope-and-intercept-cancel-at-infinity": changed(**both, BitsAllocated=u16(16)),
        "slope-absent-intercept-nan": changed(RescaleSlope=None, RescaleIntercept=b"nan"),
        "slope-in-a-sequence": changed(RescaleSlope=("SQ", b"")),
        "slope-of-unknown-vr": changed(RescaleSlope=("UN", b"\xff\xff\xff")),
        "position-nan": changed(ImagePositionPatient=b"NaN\\NaN\\NaN"),
        "position-1e400": changed(ImagePositionPatient=b"1e400\\-1e400\\1e400"),
        "position-of-two": changed(ImagePositionPatient=b"1\\2"),
        "position-text": changed(ImagePositionPatient=b"left\\back\\up"),
        "position-of-100000-values-implicit": changed(IMPLICIT, ImagePositionPatient=b"\\".join([b"1"] * 100_000)),
        "orientation-zero": changed(ImageOrientationPatient=b"0\\0\\0\\0\\0\\0"),
        "orientation-nan": changed(ImageOrientationPatient=b"\\".join([b"NaN"] * 6)),
        "spacing-zero": changed(PixelSpacing=b"0\\0"),
        "spacing-infinite": changed(PixelSpacing=b"inf\\-1"),
        "instance-number-garbage": changed(InstanceNumber=b"\xff\xfe one"),
        "instance-number-1e999": changed(InstanceNumber=b"1e999"),
        "instance-number-of-5000-digits": changed(InstanceNumber=b"7" * 5000),
        "window-of-100000-values-implicit": changed(IMPLICIT, WindowCenter=b"\\".join([b"40"] * 100_000)),
        "window-of-20000-values": changed(WindowCenter=b"\\".join([b"40"] * 20_000)),
        "window-text": changed(WindowCenter=b"wide", WindowWidth=b"-"),
        "patient-id-of-10-mb-implicit": changed(IMPLICIT, PatientID=b"x" * (10 << 20)),
        "patient-id-of-10-mb": changed(PatientID=("UT", b"x" * (10 << 20))),
        "patient-id-of-10-mb-of-backslashes": changed(IMPLICIT, PatientID=b"\\" * (10 << 20)),
        "patient-id-of-bytes": changed(PatientID=bytes(range(128, 256)), SpecificCharacterSet=b"ISO_IR 999"),
        "patient-id-with-line-breaks": changed(PatientID=b'a\nb\r\n,"c\0d'),
        "character-sets-20000": changed(SpecificCharacterSet=b"\\".join([b"X"] * 20_000)),
        "character-set-of-python": changed(SpecificCharacterSet=b"zip\\rot13\\idna", PatientID=b"a\x1b$Bb"),
        "uid-of-60000-bytes": changed(SOPInstanceUID=b"1." * 30_000),
        "uid-that-climbs-folders": changed(SOPInstanceUID=b"../../../../tmp/x", SeriesInstanceUID=b"/dev/null"),
        "uid-empty": changed(SOPInstanceUID=b"", SeriesInstanceUID=b"", StudyInstanceUID=b"", PatientID=b""),
    }
    return made


def _pixels() -> dict[str, Writer]:
    """Pixels of a kind that no CT has, or too few of them."""
    depths = {
        f"bits-allocated-{bits}": changed(BitsAllocated=u16(bits), PixelData=bytes(SIZE * SIZE * max(bits, 8) // 8))
        for bits in (0, 1, 2, 7, 8, 12, 24, 32, 64, 128, HUGE)
    }
    loud = np.full((SIZE, SIZE), 2**31 - 1, "<i4").tobytes()
    nan = np.full((SIZE, SIZE), np.nan, "<f4").tobytes()
    return {
        **depths,
        **{f"bits-stored-{bits}": changed(BitsStored=u16(bits)) for bits in (0, 1, 17, 200, HUGE)},
        **{f"high-bit-{bit}": changed(HighBit=u16(bit)) for bit in (0, 99)},
        **{f"samples-{count}": changed(SamplesPerPixel=u16(count)) for count in (0, 2, 3, HUGE)},
        "bits-all-32-and-loud": changed(
            BitsAllocated=u16(32), BitsStored=u16(32), HighBit=u16(31), PixelRepresentation=u16(1), PixelData=loud
        ),
        "representation-7": changed(PixelRepresentation=u16(7)),
        "rgb": changed(
            SamplesPerPixel=u16(3),
            PhotometricInterpretation=b"RGB",
            PlanarConfiguration=u16(0),
            BitsAllocated=u16(8),
            BitsStored=u16(8),
            HighBit=u16(7),
            PixelData=bytes(SIZE * SIZE * 3),
        ),
        "palette": changed(PhotometricInterpretation=b"PALETTE COLOR"),
        "photometric-garbage": changed(PhotometricInterpretation=b"\xff\0GREY"),
        "float-pixels": changed(PixelData=None, FloatPixelData=nan, BitsAllocated=u16(32)),
        "double-pixels": changed(PixelData=None, DoubleFloatPixelData=nan * 2, BitsAllocated=u16(64)),
        "float-and-native-pixels": changed(FloatPixelData=nan),
        "pixels-of-odd-length": changed(PixelData=("OW", pixels().tobytes()[:-1], SIZE * SIZE * 2 - 1)),
        "pixels-one-byte-short": changed(PixelData=("OW", pixels().tobytes()[:-1], SIZE * SIZE * 2)),
        "pixels-one-row-short": changed(PixelData=pixels()[1:].tobytes()),
        "pixels-one-row-too-long": changed(Rows=u16(SIZE - 1)),
        "pixels-empty": changed(PixelData=b""),
        "pixels-absent": changed(PixelData=None),
        "pixels-in-a-wrong-vr": changed(PixelData=("SQ", pixels().tobytes())),
        "rows-zero": changed(Rows=u16(0)),
        "columns-zero": changed(Columns=u16(0)),
        "rows-and-columns-zero-no-pixels": changed(Rows=u16(0), Columns=u16(0), PixelData=b""),
        **{f"{keyword.lower()}-absent": changed(**{keyword: None}) for keyword in header()},
        "rows-empty": changed(Rows=b""),
        "rows-of-one-byte": changed(Rows=("US", b"\x40", 1)),
        "rows-of-three-values": changed(Rows=u16(SIZE, SIZE, SIZE)),
        "rows-as-text": changed(Rows=("DS", b"64")),
        "rows-as-a-float": changed(Rows=("FL", struct.pack("<f", float("nan")))),
        "rows-as-a-sequence": changed(Rows=("SQ", b"")),
        "rows-minus-64": changed(Rows=("SS", struct.pack("<h", -64)), Columns=("SS", struct.pack("<h", -64))),
    }


@cache
def _zeros(megabytes: int) -> bytes:
    """A deflated stretch of zeros that can stand anywhere in a stream, and be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.flush(zlib.Z_FULL_FLUSH)
    return packer.compress(bytes(megabytes << 20)) + packer.flush(zlib.Z_FULL_FLUSH)


def deflated(first: bytes, megabytes: int = 0, last: bytes = b"") -> bytes:
    """A deflated file: `first`, so many megabytes of zeros, `last`."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    head = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = zlib.compressobj(6, zlib.DEFLATED, -15)
    return meta(DEFLATED) + head + _zeros(16) * (megabytes // 16) + tail.compress(last) + tail.flush()


def _syntaxes() -> dict[str, Writer]:
    """Deflated bombs, and transfer syntaxes that are unknown, absent or wrong."""
    gigabyte = 1 << 30
    large = {"Rows": u16(HUGE), "Columns": u16(8192)}
    return {
        "deflate-bomb-after-the-pixels": write(lambda: deflated(body({}), 1024)),
        "deflate-bomb-before-the-header": write(
            lambda: deflated(element(0x00080008, "OB", b"", gigabyte), 1024, body({}))
        ),
        "deflate-bomb-in-the-pixels": write(
            lambda: deflated(body({**large, "PixelData": ("OW", b"", HUGE * 8192 * 2)}), 1024)
        ),
        "deflate-bomb-of-2048-frames": write(
            lambda: deflated(
                body(
                    {
                        "Rows": u16(512),
                        "Columns": u16(512),
                        "NumberOfFrames": b"2048",
                        "PixelData": ("OW", b"", gigabyte),
                    }
                ),
                1024,
            )
        ),
        "deflate-that-ends-early": write(lambda: deflated(body({}))[:-2000]),
        "deflate-of-garbage": write(lambda: meta(DEFLATED) + b"\xff" * 1000),
        "deflate-of-nothing": write(lambda: meta(DEFLATED)),
        "deflate-that-is-native": changed(DEFLATED),
        "syntax-unknown": changed("1.2.3.4"),
        "syntax-empty": changed(""),
        "syntax-of-bytes": write(lambda: meta(EXPLICIT).replace(EXPLICIT.encode(), b"\xff" * len(EXPLICIT)) + body({})),
        "syntax-absent": write(lambda: meta(None) + body({})),
        "syntax-absent-implicit": write(lambda: meta(None) + body({}, implicit=True)),
        "syntax-big-endian-that-is-little": changed(BIG),
        "syntax-mpeg": changed(MPEG, PixelData=compressed(b"\0\0\1\xb3" + bytes(5000))),
        "syntax-jpip": changed("1.2.840.10008.1.2.4.94", PixelData=None),
        "syntax-implicit-that-is-explicit": write(lambda: meta(IMPLICIT) + body({})),
        "syntax-explicit-that-is-implicit": write(lambda: meta(EXPLICIT) + body({}, implicit=True)),
        "meta-absent": write(lambda: bytes(128) + b"DICM" + body({})),
        "preamble-absent": write(lambda: body({})),
    }


def _no_dicom() -> dict[str, Writer]:
    """Files that are no slices, and some that are no DICOM."""
    record = element(0x00041400, "UL", u32(400)) + element(0x00041420, "UL", u32(400))  # the next one: itself
    return {
        "empty-file": write(b""),
        "one-byte": write(b"\0"),
        "preamble-and-nothing": write(bytes(128) + b"DICM"),
        "zeros-of-20-mb": write(lambda: bytes(20 << 20)),
        "preamble-and-20-mb-of-zeros": write(lambda: bytes(128) + b"DICM" + bytes(20 << 20)),
        "random-bytes": write(lambda: np.random.default_rng(2).bytes(1 << 20)),
        "preamble-and-random-bytes": write(lambda: bytes(128) + b"DICM" + np.random.default_rng(3).bytes(1 << 20)),
        "png": write(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()),
        "gzip": write(lambda: gzip.compress(meta(EXPLICIT) + body({}), mtime=0)),
        "dicomdir": write(lambda: meta(EXPLICIT, DICOMDIR) + sequence(0x00041220, *[record] * 3), "DICOMDIR"),
        "structured-report": write(
            lambda: (
                meta(EXPLICIT, SR)
                + element(0x00080016, "UI", SR.encode())
                + element(0x00080060, "CS", b"SR")
                + sequence(0x0040A730, element(0x0040A160, "UT", b"No hemorrhage."))
            )
        ),
        "only-a-meta-header": write(lambda: meta(EXPLICIT)),
    }


# ---- what stands in a folder and is no common file ----


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo.dcm")
    return folder / "fifo.dcm"


def _link(target: Callable[[Path], Path | str]) -> Writer:
    def writer(folder: Path) -> Path:
        path = folder / "link.dcm"
        path.symlink_to(target(folder))
        return path

    return writer


def _folder(folder: Path) -> Path:
    (folder / "x.dcm").mkdir()
    return folder / "x.dcm"


def _unreadable(folder: Path) -> Path:
    """Readable all the same for root."""
    path = changed()(folder)
    path.chmod(0)
    return path


def _sparse(size: int, **changes) -> Writer:
    def writer(folder: Path) -> Path:
        path = changed(**changes)(folder)
        os.truncate(path, size)
        return path

    return writer


def _odd_name(folder: Path) -> Path:
    path = folder / os.fsdecode(b"\xff\nname.dcm")
    return changed()(folder).rename(path)


def _paths() -> dict[str, Writer]:
    wide = {"Rows": u16(HUGE), "Columns": u16(HUGE)}
    return {
        "fifo": _fifo,
        "link-to-itself": _link(lambda folder: folder / "link.dcm"),
        "link-to-a-folder": _link(lambda folder: folder),
        "link-to-nothing": _link(lambda folder: folder / "absent"),
        "link-to-zeros-without-end": _link(lambda folder: "/dev/zero"),
        "link-to-random-bytes-without-end": _link(lambda folder: "/dev/urandom"),
        "link-to-a-fifo": _link(_fifo),
        "link-to-null": _link(lambda folder: "/dev/null"),
        "link-to-a-sound-file": _link(changed()),
        "folder": _folder,
        "unreadable": _unreadable,
        "odd-name": _odd_name,
        "sparse-300-mb": _sparse(300 << 20),
        "sparse-5-gb": _sparse(5 << 30),
        "sparse-300-mb-of-pixels": _sparse(300 << 20, PixelData=("OW", b"", 299 << 20)),
        "sparse-4-gb-of-pixels": _sparse((4 << 30) + 4096, PixelData=("OW", b"", 0xFFFFFFFE), **wide),
        "sparse-2-gb-in-one-element": _sparse((2 << 30) + 4096, before=element(0x00080008, "OB", b"", 2 << 30)),
    }


def _big_endian(folder: Path) -> Path:
    """The sound slice in big endian, which pydicom writes."""
    dataset = pydicom.dcmread(BytesIO(meta(EXPLICIT) + body({})))
    dataset.PixelData = pixels().astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = BIG
    pydicom.dcmwrite(folder / "a.dcm", dataset, implicit_vr=False, little_endian=False)
    return folder / "a.dcm"


HEALTHY: dict[str, Writer] = {
    "explicit": changed(),
    "implicit": changed(IMPLICIT),
    "deflated": write(lambda: deflated(body({}))),
    "big-endian": _big_endian,
    **{kind: _frames_of(kind) for kind in ENCAPSULATED},
}

HOSTILE: dict[str, Writer] = {
    **_sizes(),
    **_codestreams(),
    **_run_lengths(),
    **_encapsulation(),
    **_structure(),
    **_numbers(),
    **_pixels(),
    **_syntaxes(),
    **_no_dicom(),
    **_paths(),
}

# A cut codestream holds a part of a slice: what a decoder makes of the rest is no measurement.
WITHOUT_SLICE = frozenset(_no_dicom()) | {name for name in HOSTILE if "-cut-to-" in name}
WITHOUT_SLICE |= {
    "native-of-65535-squared",
    "native-of-65535-squared-without-a-byte",
    "native-of-2-31-frames",
    "encapsulated-without-an-item",
    "encapsulated-with-no-fragment",
    "pixels-empty",
    "pixels-absent",
    "pixels-one-row-short",
    "rle-that-ends-within-a-run",
    "pixels-in-a-sequence",
    "rows-zero",
    "columns-zero",
    "rows-absent",
    "columns-absent",
    "rows-and-columns-zero-no-pixels",
    "rgb",
    "syntax-unknown",
    "syntax-mpeg",
    "syntax-jpip",
    "fifo",
    "link-to-itself",
    "link-to-a-folder",
    "link-to-nothing",
    "link-to-zeros-without-end",
    "link-to-random-bytes-without-end",
    "link-to-a-fifo",
    "link-to-null",
    "folder",
}
