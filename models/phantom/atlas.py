"""Real anatomy: the ICBM 152 head template (Fonov et al., NeuroImage 2011, 10.1016/j.neuroimage.2010.07.033) as maps.

It is the mean of 152 healthy adults at 1 mm, which nilearn's wheel carries: how much grey and white matter a voxel
holds. What it does not hold is made from the brain's surface by distance maps: the cavity of the skull, the envelope
of the brain in it, ventricles and sulci. Here they are in the coordinates of anatomy.py, for a head of mean size.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label, map_coordinates

from models.phantom.points import Points

# A head of mean size is smaller than the template, whose registration has made it larger than most of the 152.
MILLIMETRE = 0.92  # of the head, one of the template
ORIGIN = (0.0, -17.0, -17.0)  # of anatomy.py, in the template's coordinates, mm
COARSE = 3  # voxels of the template to one of the distance maps, which are smooth
CLOSED, CLOSELY = 24, 7  # mm of the template by which the brain is closed: to the skull's cavity, to its own envelope
MARGIN = 60  # mm of the template around the brain, for the skull and what lies outside of it
FAR = 12.0  # mm; how far from a sulcus its distance is told


@dataclass(frozen=True)
class Atlas:
    """Maps of the template: fractions at its own voxels, distances at coarser ones; index = (mm - corner) / voxel."""

    tissue: np.ndarray  # (x, y, z, 4) uint8: grey, white, fluid in 255ths; distance to a sulcus in 20ths of a mm
    tissue_corner: np.ndarray  # (3,) mm of the template
    depth: np.ndarray  # (x, y, z) float32, mm of the head below the surface of the cavity, negative outside
    envelope: np.ndarray  # the same below the brain's own envelope, which leaves out the bones of the skull base
    ventricle: np.ndarray  # the same outside of the ventricles, negative inside
    corner: np.ndarray  # (3,) of the distance maps, mm of the template

    def fractions(self, p: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Grey, white and fluid (n,), shares of 1, and the distance to the nearest sulcus (n,), mm, at most FAR."""
        x, y, z = (
            np.clip(np.rint(a - np.float32(c)).astype(np.int32), 0, n - 1)  # its borders hold fluid
            for a, c, n in zip(template_coordinates(p), self.tissue_corner, self.tissue.shape[:3], strict=True)
        )
        place = (x * self.tissue.shape[1] + y) * self.tissue.shape[2] + z
        found = self.tissue.reshape(-1, 4).view(np.uint32)[:, 0][place]  # four bytes at once
        parts = found.view(np.uint8).reshape(-1, 4).astype(np.float32)
        return parts[:, 0] / 255, parts[:, 1] / 255, parts[:, 2] / 255, parts[:, 3] / 20

    def distance(self, which: str, p: Points) -> np.ndarray:
        """One of the distance maps at points: (n,) mm, linear between its voxels."""
        at = [(a - c) / COARSE for a, c in zip(template_coordinates(p), self.corner, strict=True)]
        return map_coordinates(getattr(self, which), at, order=1, mode="nearest", output=np.float32)


def template_coordinates(p: Points) -> list[np.ndarray]:
    """Head coordinates of a head of mean size -> coordinates of the template, mm, each (n,)."""
    return [a / np.float32(MILLIMETRE) + np.float32(o) for a, o in zip(p, ORIGIN, strict=True)]


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """The maps, made once a process from nilearn's files, in about three seconds."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    image = load_mni152_template(resolution=1)
    brain = np.asarray(image.dataobj) > 0.02
    box = bounding_box(brain)
    corner = image.affine[:3, 3] + [side.start for side in box]
    brain = brain[box]
    grey, white = (
        np.asarray(each(resolution=1).dataobj)[box].astype(np.float32)
        for each in (load_mni152_gm_template, load_mni152_wm_template)
    )
    fluid = np.clip(1 - grey - white, 0, 1)
    ventricles = ventricle_mask(fluid, corner)
    to_sulcus = axial_distance((fluid > 0.55) & brain & ~ventricles)
    tissue = np.stack([*(255 * a for a in sharpen(grey, white, fluid)), 20 * to_sulcus], axis=-1).astype(np.uint8)
    brain, ventricles = (np.pad(shrink(mask), MARGIN // COARSE) for mask in (brain, ventricles))
    return Atlas(
        tissue=tissue,
        tissue_corner=corner,
        depth=distance_map(convex(closed(brain, CLOSED / COARSE))),
        envelope=distance_map(closed(brain, CLOSELY / COARSE)),
        ventricle=-distance_map(ventricles),
        corner=corner + (COARSE - 1) / 2 - MARGIN,
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box, three slices, that holds all of a mask (x, y, z)."""
    sides = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def axial_distance(mask: np.ndarray) -> np.ndarray:
    """Distance (x, y, z) to a mask in the same axial plane, mm of the head, at most FAR."""
    planes = [cv2.distanceTransform(plane, cv2.DIST_L2, 5) for plane in np.moveaxis(~mask, 2, 0).astype(np.uint8)]
    return np.minimum(np.stack(planes, axis=2) * MILLIMETRE, FAR)


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask (x, y, z) closed by a ball of so many voxels, without holes."""
    grown = distance_transform_edt(~mask) <= radius
    return binary_fill_holes(distance_transform_edt(grown) > radius)


def convex(mask: np.ndarray) -> np.ndarray:
    """A mask (x, y, z) whose axial planes are convex, as the vault is at the temples too."""
    planes = []
    for plane in np.ascontiguousarray(np.moveaxis(mask, 2, 0), np.uint8):
        outlines, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if outlines:
            cv2.fillConvexPoly(plane, cv2.convexHull(np.concatenate(outlines)), 1)
        planes.append(plane)
    return np.stack(planes, axis=2) > 0


def distance_map(mask: np.ndarray) -> np.ndarray:
    """Signed distance (x, y, z) float32 to the border of a coarse mask, mm of the head, positive inside."""
    signed = distance_transform_edt(mask) - distance_transform_edt(~mask)
    signed -= 0.5 * np.sign(signed)  # the border lies between two voxels
    return gaussian_filter(signed * COARSE * MILLIMETRE, 0.7).astype(np.float32)


def shrink(mask: np.ndarray) -> np.ndarray:
    """A mask (x, y, z) at coarse voxels: where at least half of their voxels are set."""
    x, y, z = (n // COARSE for n in mask.shape)
    blocks = mask[: x * COARSE, : y * COARSE, : z * COARSE].reshape(x, COARSE, y, COARSE, z, COARSE)
    return blocks.mean(axis=(1, 3, 5)) >= 0.5


def ventricle_mask(fluid: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The ventricles (x, y, z) bool: the fluid of the template in four regions around them that hold no other."""
    x, y, z = (
        (c + np.arange(n)).reshape([-1 if axis == along else 1 for axis in range(3)])
        for along, (c, n) in enumerate(zip(corner, fluid.shape, strict=True))
    )
    side = np.abs(x)
    lateral = (side > 1) & (side < 34) & (y > -58) & (y < 36) & (z > -2) & (z < 33) & ~((side > 24) & (y > -28))
    lateral &= (z > 4) | (side > 15)  # not the cisterns behind the midbrain
    temporal = (side > 24) & (side < 42) & (y > -42) & (y < -6) & (z > -24) & (z < 0)
    third = (side < 6) & (y > -34) & (y < 10) & (z > -12) & (z < 12)
    fourth = (side < 12) & (y > -52) & (y < -34) & (z > -46) & (z < -16)
    inside = (fluid > 0.5) & (lateral | temporal | third | fourth)
    parts, _ = label(inside)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.isin(parts, np.flatnonzero(sizes > 150))


def sharpen(grey: np.ndarray, white: np.ndarray, fluid: np.ndarray) -> list[np.ndarray]:
    """Shares (x, y, z) of three tissues, nearer to one of them than the mean of 152 people is."""
    powers = [a * a * np.sqrt(a) for a in (grey, white, fluid)]
    total = powers[0] + powers[1] + powers[2] + np.float32(1e-6)
    return [a / total for a in powers]
