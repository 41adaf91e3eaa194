"""Points in head coordinates, and the regions of space that every part of a head is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

ROUNDING = 0.01  # more than float32 rounds off from a distance, mm


@dataclass(frozen=True)
class Points:
    """Points in head coordinates, float32 mm, each (n,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    def __iter__(self) -> Iterator[np.ndarray]:
        """x, y and z in turn."""
        return iter((self.x, self.y, self.z))

    def take(self, index: np.ndarray | slice) -> "Points":
        """The points at some places, of a stretch, or where a mask (n,) is true."""
        return Points(self.x[index], self.y[index], self.z[index])

    @cached_property
    def heights(self) -> tuple[float, float]:
        """The lowest and the highest of them, mm; of no points, a range that nothing meets."""
        return (float(self.z.min()), float(self.z.max())) if self.z.size else (np.inf, -np.inf)

    def reach(self, start, end, radius: float) -> bool:
        """Whether some of them have the height of a capsule from start to end of a radius, mm."""
        low, high = self.heights
        radius += ROUNDING
        return low < max(start[2], end[2]) + radius and high > min(start[2], end[2]) - radius

    def distance2(self, centre, scale=(1.0, 1.0, 1.0)) -> np.ndarray:
        """Squared distance (n,) to a centre (mm), in units of `scale` (mm) along each axis."""
        x, y, z = ((a - c) / s for a, c, s in zip(self, centre, scale, strict=True))
        return x * x + y * y + z * z

    def mirrored(self) -> "Points":
        """The same points on the left side."""
        return Points(np.abs(self.x), self.y, self.z)


def capsule(p: Points, start, end, radius: float | np.ndarray, end_radius: float | np.ndarray) -> np.ndarray:
    """Whether points lie in a capsule from start to end (mm) whose radius (mm) goes from one to another: (n,) bool.

    Both radii are numbers, or one for each point (n,).
    """
    if not p.reach(start, end, np.maximum(radius, end_radius).max()):
        return np.zeros(p.z.shape, bool)
    start = np.asarray(start, np.float32)
    axis = np.asarray(end, np.float32) - start
    length2 = float(axis @ axis)
    dx, dy, dz = p.x - start[0], p.y - start[1], p.z - start[2]
    if length2 == 0:
        return dx * dx + dy * dy + dz * dz < radius * radius
    t = np.minimum(np.maximum((dx * axis[0] + dy * axis[1] + dz * axis[2]) / length2, 0), 1)
    dx, dy, dz = dx - t * axis[0], dy - t * axis[1], dz - t * axis[2]
    return dx * dx + dy * dy + dz * dz < np.square(radius + t * (end_radius - radius))


@lru_cache(maxsize=1)
def noise_cube() -> np.ndarray:
    """Periodic smooth noise of mean 0 and deviation 1, (64, 64, 64), correlated over about 2.5 voxels."""
    cube = gaussian_filter(np.random.default_rng(2019).normal(size=(64, 64, 64)), 2.5, mode="wrap")
    return (cube / cube.std()).astype(np.float32)


def texture(offset: tuple[float, float, float], p: Points, voxel: float) -> np.ndarray:
    """Smooth noise (n,) at points, mean 0 and deviation 1, the cube's voxels being `voxel` mm wide.

    `offset` is where in the cube this patient's noise begins, voxels.
    """
    at = np.stack([a / np.float32(voxel) + np.float32(o) for a, o in zip(p, offset, strict=True)])
    return map_coordinates(noise_cube(), at, order=1, mode="grid-wrap", output=np.float32)
