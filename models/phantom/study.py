"""Synthetic head CT: a patient drawn in three dimensions, cut into the slices of a scanner, with noise and artefacts.

    study = draw_study(seed=7, image_size=256)      # study.hounsfield (slices, 256, 256), study.labels (slices, 6)

A seed is one patient at every image size: geometry, artefacts and noise come from separate random streams.
Nothing here knows about files; dicom.py writes them.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from models.common.labels import ANY, LABELS, SUBTYPES
from models.phantom import dials
from models.phantom.anatomy import AIR, BASE_TOP, FACE_TOP, REACH, Head, draw_head, outside_bone, paint_vault, skull_depth, warp
from models.phantom.bleeds import Bleed, draw_bleeds, mass_effect, paint_bleeds
from models.phantom.brain import paint_brain
from models.phantom.face import paint_face
from models.phantom.points import Points

LEAST_BLOOD = 30.0  # mm2 of one kind in a slice from which on its label is 1
SHARE_WITH_BLOOD = 0.6  # of the studies; about three slices in ten then
POINTS_AT_ONCE = 1 << 15  # so that the arrays of a band of rows stay in the processor's cache
SMALL_IMAGE = 128  # up to here a pixel is wider than a sulcus and is sampled at eight points instead of four


@dataclass(frozen=True)
class PhantomStudy:
    """One series of axial slices from the base up, in the DICOM patient system (x left, y back, z up; mm)."""

    hounsfield: np.ndarray  # (slices, size, size) int16
    labels: np.ndarray  # (slices, 6) uint8, in the order of models/common/labels.py
    positions: np.ndarray  # (slices, 3) centre of the first pixel, mm
    orientation: np.ndarray  # (6,) direction of rows and columns; tilted in half of the studies
    pixel_spacing: float  # mm


@dataclass(frozen=True)
class Scan:
    """How the scanner looks at the head: angles in radian, lengths in mm."""

    field_of_view: float
    tilt: float  # of the gantry, about the x axis
    rotation: np.ndarray  # (3, 3) from scanner to head coordinates
    shift: np.ndarray  # (3,) of the head in the field of view
    scale: float
    heights: np.ndarray  # (slices,) along the slice normal
    thickness: float
    noise: float  # HU at 512 x 512
    kernel: float  # mm, by which the reconstruction smooths image and noise
    grain: float  # by which the noise is smoother than white, as a share of the kernel
    metal: tuple[float, float, float] | None  # where a clip or coil throws a star of streaks, mm
    calibration: float  # HU by which this scanner reads all soft tissue too high
    glow: float  # share of the bone around that beam hardening adds to soft tissue
    edge: float  # HU that bone adds to the brain beside it
    shade: tuple[float, float]  # HU by which the left side and the back read higher than the middle, over 100 mm
    table: tuple[float, float, float, float]  # kind, distance behind the centre, radius or half width, HU
    frame: np.ndarray  # (3,) where the scanner's origin lies


def draw_study(seed: int, image_size: int, patient_seed: int | None = None) -> PhantomStudy:
    """Draw the study of a seed, slices of `image_size` rows and columns.

    Two studies with the same `patient_seed` show the same head on two days: another pose and other blood.
    """
    head = draw_head(stream(seed if patient_seed is None else patient_seed, 0))
    scan = draw_scan(stream(seed, 1), head)
    bleeds = draw_bleeds(stream(seed, 2), head, SHARE_WITH_BLOOD)
    if any(bleed.kind == "intraventricular" for bleed in bleeds):
        head = replace(head, ventricle=max(head.ventricle, 1.4))  # blood widens what it fills
    spacing = scan.field_of_view / image_size
    slices = [draw_slice(head, bleeds, scan, height, image_size) for height in scan.heights]
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


def stream(seed: int, number: int) -> np.random.Generator:
    """One of the independent random streams of a seed."""
    return np.random.default_rng([seed, number])


def draw_scan(rng: np.random.Generator, head: Head) -> Scan:
    """Pose, protocol and scanner of one study."""
    roll, yaw = rng.normal(0, np.radians([5, 3]))
    pitch = rng.normal(0, np.radians(6))
    tilted = rng.random() < 0.5
    tilt = np.clip(rng.normal(-12, 6), -20, -2) if tilted else 0.0
    scale = dials.SCALE.draw(rng)
    spacing = rng.choice([5.0, 5.0, 4.8, 5.4, 4.5])
    lowest = rng.uniform(-78, -34)
    heights = [lowest]
    thin_base = rng.random() < 0.2  # thin slices through the posterior fossa, thick ones above
    while heights[-1] < scale * head.top + rng.uniform(4, 12):
        heights.append(heights[-1] + (0.6 * spacing if thin_base and heights[-1] < lowest + 25 else spacing))
    cos, sin = np.cos, np.sin
    about_z = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cos(pitch), -sin(pitch)], [0, sin(pitch), cos(pitch)]])
    about_y = np.array([[cos(yaw), 0, sin(yaw)], [0, 1, 0], [-sin(yaw), 0, cos(yaw)]])
    return Scan(
        field_of_view=rng.choice([220.0, 230.0, 235.0, 250.0, 250.0]),
        tilt=np.radians(tilt),
        rotation=about_z @ about_x @ about_y,
        shift=np.array([rng.normal(0, 4), rng.normal(-6, 7), 0.0]),
        scale=scale,
        heights=np.array(heights),
        thickness=spacing,
        noise=dials.NOISE.draw(rng),
        kernel=dials.KERNEL.draw(rng),
        grain=dials.GRAIN.draw(rng),
        metal=tuple(rng.normal([0, -20, -5], [15, 15, 12])) if rng.random() < 0.05 else None,
        calibration=dials.CALIBRATION.draw(rng),
        glow=dials.GLOW.draw(rng),
        edge=dials.EDGE.draw(rng),
        shade=(dials.SHADE.draw(rng), dials.SHADE.draw(rng)),
        table=(rng.random(), rng.uniform(104, 122), rng.uniform(95, 140), rng.uniform(-150, 700)),
        frame=np.array([0.0, rng.uniform(-30, 150), rng.uniform(-50, 300)]),
    )


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
    climb = np.float32((height - 15) * np.tan(scan.tilt))  # the table moves along z, not along the slice normal
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
    return (0.5 + np.arange(count)[:, None] * step) % 1 - 0.5


def sample(head: Head, bleeds: tuple[Bleed, ...], scan: Scan, x, y, z, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield values (n,) at points of the scanner (x left, y back, z up; mm), and counts of blood (5,).

    The points are those of the same pixels, `samples` times in turn: what is smooth is looked up once a pixel.
    """
    hu = table(scan, x, y)
    shifted = np.stack([x - scan.shift[0], -(y - scan.shift[1]), z]) / np.float32(scan.scale)
    inside = np.flatnonzero((shifted[0] ** 2 + (shifted[1] - 5) ** 2 < 125**2) & (shifted[2] < head.top + 40))
    p = warped(head, scan.rotation.astype(np.float32) @ shifted, samples)
    p = p.take(inside)
    depth = skull_depth(head, p)
    near = np.flatnonzero((depth > -REACH) | (p.z < FACE_TOP))
    blood = np.zeros(len(SUBTYPES))
    if near.size:
        place = inside[near]
        hu[place], blood = paint(head, bleeds, scan, p.take(near), depth[near], hu[place])
    return hu, blood


def warped(head: Head, at: np.ndarray, samples: int) -> Points:
    """Points (3, n) of this patient -> points of a mean head; the deformation is that of each pixel's middle."""
    each = at.reshape(3, samples, -1)
    middle = Points(*each.mean(axis=1))
    moved = warp(head, middle)
    change = np.stack([moved.x - middle.x, moved.y - middle.y, moved.z - middle.z])
    return Points(*(each + change[:, None]).reshape(3, -1))


def paint(head: Head, bleeds: tuple[Bleed, ...], scan: Scan, p: Points, depth, background):
    """Hounsfield values (n,) on and in the head over a background (n,), and counts of each kind of blood (5,)."""
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
    q = p.take(cavity)
    brain = paint_brain(head, q, inner[cavity], *mass_effect(bleeds, q))
    blood = paint_bleeds(bleeds, brain)
    # A few points a pixel cannot give a few per cent of bone: the tails of kernel and slice profile are added here.
    hu[cavity] = brain.hounsfield + scan.edge * np.exp(-inner[cavity] / np.float32(2 * scan.kernel))
    return hu, blood.sum(axis=1)


def table(scan: Scan, x, y) -> np.ndarray:
    """Hounsfield values (n,) of air, of the rest behind the head and of its cushion, at points of the scanner (mm)."""
    kind, behind, radius, value = scan.table
    hu = np.full(x.shape, AIR, np.float32)
    if kind < 0.45:  # a round shell
        distance = np.hypot(x, y - behind + radius)
        shell = (np.abs(distance - radius) < 2.5) & (y > behind - radius * 0.9)
    elif kind < 0.8:  # a trough with upright sides
        distance = np.maximum(np.abs(x), np.hypot(0.8 * x, np.maximum(y - 20, 0)))
        shell = (np.abs(distance - radius) < 2) & (y > -30)
    else:  # a flat board
        shell = np.abs(y - behind) < 3
    hu[shell] = value
    cushion = np.hypot(x, y - 20) - 92
    hu[(np.abs(cushion) < 0.6) & (y > 80)] = -350
    return hu


def add_artefacts(hounsfield: np.ndarray, rng: np.random.Generator, scan: Scan) -> None:
    """Add calibration, the glow of bone, bands between the petrous bones and a rare streak, in place.

    Takes Hounsfield values (slices, size, size); what is no soft tissue stays as it is.
    """
    size = hounsfield.shape[-1]
    across = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * scan.field_of_view / size
    x, y = across[None, :], across[:, None]
    pixels = size / scan.field_of_view  # a millimetre
    for index, height in enumerate(scan.heights):
        hounsfield[index] = gaussian_filter(hounsfield[index], 1.3 * scan.kernel * pixels)
        bone = np.clip(hounsfield[index] - 150, 0, 1000)
        change = scan.calibration + (scan.shade[0] * x + scan.shade[1] * y) / 100 + scan.glow * gaussian_filter(bone, 12 * pixels, truncate=2.5)
        angle, place, width, wave, strength, dice = rng.random(6)
        if -45 < height < -5:  # beam hardening
            band = np.cos((y - 15 - 20 * place) / (2 + 4 * width) + 0.1 * x * (wave - 0.5))
            change += (1 + 7 * strength) * band * np.exp(-np.square((y - 15) / 18) - np.square(x / 45))
        if scan.metal and abs(scan.metal[2] - height) < scan.thickness:
            change += star(x - scan.metal[0], y - scan.metal[1], angle)
        if dice < 0.04:  # one bright or dark streak
            along = x * np.cos(np.pi * angle) + y * np.sin(np.pi * angle) - 60 * (place - 0.5)
            change += (45 * strength - 15) * np.exp(-np.square(along / (1 + 4 * width)))
        soft = (hounsfield[index] > -20) & (hounsfield[index] < 100)
        hounsfield[index] += change * soft


def star(x, y, angle: float) -> np.ndarray:
    """Bright and dark streaks (size, size), HU, around metal at the origin of x (1, size) and y (size, 1), mm."""
    turn = np.arctan2(y, x)
    rays = np.cos(7 * turn + 9 * angle) + np.cos(12 * turn + 5 * angle) + np.cos(19 * turn)
    distance = np.hypot(x, y)
    return 35 * rays * np.exp(-distance / 50) + 2500 * (distance < 3)


def add_noise(hounsfield: np.ndarray, rng: np.random.Generator, scan: Scan) -> None:
    """Add the scanner's noise to (slices, size, size), stronger in the middle and where there is much bone.

    A smoothing kernel correlates it over neighbours; larger pixels average it out.
    """
    size = hounsfield.shape[-1]
    across = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / size
    middle = 1.25 - 2.0 * (across[None, :] ** 2 + across[:, None] ** 2)
    kernel = scan.grain * scan.kernel * size / scan.field_of_view  # pixels
    amount = scan.noise * np.sqrt(size / 512) / impulse_energy(kernel)
    for index, image in enumerate(hounsfield):
        bony = 1 + 2.5 * (image > 300).mean()
        grain = gaussian_filter(rng.standard_normal((size, size), np.float32), kernel)
        hounsfield[index] += amount * bony * middle * grain


def impulse_energy(kernel: float) -> float:
    """Standard deviation of unit white noise after a Gaussian of this width (pixels)."""
    impulse = np.zeros((25, 25))
    impulse[12, 12] = 1
    return float(np.sqrt(np.square(gaussian_filter(impulse, kernel)).sum()))


def scanner_geometry(scan: Scan, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """ImagePositionPatient (slices, 3), mm, and ImageOrientationPatient (6,), DICOM PS3.3 C.7.6.2.

    A tilted gantry cuts along (0, cos, sin) while the table moves along z: the stack is sheared, as the RSNA's are.
    """
    down = np.array([0, np.cos(scan.tilt), np.sin(scan.tilt)])
    half = scan.field_of_view / 2 - spacing / 2
    corner = scan.frame - half * np.array([1.0, 0, 0]) - half * down
    heights = (scan.heights - scan.heights[0]) / np.cos(scan.tilt)
    positions = corner + heights[:, None] * np.array([0, 0, 1.0])
    return positions, np.concatenate([[1.0, 0, 0], down])
