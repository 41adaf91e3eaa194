"""The healthy head of the synthetic studies: scalp and skull as regions of space with Hounsfield values.

Head coordinates in mm: x to the patient's left, y to the front, z up; the origin lies between the temporal lobes, at
the height of the orbital roof. Proportions are an adult's (skull 140 x 175 mm, vertex 85 mm above and foramen magnum
45 mm below the origin). Every region is a test on points, so a slice in any pose and of any size is a sampling of the
same head; partial volume comes from averaging several points a pixel (study.py). Where a costly field cannot change
the picture it is not computed; that must not change a byte of it.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

AIR, FAT, SKIN, MUSCLE, CORTICAL_BONE = -1000.0, -95.0, 15.0, 55.0, 1150.0
CENTRE_HEIGHT = 5.0  # the widest level of the skull, mm
ROUNDING = 0.01  # more than float32 rounds off from a distance, mm
BUMP = 1.6  # height of the bumps of the skull, mm
FACE_TOP = 12.0  # above it there are neither face nor neck, mm
BASE_TOP = 16.0  # above it there is no bone but the vault, mm


@dataclass(frozen=True)
class Points:
    """Points in head coordinates, float32 mm, each (n,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

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
        x, y, z = ((a - c) / s for a, c, s in zip((self.x, self.y, self.z), centre, scale, strict=True))
        return x * x + y * y + z * z

    def mirrored(self) -> "Points":
        """The same points on the left side."""
        return Points(np.abs(self.x), self.y, self.z)


@dataclass(frozen=True)
class Head:
    """One patient: sizes in mm, tissues in HU."""

    half_width: float
    half_length: float
    top: float
    egg: float  # how much narrower the forehead is than the back, share of the width
    skew: float  # flattening of one side of the back, share of the length
    bone: float
    scalp: float
    grey: float
    white: float
    csf: float
    falx: float
    sinus: float
    sulcus: float  # width of a sulcus: the atrophy of the patient
    ventricle: float  # scale of the ventricles' radii
    lean: float  # how much wider the left ventricle is than the right
    leukoaraiosis: float  # width of the dark seam around the ventricles
    choroid: tuple[float, float]  # HU of the calcified plexus right and left, 0 for none
    pineal: float
    ganglia: float  # HU of calcified basal ganglia, 0 for none
    electrode: float  # HU of a shunt or of stimulation electrodes, 0 for none
    infarct: tuple[float, float, float, float]  # x, y, z, radius of an old infarct; radius 0 for none
    haematoma: tuple[float, float, float]  # angle (radian), height, thickness under the scalp, 0 for none
    frontal_sinus: float
    offset: tuple[float, float, float]  # where this patient reads the noise cubes, voxels


def draw_head(rng: np.random.Generator) -> Head:
    """A patient from a random stream."""
    atrophy = rng.beta(1.3, 2.0)
    angle = rng.uniform(0, 2 * np.pi)
    white = rng.uniform(25.5, 31.5)
    hydrocephalus = rng.uniform(1.5, 2.6) if rng.random() < 0.06 else 1.0
    return Head(
        half_width=rng.uniform(66, 74),
        half_length=rng.uniform(82, 92),
        top=rng.uniform(78, 90),
        egg=rng.uniform(0.06, 0.18),
        skew=rng.normal(0, 0.025),
        bone=rng.uniform(6.0, 11.5),
        scalp=rng.uniform(3.5, 6.5),
        grey=white + rng.uniform(5, 9),
        white=white,
        csf=rng.uniform(3, 10),
        falx=rng.uniform(42, 56),
        sinus=rng.uniform(44, 62),
        sulcus=0.5 + 2.6 * atrophy,
        ventricle=float(np.clip(0.6 + 1.0 * atrophy + rng.normal(0, 0.15), 0.5, 2.0)) * hydrocephalus,
        lean=rng.normal(0, 0.15),
        leukoaraiosis=rng.uniform(0, 9) if rng.random() < 0.35 else 0.0,
        choroid=tuple(rng.uniform(90, 500, 2) * (rng.random(2) < 0.85) * (rng.random() < 0.6)),
        pineal=rng.uniform(90, 400) * (rng.random() < 0.5),
        ganglia=rng.uniform(55, 120) * (rng.random() < 0.12),
        electrode=rng.uniform(200, 2500) * (rng.random() < 0.06),
        infarct=(
            45 * np.cos(angle),
            55 * np.sin(angle),
            rng.uniform(-5, 55),
            rng.uniform(10, 30) * (rng.random() < 0.2),
        ),
        haematoma=(rng.uniform(-np.pi, np.pi), rng.uniform(-10, 60), rng.uniform(4, 12) * (rng.random() < 0.18)),
        frontal_sinus=rng.uniform(0, 7),
        offset=tuple(rng.uniform(0, 64, 3)),
    )


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


def texture(head: Head, p: Points, voxel: float) -> np.ndarray:
    """Smooth noise (n,) at points, mean 0 and deviation 1, the cube's voxels being `voxel` mm wide."""
    at = np.stack([a / np.float32(voxel) + np.float32(o) for a, o in zip((p.x, p.y, p.z), head.offset, strict=True)])
    return map_coordinates(noise_cube(), at, order=1, mode="grid-wrap", output=np.float32)


def skull_depth(head: Head, p: Points) -> np.ndarray:
    """Depth (n,) below the outer table of the vault, mm, negative outside, along the ray to the centre."""
    return smooth_depth(head, p) + bumps(head, p)


def smooth_depth(head: Head, p: Points) -> np.ndarray:
    """The same (n,) of a skull without bumps."""
    x = p.x / (head.half_width * (1 - head.egg * p.y / head.half_length))
    y = (p.y + head.skew * p.x * (p.y < 0)) / head.half_length
    height = p.z - CENTRE_HEIGHT
    z = height / np.where(height > 0, np.float32(head.top - CENTRE_HEIGHT), np.float32(88))
    sphere = x * x + y * y + z * z + 1e-6
    # The cross term squares the oval like a superellipse of exponent 2.2, without its powers.
    radius = np.sqrt(sphere - 0.25 * np.square(x * y) / sphere)
    return np.sqrt(p.x * p.x + p.y * p.y + height * height) * (1 / radius - 1)


def bumps(head: Head, p: Points) -> np.ndarray:
    """What the bumps of the skull add to its depth (n,), mm."""
    return BUMP * np.sin(p.x / 19 + head.offset[0]) * np.sin(p.y / 25 + head.offset[1]) * np.cos(p.z / 40)


def bone_thickness(head: Head, p: Points) -> np.ndarray:
    """Thickness (n,) of the vault, mm: thin at the temples, thick in front and behind, crests on the midline."""
    along = p.y / head.half_length
    crest = 4 * np.exp(-np.square(p.x / 6)) * (np.abs(along) > 0.6) * (p.z < 30)
    return head.bone * (0.8 + 0.4 * along * along) + crest


def skull_base(p: Points) -> np.ndarray:
    """Height (n,) of the floor of the three cranial fossae, mm."""
    side = np.abs(p.x)
    anterior = -5 + 8 * np.exp(-np.square((side - 30) / 14)) - 5 * np.exp(-np.square(side / 6))
    middle = -25 + 17 * np.exp(-np.square(side / 14))
    ridge_line = 2 - 0.5 * side
    ridge = 9 * np.exp(-np.square((p.y - ridge_line) / 5)) * (side > 12)
    before_wing = 1 / (1 + np.exp(-(p.y - 17 - 14 * np.square(side / 55)) / 1.5))
    behind_ridge = 1 / (1 + np.exp((p.y - ridge_line) / 2.5))
    posterior = np.minimum(-47 + 0.006 * (np.square(p.x) + np.square(p.y + 38)), -25)
    return before_wing * anterior + (1 - before_wing) * (middle + behind_ridge * (posterior - middle) + ridge)


def outside_bone(head: Head, p: Points, depth: np.ndarray) -> np.ndarray:
    """Hounsfield values (n,) of air, scalp, face and neck, at a depth (n,) below the outer table of the vault, mm."""
    side = np.abs(p.x) / (head.half_width / 70)
    temple = 7 * np.exp(-np.square((p.y - 22) / 22) - np.square((p.z + 14) / 26)) * (side > 30)
    swelling = scalp_haematoma(head, p) if head.haematoma[2] else np.zeros_like(p.z)
    thickness = head.scalp + temple + swelling
    skin = depth + thickness
    low = np.flatnonzero(p.z < FACE_TOP)
    skin[low] = np.maximum(skin[low], face_and_neck_depth(head, p.take(low)))
    hu = np.where(skin > 0, np.where(skin < 1.6, SKIN, FAT), AIR)
    # Below the skull muscle and fat lie in strands; over it there is the temporal muscle, or a scalp haematoma.
    strands = (p.z < -25) & (skin > 4)
    strands[strands] = texture(head, p.take(strands), 1.8) > -0.05
    temporal = (temple > 2.0) & (depth > -temple) & (depth < 0)
    hu[strands | temporal] = MUSCLE
    hu[(swelling > 1.5) & (depth > -swelling) & (depth < 0)] = 58
    return hu


def scalp_haematoma(head: Head, p: Points) -> np.ndarray:
    """Thickness (n,) of the haematoma under the scalp, mm."""
    angle = np.arctan2(p.y, p.x) - head.haematoma[0]
    around = np.arctan2(np.sin(angle), np.cos(angle)) / 0.45
    return head.haematoma[2] * np.exp(-np.square(around) - np.square((p.z - head.haematoma[1]) / 22))


def face_and_neck_depth(head: Head, p: Points) -> np.ndarray:
    """Depth (n,) below the skin of face and neck, mm, negative outside."""
    side = np.abs(p.x) / (head.half_width / 70)
    front = p.y / (head.half_length / 87)
    low = np.clip(-p.z / 60, 0, 1)
    face = 1 - np.sqrt(np.square(side / (70 - 12 * low)) + np.square((front - 28) / 62))
    nose_tip = 88 + 20 * np.clip((-14 - p.z) / 34, 0, 1)
    nose = (1 - side / 15) * 15 - np.maximum(front - nose_tip + 14, 0)
    neck = 1 - np.sqrt(np.square(side / 62) + np.square((front + 26) / 56))
    below = np.maximum(np.maximum(face * 60, neck * 50), np.where(front > 60, nose, -99))
    return below - np.maximum(p.z, 0) * 3


def paint_vault(head: Head, p: Points, depth: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Paint the skull over `hu` (n,), in place; returns the depth (n,) below the inner table, mm, negative outside.

    `depth` (n,) is that below the outer table, mm.
    """
    thickness = bone_thickness(head, p)
    inner = depth - thickness
    grain = np.zeros_like(p.z)
    rim = np.flatnonzero((depth > 0) & ((inner <= 0) | (p.z < BASE_TOP)))  # where there may be bone
    grain[rim] = texture(head, p.take(rim), 1.1)
    floor = np.full_like(p.z, -99)
    low = np.flatnonzero((p.z < BASE_TOP) & (depth > 0))
    floor[low] = skull_base(p.take(low)) + 1.2 * grain[low]
    cavity = (inner > 0) & (p.z > floor)
    brow = (p.y > 45) & (p.z > -11 + 2 * grain) & (inner < 2)
    bone = (depth > 0) & ~cavity & ((p.z > floor - 3.5 - 1.5 * grain) | brow)
    diploe = (np.abs(inner + 0.5 * thickness) < 0.22 * thickness) & (head.bone > 6)
    hu[bone] = (CORTICAL_BONE + 150 * grain - 450 * diploe)[bone]
    sinus = Points(np.abs(p.x), p.y / head.half_length * 87, p.z)
    hu[bone & (sinus.distance2((11, 81, 2), (8 + head.frontal_sinus, 4, 4 + head.frontal_sinus)) < 1)] = (
        AIR if head.frontal_sinus > 2 else 900
    )
    return np.where(cavity, np.minimum(inner, p.z - floor), -1)
