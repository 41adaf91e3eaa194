"""The healthy head of the synthetic studies: bone, face and brain as regions of space with Hounsfield values.

Head coordinates in mm: x to the patient's left, y to the front, z up; the origin lies between the temporal lobes, at
the height of the orbital roof. Proportions are an adult's (skull 140 x 175 mm, vertex 85 mm above and foramen magnum
45 mm below the origin). Every region is a test on points, so a slice in any pose and of any size is a sampling of the
same head; partial volume comes from averaging several points a pixel (study.py).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

AIR, FAT, SKIN, MUSCLE, CORTICAL_BONE = -1000.0, -95.0, 15.0, 55.0, 1150.0
MASTOID = np.array([57, -29, -44])  # centre of the left mastoid, mm
CENTRE_HEIGHT = 5.0  # the widest level of the skull, mm

# Structures of the face and the skull base in paint order: start and end of a tapered capsule on the left side
# (mirrored to the right), its radius at both ends (mm) and its Hounsfield value.
FACE = (
    ((60, 32, -48), (56, 38, -90), 10, 9, MUSCLE),  # masseter
    ((38, 24, -46), (36, 30, -85), 11, 9, MUSCLE),  # pterygoids
    ((20, -46, -60), (22, -50, -95), 15, 17, MUSCLE),  # neck
    ((50, -40, -66), (46, -34, -95), 9, 11, MUSCLE),  # sternocleidomastoid
    ((15, 4, -52), (14, 6, -90), 7, 8, MUSCLE),  # longus
    ((29, 58, -18), (13, 22, -14), 17, 9, 750),  # orbital walls
    ((31, 68, -18), (13, 24, -14), 15, 5, FAT),  # orbital cone
    ((32, 68, -18), (32, 68, -18), 12.5, 12.5, 42),  # sclera
    ((32, 68, -18), (32, 68, -18), 10.8, 10.8, 13),  # vitreous body
    ((30.5, 77, -18), (33.5, 77, -18), 2.4, 2.4, 75),  # lens
    ((32, 56, -18), (13, 26, -14), 2.3, 2.3, 35),  # optic nerve
    ((43, 62, -18), (17, 28, -14), 2.2, 2.2, MUSCLE),  # lateral rectus
    ((21, 62, -18), (12, 28, -14), 2.2, 2.2, MUSCLE),  # medial rectus
    ((47, 72, -34), (56, 60, -34), 7, 5, 900),  # zygoma
    ((57, 60, -34), (68, 18, -37), 3, 3, 900),  # zygomatic arch
    ((68, 18, -37), (64, -4, -38), 3, 4, 900),
    ((48, 66, -12), (40, 36, -14), 4, 4, 900),  # lateral orbital wall
    ((40, 36, -12), (58, 22, -8), 5, 4, 1000),  # greater wing
    ((30, 62, -47), (28, 40, -48), 16, 13, 700),  # maxilla
    ((30, 62, -47), (28, 40, -48), 14.2, 11.2, AIR),  # maxillary sinus
    ((14, 80, -22), (10, 84, -40), 5, 3, 800),  # nasal bone and frontal process
    ((8, 72, -18), (8, 26, -18), 8.5, 8.5, 600),  # ethmoid
    ((7.5, 72, -18), (7.5, 26, -18), 7, 7, AIR),
    ((7, 86, -42), (7, 30, -40), 6, 6, AIR),  # nasal cavity
    ((9, 22, -50), (9, 36, -72), 5, 5, 800),  # pterygoid plates
    ((0, 13, -52), (0, 8, -95), 10, 10, AIR),  # pharynx
    ((7, 15, -22), (6, 10, -24), 12, 11, 900),  # sphenoid
    ((7, 16, -23), (6, 11, -25), 8.5, 8, AIR),  # sphenoid sinus
    ((0, 4, -24), (0, -13, -50), 8, 6, 950),  # clivus
    ((53, 5, -38), (50, 14, -90), 6, 5, 1000),  # jaw
    ((16, -3, -29), (56, -22, -32), 8, 13, 1250),  # petrous bone
    ((57, -29, -40), (55, -25, -60), 14, 8, 900),  # mastoid
    ((64, -13, -37), (86, -13, -37), 3.2, 3.2, AIR),  # ear canal
)


@dataclass(frozen=True)
class Points:
    """Points in head coordinates, float32 mm, each (n,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    def take(self, index: np.ndarray) -> "Points":
        """The points at some places, or those where a mask (n,) is true."""
        return Points(self.x[index], self.y[index], self.z[index])

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

    Each radius is a number, or one for each point (n,).
    """
    start = np.asarray(start, np.float32)
    axis = np.asarray(end, np.float32) - start
    length2 = float(axis @ axis)
    dx, dy, dz = p.x - start[0], p.y - start[1], p.z - start[2]
    if length2 == 0:
        return dx * dx + dy * dy + dz * dz < radius * radius
    t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / length2, 0, 1)
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
    x = p.x / (head.half_width * (1 - head.egg * p.y / head.half_length))
    y = (p.y + head.skew * p.x * (p.y < 0)) / head.half_length
    height = p.z - CENTRE_HEIGHT
    z = height / np.where(height > 0, np.float32(head.top - CENTRE_HEIGHT), np.float32(88))
    sphere = x * x + y * y + z * z + 1e-6
    # The cross term squares the oval like a superellipse of exponent 2.2, without its powers.
    radius = np.sqrt(sphere - 0.25 * np.square(x * y) / sphere)
    bumps = 1.6 * np.sin(p.x / 19 + head.offset[0]) * np.sin(p.y / 25 + head.offset[1]) * np.cos(p.z / 40)
    return np.sqrt(p.x * p.x + p.y * p.y + height * height) * (1 / radius - 1) + bumps


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
    angle = np.arctan2(p.y, p.x) - head.haematoma[0]
    swelling = head.haematoma[2] * np.exp(
        -np.square(np.arctan2(np.sin(angle), np.cos(angle)) / 0.45) - np.square((p.z - head.haematoma[1]) / 22)
    )
    thickness = head.scalp + temple + swelling
    skin = depth + thickness
    front = p.y / (head.half_length / 87)
    low = np.clip(-p.z / 60, 0, 1)
    face = 1 - np.sqrt(np.square(side / (70 - 12 * low)) + np.square((front - 28) / 62))
    nose_tip = 88 + 20 * np.clip((-14 - p.z) / 34, 0, 1)
    nose = (1 - side / 15) * 15 - np.maximum(front - nose_tip + 14, 0)
    neck = 1 - np.sqrt(np.square(side / 62) + np.square((front + 26) / 56))
    below = np.maximum(np.maximum(face * 60, neck * 50), np.where(front > 60, nose, -99))
    skin = np.maximum(skin, np.where(p.z < 12, below - np.maximum(p.z, 0) * 3, -99))
    hu = np.where(skin > 0, np.where(skin < 1.6, SKIN, FAT), AIR)
    # Below the skull muscle and fat lie in strands; over it there is the temporal muscle, or a scalp haematoma.
    strands = (p.z < -25) & (skin > 4)
    strands[strands] = texture(head, p.take(strands), 1.8) > -0.05
    temporal = (temple > 2.0) & (depth > -temple) & (depth < 0)
    hu[strands | temporal] = MUSCLE
    hu[(swelling > 1.5) & (depth > -swelling) & (depth < 0)] = 58
    return hu


def paint_face(head: Head, p: Points, hu: np.ndarray) -> None:
    """Paint bones, muscles and air spaces of the face and the skull base over `hu` (n,), in place."""
    scaled = Points(np.abs(p.x) * (70 / head.half_width), p.y * (87 / head.half_length), p.z)
    grain = texture(head, p, 1.1)
    inside = hu > AIR
    for start, end, radius, end_radius, value in FACE:
        hu[inside & capsule(scaled, start, end, radius, end_radius)] = value
    ethmoid = (scaled.x < 15) & (np.abs(scaled.y - 49) < 32) & (np.abs(scaled.z + 18) < 9)
    hu[ethmoid & (np.abs(grain) < 0.22) & (hu == AIR)] = 350
    hu[inside & (scaled.x < 0.9) & (np.abs(scaled.y - 55) < 34) & (np.abs(scaled.z + 32) < 24)] = 250  # septum
    hu[(scaled.distance2(MASTOID, (12, 13, 14)) < 1) & (grain > 0.1)] = -800  # air cells
    hu[scaled.distance2((79, -17, -34), (5, 11, 17)) < 1] = SKIN  # ear
    ring = np.sqrt(np.square(scaled.x / 1.15) + np.square(scaled.y + 33))
    atlas = (np.abs(ring - 20) < 5) & (np.abs(scaled.z + 64) < 9)
    hu[atlas & (scaled.y < -12)] = 900
    canal = (ring < 14) & (scaled.z < -44) & (scaled.y < -16)
    hu[canal] = head.csf
    hu[canal & (ring < 6.5)] = head.white + 2
    hu[capsule(scaled, (0, -9, -58), (0, -10, -95), 6, 8)] = 900  # dens


def paint_vault(head: Head, p: Points, depth: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Paint the skull over `hu` (n,), in place; returns the depth (n,) below the inner table, mm, negative outside.

    `depth` (n,) is that below the outer table, mm.
    """
    thickness = bone_thickness(head, p)
    grain = np.zeros_like(p.z)
    rim = np.flatnonzero((depth > 0) & ((depth < 20) | (p.z < 16)))  # where there may be bone
    grain[rim] = texture(head, p.take(rim), 1.1)
    floor = np.full_like(p.z, -99)
    low = np.flatnonzero((p.z < 16) & (depth > 0))
    floor[low] = skull_base(p.take(low)) + 1.2 * grain[low]
    inner = depth - thickness
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
