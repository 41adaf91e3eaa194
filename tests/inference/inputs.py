"""Seventy inputs as people have them, and the right answer to each: which series is taken, or why it is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from head_ct import (
    AIR,
    Series,
    coronal,
    dose_sheet,
    implicit,
    mr,
    pack,
    resampled,
    write,
    write_bare,
    write_frames,
    write_nifti,
)
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

ANSWERED, WARNED, REFUSED = "answered", "answered with warnings", "refused"


class Due(NamedTuple):
    """The right answer to a study."""

    taken: str  # the name of the series, "" where there is none; for NIfTI the path of the file
    verdict: str = ANSWERED
    reason: str = ""  # what is told of it


class Case(NamedTuple):
    """An input: what is written, from two heads, and named; and what is due of its studies, in any order."""

    write: Callable[[Path, Series, Series], Path | Sequence[Path]]
    due: tuple[Due, ...]


SOFT = (Due("soft"),)


def bone(head: Series) -> Series:
    """The same head through a kernel for bone."""
    sharp = np.stack([2 * one - cv2.GaussianBlur(one, (0, 0), 1.0) for one in head.hounsfield.astype(np.float32)])
    return replace(head.told("bone", ConvolutionKernel="H70h"), hounsfield=sharp)


def contrast(head: Series, name: str = "contrast") -> Series:
    """With vessels full of contrast agent, and a header that says so."""
    return head.with_values(with_vessels).told(name, ContrastBolusAgent="Iohexol")


def with_vessels(values: np.ndarray) -> np.ndarray:
    """Bright tubes through the brain, as of a CT angiography."""
    grown = values.copy()
    middle = values.shape[1] // 2
    size = max(3, values.shape[1] // 24)
    for row in (-2, 0, 2):
        for column in (-2, 0, 2):
            part = grown[:, middle + row * size :, middle + column * size :][:, :size, :size]
            part[(part > 0) & (part < 90)] = 260
    return grown


def abdomen(head: Series) -> Series:
    """A trunk: soft tissue with a spine behind, and ribs that do not close."""
    rows, columns = np.indices(head.hounsfield.shape[1:]) / head.hounsfield.shape[1] - 0.5
    slice_ = np.full(rows.shape, float(AIR))
    slice_[(columns / 0.45) ** 2 + (rows / 0.33) ** 2 < 1] = 45
    slice_[columns**2 + (rows - 0.22) ** 2 < 0.05**2] = 500
    return replace(head, hounsfield=np.repeat(slice_[None], len(head.hounsfield), axis=0)).told(BodyPartExamined="")


def bottle(head: Series) -> Series:
    """A cylinder of water."""
    rows, columns = np.indices(head.hounsfield.shape[1:]) / head.hounsfield.shape[1] - 0.5
    slice_ = np.where(rows**2 + columns**2 < 0.4**2, 0.0, AIR)
    return replace(head, hounsfield=np.repeat(slice_[None], len(head.hounsfield), axis=0))


def noisy(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """Noise of so many HU everywhere but in air."""
    noise = np.random.default_rng(0)
    return lambda values: np.where(values > -500, values + noise.normal(0, sigma, values.shape), values)


def metal(values: np.ndarray) -> np.ndarray:
    """A clip and its streaks."""
    changed, middle, size = values.copy(), values.shape[1] // 2, max(2, values.shape[1] // 24)
    some = slice(len(values) // 2, len(values) // 2 + 1 + len(values) // 10)
    changed[some, middle : middle + size, middle : middle + size] = 12_000
    return changed


def moved(values: np.ndarray) -> np.ndarray:
    """A head that has been turned away for three slices."""
    changed, first = values.copy(), len(values) // 2
    changed[first : first + 3] = np.roll(changed[first : first + 3], values.shape[2] // 12, axis=2)
    return changed


def without(head: Series, lost: range) -> Series:
    """Slices that were not sent."""
    return head.some([row for row in range(len(head.hounsfield)) if row not in lost])


def _with(make: Callable[[Series], Series | tuple[Series, ...]]) -> Callable[[Path, Series, Series], Path]:
    """The head, and beside it what is made of it."""

    def write_both(folder: Path, head: Series, _: Series) -> Path:
        made = make(head)
        return write(folder, head, *(made if isinstance(made, tuple) else (made,)))

    return write_both


def _only(make: Callable[[Series], Series]) -> Callable[[Path, Series, Series], Path]:
    """What is made of the head, alone."""
    return lambda folder, head, _: write(folder, make(head))


def _changed(change: Callable) -> Callable[[Path, Series, Series], Path]:
    """The head, each file changed."""
    return lambda folder, head, _: write(folder, head, change=change)


def _beside(name: str, change: Callable) -> Callable[[Path, Series, Series], Path]:
    """The head, and beside it a few files of another kind."""

    def write_both(folder: Path, head: Series, _: Series) -> Path:
        write(folder, replace(head.some(slice(0, 3)), name=name), change=change)
        return write(folder, head)

    return write_both


def _volume(
    make: Callable[[Series], Series] = lambda head: head, name: str = "scan.nii.gz"
) -> Callable[[Path, Series, Series], Path]:
    return lambda folder, head, _: write_nifti(folder / name, make(head))


def scout(head: Series) -> Series:
    """The image that the slices were planned on."""
    told = coronal(head, "scout").some(slice(4, 5))
    return told.told(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def sagittal(head: Series) -> Series:
    """A reformat in the third plane."""
    return replace(coronal(head, "sagittal"), orientation=(0, 1, 0, 0, 0, -1))


def half_as_thick(head: Series) -> Series:
    """2.5 mm slices of the same head."""
    return resampled(head, 2.0, "thin", 2.5)


def twice_as_thick(head: Series) -> Series:
    """10 mm slices of the same head."""
    return resampled(head, 0.5, "thick", 10.0)


def upper(head: Series, name: str = "soft") -> Series:
    """The upper half of a head."""
    return head.some(slice(len(head.hounsfield) // 2, None), name)


def _two_patients(folder: Path, head: Series, other: Series) -> Path:
    return write(folder, head, replace(other, name="other", patient="P2"))


def _two_days(folder: Path, head: Series, other: Series) -> Path:
    return write(folder, head, replace(other, name="other", study="2"))


def _volumes(folder: Path, head: Series, other: Series) -> Path:
    write_nifti(folder / "sub-1" / "ses-a" / "ct.nii.gz", head)
    write_nifti(folder / "sub-2" / "ses-a" / "ct.nii.gz", other)
    return folder


def _mask_beside(folder: Path, head: Series, _: Series) -> Path:
    write_nifti(folder / "one" / "mask.nii.gz", head.with_values(lambda values: (values > 50).astype(np.float32)))
    write_nifti(folder / "one" / "scan.nii.gz", head)
    return folder


def _directory(folder: Path, head: Series, _: Series) -> Path:
    write(folder, head)
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return folder / "DICOMDIR"


def _single_files(folder: Path, head: Series, _: Series) -> list[Path]:
    return sorted(path for path in write(folder, head).rglob("*") if path.is_file())


def _nested(folder: Path, head: Series, _: Series) -> Path:
    pack(write(folder / "inner", head), "zip")
    for path in sorted((folder / "inner").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return folder


def _packed(kind: str) -> Callable[[Path, Series, Series], Path]:
    return lambda folder, head, _: pack(write(folder / "inner", head), kind)


def _compressed(syntax: str) -> Callable:
    return lambda data: data.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)


def _deflated(data) -> None:
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def _turned(head: Series) -> Series:
    """Prone: rows and columns run the other way."""
    corner = np.array([head.orientation[:3], head.orientation[3:]]).sum(axis=0) * head.spacing
    positions = head.positions + corner * (head.hounsfield.shape[1] - 1)
    backwards = tuple(-value for value in head.orientation)
    return replace(head, hounsfield=head.hounsfield[:, ::-1, ::-1], positions=positions, orientation=backwards)


def _narrow(head: Series) -> Series:
    cut = head.hounsfield.shape[2] // 24
    positions = head.positions + np.array(head.orientation[:3]) * head.spacing * cut
    return replace(head, hounsfield=head.hounsfield[:, :, cut:-cut], positions=positions)


def _everything(head: Series) -> tuple[Series, ...]:
    return bone(head), contrast(head), scout(head), coronal(head), half_as_thick(head), upper(head, "upper")


CASES = {
    # ---- the right one of several series ----
    "one": Case(_with(lambda head: ()), SOFT),
    "a kernel for bone beside it": Case(_with(bone), SOFT),
    "contrast agent beside it": Case(_with(contrast), SOFT),
    "a scout beside it": Case(_with(scout), SOFT),
    "a coronal reformat beside it": Case(_with(coronal), SOFT),
    "a sagittal reformat beside it": Case(_with(sagittal), SOFT),
    "a dose sheet beside it": Case(_beside("dose", dose_sheet), SOFT),
    "MR beside it": Case(_beside("mr", mr), SOFT),
    "thinner slices beside it": Case(_with(half_as_thick), SOFT),
    "thicker slices beside it": Case(_with(twice_as_thick), SOFT),
    "half of the head beside it": Case(_with(lambda head: upper(head, "upper")), SOFT),
    "a few slices beside it": Case(_with(lambda head: head.some(slice(8, 13), "few")), SOFT),
    "a lossy copy beside it": Case(_with(lambda head: head.told("lossy", LossyImageCompression="01")), SOFT),
    "an iodine map beside it": Case(_with(lambda head: head.told("iodine", RescaleType="MGML")), SOFT),
    "made from other images beside it": Case(
        _with(lambda head: head.told("made", ImageType=["DERIVED", "SECONDARY"])), SOFT
    ),
    "a trunk beside it": Case(_with(lambda head: replace(abdomen(head), name="trunk")), SOFT),
    "a trunk beside it, and it is told": Case(
        _with(lambda head: head.told("abdomen", BodyPartExamined="ABDOMEN")), SOFT
    ),
    "all of these beside it": Case(_with(_everything), SOFT),
    "bone and contrast alone": Case(
        lambda folder, head, _: write(folder, bone(head), contrast(head)), (Due("bone", WARNED, "kernel"),)
    ),
    "a soft kernel of unknown name": Case(_only(lambda head: head.told(ConvolutionKernel="XX")), SOFT),
    # ---- in whatever it comes ----
    "two patients": Case(_two_patients, (Due("soft"), Due("other"))),
    "two days of a patient": Case(_two_days, (Due("soft"), Due("other"))),
    "a zip": Case(_packed("zip"), SOFT),
    "a tar": Case(_packed("tar"), SOFT),
    "a zip in a folder": Case(_nested, SOFT),
    "a DICOMDIR": Case(_directory, SOFT),
    "files one by one": Case(_single_files, SOFT),
    "no preamble": Case(lambda folder, head, _: write_bare(folder, head), SOFT),
    "implicit": Case(_changed(implicit), SOFT),
    "RLE": Case(_changed(_compressed(RLELossless)), SOFT),
    "deflated": Case(_changed(_deflated), SOFT),
    "one file of many frames": Case(lambda folder, head, _: write_frames(folder / "many", head), SOFT),
    "12 bits without a sign": Case(_only(lambda head: replace(head, stored=(12, -1024))), SOFT),
    "prone": Case(_only(_turned), SOFT),
    "not square": Case(_only(_narrow), SOFT),
    "from the head down": Case(_only(lambda head: head.some(slice(None, None, -1))), SOFT),
    "ordered by location": Case(
        _only(lambda head: head.told(ImagePositionPatient=None)), (Due("soft", WARNED, "positions are not told"),)
    ),
    "no series description, no kernel": Case(
        _only(lambda head: head.told(ConvolutionKernel=None, SliceThickness=None, BodyPartExamined=None)), SOFT
    ),
    "NIfTI": Case(_volume(), (Due("scan.nii.gz"),)),
    "NIfTI without gzip": Case(_volume(name="scan.nii"), (Due("scan.nii"),)),
    "NIfTI and a mask": Case(_mask_beside, (Due("one/scan.nii.gz"),)),
    "BIDS": Case(_volumes, (Due("sub-1/ses-a/ct.nii.gz"), Due("sub-2/ses-a/ct.nii.gz"))),
    # ---- with a warning ----
    "two slices lack": Case(_only(lambda head: without(head, range(14, 16))), (Due("soft", WARNED, "lack"),)),
    "contrast agent alone": Case(_only(contrast), (Due("contrast", WARNED, "contrast"),)),
    "contrast agent that nothing tells": Case(_volume(contrast), (Due("scan.nii.gz", WARNED, "vessels"),)),
    "a kernel for bone alone": Case(_only(bone), (Due("bone", WARNED, "bone"),)),
    "40 HU too high": Case(_only(lambda head: head.with_values(lambda hu: hu + 40)), (Due("soft", WARNED, "brain"),)),
    "35 HU of noise": Case(_only(lambda head: head.with_values(noisy(35))), (Due("soft", WARNED, "noise"),)),
    "metal": Case(_only(lambda head: head.with_values(metal)), (Due("soft", WARNED, "metal"),)),
    "moved": Case(_only(lambda head: head.with_values(moved)), (Due("soft", WARNED, "moved"),)),
    "the top cut off": Case(
        _only(lambda head: head.some(slice(0, -(len(head.hounsfield) // 4)))), (Due("soft", WARNED, "vertex"),)
    ),
    "lossy alone": Case(_only(lambda head: head.told(LossyImageCompression="01")), (Due("soft", WARNED, "lossy"),)),
    # ---- refused ----
    "half a head": Case(_only(upper), (Due("soft", REFUSED, "brain over"),)),
    "the lower half": Case(
        _only(lambda head: head.some(slice(0, len(head.hounsfield) // 2))), (Due("soft", REFUSED, "brain over"),)
    ),
    "a third of the slices lack": Case(
        _only(lambda head: without(head, range(8, 8 + len(head.hounsfield) // 3))), (Due("soft", REFUSED, "lack"),)
    ),
    "five slices": Case(_only(lambda head: head.some(slice(10, 15))), (Due("soft", REFUSED, "fewer than 8"),)),
    "a trunk alone": Case(_only(abdomen), (Due("soft", REFUSED, "skull"),)),
    "a trunk, and it is told": Case(
        _only(lambda head: head.told(BodyPartExamined="ABDOMEN")), (Due("", REFUSED, "another part of the body"),)
    ),
    "water": Case(_only(bottle), (Due("soft", REFUSED, "skull"),)),
    "inverted": Case(_only(lambda head: head.with_values(lambda hu: 1000 - hu)), (Due("soft", REFUSED, ""),)),
    "200 HU too high": Case(_only(lambda head: head.with_values(lambda hu: hu + 200)), (Due("soft", REFUSED, "air"),)),
    "without its intercept": Case(
        _only(lambda head: head.with_values(lambda hu: hu + 1024)), (Due("soft", REFUSED, "air"),)
    ),
    "150 HU too low": Case(_only(lambda head: head.with_values(lambda hu: hu - 150)), (Due("soft", REFUSED, ""),)),
    "100 HU of noise": Case(_only(lambda head: head.with_values(noisy(100))), (Due("soft", REFUSED, "noise"),)),
    "pixels of another size": Case(
        _only(lambda head: replace(head, spacing=head.spacing / 4)), (Due("soft", REFUSED, ""),)
    ),
    "a scout alone": Case(_only(scout), (Due("", REFUSED, "localizer"),)),
    "a coronal reformat alone": Case(_only(coronal), (Due("", REFUSED, "coronal"),)),
    "an iodine map alone": Case(_only(lambda head: head.told(RescaleType="MGML")), (Due("", REFUSED, "another unit"),)),
    "MR alone": Case(_changed(mr), (Due("", REFUSED, "not a CT image"),)),
    "a dose sheet alone": Case(_changed(dose_sheet), (Due("", REFUSED, ""),)),
    "a mask alone": Case(
        _volume(lambda head: head.with_values(lambda hu: (hu > 50).astype(np.float32))),
        (Due("", REFUSED, "Hounsfield"),),
    ),
}
