"""Where blood settles: the patient lies on the back, so that what sinks ends at a level of the scanner.

However the head is turned in it, and the gantry tilted, that level is one row of all pictures.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.phantom.anatomy import Head, gyri, unwarped, warp
from models.phantom.bleeds import VENTRICULAR_FLOOR, Bleed, mass_effect
from models.phantom.brain import ventricle_masks
from models.phantom.points import Points
from models.phantom.scan import Scan

STEP = 4  # mm between the points by which the ventricles' volume is told: some 16 of them in a ml


def settled(bleeds: Sequence[Bleed], head: Head, scan: Scan) -> tuple[Bleed, ...]:
    """Bleeds whose levels are told from where they lie -> the same, with levels in front of the head's middle, mm."""
    return tuple(replace(bleed, level=level_of(bleed, bleeds, head, scan)) for bleed in bleeds)


def level_of(bleed: Bleed, bleeds: Sequence[Bleed], head: Head, scan: Scan) -> float:
    """How far in front of the head's middle (mm) blood of one of the bleeds ends or is thin; inf, where nowhere."""
    if bleed.kind == "intraventricular" and bleed.size[0]:
        return level_of_volume(bleed.size[0], bleeds, head, scan)
    if not np.isfinite(bleed.level):
        return np.inf
    centre = (0, 0, bleed.centre[2]) if bleed.kind == "subdural" else bleed.centre
    place = Points(*(np.array([part], np.float32) for part in centre))
    return float(in_front(unwarped(head, place), scan)[0]) + bleed.level


def level_of_volume(millilitres: float, bleeds: Sequence[Bleed], head: Head, scan: Scan) -> float:
    """Up to which level, mm in front of the head's middle, so much blood fills the ventricles; all, if they hold less.

    It is blood that sinks into the horns behind, and little of it stays elsewhere.
    """
    ends = ((-60, 60), (-80, 75), (-30, 75))  # mm: no patient's ventricles reach farther
    grid = np.meshgrid(*(np.arange(low, high, STEP, dtype=np.float32) for low, high in ends), indexing="ij")
    at = Points(*(part.ravel() for part in grid))
    p = gyri(head, warp(head, at))
    shift, swelling = mass_effect(tuple(bleeds), p)
    inside, _ = ventricle_masks(head, Points(p.x - shift, p.y, p.z), np.zeros_like(p.x), swelling)
    front = np.sort(in_front(at.take(inside & (p.z > VENTRICULAR_FLOOR)), scan))
    return float(np.append(front, np.inf)[min(int(1000 * millilitres / (scan.scale * STEP) ** 3), len(front))])


def in_front(p: Points, scan: Scan) -> np.ndarray:
    """How far in front of the head's middle points of a patient lie in the scanner: (n,) mm."""
    _, y, z = scan.scale * (scan.rotation.T @ np.stack([*p]))
    return scan.front(scan.behind(scan.shift[1] - y, z))
