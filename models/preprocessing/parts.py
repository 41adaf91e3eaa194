"""What has one SeriesInstanceUID -> series of slices that belong together: one orientation, size, reconstruction."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable

import numpy as np

from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.slices import Prepared

_TURNED = 0.01  # between the axes of two orientations that are not the same: .6 degrees
_DOUBLED = 0.5  # share of positions that two reconstructions share


def split_series(slices: list[Prepared], name: str, pseudonyms: Pseudonyms) -> dict[str, list[Prepared]]:
    """The parts of a series by their names, the largest first, which keeps the name of the whole.

    A slice whose header does not tell goes with most of the others.
    """
    parts = [slices]
    for divide in (_by_orientation, _by_size, _by_reconstruction, _by_order):
        parts = [part for whole in parts for part in divide(whole)]
    parts.sort(key=len, reverse=True)
    names = [name, *(pseudonyms.hash(f"{name} part {number}") for number in range(2, len(parts) + 1))]
    return dict(zip(names, parts, strict=True))


def _by_orientation(slices: list[Prepared]) -> list[list[Prepared]]:
    known: list[np.ndarray] = []

    def orientation(item: Prepared) -> int | None:
        axes = np.array([item.row.get(f"image_orientation_{i}", math.nan) for i in range(6)], float)
        if np.isnan(axes).any():
            return None
        for number, other in enumerate(known):
            if np.abs(axes - other).max() < _TURNED:
                return number
        known.append(axes)
        return len(known) - 1

    return _divided(slices, orientation)


def _by_size(slices: list[Prepared]) -> list[list[Prepared]]:
    return _divided(slices, lambda item: (item.row["rows"], item.row["columns"]) if item.row.get("rows") else None)


def _by_reconstruction(slices: list[Prepared]) -> list[list[Prepared]]:
    """By kernel and ImageType, where slices of different ones share positions."""
    if not _shared_positions(slices):
        return [slices]
    parts = _divided(slices, lambda item: item.facts.reconstruction if item.facts else item.row.get("reconstruction"))
    return parts if sum(map(_shared_positions, parts)) < _shared_positions(slices) else [slices]


def _by_order(slices: list[Prepared]) -> list[list[Prepared]]:
    """The first slice at each position, the second, and so on, where the headers of most do not tell them apart.

    One position for all is none: nothing is known of where they lie.
    """
    positions = {_position(item) for item in slices} - {None}
    if len(positions) == 1 or _shared_positions(slices) < _DOUBLED * len(positions):
        return [slices]
    number = {id(item): float(item.row.get("instance_number", math.nan)) for item in slices}
    seen, places = Counter(), {}
    for item in sorted(slices, key=lambda item: math.inf if math.isnan(number[id(item)]) else number[id(item)]):
        if (position := _position(item)) is not None:
            places[id(item)] = seen[position]
            seen[position] += 1
    return _divided(slices, lambda item: places.get(id(item)))


def _divided(slices: list[Prepared], key: Callable[[Prepared], Hashable | None]) -> list[list[Prepared]]:
    """The slices of each key, in the order in which the keys come; those that have none (None) with the most."""
    groups, others = defaultdict(list), []
    for item in slices:
        (others if (found := key(item)) is None else groups[found]).append(item)
    if not groups:
        return [slices]
    max(groups.values(), key=len).extend(others)
    return list(groups.values())


def _position(item: Prepared) -> tuple[float, ...] | None:
    """The position of a slice (mm) to a hundredth; None where it is not known."""
    position = tuple(round(item.row.get(f"image_position_{i}", math.nan), 2) for i in range(3))
    return None if any(map(math.isnan, position)) else position


def _shared_positions(slices: list[Prepared]) -> int:
    """How many positions hold more than one slice."""
    counts = Counter(position for item in slices if (position := _position(item)) is not None)
    return sum(count > 1 for count in counts.values())
