"""How a scanner looks at a head: pose and protocol, what the geometry of its pictures says of them, and its table."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from models.phantom import dials
from models.phantom.anatomy import AIR, Head, crown


class Protocol(NamedTuple):
    """How thick slices are, and how far apart: a share of the studies, and ranges in mm."""

    share: float
    thickness: tuple[float, float]
    spacing: tuple[float, float] | None  # None: as wide as they are thick


PROTOCOLS = (
    Protocol(0.66, (4.5, 5.4), None),  # what most of the challenge's studies have
    Protocol(0.10, (2.5, 3.5), None),
    Protocol(0.08, (0.6, 1.25), (4.5, 5.5)),  # thin ones, of which few were kept
    Protocol(0.08, (7.0, 10.0), None),  # of older scanners
    Protocol(0.08, (4.8, 6.0), (2.5, 3.5)),  # overlapping
)


TO_AIR = 0.55  # of the studies end above the head; of nine real ones five do, and four show 22 to 37 cm2 last
INTO_AIR, SHORT = (0.0, 6.0), (-7.0, -4.0)  # mm over the skin, from which on no slice follows


@dataclass(frozen=True)
class Motion:
    """A patient who is restless during the slices between two heights, and lies elsewhere from there on."""

    low: float  # mm
    high: float
    degrees: float  # about the axis of the scanner
    shift: tuple[float, float]  # mm to the left and to the back

    def during(self, height: float) -> bool:
        """Whether a slice at a height, mm, was measured meanwhile."""
        return self.low <= height <= self.high

    def matrix(self) -> np.ndarray:
        """The turn (2, 2) of points (x to the left, y to the back)."""
        cos, sin = np.cos(np.radians(self.degrees)), np.sin(np.radians(self.degrees))
        return np.array([[cos, sin], [-sin, cos]])


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
    noise: float  # HU at 512 x 512, before add_noise() makes more of it in the middle and by bone
    kernel: float  # mm, by which the reconstruction smooths image and noise
    grain: float  # mm by which the noise is smoother than white
    metal: np.ndarray  # (n, 3) where a clip, a coil or teeth throw streaks, mm of the scanner before any motion
    motion: Motion | None
    projected: bool  # whether beam hardening and scatter of bone come from projections; else from glow and bands
    hardening: float  # share of bone's beam hardening that the scanner's own correction leaves
    scatter: float  # share of the photons behind a head that is added to darker rays
    calibration: float  # HU by which this scanner reads all soft tissue too high
    glow: float  # share of the bone around that beam hardening adds to soft tissue
    edge: float  # HU that bone adds to the brain beside it
    shade: tuple[float, float]  # HU by which the left side and the back read higher than the middle, over 100 mm
    table: tuple[float, float, float, float]  # kind, distance behind the centre, radius or half width, HU
    frame: np.ndarray  # (3,) where the scanner's origin lies

    def climb(self, height):
        """How far behind the scanner's axis the middle of a slice at a height lies, mm; of heights (n,), (n,).

        The table moves along z, not along the normal of tilted slices.
        """
        return (height - 15) * float(np.tan(self.tilt))  # a plain number leaves float32 as it is

    def behind(self, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """How far behind the line along which the table moves points of the scanner lie, mm: (n,), as y and z are.

        What lies level has one such distance, and one row of all pictures, however the gantry is tilted.
        """
        return y - self.climb(z)

    def front(self, behind: np.ndarray) -> np.ndarray:
        """How far in front of the head's middle points (n,) lie that are so far behind that line, mm of the head."""
        return (np.float32(self.shift[1]) - behind) / np.float32(self.scale)

    def metal_in(self, height: float, reach: float) -> np.ndarray:
        """Where in a slice at a height there is metal that reaches so far, mm: (n, 2) from its middle."""
        places = self.metal[np.abs(self.metal[:, 2] - height) < self.thickness / 2 + reach, :2]
        if self.motion is not None and height > self.motion.high:
            places = places @ self.motion.matrix().T + self.motion.shift
        return places - [0, self.climb(height)]

    def at(self, height: float) -> "Scan":
        """The scan as it looks at a slice at a height, mm: after a motion the head lies elsewhere."""
        if self.motion is None or height <= self.motion.high:
            return self
        turn = self.motion.matrix()
        rotation = self.rotation.copy()
        rotation[:, :2] = rotation[:, :2] @ turn  # of coordinates whose y axis points to the front
        shift = np.append(turn @ self.shift[:2] + self.motion.shift, self.shift[2])
        return replace(self, rotation=rotation, shift=shift)


def draw_scan(rng: np.random.Generator, head: Head) -> Scan:
    """Pose, protocol and scanner of one study."""
    roll, yaw = rng.normal(0, np.radians([5, 3]))
    pitch = rng.normal(0, np.radians(6))
    tilted = rng.random() < 0.5
    tilt = np.clip(rng.normal(-12, 6), -20, -2) if tilted else 0.0
    thickness, spacing = draw_protocol(rng)
    lowest = rng.uniform(-74, -32)
    heights = [lowest]
    close_base = rng.random() < 0.2 and spacing > 4  # closer slices through the posterior fossa, which may overlap
    highest = head.scale * (crown(head) + head.scalp) + rng.uniform(*(INTO_AIR if rng.random() < TO_AIR else SHORT))
    while heights[-1] < highest:
        heights.append(heights[-1] + (0.6 * spacing if close_base and heights[-1] < lowest + 25 else spacing))
    cos, sin = np.cos, np.sin
    about_z = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cos(pitch), -sin(pitch)], [0, sin(pitch), cos(pitch)]])
    about_y = np.array([[cos(yaw), 0, sin(yaw)], [0, 1, 0], [-sin(yaw), 0, cos(yaw)]])
    return Scan(
        field_of_view=rng.choice([220.0, 230.0, 235.0, 250.0, 250.0]),
        tilt=np.radians(tilt),
        rotation=about_z @ about_x @ about_y,
        shift=np.array([rng.normal(0, 4), rng.normal(-6, 7), 0.0]),
        scale=head.scale,
        heights=np.array(heights),
        thickness=thickness,
        noise=dials.NOISE.draw(rng) * np.sqrt(5 / np.clip(thickness, 1.5, 7)),  # doses rise as slices get thinner
        kernel=dials.KERNEL.draw(rng),
        grain=dials.GRAIN.draw(rng),
        metal=draw_metal(rng),
        motion=draw_motion(rng, heights) if rng.random() < dials.MOVING else None,
        projected=rng.random() < dials.PROJECTED,
        hardening=dials.HARDENING.draw(rng),
        scatter=dials.SCATTER.draw(rng),
        calibration=dials.CALIBRATION.draw(rng),
        glow=dials.GLOW.draw(rng),
        edge=dials.EDGE.draw(rng),
        shade=(dials.SHADE.draw(rng), dials.SHADE.draw(rng)),
        table=(rng.random(), rng.uniform(104, 122), rng.uniform(95, 140), rng.uniform(-150, 700)),
        frame=np.array([0.0, rng.uniform(-30, 150), rng.uniform(-50, 300)]),
    )


def draw_protocol(rng: np.random.Generator) -> tuple[float, float]:
    """Thickness of the slices and the distance between two of them, mm."""
    protocol = PROTOCOLS[rng.choice(len(PROTOCOLS), p=[each.share for each in PROTOCOLS])]
    thickness = rng.uniform(*protocol.thickness)
    return thickness, thickness if protocol.spacing is None else rng.uniform(*protocol.spacing)


def draw_metal(rng: np.random.Generator) -> np.ndarray:
    """Where there is metal, (n, 3) mm of the scanner: a clip or coil in few heads, crowns and fillings in more."""
    clips = rng.normal([0, -20, -5], [15, 15, 12], (1, 3))
    teeth = rng.uniform([-26, -75, -76], [26, -50, -62], (rng.integers(1, 5), 3))
    inside, dental = rng.random(2) < (dials.CLIPS, dials.DENTAL)
    return np.concatenate([clips[: int(inside)], teeth[: len(teeth) * int(dental)]])


def draw_motion(rng: np.random.Generator, heights: list[float]) -> Motion:
    """A motion during one to five slices, any of them but the first and the last few."""
    first = rng.integers(2, len(heights) - 6)
    low, high = heights[first], heights[first + rng.integers(0, 5)]
    return Motion(low, high, rng.normal(0, 1.2), tuple(rng.normal(0, 1.2, 2)))


def table(scan: Scan, x, y) -> np.ndarray:
    """Hounsfield values (n,) of air, of the rest behind the head and of its cushion.

    At points (n,) to the left of the line along which the table moves, and behind it, mm.
    """
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
