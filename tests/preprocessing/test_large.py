"""Laws of large files: their pixels are read frame by frame, with the same values, and no header costs memory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hostile import (
    DEFLATED,
    ENCAPSULATED,
    ENHANCED_CT,
    EXPLICIT,
    HEALTHY,
    IMPLICIT,
    ITEM,
    UNDEFINED,
    WHOLE,
    body,
    changed,
    codestream,
    compressed,
    element,
    items,
    meta,
    pixels,
    sequence,
    u16,
    u32,
    write,
)
from pydicom.uid import JPEG2000Lossless
from test_hostile import MEGABYTES, SECONDS, Watch

from models.phantom.dicom import write_phantom
from models.preprocessing import elements
from models.preprocessing.archives import members
from models.preprocessing.dicom import read_file, read_slices
from models.preprocessing.elements import LargeReader, open_bounded
from models.preprocessing.frame_items import FrameItems
from models.preprocessing.reasons import Reason, UnreadableSliceError

FRAMES = 5


@pytest.fixture
def all_large(monkeypatch):
    """From now on every file is a large one."""
    return lambda: monkeypatch.setattr(elements, "LARGE", 0)


def stack() -> np.ndarray:
    """Different frames, (FRAMES, SIZE, SIZE) uint16."""
    return np.stack([np.roll(pixels(), 7 * frame, axis=0) for frame in range(FRAMES)])


def native(syntax: str):
    return changed(syntax, NumberOfFrames=b"%d" % FRAMES, PixelData=lambda: stack().tobytes())


def encapsulated(kind: str, **options):
    frames = {"NumberOfFrames": b"%d" % FRAMES}
    bits = {"BitsAllocated": u16(8), "BitsStored": u16(8), "HighBit": u16(7)} if kind == "jpeg" else {}
    fragments = [codestream(kind)] * FRAMES
    return changed(ENCAPSULATED[kind], PixelData=lambda: compressed(*fragments, **options), **frames, **bits)


def two_fragments_a_frame(folder: Path) -> Path:
    half = len(codestream("j2k")) // 4 * 2
    parts = [codestream("j2k")[:half], codestream("j2k")[half:]] * FRAMES
    pair = sum(8 + len(part) + len(part) % 2 for part in parts[:2])
    table = u32(*(pair * frame for frame in range(FRAMES)))
    pixel_data = lambda: compressed(*parts, table=table)  # noqa: E731
    return changed(ENCAPSULATED["j2k"], PixelData=pixel_data, NumberOfFrames=b"%d" % FRAMES)(folder)


FILES = {
    **{name: HEALTHY[name] for name in HEALTHY if name not in ("deflated", "big-endian")},
    "native frames": native(EXPLICIT),
    "native frames, implicit": native(IMPLICIT),
    **{f"frames in {kind}": encapsulated(kind) for kind in ENCAPSULATED},
    "frames in two fragments": two_fragments_a_frame,
    "bytes behind the pixels": changed(after=lambda: element(0xFFFCFFFC, "OB", bytes(5000))),
}


@pytest.mark.parametrize("name", FILES)
def test_a_large_file_gives_the_values_of_a_small_one(tmp_path, all_large, name):
    path = FILES[name](tmp_path)
    small = list(read_file(path))
    all_large()
    with open_bounded(path) as file:
        assert isinstance(file, LargeReader)
    large = list(read_file(path))
    assert len(large) == len(small)
    for one, other in zip(large, small, strict=True):
        np.testing.assert_array_equal(one.stored, other.stored)
        assert one.rescale == other.rescale
        np.testing.assert_equal(one.row, other.row)


def test_an_enhanced_file_with_groups_for_each_frame_gives_the_same_as_a_large_one(tmp_path, all_large):
    write_phantom(tmp_path / "data", 2, 1, 32, traps=("enhanced",), jobs=1)
    paths = sorted((tmp_path / "data").rglob("*.dcm"))
    small = {path: [(one.row, one.stored) for one in read_file(path)] for path in paths}
    assert max(map(len, small.values())) > 10
    all_large()
    for path in paths:
        np.testing.assert_equal([(one.row, one.stored) for one in read_file(path)], small[path])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["native frames", "frames in j2k"])
def test_a_large_member_of_an_archive_gives_the_same(tmp_path, all_large, name, method):
    path = FILES[name](tmp_path)
    expected = read_slices(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as packed:
        packed.write(path, "a")
    all_large()
    np.testing.assert_array_equal(read_slices(members(tmp_path / "a.zip")[0]), expected)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(UnreadableSliceError, match=r"damaged in its archive"):
        read_slices(members(tmp_path / "b.zip")[0])


REJECTED = {
    "cut off": (lambda: meta(EXPLICIT) + body({"NumberOfFrames": b"9", "PixelData": stack().tobytes()}), "TRUNCATED"),
    "claims more": (
        lambda: meta(EXPLICIT) + body({"NumberOfFrames": b"6", "PixelData": ("OW", stack().tobytes(), 0xFFFFFFF0)}),
        "TRUNCATED",
    ),
    "without pixels": (lambda: meta(EXPLICIT) + body({"PixelData": None}), "NO_PIXELS"),
    "deflated": (lambda: meta(DEFLATED) + os.urandom(10 << 20), "UNREASONABLE"),
    "fewer frames": (
        lambda: (
            meta(ENCAPSULATED["j2k"])
            + body({"NumberOfFrames": b"3", "PixelData": compressed(codestream("j2k"), codestream("j2k"))})
        ),
        "DECODING",
    ),
    "no items": (lambda: meta(ENCAPSULATED["j2k"]) + body({"PixelData": pixels().tobytes()}), "DECODING"),
    "a frame of 2 GB": (
        lambda: (
            meta(ENCAPSULATED["j2k"])
            + body({"PixelData": ("OB", items() + ITEM + u32(0x7FFFFFF0) + codestream("j2k"), UNDEFINED)})
        ),
        "UNREASONABLE",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_wrong_with_a_large_file_is_told(tmp_path, all_large, name):
    content, reason = REJECTED[name]
    all_large()
    with pytest.raises(UnreadableSliceError) as caught:
        read_slices(write(content)(tmp_path))
    assert caught.value.reason is Reason[reason]


def test_a_file_of_gigabytes_is_no_image_of_another_kind(tmp_path):
    path = tmp_path / "a.dcm"
    path.touch()
    os.truncate(path, 3 << 30)
    with pytest.raises(UnreadableSliceError, match="not a DICOM file"):
        read_slices(path)


def test_what_a_file_says_of_thousands_of_frames_is_parsed_a_frame_at_a_time(tmp_path, monkeypatch):
    position = lambda frame: element(0x00200032, "DS", b"-125\\-125\\%d" % frame)  # noqa: E731
    plane = lambda frame: element(0x00209113, "SQ", ITEM + u32(len(position(frame))) + position(frame))  # noqa: E731
    groups = b"".join(ITEM + u32(len(plane(frame))) + plane(frame) for frame in range(FRAMES))
    path = changed(
        NumberOfFrames=b"%d" % FRAMES,
        PixelData=lambda: stack().tobytes(),
        SOPClassUID=ENHANCED_CT.encode(),
        PerFrameFunctionalGroupsSequence=(WHOLE, element(0x52009230, "SQ", groups)),
    )(tmp_path)
    expected = [one.row for one in read_file(path)]
    assert [row["image_position_2"] for row in expected] == list(range(FRAMES))
    made = []
    monkeypatch.setattr(elements, "MAX_SEQUENCE", 100)
    monkeypatch.setattr(elements, "FrameItems", lambda *words: made.append(FrameItems(*words)) or made[-1])
    np.testing.assert_equal([one.row for one in read_file(path)], expected)
    assert [len(found) for found in made] == [FRAMES]


# ---- memory and time ----


def hole(folder: Path, megabytes: int, before: bytes = b"", **changes) -> Path:
    """A file with so many megabytes of zeros in place of its pixels, which take no room on a disk."""
    frames = megabytes * 2
    said = {"Rows": u16(512), "Columns": u16(512), "NumberOfFrames": b"%d" % frames}
    start = meta(EXPLICIT) + before + body({**said, "PixelData": ("OW", b"", frames << 19), **changes})
    path = folder / "a.dcm"
    path.write_bytes(start)
    os.truncate(path, len(start) + (frames << 19))
    return path


def test_the_memory_that_a_large_file_takes_is_that_of_a_frame(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from models.preprocessing.dicom import read_file
list(read_file(Path(sys.argv[1])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read_file(Path(sys.argv[2])))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    small = changed()(tmp_path).rename(tmp_path / "small.dcm")
    command = [sys.executable, "-c", code, small, hole(tmp_path, 150)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 300
    assert megabytes < 20


HARMFUL = {
    "an element of 100 MB": dict(before=element(0x00080008, "OB", bytes(100 << 20))),
    "an element without end": dict(before=element(0x00091010, "OB", b"12", UNDEFINED)),
    "a million private elements": dict(before=element(0x00091010, "US", b"12") * 1_000_000),
    "a sequence of a million elements": dict(before=sequence(0x00081140, element(0x00091010, "US", b"12") * 1_000_000)),
    "groups of a million elements": dict(
        PerFrameFunctionalGroupsSequence=(
            WHOLE,
            element(0x52009230, "SQ", (ITEM + u32(64_000) + element(0x00189327, "US", b"12") * 6400) * 150),
        )
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_large_file_does_no_harm(tmp_path, name):
    with Watch(seconds=SECONDS, megabytes=MEGABYTES) as watch:
        verdict = watch.read(hole(tmp_path, 80, **HARMFUL[name]))
    assert verdict["outcome"] != "broken", verdict
    assert verdict["megabytes"] < 300


def test_a_compressed_large_file_is_sent_to_the_decoder_a_frame_at_a_time(tmp_path, all_large, monkeypatch):
    from models.preprocessing import pixel_data

    sent, real = [], pixel_data.decode_guarded
    monkeypatch.setattr(
        pixel_data, "decode_guarded", lambda pixels, *words: sent.append(len(pixels)) or real(pixels, *words)
    )
    all_large()
    assert len(read_slices(encapsulated("j2k")(tmp_path))) == FRAMES
    assert len(sent) == FRAMES
    assert max(sent) < 2 * len(codestream("j2k"))
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == JPEG2000Lossless
