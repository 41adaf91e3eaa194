"""Synthetic head CT: a patient drawn in three dimensions, cut into the slices of a scanner, with noise and artefacts.

    study = draw_study(seed=7, image_size=256)      # study.hounsfield (slices, 256, 256), study.labels (slices, 6)

A seed is one patient at every image size: geometry, artefacts and noise come from separate random streams.
Nothing here knows about files; dicom.py writes them.
"""

from dataclasses import dataclass, replace

import numpy as np

from models.common.labels import ANY, LABELS, SUBTYPES
from models.phantom.anatomy import (
    AIR,
    BASE_TOP,
    FACE_TOP,
    REACH,
    Head,
    draw_head,
    gyri,
    outside_bone,
    paint_vault,
    shaped,
    skull_depth,
    warp,
)
from models.phantom.artefacts import add_artefacts, add_noise
from models.phantom.bleeds import Bleed, draw_bleeds, mass_effect, paint_bleeds
from models.phantom.brain import paint_brain
from models.phantom.face import paint_face
from models.phantom.levels import settled
from models.phantom.points import Points
from models.phantom.scan import Scan, draw_scan, scanner_geometry, table

LEAST_BLOOD = 30.0  # mm2 of one kind in a slice from which on its label is 1
SHARE_WITH_BLOOD = 0.6  # of the studies; about three slices in ten then
POINTS_AT_ONCE = 1 << 15  # so that the arrays of a band of rows stay in the processor's cache
AROUND = 125.0  # mm from the axis of the head, beyond which there is neither head nor neck
SMALL_IMAGE = 128  # up to here a pixel is wider than a sulcus and is sampled at eight points instead of four


@dataclass(frozen=True)
class PhantomStudy:
    """One series of axial slices from the base up, in the DICOM patient system (x left, y back, z up; mm)."""

    hounsfield: np.ndarray  # (slices, size, size) int16
    labels: np.ndarray  # (slices, 6) uint8, in the order of models/common/labels.py
    positions: np.ndarray  # (slices, 3) centre of the first pixel, mm
    orientation: np.ndarray  # (6,) direction of rows and columns; tilted in half of the studies
    pixel_spacing: float  # mm


def draw_study(seed: int, image_size: int, patient_seed: int | None = None) -> PhantomStudy:
    """Draw the study of a seed, slices of `image_size` rows and columns.

    Two studies with the same `patient_seed` show the same head on two days: another pose and other blood.
    """
    head, scan, bleeds = draw_patient(seed, patient_seed)
    spacing = scan.field_of_view / image_size
    slices = [draw_slice(head, bleeds, scan.at(height), height, image_size) for height in scan.heights]
    hounsfield = np.stack([hu for hu, _ in slices])
    area = np.stack([blood for _, blood in slices]) * spacing**2  # (slices, 5) mm2
    labels = np.zeros((len(slices), len(LABELS)), np.uint8)
    labels[:, [LABELS.index(kind) for kind in SUBTYPES]] = area >= LEAST_BLOOD
    labels[:, ANY] = labels.max(axis=1)
    add_artefacts(hounsfield, stream(seed, 3), scan)
    add_noise(hounsfield, stream(seed, 4), scan)
    positions, orientation = scanner_geometry(scan, spacing)
    hounsfield = np.clip(np.round(hounsfield), -1024, 3071).astype(np.int16)
    return PhantomStudy(hounsfield, labels, positions, orientation, spacing)


def draw_patient(seed: int, patient_seed: int | None = None) -> tuple[Head, Scan, tuple[Bleed, ...]]:
    """Whom the study of a seed shows: the head, how it is scanned, and what has bled in it."""
    head = draw_head(stream(seed if patient_seed is None else patient_seed, 0))
    scan = draw_scan(stream(seed, 1), head)
    bleeds = draw_bleeds(stream(seed, 2), head, SHARE_WITH_BLOOD)
    if any(bleed.kind == "intraventricular" for bleed in bleeds):
        head = replace(head, ventricle=max(head.ventricle, 1.4))  # blood widens what it fills
    return head, scan, settled(bleeds, head, scan)


def stream(seed: int, number: int) -> np.random.Generator:
    """One of the independent random streams of a seed."""
    return np.random.default_rng([seed, number])


def draw_slice(head: Head, bleeds: tuple[Bleed, ...], scan: Scan, height: float, size: int):
    """One slice at a height (mm): mean Hounsfield values (size, size), and the pixels of each kind of blood (5,)."""
    hu = np.empty((size, size), np.float32)
    area = np.zeros(len(SUBTYPES))
    spacing = scan.field_of_view / size
    small = size <= SMALL_IMAGE
    width = spacing + small * scan.kernel  # between large pixels no filter can spread what the kernel spreads
    offsets = sub_samples(8 if small else 4) * [width, width, scan.thickness]
    rows_at_once = max(1, POINTS_AT_ONCE // (size * len(offsets)))
    dx, dy, dz = offsets.astype(np.float32).T[:, :, None, None]
    across = ((np.arange(size) - (size - 1) / 2) * spacing).astype(np.float32)
    climb = np.float32(scan.climb(height))
    for first in range(0, size, rows_at_once):
        down = across[first : first + rows_at_once]
        shape = (len(offsets), len(down), size)
        x = np.broadcast_to(across + dx, shape).ravel()
        y = np.broadcast_to(down[:, None] + dy + climb, shape).ravel()
        z = np.broadcast_to(np.float32(height) + dz, shape).ravel()
        values, blood = sample(head, bleeds, scan, x, y, z, len(offsets))
        hu[first : first + rows_at_once] = values.reshape(shape).mean(axis=0)
        area += blood / len(offsets)
    return hu, area


def sub_samples(count: int) -> np.ndarray:
    """Points (count, 3) spread evenly over a pixel and the slice's thickness, as offsets from its centre, in shares."""
    step = np.array([0.8191725, 0.6710436, 0.5497005])  # the additive recurrence R3 (Roberts 2018)
    ranks = (np.arange(count)[:, None] * step % 1).argsort(axis=0).argsort(axis=0)
    return (0.5 + ranks) / count - 0.5  # one in each of as many layers along each axis


def sample(head: Head, bleeds: tuple[Bleed, ...], scan: Scan, x, y, z, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield values (n,) at points of the scanner (x left, y back, z up; mm), and counts of blood (5,).

    The points are those of the same pixels, `samples` times in turn: what is smooth is looked up once a pixel.
    """
    behind = scan.behind(y, z)
    hu = table(scan, x, behind)
    shifted = np.stack([x - scan.shift[0], -(y - scan.shift[1]), z]) / np.float32(scan.scale)
    inside = np.flatnonzero(shifted[0] ** 2 + (shifted[1] - 5) ** 2 < AROUND**2)
    p, q = (points.take(inside) for points in warped(head, scan.rotation.astype(np.float32) @ shifted, samples))
    depth = skull_depth(head, p)
    near = np.flatnonzero((depth > -REACH) | (p.z < FACE_TOP))
    blood = np.zeros(len(SUBTYPES))
    if near.size:
        place = inside[near]
        points = p.take(near), q.take(near), scan.front(behind[place])
        hu[place], blood = paint(head, bleeds, scan, points, depth[near], hu[place])
    return hu, blood


def warped(head: Head, at: np.ndarray, samples: int) -> list[Points]:
    """Points (3, n) of this patient -> points of a mean head, and of the template's brain in it.

    Size and shape are those of each point, for near the vertex a layer of one head is twice as thick as of another; the
    deformation is that of each pixel's middle.
    """
    each = np.stack([*shaped(head, Points(*at))]).reshape(3, samples, -1)
    middle = Points(*at.reshape(each.shape).mean(axis=1))
    plain, moved = np.stack([*shaped(head, middle)]), warp(head, middle)
    both = []
    for to in (moved, gyri(head, moved)):
        change = np.stack([*to]) - plain
        both.append(Points(*(each + change[:, None]).reshape(3, -1)))
    return both


def paint(head: Head, bleeds: tuple[Bleed, ...], scan: Scan, points: tuple, depth, background):
    """Hounsfield values (n,) on and in the head over a background (n,), and counts of each kind of blood (5,).

    `points` are those of the head, of the brain in it, and how far in front of its middle they lie in the scanner (n,);
    `depth` (n,) is below the outer table of the vault; mm.
    """
    p, of_brain, front = points
    hu = np.full(p.z.shape, AIR)
    outer = np.flatnonzero((depth <= 0) | (p.z < BASE_TOP))  # inside of that there are vault and brain alone
    hu[outer] = outside_bone(head, p.take(outer), depth[outer])
    paint_face(head, p, hu)
    outside = hu == AIR
    inner = paint_vault(head, p, depth, hu)
    hu = np.where(outside & (hu == AIR) & (depth < 0), background, hu)
    cavity = np.flatnonzero(inner > 0)
    if not cavity.size:
        return hu, np.zeros(len(SUBTYPES))
    q = of_brain.take(cavity)
    brain = paint_brain(head, q, inner[cavity], *mass_effect(bleeds, q))
    blood = paint_bleeds(bleeds, brain, front[cavity])
    # A few points a pixel cannot give a few per cent of bone: the tails of kernel and slice profile are added here.
    hu[cavity] = brain.hounsfield + scan.edge * np.exp(-inner[cavity] / np.float32(2 * scan.kernel))
    return hu, blood.sum(axis=1)
