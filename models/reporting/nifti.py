"""Slices in Hounsfield units -> a NIfTI file."""

import gzip

import nibabel
import numpy as np

from models.preprocessing.affine import to_ras
from models.preprocessing.windows import BRAIN

_SCANNER = 1  # NIfTI's code for coordinates of the scanner
# What the header tells, in its 80 bytes.
_SCAN = b"Hounsfield units; research software, not a medical device"
_DRAWING = b"synthetic, nobody was scanned; Hounsfield units; research software"
_HEAT = b"heat 0 to 1000: where a network looked; not for diagnosis"
_DRAWN_HEAT = b"synthetic, nobody was scanned; heat 0 to 1000: where a network looked"
_LEVEL = 4  # of gzip, 1 to 9: more takes longer than it saves


def to_nifti(hounsfield: np.ndarray, affine: np.ndarray, synthetic: bool = False, of_heat: bool = False) -> bytes:
    """A .nii.gz of slices (slices, rows, columns), int16, with the affine (4, 4) of (column, row, slice) -> LPS mm.

    Its header says what it is, Hounsfield units or heat, and where it is `synthetic` that nobody was scanned.
    The same slices give the same bytes. Software that knows no shear finds the nearest affine without one as qform.
    """
    affine = to_ras(affine)
    image = nibabel.Nifti1Image(hounsfield.transpose(2, 1, 0), affine, dtype=np.int16)
    image.set_sform(affine, code=_SCANNER)
    image.set_qform(affine, code=_SCANNER, strip_shears=True)
    image.header.set_xyzt_units("mm")
    low, high = (200, 1000) if of_heat else (BRAIN.center - BRAIN.width / 2, BRAIN.center + BRAIN.width / 2)
    image.header["cal_min"], image.header["cal_max"] = low, high  # as viewers open it
    texts = (_HEAT, _DRAWN_HEAT) if of_heat else (_SCAN, _DRAWING)
    image.header["descrip"] = texts[synthetic]
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)
