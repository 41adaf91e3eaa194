"""The brain of the synthetic studies: grey and white matter, spaces that hold fluid, falx, vessels, calcium."""

from dataclasses import dataclass

import numpy as np

from models.phantom.anatomy import Head, Points, capsule, texture

# The left lateral ventricle and the midline ones: start and end of a tapered capsule and its radius at both ends, mm.
LATERAL_VENTRICLE = (
    ((15, 36, 15), (5, 12, 17), 3.0, 4.2),  # frontal horn
    ((5, 12, 18), (14, -24, 24), 4.4, 4.6),  # body
    ((14, -24, 24), (23, -37, 12), 4.6, 6.0),
    ((23, -37, 12), (19, -62, 9), 5.5, 1.6),  # occipital horn
    ((24, -36, 10), (33, -8, -13), 4.0, 2.0),  # temporal horn
    ((33, -8, -13), (28, 8, -16), 2.0, 1.4),
)
MIDLINE_VENTRICLES = (
    ((0, 10, 6), (0, -12, 8), 2.2, 2.0),  # third
    ((0, 6, 0), (0, -6, 12), 2.0, 2.2),
    ((0, -14, 4), (0, -27, -12), 1.1, 1.1),  # aqueduct
    ((0, -30, -20), (0, -34, -28), 4.0, 4.8),  # fourth
    ((0, -34, -28), (0, -36, -38), 4.5, 1.2),
)
VESSELS = (
    ((0, 1, -6), (0, -2, -30), 1.7, 1.7),  # basilar
    ((8, 8, -10), (10, 9, -3), 2.0, 1.8),  # carotid
    ((10, 10, -2), (34, 14, -3), 1.5, 1.3),  # middle cerebral
    ((3, 14, 0), (2, 30, 4), 1.2, 1.0),  # anterior cerebral
)
DEEP_GREY = (
    ((11, -11, 10), (8.5, 14, 9)),  # thalamus
    ((24, 5, 7), (6.5, 15, 10)),  # lentiform nucleus
    ((13, 20, 15), (5, 12, 8)),  # caudate
)
SULCUS_DEPTH = 27  # mm below the inner table; no sulcus, and no blood in one, lies deeper


@dataclass(frozen=True)
class Brain:
    """What the bleeds need to know of points in the cranial cavity; masks and fields are (n,)."""

    points: Points
    midline: np.ndarray  # x after mass effect, mm
    depth: np.ndarray  # below the inner table, mm
    sulcus: np.ndarray  # distance to the nearest sulcus, about mm; infinite in the depth, where there are none
    cisterns: np.ndarray
    ventricles: np.ndarray
    grain: np.ndarray  # smooth noise of deviation 1
    hounsfield: np.ndarray


def paint_brain(head: Head, p: Points, depth: np.ndarray, shift: np.ndarray, swelling: np.ndarray) -> Brain:
    """The healthy brain at points of the cavity, a depth (n,) below the inner table, mm.

    `shift` (n,) is how far mass effect has moved the midline there (mm, towards the left), `swelling` (n,) the share by
    which it has closed sulci and ventricles there.
    """
    p = Points(p.x - shift, p.y, p.z)
    side = p.mirrored()
    grain = texture(head, p, 2.0)
    tentorium = 14 - 0.009 * side.x**2 - 0.012 * np.square(np.minimum(p.y + 38, 0))
    behind = (p.z < tentorium) & (p.y < 4 - 0.5 * side.x)  # posterior fossa
    width = head.sulcus * (1 - swelling)
    sulcus = np.full_like(p.z, np.inf)
    shallow = np.flatnonzero((depth < SULCUS_DEPTH) | (depth < 21 + 4 * grain))
    sulcus[shallow] = sulcus_distance(head, p.take(shallow))
    grey = (depth < 5.5 + grain) | ((sulcus < 4 + 0.5 * width) & (depth < 20 + 4 * grain))
    for centre, radii in DEEP_GREY:
        grey |= side.distance2(centre, radii) < 1
    hu = np.where(grey | behind, np.float32(head.grey), np.float32(head.white)) + 0.7 * grain
    hu[behind & (np.abs(grain) < 0.25) & (depth > 8)] = head.white + 3  # arbor vitae
    stem = brainstem(p)
    hu[stem] = head.white + 3
    old_infarct = p.distance2(head.infarct[:3]) < np.square(head.infarct[3] + 3 * grain)
    hu[old_infarct & ~behind & (head.infarct[3] > 0)] = 17

    ventricles = ventricle_mask(head, p, 1 - 0.6 * swelling)
    if head.leukoaraiosis:
        seam = ventricle_mask(head, p, 1.0, head.leukoaraiosis * (1 + 0.3 * grain)) & ~grey & ~behind
        hu[seam] = head.white - 8
    cisterns = cistern_mask(head, p, depth, stem, tentorium, behind, grain)
    open_sulcus = (sulcus < 0.5 * width * (1 - depth / 30)) & (depth < 21 + 4 * grain) & ~stem
    open_sulcus |= depth < 0.3 * width
    hu[open_sulcus & (~behind | (sulcus < 0.2 * width)) | cisterns | ventricles] = head.csf
    paint_membranes(head, p, depth, tentorium, stem, hu)
    paint_calcium(head, p, hu)
    return Brain(p, p.x, depth, sulcus, cisterns, ventricles, grain, hu)


def sulcus_distance(head: Head, p: Points) -> np.ndarray:
    """Distance (n,) to the nearest sulcus, about mm."""
    # Read on a shell, and only a little along the ray, the noise's zero set runs inwards as sulci do.
    radius = np.sqrt(p.x**2 + p.y**2 + p.z**2) + 1e-3
    pull = 0.25 + 0.75 * 68 / radius
    return np.abs(texture(head, Points(p.x * pull, p.y * pull, p.z * pull), 1.35)) * 3.7


def ventricle_mask(head: Head, p: Points, scale, rim=0.0) -> np.ndarray:
    """Whether points lie in a ventricle, (n,) bool; scale and rim (mm) of its radii are numbers or (n,)."""
    result = np.zeros(p.x.shape, bool)
    near = np.flatnonzero((np.abs(p.x) < 48) & (p.y < 55) & (p.y > -78) & (p.z > -44) & (p.z < 45))
    if not near.size:  # as in every slice above them
        return result
    q = p.take(near)
    side = q.mirrored()
    factor = np.broadcast_to(np.asarray(scale), p.x.shape)[near] * head.ventricle
    rim = np.broadcast_to(np.asarray(rim), p.x.shape)[near]
    lateral = factor * (1 + head.lean * np.sign(q.x))
    inside = np.zeros(near.shape, bool)
    for start, end, r0, r1 in LATERAL_VENTRICLE:
        inside |= capsule(side, start, end, r0 * lateral + rim, r1 * lateral + rim)
    inside &= (side.x > 0.9) | (rim > 0)  # septum pellucidum
    for start, end, r0, r1 in MIDLINE_VENTRICLES:
        narrow = Points(side.x * (2.0 if start[2] > -5 else 0.75), side.y, side.z)
        inside |= capsule(narrow, start, end, r0 * np.sqrt(factor) + 0.3 * rim, r1 * np.sqrt(factor) + 0.3 * rim)
    result[near] = inside
    return result


def brainstem(p: Points) -> np.ndarray:
    """Midbrain, pons and medulla: (n,) bool."""
    stem = capsule(p, (0, -12, 8), (0, -10, -6), 14, 13.5)
    stem |= capsule(p, (0, -13, -12), (0, -17, -30), 15, 13)
    return stem | capsule(p, (0, -21, -36), (0, -31, -62), 9, 6.5)


def cistern_mask(head: Head, p: Points, depth, stem, tentorium, behind, grain) -> np.ndarray:
    """Fluid at the base, around the brainstem, in the Sylvian and the interhemispheric fissures: (n,) bool."""
    side = p.mirrored()
    wide = 0.7 + 0.22 * head.sulcus
    star = 8.5 + 3.5 * np.cos(5 * (np.arctan2(p.y - 8, p.x) - np.pi / 2))
    suprasellar = (np.hypot(p.x, p.y - 8) < star * wide) & (np.abs(p.z + 4) < 7)
    prepontine = behind & (p.y > -13) & (side.x < 19) & (p.z < -8)
    angle = capsule(side, (18, -12, -24), (25, -16, -24), 4 * wide, 2.5 * wide)
    round_stem = np.hypot(p.x, 1.1 * (p.y + 12)) - 14.5
    # Behind the midbrain the cistern is wide; beside it, a slit: never a full ring.
    smile = (round_stem > 0) & (round_stem < 2.6 * wide) & (p.y < -22 + 0.25 * side.x) & (np.abs(p.z - 4) < 9)
    slit = (round_stem > 0) & (round_stem < 1.1 * wide) & (p.y < -8) & (np.abs(p.z) < 6)
    superior = capsule(side, (0, -27, 9), (0, -40, 13), 2.0 * wide, 3.4 * wide)
    magna = behind & (p.z < -30) & (p.y < -56) & (side.x < 9 * wide)
    insula = np.abs(side.x - 39 + 0.006 * np.square(p.y) + 1.5 * grain) < (0.8 + 0.7 * grain) * wide * wide
    insula &= (np.abs(p.y - 2) < 22) & (np.abs(p.z - 7) < 13)
    sylvian = (np.abs(p.y - 14 + 0.25 * (side.x - 38) + 1.2 * (p.z - 2)) < (1.5 + grain) * wide * wide) & (side.x > 36)
    sylvian &= (np.abs(p.z - 5) < 16) & (depth < 34)
    sylvian |= capsule(side, (14, 12, -6), (38, 16, -6), 2.2 * wide, 2.2 * wide)
    callosum = np.square((p.y - 2) / 44) + np.square((p.z - 14) / 26) < 1
    interhemispheric = (side.x < 0.35 + 0.45 * wide * wide) & ~callosum & ~behind & (p.z > tentorium)
    result = suprasellar | prepontine | angle | smile | slit | superior | magna | insula | sylvian | interhemispheric
    return result & ~stem


def paint_membranes(head: Head, p: Points, depth, tentorium, stem, hu) -> None:
    """Paint falx, tentorium, venous sinuses and the arteries at the base over `hu` (n,), in place."""
    side = p.mirrored()
    reach = np.where(p.y > 20, 18 + 0 * p.y, 30 + 0.1 * np.abs(p.y - 20))
    falx = (side.x < 0.6) & (depth < reach) & (p.z > tentorium) & (p.z > -2)
    incisura = np.square(p.x / 17) + np.square((p.y + 14) / 27) < 1
    leaf = (np.abs(p.z - tentorium) < 0.8) & (p.y < 2 - 0.5 * side.x) & ~incisura & ~stem
    hu[falx | leaf] = head.falx
    sagittal = (side.x < 5.5 * (1 - depth / 9)) & (depth < 8) & (p.z > -8) & (p.y < 70)
    transverse = (np.abs(p.z - tentorium) < 3.5) & (depth < 6) & (p.y < -30)
    straight = capsule(p, (0, -38, 13), (0, -80, -4), 2.3, 2.3)
    vessels = straight | sagittal & ((p.z > 20) | (p.y < 0)) | transverse
    for start, end, r0, r1 in VESSELS:
        vessels |= capsule(side, start, end, r0, r1)
    hu[vessels] = head.sinus - 2


def paint_calcium(head: Head, p: Points, hu) -> None:
    """Paint calcium that looks like blood over `hu` (n,), in place: choroid plexus, pineal gland, basal ganglia."""
    side = p.mirrored()
    for value, here in zip(head.choroid, (p.x < 0, p.x > 0), strict=True):
        if value:
            hu[capsule(side, (23, -37, 12), (21, -32, 15), 2.6, 1.8) & here] = value
    if head.pineal:
        hu[p.distance2((0, -27, 7)) < 6] = head.pineal
    if head.electrode:
        hu[capsule(side, (36, 46, 66), (10, 2, 2), 0.9, 0.9)] = head.electrode
    if head.ganglia:
        hu[side.distance2((20, 8, 7), (2.5, 6, 4)) < 1] = head.ganglia
