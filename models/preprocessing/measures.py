"""What a series shows by its values alone: air, skull, brain, noise, metal; as far as any reader would see it.

Everything is found in the stored slices, whatever the headers say. What is judged by it: models/inference/judging.py.
"""

from typing import NamedTuple

import cv2
import numpy as np

from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.store import Series

_SIDE = 256  # pixels, of the slices that shapes are found in
_BONE = 250  # HU
_BRAIN = (-15, 95)  # HU
_VESSEL = (110, 400)  # HU: brighter than blood, darker than a calcification or bone
_METAL = HOUNSFIELD_RANGE[1]
_RAYS = 72  # from the middle of a slice, on which its skull is looked for
_RING = 0.6  # share of them that meet bone in a slice of a head; less where a piece of the skull was taken out
_NEAR, _FAR = 6.0, 25.0  # mm from the head, between which air is looked for
_EDGE = 9.0  # mm from bone, within which that blurs what lies beside it
_DEEP = 14.0  # mm within the hull of the skull, where no bone is
_LARGE = 0.6  # of the largest slice's brain: slices that show as much lie above the base of the skull
_USUAL = 240.0  # mm, of a field of view
_POSSIBLE = 50.0, 1000.0  # mm, of one that may be meant
_NORMAL = 1.4826  # the standard deviation of a normal distribution, by the median of what lies off its middle


class Measures(NamedTuple):
    """Of one series; NaN where there is nothing to measure."""

    slices: int
    heads: int  # slices that a skull surrounds
    volume: float  # ml of brain
    extent: float  # mm from the lowest to the highest slice with brain
    top: float  # brain in the highest slice, as a share of what the largest slice shows
    bottom: float  # the same of the lowest
    air: float  # HU, the median around the head; where nothing surrounds that the darkest there is
    brain: float  # HU, the median of all brain
    noise: float  # HU, standard deviation of what is finer than two pixels of the file, in brain
    sharpness: float  # variance of neighbouring pixels' differences to that of the noise: 2 without any smoothing
    bright: float  # share of the brain, away from bone, that is as bright as a vessel with contrast agent
    metal: float  # ml within the skull, above its base, beyond the brightest bone
    jump: float  # mm that the head moves from a slice to the next above the base, beside its usual course, the largest
    width: float  # mm, of the field of view


class _Shape(NamedTuple):
    """What one slice shows."""

    ring: float
    area: float  # mm2 of brain
    centre: tuple[float, float]  # mm
    air: np.ndarray  # HU around the head (pixels,)
    brain: np.ndarray  # counts of _BRAIN, HU (111,)
    bright: int  # pixels
    inner: int  # pixels of brain away from bone
    metal: float  # mm2


def measure(store: Series, spacing: float, gap: float, side: int) -> Measures:
    """Measure a stored series, whose pixels are `spacing` mm wide and whose slices lie `gap` mm apart.

    NaN stands for what is not known: then a head of usual size is meant. So it is where the field of view, `width`,
    cannot be that of a head: of metres in place of mm the rest would take hours. `side` is that of the slices in their
    files, pixels. Raises InputError if the store is damaged.
    """
    slices = [store.read(number) for number in range(len(store))]
    width = spacing * len(slices[0])
    spacing = spacing if _POSSIBLE[0] <= width <= _POSSIBLE[1] else _USUAL / len(slices[0])
    gap = gap if gap > 0 else 5.0
    shapes = [_shape(hounsfield, spacing) for hounsfield in slices]
    heads = np.array([shape.ring >= _RING for shape in shapes])
    area = np.array([shape.area for shape in shapes]) * heads
    large = [shape for shape, own in zip(shapes, area, strict=True) if own > _LARGE * area.max()]
    counts = np.sum([shape.brain for shape in large], axis=0) if large else np.zeros(1)
    air = np.concatenate([shape.air for shape in shapes])
    inner = sum(shape.inner for shape in large)
    noise, sharpness = _grain(slices, area, side)
    with_brain = np.flatnonzero(area > 0.1 * area.max()) if area.any() else np.zeros(0, int)
    return Measures(
        slices=len(slices),
        heads=int(heads.sum()),
        volume=float(area.sum() * gap / 1000),
        extent=float(np.ptp(with_brain) + 1) * gap if len(with_brain) else 0.0,
        top=float(area[-1] / area.max()) if area.any() else np.nan,
        bottom=float(area[0] / area.max()) if area.any() else np.nan,
        air=float(np.median(air)) if len(air) else float(min(np.percentile(one, 1) for one in slices)),
        brain=_median(counts),
        noise=noise,
        sharpness=sharpness,
        bright=sum(shape.bright for shape in large) / inner if inner else np.nan,
        metal=float(sum(shape.metal for shape in large) * gap / 1000),
        jump=_jump([shape.centre for shape in large]),
        width=float(width),
    )


def _shape(hounsfield: np.ndarray, spacing: float) -> _Shape:
    """Of a slice (size, size) whose pixels are `spacing` mm wide."""
    pixel = spacing * len(hounsfield) / _SIDE  # mm
    small = cv2.resize(hounsfield, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    hull, ring = _skull(small, pixel)
    brain = _shrunk(hull, 3.0 / pixel) & (small >= _BRAIN[0]) & (small <= _BRAIN[1])
    deep = _shrunk(hull, _DEEP / pixel)
    inner = deep & (small > _BRAIN[0]) & ~_grown(small > 2 * _BONE, _EDGE / pixel)
    head = _head(small, pixel)
    around = _grown(head, _FAR / pixel) & ~_grown(head, _NEAR / pixel)
    around[_SIDE // 2 :] = False  # behind the head lie cushion and table
    moments = cv2.moments(head.astype(np.uint8), binaryImage=True)
    mass = moments["m00"] or 1.0
    metal = cv2.resize((hounsfield >= _METAL).astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    values = np.clip(small[brain], *_BRAIN) - _BRAIN[0]
    return _Shape(
        ring,
        float(brain.sum()) * pixel**2,
        (moments["m10"] / mass * pixel, moments["m01"] / mass * pixel),
        small[around][::7],
        np.bincount(values, minlength=_BRAIN[1] - _BRAIN[0] + 1),
        int((inner & (small >= _VESSEL[0]) & (small <= _VESSEL[1])).sum()),
        int(inner.sum()),
        float(metal[deep].sum()) * pixel**2,
    )


def _skull(small: np.ndarray, pixel: float) -> tuple[np.ndarray, float]:
    """The hull of the largest bone of a slice (side, side), and the share of directions in which it closes."""
    bone = cv2.morphologyEx((small > _BONE).astype(np.uint8), cv2.MORPH_CLOSE, _disc(4.0 / pixel))
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(bone, connectivity=8)
    nothing = np.zeros(small.shape, bool)
    if count < 2:
        return nothing, 0.0
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    points = cv2.findNonZero((labels == largest).astype(np.uint8))
    outline = cv2.convexHull(points)
    if cv2.contourArea(outline) * pixel**2 < 1500:  # mm2: no head is so small
        return nothing, 0.0
    hull = np.zeros(small.shape, np.uint8)
    cv2.fillConvexPoly(hull, outline, 1)
    return hull.astype(bool), _closed(small, hull.astype(bool), pixel)


def _closed(small: np.ndarray, hull: np.ndarray, pixel: float) -> float:
    """The share of rays from the middle of a hull (side, side) that meet bone near its edge."""
    rows, columns = np.nonzero(hull)
    middle = rows.mean(), columns.mean()
    rim = hull & ~_shrunk(hull, 22.0 / pixel)
    bone = rim & (small > _BONE)
    angles = np.arctan2(*(np.nonzero(bone)[axis] - middle[axis] for axis in (0, 1)))
    met = np.unique(((angles / (2 * np.pi) + 0.5) * _RAYS).astype(int) % _RAYS)
    return len(met) / _RAYS


def _head(small: np.ndarray, pixel: float) -> np.ndarray:
    """The largest thing in a slice (side, side) that is no air, without what is as thin as a table."""
    solid = cv2.morphologyEx((small > -300).astype(np.uint8), cv2.MORPH_OPEN, _disc(6.0 / pixel))
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    return labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else np.zeros(small.shape, bool)


def _grain(slices: list[np.ndarray], area: np.ndarray, side: int) -> tuple[float, float]:
    """Noise (HU) and sharpness in the brain of the slices (size, size) that show most of it, by `area` (slices,).

    Both are medians: edges and calcifications are no noise. What a store has made larger is brought back to `side`.
    """
    fine, differences = [], []
    for place in np.argsort(-area)[:5]:
        if area[place] == 0:
            break
        values = slices[place].astype(np.float32)
        if side < len(values):
            values = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
        coarse = cv2.GaussianBlur(values, (0, 0), max(2.0, len(values) / 100))
        brain = cv2.erode(((coarse > 10) & (coarse < 70)).astype(np.uint8), _disc(2)).astype(bool)
        fine.append((values - cv2.GaussianBlur(values, (0, 0), 2.0))[brain])
        differences.append(np.diff(values, axis=1)[brain[:, 1:] & brain[:, :-1]])
    if not fine or sum(map(len, fine)) < 200:
        return np.nan, np.nan
    noise, steps = (_NORMAL * float(np.median(np.abs(np.concatenate(part)))) for part in (fine, differences))
    return noise, (steps / max(noise, 1e-3)) ** 2


def _median(counts: np.ndarray) -> float:
    """The median value of brain, from its counts (111,)."""
    below = np.cumsum(counts)
    return float(np.searchsorted(below, below[-1] / 2) + _BRAIN[0]) if below[-1] else np.nan


def _jump(centres: list[tuple[float, float]]) -> float:
    if len(centres) < 4:
        return np.nan
    steps = np.diff(np.array(centres), axis=0)
    return float(np.linalg.norm(steps - np.median(steps, axis=0), axis=1).max())


def _disc(radius: float) -> np.ndarray:
    """(2 radius + 1,) by as many."""
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _shrunk(mask: np.ndarray, radius: float) -> np.ndarray:
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) > radius


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) <= radius
