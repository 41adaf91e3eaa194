"""How a scanner looks at a head: pose and protocol, what the geometry of its pictures says of them, and its table."""

from dataclasses import dataclass

import numpy as np

from models.phantom import dials
from models.phantom.anatomy import AIR, Head


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
    grain: float  # mm by which the noise is smoother than white
    metal: tuple[float, float, float] | None  # where a clip or coil throws a star of streaks, mm
    calibration: float  # HU by which this scanner reads all soft tissue too high
    glow: float  # share of the bone around that beam hardening adds to soft tissue
    edge: float  # HU that bone adds to the brain beside it
    shade: tuple[float, float]  # HU by which the left side and the back read higher than the middle, over 100 mm
    table: tuple[float, float, float, float]  # kind, distance behind the centre, radius or half width, HU
    frame: np.ndarray  # (3,) where the scanner's origin lies


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
