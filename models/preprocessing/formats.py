"""Which reader a file is for. Its name decides: NIfTI volumes have endings of their own, DICOM files may have any."""

from collections.abc import Iterator
from pathlib import Path

from pydicom.uid import UID

from models.preprocessing import dicom
from models.preprocessing.archives import File

_VOLUMES = (".nii", ".nii.gz", ".hdr")


def peek(path: File, root: Path) -> tuple[list[str], UID]:
    """The raw identifiers of a file below `root`, in the order of IDENTIFIERS, and its transfer syntax, "" for NIfTI.

    Raises UnreadableSliceError, and OSError if the system does not let this process read the file.
    """
    if not _is_volume(path):
        return dicom.peek(path)
    from models.preprocessing import nifti  # with nibabel: a second

    return nifti.peek(path, _place(path, root)), UID("")


def read_file(path: File, root: Path) -> Iterator[dicom.Slice]:
    """The slices of a file below `root`. Raises what the reader of its kind does (dicom.py, nifti.py)."""
    if not _is_volume(path):
        return dicom.read_file(path)
    from models.preprocessing import nifti

    return nifti.read_file(path, _place(path, root))


def _is_volume(path: File) -> bool:
    return path.name.lower().endswith(_VOLUMES)


def _place(path: File, root: Path) -> str:
    """Where a file lies, as `Pseudonyms.file` has it."""
    return str(path.relative_to(root))
