"""The brain of the synthetic studies: grey and white matter, spaces that hold fluid, falx, vessels, calcium."""

from dataclasses import dataclass

import numpy as np

from models.phantom.anatomy import Head
from models.phantom.atlas import FAR, load_atlas
from models.phantom.points import Points, capsule, texture

VESSELS = (
    ((0, 1, -6), (0, -2, -30), 1.7, 1.7),  # basilar
    ((8, 8, -10), (10, 9, -3), 2.0, 1.8),  # carotid siphon
    ((10, 10, -2), (34, 14, -3), 1.5, 1.3),  # middle cerebral
    ((3, 14, 0), (2, 30, 4), 1.2, 1.0),  # anterior cerebral
)
SIPHON, MIDDLE_CEREBRAL = 1, 2  # of VESSELS
SHELL = (0.0, -8.0, 12.0)  # the point that sulci run towards, mm
SULCI = 1.25  # mm of a voxel of the noise that they are read from: eleven of them from one to the next
SULCUS_DEPTH = 27  # mm below the inner table; no sulcus, and no blood in one, lies deeper


@dataclass(frozen=True)
class Brain:
    """What the bleeds need to know of points in the cranial cavity; masks and fields are (n,)."""

    points: Points
    midline: np.ndarray  # x after mass effect, mm
    depth: np.ndarray  # below the inner table, mm
    sulcus: np.ndarray  # distance to the nearest sulcus or fissure, mm, at most atlas.FAR
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
    grain = texture(head.offset, p, 2.0)
    grey, white, fluid, sulcus = load_atlas().fractions(p)
    own = own_sulci(head, p, depth)
    sulcus = np.minimum(sulcus, own)
    ventricles, seam = ventricle_masks(head, p, grain, swelling)
    width = head.sulcus * (1 - swelling)
    # The template's sulci are those of thirty-year-olds, and of a mean: younger ones are filled, older ones widened.
    fluid = fluid * np.clip(0.35 + 0.5 * width, 0, 1)
    wide = (sulcus < 0.35 * (width - 0.8) * (1 + 0.4 * grain)) & (depth < SULCUS_DEPTH)
    wide |= (own < 0.5 * (width + 0.6) * (1 - depth / SULCUS_DEPTH) * (1 + 0.4 * grain)) | (depth < 0.3 * width)
    cortex = own < 3.0
    grey, white = np.where(cortex, np.float32(1), grey), np.where(cortex, np.float32(0), white)
    tissue = np.maximum(grey + white, 1e-3)
    parenchyma = (head.grey * grey + head.white * white) / tissue
    parenchyma = np.where(grey + white < 0.05, np.float32(head.grey), parenchyma)
    hu = parenchyma + fluid * (head.csf - parenchyma) + 0.7 * grain
    stem = brainstem(p)
    tentorium = tentorium_height(p)
    behind = (p.z < tentorium) & (p.y < 4 - 0.5 * np.abs(p.x))  # posterior fossa
    old_infarct = p.distance2(head.infarct[:3]) < np.square(head.infarct[3] + 3 * grain)
    hu[old_infarct & ~behind & (head.infarct[3] > 0) & (fluid < 0.5)] = 17
    hu[seam & (white > 0.5) & ~behind] = head.white - 8
    if head.stroke[3]:
        fresh = p.distance2(head.stroke[:3]) < np.square(head.stroke[3] + 4 * grain)
        hu -= head.darker * (fresh & ~behind & (fluid < 0.5) & (p.x * head.stroke[0] > 0))
    if head.tumour[3]:
        reach = np.sqrt(p.distance2(head.tumour[:3]))
        hu[(reach < head.oedema * head.tumour[3] + 4 * grain) & (white > 0.5) & ~behind] = 20
        hu[(reach < head.tumour[3] + 0.6 * grain) & ~behind] = head.tumour_hounsfield
    cisterns = (fluid > 0.4) & (depth > 9) & ~ventricles
    if head.cyst[3]:
        cyst = p.distance2(head.cyst[:3]) < np.square(head.cyst[3] + grain)
        hu[cyst] = head.csf + 1
        cisterns &= ~cyst
        sulcus = np.where(cyst, np.float32(FAR), sulcus)
    hu[(wide & ~stem) | ventricles] = head.csf
    paint_membranes(head, p, depth, tentorium, stem, hu)
    paint_calcium(head, p, hu)
    return Brain(p, p.x, depth, sulcus, cisterns, ventricles, grain, hu)


def own_sulci(head: Head, p: Points, depth: np.ndarray) -> np.ndarray:
    """Distance (n,) to the nearest of the patient's own sulci over the convexity, mm, at most FAR.

    The mean of 152 people has lost them. They are where noise is zero, read on a shell, so that they run inwards.
    """
    distance = np.full_like(p.z, FAR)
    near = np.flatnonzero((depth < SULCUS_DEPTH) & (p.z > 10))
    if near.size:
        q, deep = p.take(near), depth[near]
        outwards = 1 + 0.85 * deep / np.sqrt(q.distance2(SHELL))
        shell = Points(*(c + (a - c) * outwards for a, c in zip(q, SHELL, strict=True)))
        offset = (head.offset[0] + 7, head.offset[1] + 29, head.offset[2] + 51)
        # Noise of this cube is steep enough to change by .28 a voxel where it is zero.
        distance[near] = np.abs(texture(offset, shell, SULCI)) * np.float32(SULCI / 0.28)
    return np.minimum(distance, np.float32(FAR))


def ventricle_masks(head: Head, p: Points, grain, swelling) -> tuple[np.ndarray, np.ndarray]:
    """Whether points lie in a ventricle, and in the dark seam around it, both (n,) bool.

    The template's grow or shrink by `head.ventricle`; swelling (n,) closes them.
    """
    inside, seam = np.zeros(p.x.shape, bool), np.zeros(p.x.shape, bool)
    near = np.flatnonzero((np.abs(p.x) < 52) & (p.y < 62) & (p.y > -70) & (p.z > -40) & (p.z < 62))
    if not near.size:  # as in every slice above them
        return inside, seam
    q, noise = p.take(near), grain[near]
    distance = load_atlas().distance("ventricle", q)
    growth = 5.0 * (head.ventricle * (1 + head.lean * np.sign(q.x)) - 0.85)  # mm
    growth = np.where(q.z < -8, 0.3 * growth, growth) * (1 - swelling[near]) - 2.5 * swelling[near]
    inside[near] = distance < growth
    seam[near] = ~inside[near] & (distance < growth + head.leukoaraiosis * (1 + 0.3 * noise))
    return inside, seam


def tentorium_height(p: Points) -> np.ndarray:
    """Height (n,) of the tentorium over the posterior fossa, mm."""
    return 14 - 0.009 * p.x**2 - 0.012 * np.square(np.minimum(p.y + 38, 0))


def brainstem(p: Points) -> np.ndarray:
    """Midbrain, pons and medulla: (n,) bool."""
    stem = capsule(p, (0, -12, 8), (0, -10, -6), 14, 13.5)
    stem |= capsule(p, (0, -13, -12), (0, -17, -30), 15, 13)
    return stem | capsule(p, (0, -21, -36), (0, -31, -62), 9, 6.5)


def paint_membranes(head: Head, p: Points, depth, tentorium, stem, hu) -> None:
    """Paint falx, tentorium, venous sinuses and the arteries at the base over `hu` (n,), in place."""
    side = p.mirrored()
    reach = np.where(p.y > 20, 18 + 0 * p.y, 30 + 0.1 * np.abs(p.y - 20))
    falx = (side.x < 0.6) & (depth < reach) & (p.z > tentorium) & (p.z > -2)
    incisura = np.square(p.x / 17) + np.square((p.y + 14) / 27) < 1
    leaf = (np.abs(p.z - tentorium) < 0.8) & (p.y < 2 - 0.5 * side.x) & ~incisura & ~stem
    hu[falx | leaf] = head.falx
    y, z, radius, value = head.plaque
    if radius:
        hu[(p.distance2((0, y, z), (1.6, radius, 0.6 * radius)) < 1) & (depth < reach) & (p.z > tentorium)] = value
    sagittal = (side.x < 5.5 * (1 - depth / 9)) & (depth < 8) & (p.z > -8) & (p.y < 70)
    transverse = (np.abs(p.z - tentorium) < 3.5) & (depth < 6) & (p.y < -30)
    straight = capsule(p, (0, -38, 13), (0, -80, -4), 2.3, 2.3)
    vessels = straight | sagittal & ((p.z > 20) | (p.y < 0)) | transverse
    for start, end, r0, r1 in VESSELS:
        vessels |= capsule(side, start, end, r0, r1)
    hu[vessels] = head.sinus
    if head.artery[0]:
        start, end, r0, r1 = VESSELS[MIDDLE_CEREBRAL]
        hu[capsule(side, start, end, r0, r1) & (p.x * head.artery[0] > 0)] = head.sinus + head.artery[1]


def paint_calcium(head: Head, p: Points, hu) -> None:
    """Paint calcium that looks like blood over `hu` (n,), in place: plexus, pineal, basal ganglia, carotids."""
    side = p.mirrored()
    start, end, *_ = VESSELS[SIPHON]
    for value, here in zip(head.carotid, (p.x < 0, p.x > 0), strict=True):
        if value:  # a part of the wall
            hu[capsule(side, (start[0] - 1, *start[1:]), (end[0] - 1, *end[1:]), 1.5, 1.2) & here] = value
    for value, here in zip(head.choroid, (p.x < 0, p.x > 0), strict=True):
        if value:
            hu[capsule(side, (23, -37, 12), (21, -32, 15), 2.6, 1.8) & here] = value
    if head.pineal:
        hu[p.distance2((0, -27, 7)) < 6] = head.pineal
    if head.electrode:
        hu[capsule(side, (36, 46, 66), (10, 2, 2), 0.9, 0.9)] = head.electrode
    if head.ganglia:
        hu[side.distance2((20, 8, 7), (2.5, 6, 4)) < 1] = head.ganglia
