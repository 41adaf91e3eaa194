"""Head CT as hospitals write it: drawn heads, changed as a test wants, in files of every kind."""

import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from scipy.ndimage import zoom

from models.phantom.study import PhantomStudy

ROOT = "1.2.826.0.1.3680043.10.999"  # of UIDs
AIR = -1000


@dataclass(frozen=True)
class Series:
    """One series, axial from the feet to the head unless its axes say otherwise."""

    name: str  # what a test calls it, and the number of its UID
    hounsfield: np.ndarray  # (slices, rows, columns)
    positions: np.ndarray  # (slices, 3)
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    spacing: float = 2.5
    elements: dict = field(default_factory=dict)
    patient: str = "P1"
    study: str = "1"
    stored: tuple[int, int] = (16, 0)  # bits, and the intercept; below 0 values are stored without a sign

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return f"{ROOT}.{int.from_bytes(self.name.encode()[:8], 'big')}"

    def with_values(self, change: Callable[[np.ndarray], np.ndarray], name: str | None = None) -> "Series":
        """The same with other values."""
        return replace(self, hounsfield=change(self.hounsfield.astype(np.float32)), name=name or self.name)

    def some(self, rows: list[int] | slice, name: str | None = None) -> "Series":
        """Some of its slices."""
        kept = {"hounsfield": self.hounsfield[rows], "positions": self.positions[rows]}
        return replace(self, **kept, name=name or self.name)

    def told(self, name: str | None = None, **elements: object) -> "Series":
        """The same with other elements in its headers."""
        return replace(self, elements=self.elements | elements, name=name or self.name)


def head(study: PhantomStudy, name: str = "soft") -> Series:
    """A drawn study as the usual series: 5 mm, a soft kernel, no contrast agent."""
    told = {"ConvolutionKernel": "H31s", "BodyPartExamined": "HEAD", "SliceThickness": "5.0"}
    orientation = tuple(float(value) for value in study.orientation)
    return Series(name, study.hounsfield, study.positions, orientation, study.pixel_spacing, told)


def coronal(series: Series, name: str = "coronal") -> Series:
    """A reformat of a series in another plane."""
    values = series.hounsfield[::-1].transpose(1, 0, 2)[::4]
    corner = series.positions[-1]
    positions = np.array([corner + np.array([0, 4 * series.spacing * row, 0]) for row in range(len(values))])
    return replace(series, name=name, hounsfield=values, positions=positions, orientation=(1, 0, 0, 0, 0, -1))


def resampled(series: Series, share: float, name: str, thickness: float) -> Series:
    """The same head in slices that lie `share` times as close."""
    values = zoom(series.hounsfield.astype(np.float32), (share, 1, 1), order=1)
    steps = np.linspace(0, len(series.positions) - 1, len(values))
    places = np.arange(len(series.positions))
    positions = np.stack([np.interp(steps, places, series.positions[:, axis]) for axis in range(3)], axis=1)
    told = series.elements | {"SliceThickness": f"{thickness}"}
    return replace(series, name=name, hounsfield=values, positions=positions, elements=told)


def data_of(series: Series, number: int) -> Dataset:
    """The file of a slice."""
    bits, intercept = series.stored
    values = np.clip(np.rint(series.hounsfield[number]), -32000, 32000) - intercept
    signed = intercept >= 0
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{series.uid}.{number + 1}"
    data.SeriesInstanceUID, data.StudyInstanceUID = series.uid, f"{ROOT}.{series.study}.{series.patient[1:]}"
    data.PatientID, data.PatientName = series.patient, f"Doe^{series.patient}"
    data.PatientBirthDate, data.PatientSex = "19600102", "F"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20240102", "101112", "7", "A7"
    data.ReferringPhysicianName, data.Modality, data.InstanceNumber = "", "CT", number + 1
    data.FrameOfReferenceUID, data.ImageType = f"{ROOT}.{series.study}.9", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows, data.Columns = values.shape
    data.PixelSpacing = [f"{series.spacing:.6f}"] * 2
    data.ImagePositionPatient = [f"{value:.4f}" for value in series.positions[number]]
    data.ImageOrientationPatient = [f"{value:.6f}" for value in series.orientation]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, int(signed)
    data.RescaleSlope, data.RescaleIntercept = 1, intercept
    data.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    for keyword, value in series.elements.items():
        if value is None:
            data.pop(keyword, None)
        else:
            setattr(data, keyword, value)
    return data


def write(folder: Path, *several: Series, change: Callable[[Dataset], None] | None = None) -> Path:
    """Files of some series, each slice its own, in an order and under names that tell nothing."""
    for series in several:
        place = folder / series.name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(len(series.hounsfield)):
            data = data_of(series, number)
            if change is not None:
                change(data)
            data.save_as(place / f"IM{(number * 7) % 1000:04d}_{number % 3}", enforce_file_format=True)
    return folder


def write_bare(folder: Path, series: Series) -> Path:
    """Files without preamble and group 0002, implicit."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(series.hounsfield)):
        data = data_of(series, number)
        del data.file_meta
        pydicom.dcmwrite(
            folder / f"IM{number:04d}", data, implicit_vr=True, little_endian=True, enforce_file_format=False
        )
    return folder


def implicit(data: Dataset) -> None:
    """Written without the types of its elements."""
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def write_frames(file: Path, series: Series) -> Path:
    """All slices in one Enhanced CT file."""
    data = data_of(series, 0)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    frames, shared = [], Dataset()
    for number in range(len(series.hounsfield)):
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = data_of(series, number).ImagePositionPatient
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    for keyword, names in {
        "PixelMeasuresSequence": ["PixelSpacing"],
        "PlaneOrientationSequence": ["ImageOrientationPatient"],
        "PixelValueTransformationSequence": ["RescaleIntercept", "RescaleSlope"],
    }.items():
        item = Dataset()
        for name in names:
            setattr(item, name, data[name].value)
            delattr(data, name)
        setattr(shared, keyword, [item])
    del data.ImagePositionPatient
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    data.NumberOfFrames = len(frames)
    data.PixelData = b"".join(data_of(series, number).PixelData for number in range(len(frames)))
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)
    return file


def write_nifti(file: Path, series: Series) -> Path:
    """The same as a NIfTI volume, with the affine that dcm2niix would give it."""
    rows, columns = np.reshape(series.orientation, (2, 3))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * series.spacing, columns * series.spacing
    affine[:3, 2] = (series.positions[-1] - series.positions[0]) / (len(series.positions) - 1)
    affine[:3, 3] = series.positions[0]
    affine = np.diag([-1, -1, 1, 1]) @ affine
    image = nibabel.Nifti1Image(np.rint(series.hounsfield).astype(np.int16).transpose(2, 1, 0), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, file)
    return file


def pack(folder: Path, kind: str) -> Path:
    """An archive of a folder, beside it."""
    packed, files = folder.with_suffix(f".{kind}"), sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(packed, "w") as archive:
            for path in files:
                archive.add(path, str(path.relative_to(folder)))
    return packed


def dose_sheet(data: Dataset) -> None:
    """A page of text that was kept as a picture."""
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(data, keyword)


def mr(data: Dataset) -> None:
    """An image of another machine."""
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.Modality = "MR"
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        delattr(data, keyword)
