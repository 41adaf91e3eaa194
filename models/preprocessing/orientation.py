"""Slices as every reader expects them: seen from the feet, nose up, the patient's left on the right.

DICOM's coordinates are the patient's, x to the left, y to the back, z to the head, however somebody lies (PS3.3
C.7.6.2.1.1). In one frame the columns of an axial slice follow each other along x and its rows along y.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from models.preprocessing.dicom import Slice
from models.preprocessing.problems import Problem
from models.preprocessing.pseudonyms import is_of_challenge


class Turn(NamedTuple):
    """One of the eight symmetries of a slice: rows and columns change places first, then either may be reversed."""

    transposed: bool = False
    columns_reversed: bool = False
    rows_reversed: bool = False


UNTURNED = Turn()


def to_one_frame(item: Slice) -> tuple[Slice, list[Problem]]:
    """An axial slice with its rows and columns in the one frame, and whether it had to be turned for that.

    The pixels change places, none its value; the row describes the slice as it then is. Coronal and sagittal slices,
    those whose orientation is not known, and the challenge's, of which a few studies lie on their side, stay as they
    are.
    """
    turn = _turn_of(item.row)
    if turn == UNTURNED:
        return item, []
    return replace(item, row=turn_row(item.row, turn), stored=turn_pixels(item.stored, turn)), [Problem.TURNED]


def row_in_one_frame(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a slice that cannot be read as it would be if it could, so that it belongs to the others."""
    return turn_row(row, _turn_of(row))


def _turn_of(row: dict[str, Any]) -> Turn:
    orientation = [row[f"image_orientation_{i}"] for i in range(6)]
    return UNTURNED if is_of_challenge(row["image_id"]) else nearest_turn(orientation)


def nearest_turn(orientation: Sequence[float]) -> Turn:
    """What brings a slice of some ImageOrientationPatient as near to the one frame as one of the symmetries can."""
    # pyrefly: ignore[bad-assignment]  # it does not know that there are six
    right_x, right_y, right_z, down_x, down_y, down_z = orientation
    across = abs(right_y * down_z - right_z * down_y), abs(right_z * down_x - right_x * down_z)
    if not abs(right_x * down_y - right_y * down_x) > max(across):  # not axial, or NaN
        return UNTURNED
    if abs(right_y) + abs(down_x) > abs(right_x) + abs(down_y):
        return Turn(True, down_x < 0, right_y < 0)
    return Turn(False, right_x < 0, down_y < 0)


def turn_pixels(values: np.ndarray, turn: Turn) -> np.ndarray:
    """A slice (rows, columns) turned, as an array of its own."""
    values = values.T if turn.transposed else values
    return np.ascontiguousarray(values[:: -1 if turn.rows_reversed else 1, :: -1 if turn.columns_reversed else 1])


def turn_row(row: dict[str, Any], turn: Turn) -> dict[str, Any]:
    """The row of a slice that is turned: where its pixels lie does not change, but which of them is the first.

    Without PixelSpacing the position stays that of the corner that was the first, at the same height above the others.
    """
    right, down = _vector(row, "image_orientation", 0), _vector(row, "image_orientation", 3)
    position = _vector(row, "image_position", 0)
    between_rows, between_columns = _vector(row, "pixel_spacing", 0, 2)
    rows, columns = row["rows"], row["columns"]
    if turn.transposed:
        right, down, rows, columns = down, right, columns, rows
        between_rows, between_columns = between_columns, between_rows
    if turn.columns_reversed:
        position, right = position + _known((columns - 1) * between_columns) * right, 0 - right  # 0 - 0 is no -0
    if turn.rows_reversed:
        position, down = position + _known((rows - 1) * between_rows) * down, 0 - down
    turned = {
        "image_position": position,
        "image_orientation": [*right, *down],
        "pixel_spacing": [between_rows, between_columns],
    }
    numbers = {f"{name}_{i}": float(value) for name, values in turned.items() for i, value in enumerate(values)}
    return row | numbers | {"rows": rows, "columns": columns}


def _vector(row: dict[str, Any], name: str, first: int, length: int = 3) -> np.ndarray:
    return np.array([row[f"{name}_{i}"] for i in range(first, first + length)], float)


def _known(distance: float) -> float:
    return 0.0 if np.isnan(distance) else distance
