"""The healthy head of the synthetic studies: scalp and skull as regions of space with Hounsfield values.

Head coordinates in mm: x to the patient's left, y to the front, z up; the origin lies between the temporal lobes, at
the height of the orbital roof. Proportions are an adult's (skull 140 x 175 mm, vertex 90 mm above and foramen magnum
45 mm below the origin). Every region is a test on points, so a slice in any pose and of any size is a sampling of the
same head; partial volume comes from averaging several points a pixel (study.py). Where a costly field cannot change
the picture it is not computed; that must not change a byte of it.
"""

from dataclasses import dataclass

import numpy as np

from models.phantom import dials
from models.phantom.atlas import load_atlas
from models.phantom.points import Points, texture

AIR, FAT, SKIN, MUSCLE = -1000.0, -95.0, 15.0, 55.0
REACH = 26.0  # how far outside of the skull's outer table there may be scalp, mm
FACE_TOP = 12.0  # above it there are neither face nor neck, mm
SELLA = -9.0  # height of its clinoids, over which there is the suprasellar cistern, mm
VERTEX = 94.0  # height of a mean head's outer table where it is highest, mm; its brain ends some 5 mm lower
BASE_TOP = 16.0  # above it there is no bone but the vault, mm


@dataclass(frozen=True)
class Head:
    """One patient: sizes in mm, tissues in HU."""

    scale: float  # of the whole head, in which its other lengths are told
    half_width: float
    half_length: float
    top: float
    dome: float  # how much more pointed the vertex is than an ellipsoid
    egg: float  # how much narrower the forehead is than the back, share of the width
    skew: float  # flattening of one side of the back: by how much of the distance from the midline, at the very back
    warp: tuple[float, float]  # deviation of the smooth deformations, coarse and fine, mm
    bone: float
    scalp: float
    cortical: float  # HU
    fat: float
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
    carotid: tuple[float, float]  # HU of calcium in the siphons' walls right and left, 0 for none
    plaque: tuple[float, float, float, float]  # y, z, radius of calcium on the falx, 0 for none, and its HU
    artery: tuple[float, float]  # side of a middle cerebral artery with a thrombus, 0 for none; HU above other vessels
    cyst: tuple[float, float, float, float]  # x, y, z, radius of an arachnoid cyst; radius 0 for none
    infarct: tuple[float, float, float, float]  # x, y, z, radius of an old infarct; radius 0 for none
    stroke: tuple[float, float, float, float]  # the same of a fresh one, and by how many HU it is darker below
    darker: float
    tumour: tuple[float, float, float, float]  # the same of a tumour without blood, and its HU below
    tumour_hounsfield: float
    oedema: float  # how much wider its oedema is, times the radius
    craniotomy: tuple[float, float, float]  # angle (radian), height and radius (mm) of a hole in the vault, 0 for none
    haematoma: tuple[float, float, float]  # angle (radian), height, thickness under the scalp, 0 for none
    frontal_sinus: float
    offset: tuple[float, float, float]  # where this patient reads the noise cubes, voxels


def draw_head(rng: np.random.Generator) -> Head:
    """A patient from a random stream."""
    atrophy = rng.beta(1.0, 1.4)
    angle = rng.uniform(0, 2 * np.pi)
    white = dials.WHITE.draw(rng)
    hydrocephalus = rng.uniform(1.5, 2.6) if rng.random() < 0.06 else 1.0
    return Head(
        scale=dials.SCALE.draw(rng),
        half_width=dials.HALF_WIDTH.draw(rng),
        half_length=dials.HALF_LENGTH.draw(rng),
        top=dials.TOP.draw(rng),
        dome=dials.DOME.draw(rng),
        egg=dials.EGG.draw(rng),
        skew=rng.normal(0, 0.04),  # the two diagonals of a skull differ by some 3 mm
        warp=(dials.LONG_WARP.draw(rng), dials.SHORT_WARP.draw(rng)),
        bone=dials.BONE.draw(rng),
        scalp=dials.SCALP.draw(rng),
        cortical=dials.CORTICAL.draw(rng),
        fat=dials.FAT.draw(rng),
        grey=white + dials.CONTRAST.draw(rng),
        white=white,
        csf=dials.FLUID.draw(rng),
        falx=dials.FALX.draw(rng),
        sinus=dials.SINUS.draw(rng) + (rng.random() < 0.04) * rng.uniform(40, 120),
        sulcus=dials.SULCUS.low + (dials.SULCUS.high - dials.SULCUS.low) * atrophy,
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
        stroke=(*wedge_centre(rng), rng.uniform(15, 38) * (rng.random() < 0.12)),
        darker=rng.uniform(3, 9),
        tumour=(*wedge_centre(rng), rng.uniform(6, 20) * (rng.random() < 0.07)),
        tumour_hounsfield=rng.uniform(30, 47),  # with or without calcium; denser ones are taken for blood by people too
        oedema=rng.uniform(1.1, 2.2),
        craniotomy=(rng.uniform(-np.pi, np.pi), rng.uniform(10, 60), rng.uniform(5, 32) * (rng.random() < 0.08)),
        haematoma=(rng.uniform(-np.pi, np.pi), rng.uniform(-10, 60), rng.uniform(4, 12) * (rng.random() < 0.18)),
        frontal_sinus=rng.uniform(0, 7),
        offset=tuple(rng.uniform(0, 64, 3)),
        carotid=tuple(rng.uniform(130, 700, 2) * (rng.random(2) < 0.8) * (rng.random() < 0.35 * (0.4 + atrophy))),
        plaque=(
            rng.uniform(-50, 55),
            rng.uniform(35, 70),
            rng.uniform(3, 11) * (rng.random() < 0.2),
            rng.uniform(90, 500),
        ),
        artery=(float(rng.choice([-1, 1])) * (rng.random() < 0.03), rng.uniform(8, 25)),
        cyst=(*cyst_centre(rng), rng.uniform(8, 24) * (rng.random() < 0.04)),
    )


def wedge_centre(rng: np.random.Generator) -> tuple[float, float, float]:
    """A point of one hemisphere, mm."""
    angle = rng.uniform(0, 2 * np.pi)
    return (48 * np.cos(angle), 60 * np.sin(angle), rng.uniform(0, 60))


def cyst_centre(rng: np.random.Generator) -> tuple[float, float, float]:
    """Where arachnoid cysts lie, mm: before the temporal pole, over the convexity, behind the cerebellum."""
    x, y, z = ((46, 26, -10), (60, -10, 46), (4, -60, -24))[rng.choice(3, p=[0.55, 0.25, 0.2])]
    return (x * float(rng.choice([-1, 1])), y + rng.normal(0, 4), z + rng.normal(0, 4))


def warp(head: Head, p: Points) -> Points:
    """Points of this patient -> points of a head of mean size and shape: the patient's size, asymmetry and deformation.

    A smooth displacement over about 70 mm, of a few millimetres: far from folding.
    """
    return displaced(head, shaped(head, p), p, head.warp[0], 14.0, 0)


def shaped(head: Head, p: Points) -> Points:
    """Points of this patient -> points of a head of mean size and shape, but for the patient's deformation."""
    x = p.x * np.float32(73 / head.half_width) / (1 - np.float32(head.egg - 0.12) * p.y / head.half_length)
    behind = np.clip(-p.y / np.float32(head.half_length), 0, 1)  # of what is skewed; in front nothing is
    y = (p.y + np.float32(head.skew) * p.x * behind) * np.float32(86 / head.half_length)
    high = np.clip(p.z / np.float32(head.top), 0, 1)  # over the vertex lengths are as they are, and below the base
    beyond = np.minimum(p.z, 0) + np.maximum(p.z - np.float32(head.top), 0)
    z = beyond + np.float32(VERTEX) * high * (1 + np.float32(head.dome) * (1 - high))
    return Points(x, y, z)


def unwarped(head: Head, p: Points) -> Points:
    """Points of a head of mean size and shape -> points of this patient: what `warp` undoes, to .2 mm."""
    at = p
    for _ in range(6):
        # Three quarters of the way: nowhere do lengths more than double, so that this cannot swing away.
        pairs = zip(at, warp(head, at), p, strict=True)
        at = Points(*(here - np.float32(0.75) * (there - goal) for here, there, goal in pairs))
    return at


def crown(head: Head) -> float:
    """How high above its origin this patient's skull is highest, mm; its scalp comes on top of that."""
    around = np.meshgrid((-20, 0, 20), (-50, -35, -20, -5, 10), np.arange(60, 130))
    p = Points(*(part.ravel().astype(np.float32) for part in around))
    return float(p.z[skull_depth(head, warp(head, p)) > 0].max())


def gyri(head: Head, p: Points) -> Points:
    """Points of a mean head -> where the template has what this patient's brain has there: nobody's gyri are another's.

    A displacement over about 25 mm, within a skull that stays as smooth as skulls are.
    """
    return displaced(head, p, p, head.warp[1], 5.0, 21)


def displaced(head: Head, points: Points, p: Points, amount: float, voxel: float, turn: int) -> Points:
    """Points moved by the smooth noise that this patient has at p, `amount` mm along each axis."""
    parts = []
    for axis, part in enumerate(points):
        here = turn + 11 * axis
        offset = (head.offset[0] + here, head.offset[1] + here, head.offset[2] + here)
        parts.append((part + np.float32(amount) * texture(offset, p, voxel)).astype(np.float32))
    return Points(*parts)


def skull_depth(head: Head, p: Points) -> np.ndarray:
    """Depth (n,) below the outer table of the vault, mm, negative outside; of points of a mean head, as all below."""
    return load_atlas().distance("depth", p) + bone_thickness(head, p)


def bone_thickness(head: Head, p: Points) -> np.ndarray:
    """Thickness (n,) of the vault without its crests, mm: thin at the temples, thick in front and behind."""
    along = p.y / 87
    return head.bone * (0.8 + 0.4 * along * along)


def outside_bone(head: Head, p: Points, depth: np.ndarray) -> np.ndarray:
    """Hounsfield values (n,) of air, scalp, face and neck, at a depth (n,) below the outer table of the vault, mm."""
    side = np.abs(p.x)
    temple = 7 * np.exp(-np.square((p.y - 22) / 22) - np.square((p.z + 14) / 26)) * (side > 30)
    swelling = scalp_haematoma(head, p) if head.haematoma[2] else np.zeros_like(p.z)
    thickness = head.scalp + temple + swelling
    skin = depth + thickness
    low = np.flatnonzero(p.z < FACE_TOP)
    skin[low] = np.maximum(skin[low], face_and_neck_depth(head, p.take(low)))
    hu = np.where(skin > 0, np.where(skin < 2.0, SKIN, np.float32(head.fat)), AIR)
    # Below the skull muscle and fat lie in strands; over it there is the temporal muscle, or a scalp haematoma.
    strands = (p.z < -25) & (skin > 4)
    strands[strands] = texture(head.offset, p.take(strands), 1.8) > -0.6
    fibrous = (skin > 2.0) & (depth > -2.8) & (depth <= 0)  # the galea, with muscle and vessels
    temporal = (temple > 2.0) & (depth > -temple) & (depth < 0)
    hu[fibrous] = 20
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
    side = np.abs(p.x)
    front = p.y
    low = np.clip(-p.z / 60, 0, 1)
    face = 1 - np.sqrt(np.square(side / (76 - 10 * low)) + np.square((front - 26) / 68))
    nose_tip = 88 + 20 * np.clip((-14 - p.z) / 34, 0, 1)
    nose = (1 - side / 15) * 15 - np.maximum(front - nose_tip + 14, 0)
    neck = 1 - np.sqrt(np.square(side / 68) + np.square((front + 26) / 64))
    below = np.maximum(np.maximum(face * 60, neck * 50), np.where(front > 60, nose, -99))
    return below - np.maximum(p.z, 0) * 3


def paint_vault(head: Head, p: Points, depth: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Paint the skull over `hu` (n,), in place; returns the depth (n,) below the inner table, mm, negative outside.

    `depth` (n,) is that below the outer table, mm.
    """
    atlas = load_atlas()
    crest = 4 * np.exp(-np.square(p.x / 6)) * (np.abs(p.y) > 52) * (p.z < 30)  # inwards, on the midline
    thickness = bone_thickness(head, p) + crest
    inner = depth - thickness
    low = p.z < BASE_TOP
    grain = np.zeros_like(p.z)
    rim = np.flatnonzero((depth > 0) & ((inner <= 0) | low))  # where there may be bone
    grain[rim] = texture(head.offset, p.take(rim), 1.1)
    envelope = np.full_like(p.z, 99)
    below = np.flatnonzero(low & (inner > 0))
    envelope[below] = atlas.distance("envelope", p.take(below))
    cisterns = (np.abs(p.x) < 22) & (p.z > SELLA + 2 * grain) & (p.y > -20) & (p.y < 25)
    cavity = (inner > 0) & ((envelope > -1.0) | cisterns)
    # Under the brain bone is thin, and under that begins the face.
    wall = np.flatnonzero(low & (depth > 0) & (inner <= 0))
    q = p.take(wall)
    plain = (inner + crest)[wall]
    rise = atlas.distance("depth", Points(q.x, q.y, q.z + 4)) - plain
    floor = (rise > 2.2) & (plain < -3.0 - 1.2 * grain[wall]) & ~((q.y > 62) & (q.z > -14))
    bone = (depth > 0) & ~cavity
    bone[wall[floor]] = False
    gap = (inner > 0) & ~cavity & (p.y > -45) & ((hu > 300) | (hu == AIR))
    bone &= ~gap  # of the sphenoid and the petrous bone face.py knows more; behind them there is the occiput
    if head.craniotomy[2]:
        angle, height, radius = head.craniotomy
        hole = p.distance2((66 * np.cos(angle), 82 * np.sin(angle), height)) < radius**2
        hu[bone & hole] = 35  # scalp and dura, without the flap
        bone &= ~hole
    # Spongy between two tables, and uneven: clean layers are told from real bone more easily than none.
    diploe = (np.abs(inner + 0.5 * thickness) < 0.22 * thickness) & (head.bone > 5)
    hu[bone] = (head.cortical + 150 * grain - 450 * diploe - 300 * (inner > 0))[bone]
    sinus = Points(np.abs(p.x), p.y, p.z)
    hu[bone & (sinus.distance2((11, 79, 2), (8 + head.frontal_sinus, 4, 4 + head.frontal_sinus)) < 1)] = (
        AIR if head.frontal_sinus > 2 else 900
    )
    return np.where(cavity, inner, -1)
