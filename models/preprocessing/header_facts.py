"""What the header of a slice tells of its series, in words of our own: nothing that somebody has typed gets further."""

import math
import re
from typing import Any, Literal, NamedTuple

from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
)

from models.preprocessing.elements import number_of

Kernel = Literal["soft", "bone", "unknown"]
Unit = Literal["HU", "HU by table", "HU by air", "other", "not told", "no air"]
Body = Literal["head", "other", "unknown"]

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
TAGS = (
    "SOPClassUID",
    "BurnedInAnnotation",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ConvolutionKernel",
    "LossyImageCompression",
    "RescaleType",
    "SliceThickness",
)
_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)

# What is in the pixels of a spectral CT in place of attenuation (PS3.3 C.8.15.3.10, value 4 of ImageType).
_MATERIALS = {"MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY"}
_LOCALIZER = re.compile(r"LOCALIZER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM")
_SCREENS = {"SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE", "SCREENSHOT", "SCREEN CAPTURE"}
_NO_CONTRAST = {"", "N", "NO", "NON", "NONE", "OFF", "WITHOUT", "NO CONTRAST", "NO IV CONTRAST"}

# Reconstruction kernels by vendor: GE's words, Siemens' numbers, Canon's FC, Philips' letters.
_BONE_WORDS = re.compile(r"BONE|EDGE|LUNG|ULTRA|SHARP")
_SOFT_WORDS = re.compile(r"STANDARD|SOFT|STND|CHST|BRAIN|SMOOTH")
_SIEMENS = re.compile(r"[A-Z][A-Z]?(\d\d)[A-Z]*")
_CANON = re.compile(r"FC(\d\d).*")
_CANON_CLASSES: dict[str, Kernel] = {**dict.fromkeys("012", "soft"), **dict.fromkeys("358", "bone")}  # by tens
_PHILIPS: dict[str, Kernel] = {name: "soft" for name in ("A", "B", "C", "UA", "UB", "UC", "EB", "EC")}
_PHILIPS |= {name: "bone" for name in ("D", "E", "L", "YA", "YB", "YC", "YD", "YE")}

_HEAD = re.compile(r"HEAD|BRAIN|SKULL|CEREB|CRANI|NEURO")
_OTHER_PARTS = re.compile(
    r"ABDOMEN|ABD|ANKLE|ARM|BREAST|CHEST|COLON|ELBOW|EXTREMITY|FEMUR|FOOT|HAND|HEART|HIP|HUMERUS|KIDNEY|KNEE|LEG|LIVER"
    r"|LUNG|NECK|PANCREAS|PELVIS|SHOULDER|[CLST]?SPINE|THIGH|THORAX|WRIST|CHESTABDOMEN|CHESTABDPELVIS|ABDOMENPELVIS"
)


class HeaderFacts(NamedTuple):
    """Of one slice."""

    kernel: Kernel
    unit: Unit
    body: Body
    thickness: float  # mm, NaN where it is not told
    contrast: bool
    lossy: bool
    secondary: bool  # made from other images
    reconstruction: str
    is_volume: bool = False  # of NIfTI, which tells none of this but what its values show of their unit


def header_facts(header: dict, syntax: UID, table_type: str | None) -> HeaderFacts:
    """What a header tells; `table_type` is that of its Modality LUT, if it has one."""
    return HeaderFacts(
        kernel=kernel_class(_first(header, "ConvolutionKernel")),
        unit=_unit(header, table_type),
        body=body_class(_first(header, "BodyPartExamined")),
        thickness=number_of(header, "SliceThickness"),
        contrast=_has_contrast(header),
        lossy=_first(header, "LossyImageCompression") == "01" or syntax in _LOSSY,
        secondary=is_secondary(header),
        reconstruction=reconstruction(header),
    )


def reconstruction(header: dict) -> str:
    """What tells two reconstructions of one scan apart; compared, and written nowhere."""
    return " ".join(_texts(header, "ConvolutionKernel", "ImageType", "FrameType"))


def kernel_class(name: str) -> Kernel:
    """Soft or bone, from the name of a reconstruction kernel as its vendor writes it."""
    if _BONE_WORDS.search(name):
        return "bone"
    if _SOFT_WORDS.search(name):
        return "soft"
    if match := _CANON.fullmatch(name):
        return _CANON_CLASSES.get(match[1][0], "unknown")
    if match := _SIEMENS.fullmatch(name):
        return "soft" if int(match[1]) < 50 else "bone" if int(match[1]) >= 55 else "unknown"
    return _PHILIPS.get(name, "unknown")


def body_class(part: str) -> Body:
    """Whether a part of the body is the head, from one of the defined terms (PS3.16 annex L)."""
    part = re.sub(r"[ _-]", "", part)
    if _HEAD.search(part):
        return "head"
    return "other" if _OTHER_PARTS.fullmatch(part) else "unknown"


def is_secondary(header: dict) -> bool:
    """Whether a slice was made from other images, on which somebody may have written."""
    return "SECONDARY" in image_type(header)


def image_type(header: dict) -> list[str]:
    """The values of ImageType, and of the type of a frame of an enhanced CT file."""
    return [
        value.replace("_", " ") if "SCREEN" in value else value for value in _texts(header, "ImageType", "FrameType")
    ]


def is_localizer(header: dict) -> bool:
    """Whether an image is there to plan the slices on."""
    return any(_LOCALIZER.search(value) for value in image_type(header))


def is_picture(header: dict) -> bool:
    """Whether text may stand in the pixels: the header says so, or it is a screen that somebody has kept."""
    if _first(header, "BurnedInAnnotation").startswith("Y") or _SCREENS.intersection(image_type(header)):
        return True
    is_placed = header.get("ImagePositionPatient") not in (None, "") or header.get("PerFrameFunctionalGroupsSequence")
    return is_secondary(header) and not is_placed


def _unit(header: dict, table_type: str | None) -> Unit:
    told = table_type if table_type is not None else _first(header, "RescaleType")
    if told not in ("", "HU") or _MATERIALS.intersection(image_type(header)):
        return "other"
    if number_of(header, "BitsStored") <= 8:  # a picture: they cannot hold the range of a CT
        return "not told"
    if table_type is not None:
        return "HU by table" if told else "not told"
    return "not told" if math.isnan(number_of(header, "RescaleIntercept")) else "HU"


def _has_contrast(header: dict) -> bool:
    agents = header.get("ContrastBolusAgentSequence")
    return _first(header, "ContrastBolusAgent") not in _NO_CONTRAST or (
        bool(agents) and not isinstance(agents, Exception)
    )


def _first(header: dict, tag: str) -> str:
    """The first text of an element in capitals, "" where there is none or it cannot be parsed."""
    return next(iter(_texts(header, tag)), "")


def _texts(header: dict, *tags: str) -> list[str]:
    texts: list[str] = []
    for tag in tags:
        value: Any = header.get(tag)
        if value is None or isinstance(value, Exception):
            continue
        texts += [
            str(part).strip(" \0").upper() for part in (value if isinstance(value, list | MultiValue) else [value])
        ]
    return texts
