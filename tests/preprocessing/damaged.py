"""Damaged copies of sound DICOM files: `mutate` damages bytes in one way that a generator draws.

paths = seeds(folder, real)                     # sound files, one or more a transfer syntax
for name, data in damaged(paths, 150): ...      # the same bytes on each run
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from hostile import DEFLATED, EXPLICIT, HEALTHY, IMPLICIT, J2K, JPEG, JPEG_LOSSLESS, JPEG_LS, LONG, RLE, UNDEFINED
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedCTImageStorage

from models.phantom.dicom import identify, to_dicom
from models.phantom.jpeg import encode_jpeg_lossless
from models.phantom.study import draw_study

HEAD = 1024  # bytes; most of what can go wrong stands there
STRETCH = 4096  # bytes at most that are copied or zeroed
SYNTAXES = [syntax.encode() for syntax in (IMPLICIT, EXPLICIT, DEFLATED, RLE, JPEG, JPEG_LOSSLESS, JPEG_LS, J2K)]
# Kinds that the phantom has not, from the files inside pydicom; they pass as CT so that their pixels are reached.
SHIPPED = (
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # lossless
    "rtdose.dcm",  # 15 frames of 32 bits
)


# ---- mutations ----


class Place(NamedTuple):
    """Where the parts of an element stand in a file."""

    tag: int
    length: int  # of two or four bytes, up to the value
    value: int
    size: int  # as the length says


def places(data: bytes) -> list[Place]:
    """The elements from the file meta information on, those in sequences too, as far as they can be followed."""
    found: list[Place] = []
    at, in_pixels = 132, False
    while at + 8 <= len(data):
        tag, vr = data[at : at + 4], data[at + 4 : at + 6]
        explicit = vr.isalpha() and vr.isupper() and tag[:2] != b"\xfe\xff"
        length = at + (4 if not explicit else 8 if vr.decode() in LONG else 6)
        value = length + (2 if length == at + 6 else 4)
        size = int.from_bytes(data[length:value], "little")
        found.append(Place(at, length, value, size))
        in_pixels |= tag == b"\xe0\x7f\x10\0"
        is_item = tag == b"\xfe\xff\0\xe0" and not in_pixels
        at = value if size == UNDEFINED or vr == b"SQ" or is_item else value + size
    return found


def _flip(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 21)):
        end = min(HEAD, len(data)) if rng.random() < 0.7 else len(data)
        data[rng.integers(end)] ^= rng.integers(1, 256)
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: rng.integers(len(data))])


def _resize(data: bytearray, rng: np.random.Generator) -> bytes:
    place = _choose(places(data), rng)
    most = 256 ** (place.value - place.length) - 1
    sizes = [0, 1, place.size - 1, place.size + 1, place.size * 2, len(data), rng.integers(most), most, most - 1]
    data[place.length : place.value] = int(min(max(_choose(sizes, rng), 0), most)).to_bytes(
        place.value - place.length, "little"
    )
    return bytes(data)


def _swap_tags(data: bytearray, rng: np.random.Generator) -> bytes:
    found = places(data)
    one, other = _choose(found, rng).tag, _choose(found, rng).tag
    data[one : one + 4], data[other : other + 4] = data[other : other + 4], data[one : one + 4]
    return bytes(data)


def _duplicate(data: bytearray, rng: np.random.Generator) -> bytes:
    start, stop = _stretch(data, rng)
    return bytes(data[:stop] + data[start:stop] + data[stop:])


def _zero(data: bytearray, rng: np.random.Generator) -> bytes:
    start, stop = _stretch(data, rng)
    data[start:stop] = bytes(stop - start)
    return bytes(data)


def _change_syntax(data: bytearray, rng: np.random.Generator) -> bytes:
    """Another digit, or another syntax of the same length or shorter."""
    place = next((place for place in places(data) if data[place.tag : place.tag + 4] == b"\2\0\x10\0"), None)
    if place is None or not place.size:
        return _flip(data, rng)
    if rng.random() < 0.5:
        data[place.value + rng.integers(place.size)] = ord("0") + rng.integers(10)
    else:
        other = _choose([syntax for syntax in SYNTAXES if len(syntax) <= place.size] or SYNTAXES[:1], rng)
        data[place.value : place.value + place.size] = other.ljust(place.size, b"\0")
    return bytes(data)


def _overwrite(data: bytearray, rng: np.random.Generator) -> bytes:
    """A short value with an extreme one."""
    short = [place for place in places(data) if 0 < place.size <= 16 and place.value + place.size <= len(data)]
    place = _choose(short, rng)
    extremes = [b"\0" * 16, b"\xff" * 16, b"\0\x80" * 8, b"\xff\x7f" * 8, b"9" * 16, b"-1e30\\nan\\inf 00", b"\1\0" * 8]
    data[place.value : place.value + place.size] = _choose(extremes, rng)[: place.size]
    return bytes(data)


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
    _flip,
    _cut,
    _resize,
    _swap_tags,
    _duplicate,
    _zero,
    _change_syntax,
    _overwrite,
)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one way; a deflated one every other time below its compression."""
    mutation = _choose(MUTATIONS, rng)
    body = 144 + int.from_bytes(data[140:144], "little")  # the file meta information says its length first
    if DEFLATED.encode() not in data[:HEAD] or rng.random() < 0.5:
        return mutation(bytearray(data), rng)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    inflated = mutation(bytearray(data[:body] + zlib.decompress(data[body:], -zlib.MAX_WBITS)), rng)
    return inflated[:body] + packer.compress(inflated[body:]) + packer.flush()


def _choose(options: Sequence, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def _stretch(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(min(HEAD, len(data)) if rng.random() < 0.5 else len(data)))
    return start, min(start + int(2 ** rng.uniform(0, np.log2(STRETCH))), len(data))


def damaged(paths: Sequence[Path], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of so many damaged files, from each seed file in turn."""
    for number in range(count):
        path = paths[number % len(paths)]
        yield f"{number:05d}-{path.name}", mutate(path.read_bytes(), np.random.default_rng([seed, number]))


# ---- sound files ----


def seeds(folder: Path, real: Path | None = None) -> list[Path]:
    """Write sound files of every kind that the reader may meet; with the folder of a real sample, some of it too."""
    with pydicom.config.disable_value_validation():  # the phantom's identifiers are no valid UIDs
        drawn = _phantoms(folder)
    for kind in ("jpeg", "big-endian"):
        drawn.append(HEALTHY[kind](folder).rename(folder / f"{kind}.dcm"))
    drawn += [_save(_as_ct(name), folder / f"shipped-{name}") for name in SHIPPED]
    return drawn + ([] if real is None else sorted(real.glob("stage_2_train/*.dcm"))[::80])


def _phantoms(folder: Path) -> list[Path]:
    paths = []
    # The families: 12 bits unsigned in explicit and in implicit VR, 16 bits signed with padding.
    for number, size in ((0, 32), (2, 32), (4, 64)):
        name = identify(0, "train", number)
        study = draw_study(name.seed, size, name.patient_seed)
        middle = len(study.hounsfield) // 2
        data = to_dicom(study, name, middle)
        paths.append(_save(data, folder / f"phantom-{number}.dcm"))
        paths += [_save(_converted(paths[-1], kind), folder / f"{kind}-{number}.dcm") for kind in CONVERSIONS]
    paths.append(_save(_enhanced([to_dicom(study, name, middle + i) for i in range(3)]), folder / "enhanced.dcm"))
    return paths


def _save(data: Dataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def _to_jpeg_lossless(data: Dataset) -> None:
    stored = data.pixel_array.astype(np.int32) & (2**data.BitsStored - 1)
    data.PixelData = encapsulate([encode_jpeg_lossless(stored, data.BitsStored)])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = JPEG_LOSSLESS


def _to_deflated(data: Dataset) -> None:
    data.file_meta.TransferSyntaxUID = DEFLATED


CONVERSIONS: dict[str, Callable[[Dataset], None]] = {
    "deflated": _to_deflated,
    "rle": lambda data: data.compress(RLE, generate_instance_uid=False),
    "jpeg-ls": lambda data: data.compress(JPEG_LS, generate_instance_uid=False),
    "j2k": lambda data: data.compress(J2K, generate_instance_uid=False),
    "jpeg-lossless": _to_jpeg_lossless,
}


def _converted(path: Path, kind: str) -> Dataset:
    data = pydicom.dcmread(path)
    data.decode()
    CONVERSIONS[kind](data)
    return data


def _enhanced(frames: list[Dataset]) -> Dataset:
    """Slices as one file of several frames, whose geometry and rescale stand in functional groups."""
    data = frames[0]
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = len(frames)
    shared, measures, orientation, transformation = (Dataset() for _ in range(4))
    measures.PixelSpacing, orientation.ImageOrientationPatient = data.PixelSpacing, data.ImageOrientationPatient
    transformation.RescaleIntercept, transformation.RescaleSlope = data.RescaleIntercept, data.RescaleSlope
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [transformation]
    groups = []
    for frame in frames:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = frame.ImagePositionPatient
        group.PlanePositionSequence = [position]
        groups.append(group)
    data.PixelData = b"".join(frame.PixelData for frame in frames)
    for keyword in (
        "PixelSpacing",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "RescaleIntercept",
        "RescaleSlope",
    ):
        del data[keyword]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], groups
    return data


def _as_ct(name: str) -> Dataset:
    data = pydicom.dcmread(get_testdata_file(name, download=False))
    data.Modality = "CT"
    return data
