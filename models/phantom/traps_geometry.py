"""Traps in where slices lie and how large they are. See traps.py."""

import numpy as np

from models.phantom.draft import Draft, Items, edited
from models.phantom.pixels import store

TILT = np.radians(8)  # between the halves of a series
GAP = 25.0  # mm, beside slices that are 5 mm apart


def not_square(draft: Draft) -> Items:
    """Eight series are not 512 x 512, and some of them not square: 638 x 490, 666 x 512."""
    (series,) = draft.take_series()
    for piece in series:
        with edited(piece.path) as data:
            values = data.pixel_array
            store(data, values[: -max(1, len(values) // 10)], data.BitsStored, bool(data.PixelRepresentation))
    yield series[0].series


def mixed_sizes(draft: Draft) -> Items:
    """One slice of a series has half as many rows and columns as its neighbours, and as wide a field of view."""
    for piece in draft.take_slices(1):
        with edited(piece.path) as data:
            store(data, data.pixel_array[::2, ::2], data.BitsStored, bool(data.PixelRepresentation))
            data.PixelSpacing = [f"{2 * float(spacing):.6f}" for spacing in data.PixelSpacing]
        yield piece.image


def mixed_orientation(draft: Draft) -> Items:
    """The upper half of a series has another tilt, as where the gantry was turned during the scan."""
    (series,) = draft.take_series()
    for piece in series[len(series) // 2 :]:
        with edited(piece.path) as data:
            right, down = np.reshape(np.array(data.ImageOrientationPatient, float), (2, 3))
            turned = np.cos(TILT) * down + np.sin(TILT) * np.cross(right, down)
            half = (data.Rows - 1) / 2 * float(data.PixelSpacing[0])
            position = np.array(data.ImagePositionPatient, float) + half * (down - turned)  # keeps the middle
            data.ImagePositionPatient = _numbers(position)
            data.ImageOrientationPatient = _numbers([*right, *turned])
    yield series[0].series


def duplicate_positions(draft: Draft) -> Items:
    """40,532 slices share their position with a neighbour."""
    (series,) = draft.take_series()
    for below, piece in list(zip(series[::2], series[1::2], strict=False))[:3]:
        with edited(below.path) as data:
            position = data.ImagePositionPatient
        with edited(piece.path) as data:
            data.ImagePositionPatient = position
        yield piece.image


def uneven_spacing(draft: Draft) -> Items:
    """One gap of a series is much larger than the others."""
    (series,) = draft.take_series()
    for piece in series[len(series) // 2 :]:
        with edited(piece.path) as data:
            x, y, z = map(float, data.ImagePositionPatient)
            data.ImagePositionPatient = _numbers([x, y, z + GAP])
    yield series[0].series


def no_position(draft: Draft) -> Items:
    """A series without positions, but with the height of each slice and its number; not in the RSNA's files."""
    yield _without_position(draft, ["SliceLocation", "InstanceNumber"])


def instance_number_only(draft: Draft) -> Items:
    """A series that tells the order of its slices by their numbers alone; not in the RSNA's files."""
    yield _without_position(draft, ["InstanceNumber"])


def _without_position(draft: Draft, kept: list[str]) -> tuple[str, str]:
    (series,) = draft.take_series()
    for index, piece in enumerate(series):
        with edited(piece.path) as data:
            del data.ImagePositionPatient, data.ImageOrientationPatient
            data.InstanceNumber = index + 1
            if "SliceLocation" in kept:
                data.SliceLocation = f"{piece.z:.6f}"
    return series[0].series


def _numbers(values) -> list[str]:
    return [f"{value:.6f}" for value in values]
