"""What has one SeriesInstanceUID -> series of slices that belong together: one orientation, size, reconstruction."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from itertools import combinations

import numpy as np

from models.preprocessing.geometry import unit_normals
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.slices import Prepared

_TURNED = 0.01  # between the axes of two orientations that are not the same: .6 degrees
_DOUBLED = 0.5  # share of positions that two reconstructions share
_EVEN = 0.8  # share of the gaps of a series by itself that are as wide as most; fewer where a tag differs by chance
_FEW = 4  # slices that are no series by themselves


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
    """By kernel and ImageType, where slices of different ones share positions; and by all that an export may mix.

    That are field of view, thickness and contrast, too, where the parts are series by themselves that lie over each
    other; parts that follow each other, or differ by chance, are one.
    """
    if _shared_positions(slices):
        parts = _divided(slices, _reconstruction)
        if sum(map(_shared_positions, parts)) < _shared_positions(slices):
            return parts
    parts = _divided(slices, _look)
    return parts if all(map(_is_even, parts)) and _lie_over_each_other(parts) else [slices]


def _reconstruction(item: Prepared) -> str | None:
    return item.facts.reconstruction if item.facts else item.row.get("reconstruction")


def _look(item: Prepared) -> tuple[Hashable, ...] | None:
    """What differs between the series that one scan may become, or two of one patient."""
    if item.facts is None:
        return None
    pixel = round(item.row.get("pixel_spacing_0", math.nan), 3)
    return item.facts.reconstruction, str(pixel), str(item.facts.thickness), item.facts.contrast


def _is_even(slices: list[Prepared]) -> bool:
    """Whether slices are a series by themselves: most gaps between them are alike."""
    gaps = np.diff(_known_heights(slices))
    return len(gaps) + 1 >= _FEW and bool(np.mean(np.abs(gaps - np.median(gaps)) < 0.1 * np.median(gaps)) >= _EVEN)


def _lie_over_each_other(parts: list[list[Prepared]]) -> bool:
    """Whether of some two parts most slices of the shorter one lie between the ends of the other."""
    pairs = combinations(sorted(map(_known_heights, parts), key=np.ptp), 2)
    return any(np.mean((shorter > longer[0]) & (shorter < longer[-1])) > _DOUBLED for shorter, longer in pairs)


def _by_order(slices: list[Prepared]) -> list[list[Prepared]]:
    """The first slice at each position, the second, and so on, where the headers of most do not tell them apart.

    One position for all is none: nothing is known of where they lie.
    """
    position_of = dict(zip(map(id, slices), _positions(slices), strict=True))
    positions = {*position_of.values()} - {None}
    if len(positions) == 1 or _shared_positions(slices) < _DOUBLED * len(positions):
        return [slices]
    number = {id(item): float(item.row.get("instance_number", math.nan)) for item in slices}
    seen, places = Counter(), {}
    for item in sorted(slices, key=lambda item: math.inf if math.isnan(number[id(item)]) else number[id(item)]):
        if (position := position_of[id(item)]) is not None:
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


def _heights(slices: list[Prepared]) -> np.ndarray:
    """Where slices lie along their normals, (slices,) mm to a hundredth; NaN where that is not known."""
    position, orientation = (
        np.array([[item.row.get(f"{name}_{i}", math.nan) for i in range(length)] for item in slices], float)
        for name, length in (("image_position", 3), ("image_orientation", 6))
    )
    return np.round(np.einsum("ij,ij->i", position, unit_normals(orientation)), 2)


def _known_heights(slices: list[Prepared]) -> np.ndarray:
    """Those that are known, in order."""
    heights = np.sort(_heights(slices))  # NaN comes last
    return heights[~np.isnan(heights)]


def _positions(slices: list[Prepared]) -> list[Hashable | None]:
    """The position of each slice: its height, for another field of view has another corner there.

    Where its orientation is not known it is the corner, mm to a hundredth; None where that is not known either.
    """
    return [
        _corner(item) if math.isnan(height) else height
        for item, height in zip(slices, _heights(slices).tolist(), strict=True)
    ]


def _corner(item: Prepared) -> tuple[float, ...] | None:
    position = tuple(round(item.row.get(f"image_position_{i}", math.nan), 2) for i in range(3))
    return None if any(map(math.isnan, position)) else position


def _shared_positions(slices: list[Prepared]) -> int:
    """How many positions hold more than one slice."""
    counts = Counter(position for position in _positions(slices) if position is not None)
    return sum(count > 1 for count in counts.values())
