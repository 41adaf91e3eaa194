"""Volumes beside a set's labels: where their slices lie, and in which of them something is drawn.

They are read as any NIfTI volume is: slices as they stand in the file, and where its affine says that they are.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.preprocessing.geometry import order_series
from models.preprocessing.hounsfield import to_hounsfield
from models.preprocessing.nifti import read_file
from models.preprocessing.nifti_header import open_volume, read_header
from models.preprocessing.reasons import UnreadableSliceError


class Drawn(NamedTuple):
    """A mask."""

    z: np.ndarray  # (slices,) mm to the head, as the slices stand in the file; NaN where it tells no place
    values: list[frozenset[int]]  # of each slice, without 0


def read_mask(path: Path) -> Drawn:
    """Which values stand in each slice (slices,) of a mask, and where that lies.

    Raises InputError if it cannot be read, or holds anything but whole numbers from 0 up.
    """
    rows, values = [], []
    try:
        for item in read_file(path, path.name):
            numbers = np.unique(to_hounsfield(item.stored, item.rescale))
            if (numbers != np.rint(numbers)).any() or numbers[0] < 0:
                raise InputError(
                    f"{path} is no mask: it holds {numbers[0]:g} to {numbers[-1]:g}; name the folder of masks"
                )
            rows.append(item.row)
            values.append(frozenset(map(int, numbers)) - {0})
    except UnreadableSliceError as error:
        raise InputError(f"{path} cannot be read: {error}; download it anew") from error
    return Drawn(_places(rows), values)


def places_of(path: Path) -> np.ndarray:
    """The same places (slices,) of any volume, from its header alone. Raises InputError if that cannot be read."""
    try:
        with open_volume(path) as file:
            grid = read_header(file, path.name).grid
    except UnreadableSliceError as error:
        raise InputError(f"{path} cannot be read: {error}; download it anew") from error
    numbers = range(grid.shape[grid.axis])
    return _places([{"image_id": "", "instance_number": number + 1.0, **grid.row(number)} for number in numbers])


def _places(rows: list[dict]) -> np.ndarray:
    """As the slices of a series are placed when they are answered."""
    table = pd.DataFrame(rows)
    order, where, _ = order_series(table)
    z = np.full(len(rows), np.nan)
    z[order] = where["z"]
    return np.where(table["image_position_2"].isna(), np.nan, z)
