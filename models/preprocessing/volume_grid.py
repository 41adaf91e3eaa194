"""The affine of a NIfTI volume -> its slices: along which axis they lie, and where each is in DICOM's words.

Nothing is resampled: a slice is a plane of the volume's grid, also where the volume is oblique or sheared.
"""

from typing import Any, NamedTuple

import nibabel
import numpy as np

from models.preprocessing.affine import to_ras
from models.preprocessing.orientation import Turn, nearest_turn, turn_row

_THICK = 1.5  # times as thick as the others: the axis that a scanner has moved along
_FLAT = 1e-3  # of 1, the volume between axes of length 1: they lie in a plane
_HEAD = 2  # the third of the patient's axes


class Grid(NamedTuple):
    """Where the elements of a volume lie."""

    shape: tuple[int, int, int]
    affine: np.ndarray  # (4, 4) of the indices -> mm, LPS as DICOM's
    is_known: bool  # False: the file does not tell; the affine is the one that viewers assume
    axis: int  # of the volume along which its slices follow each other

    @property
    def plane(self) -> tuple[int, int]:
        """The axes of the volume that run along a row of a slice, and down a column, as they stand in the file."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second

    @property
    def is_in_order(self) -> bool:
        """Whether slices stand one after another in the file."""
        return self.axis == 2

    @property
    def turn(self) -> Turn:
        """What brings a slice to the one frame."""
        return nearest_turn(self._directions())

    def row(self, number: int) -> dict[str, Any]:
        """The columns of the header row that tell where slice `number`, 0 and up, lies, turned to the one frame.

        Where that is not known they tell how far apart rows, columns and slices are.
        """
        right, down = self.plane
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        position = self.affine[:3, 3] + number * self.affine[:3, self.axis]
        vectors = {
            "image_position": position,
            "image_orientation": self._directions(),
            "pixel_spacing": (lengths[down], lengths[right]),
        }
        row = {f"{name}_{i}": float(value) for name, values in vectors.items() for i, value in enumerate(values)}
        row = turn_row(row | {"rows": self.shape[down], "columns": self.shape[right]}, self.turn)
        if self.is_known:
            return row | {"slice_location": np.nan}
        unknown = {name: np.nan for name in row if name.startswith(("image_position", "image_orientation"))}
        return row | unknown | {"slice_location": float(number * lengths[self.axis])}

    def _directions(self) -> list[float]:
        right, down = self.plane
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return [*directions[:, right], *directions[:, down]]


def make_grid(shape: tuple[int, int, int], affine: np.ndarray | None, assumed: np.ndarray) -> Grid:
    """The grid of a volume whose file tells an `affine` (4, 4) of NIfTI, or None.

    `assumed` (4, 4) stands in for one that is not there, or of no use. Slices are those across the axis nearest to that
    from the feet to the head, unless another one alone has the thickest elements: a coronal or sagittal scan.
    """
    is_known = affine is not None and _is_usable(affine) and not _is_default(affine)
    if affine is None or not _is_usable(affine):
        affine = assumed if _is_usable(assumed) else np.eye(4)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axis = int(np.flatnonzero(nibabel.io_orientation(affine)[:, 0] == _HEAD)[0])
    thickest = int(lengths.argmax())
    if lengths[thickest] > _THICK * np.delete(lengths, thickest).max():
        axis = thickest
    return Grid(shape, to_ras(affine), is_known, axis)  # its own inverse


def _is_usable(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all() or not (lengths := np.linalg.norm(affine[:3, :3], axis=0)).all():
        return False
    return bool(np.isfinite(lengths).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > _FLAT)


def _is_default(affine: np.ndarray) -> bool:
    """Whether it is what software writes that was told no affine: the spacing, from the origin on."""
    is_diagonal = np.count_nonzero(affine[:3, :3]) == 3 and affine[:3, :3].diagonal().all()
    return bool(is_diagonal and not affine[:3, 3].any())
