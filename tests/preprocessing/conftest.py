"""DICOM files that the tests draw themselves."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

AXIAL = ("1", "0", "0", "0", "1", "0")


@pytest.fixture(scope="session")
def write_dicom():
    return _write_dicom


def _write_dicom(path, stored: np.ndarray, bits: int = 16, intercept: str | None = "-1024", **elements):
    """Write stored values (rows, columns), signed or not by their type; an element that is None is left out."""
    defaults = {
        "SOPInstanceUID": path.stem,
        "PatientID": "ID_9a71e7",
        "StudyInstanceUID": "ID_57d0a1",
        "SeriesInstanceUID": "ID_5e71e5",
        "ImagePositionPatient": ["-125", "-125", "0"],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": ["0.5", "0.5"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(np.issubdtype(stored.dtype, np.signedinteger)),
        "WindowCenter": "40",
        "WindowWidth": "80",
        "RescaleIntercept": intercept,
        "RescaleSlope": "1",
        "PixelData": stored.tobytes(),
    }
    path.parent.mkdir(exist_ok=True)
    dataset = Dataset()
    with pydicom.config.disable_value_validation():  # the RSNA's identifiers are no valid UIDs
        for name, value in {**defaults, **elements}.items():
            if value is not None:
                setattr(dataset, name, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(path, enforce_file_format=True)
    return path
