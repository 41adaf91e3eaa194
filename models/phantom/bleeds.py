"""The five hemorrhages of the synthetic studies, each where anatomy puts it, of 38 to 92 HU as blood ages.

Where fresh blood lies in old one, or has not clotted, it sinks: below a level it is as dense as that, above it is 18 to
45 HU.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.common.labels import SUBTYPES
from models.phantom.anatomy import Head, bone_thickness, skull_depth
from models.phantom.brain import SULCUS_DEPTH, Brain
from models.phantom.points import Points

# Which kinds a study with blood has together, per cent, as counted in the labels of the stage-1 test set (879 such
# studies), those with epidural blood (E) four times as often, so that it can be learnt. P intraparenchymal,
# V intraventricular, A subarachnoid, S subdural.
TOGETHER = {
    **{"S": 16.0, "P": 14.7, "PV": 10.2, "PVA": 8.8, "V": 7.6, "PVAS": 6.1, "PAS": 6.0, "VA": 5.2, "A": 5.1, "PA": 4.7},
    **{"PS": 4.1, "AS": 2.6, "VAS": 1.9, "PVS": 1.7, "VS": 0.5},
    **{"EPAS": 4.4, "ES": 2.8, "EPA": 2.8, "EPVAS": 2.0, "EP": 2.0, "E": 2.0},
}
ALONG_FALX = 0.22  # of the subdural ones
SINKING, ONE_SIDED = 0.7, 0.85  # of the intraventricular ones, up to which style
VENTRICULAR_FLOOR = -12  # mm; what sinks stays above it: in the lateral ventricles
DENSE = 38.0  # HU: what is less is no clot
INITIALS = "EPVAS"  # of SUBTYPES, in their order


@dataclass(frozen=True)
class Bleed:
    """One hemorrhage: a centre in head coordinates (mm), sizes (mm) and a density (HU).

    What size and extent mean is told where each kind is painted (KINDS).
    """

    kind: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    hounsfield: float
    swirl: float  # HU by which fresh and clotted blood differ within it
    style: float  # uniform in [0, 1]: chooses among the shapes of a kind
    mass: float  # millimetres by which it moves the midline
    level: float = np.inf  # mm in front of the centre, above which blood is thin; the patient lies on the back
    thin: float = 0.0  # HU of that


class Focus(NamedTuple):
    """Where something has happened to a head."""

    side: float  # 1 left, -1 right
    angle: float  # radian from the side to the front
    height: float  # mm

    def angle_around(self) -> float:
        """The angle from the left side to the front, and on to the right side."""
        return self.angle if self.side > 0 else np.pi - self.angle


def draw_bleeds(rng: np.random.Generator, head: Head, share_with_blood: float) -> tuple[Bleed, ...]:
    """The hemorrhages of one study, none in (1 - share_with_blood) of the studies.

    Two in three times those of a study lie on one side and near each other, as after one blow, or one rupture.
    """
    bleeding = rng.random() < share_with_blood
    shares = np.array(list(TOGETHER.values()))
    together = rng.choice(list(TOGETHER), p=shares / shares.sum())
    focus = draw_focus(rng)
    bleeds = []
    for initial, kind in zip(INITIALS, SUBTYPES, strict=True):
        if initial in together:
            near = focus if rng.random() < 0.67 else draw_focus(rng)
            bleeds += DRAW[kind](rng, head, near)
    return tuple(bleeds) if bleeding else ()


def draw_focus(rng: np.random.Generator) -> Focus:
    """Where something has happened to a head."""
    return Focus(float(rng.choice([-1.0, 1.0])), float(rng.normal(0, 0.7)), float(rng.uniform(8, 72)))


def draw_density(rng: np.random.Generator) -> tuple[float, float]:
    """Mean density of a bleed and the deviation within it, HU: acute, clotted, or of hours, of weeks, of anaemia."""
    age = rng.random()
    mean = rng.uniform(56, 76) if age < 0.75 else rng.uniform(72, 86) if age < 0.87 else rng.uniform(46, 57)
    return mean, rng.uniform(1.5, 4) if rng.random() < 0.7 else rng.uniform(5, 10)


def draw_level(rng: np.random.Generator, share: float, low: float, high: float) -> tuple[float, float]:
    """Level (mm in front of the centre) and density above it (HU) of blood of mixed ages, in a share of the bleeds."""
    level, thin = rng.uniform(low, high), rng.uniform(18, 45)
    return level if rng.random() < share else np.inf, thin


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A size as sizes are spread: as often between 5 and 10 as between 10 and 20."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def surface_point(head: Head, angle: float, height: float) -> tuple[float, float, float]:
    """The point of the inner table at a height, mm of a mean head; the angle is from the left to the front, radian."""
    reach = np.arange(1, 120, dtype=np.float32)  # mm from the axis
    p = Points(reach * np.float32(np.cos(angle)), reach * np.float32(np.sin(angle)), np.full_like(reach, height))
    last = np.flatnonzero(skull_depth(head, p) > bone_thickness(head, p))[-1]
    return (float(p.x[last]), float(p.y[last]), float(height))


def draw_epidural(rng, head: Head, focus: Focus) -> list[Bleed]:
    """One, mostly at the temple."""
    angle = rng.normal(0.2, 0.45) if rng.random() < 0.75 else rng.uniform(-1.2, 1.2)
    near = Focus(focus.side, angle, 0)
    centre = surface_point(head, near.angle_around(), rng.uniform(8, 58))
    thick = log_uniform(rng, 5, 24)
    return [Bleed("epidural", centre, (thick, rng.uniform(18, 40), 0), *draw_density(rng), rng.random(), 0.3 * thick)]


def draw_subdural(rng, head: Head, focus: Focus) -> list[Bleed]:
    """One, over a hemisphere or along the falx."""
    thick = log_uniform(rng, 4, 20)
    extent = rng.uniform(0, 1)  # from a streak to the whole hemisphere
    centre = (focus.side, 0.6 * focus.angle + rng.normal(0, 0.3), np.clip(focus.height + rng.normal(0, 8), 12, 70))
    size = (thick, 0.45 + 1.2 * extent, (12 + 48 * extent) * rng.uniform(0.8, 1.2))
    look = (*draw_density(rng), rng.random())
    mass = 0.5 * thick * (rng.random() < 0.7)
    mixed = draw_level(rng, 0.25 * (look[-1] > ALONG_FALX), -70, 20)  # acute on chronic, or chronic for the most part
    return [Bleed("subdural", centre, size, *look, mass, *mixed)]


def draw_intraparenchymal(rng, head: Head, focus: Focus) -> list[Bleed]:
    """Contusions at the poles, or one in the deep nuclei, the cerebellum or a lobe."""
    style = rng.random()
    side = focus.side
    if style < 0.15:  # contusions: several small ones at the frontal and temporal poles
        count, low, high = rng.integers(2, 6), 3, 11
    else:
        count, low, high = 1, 4.5, 28
    bleeds, look = [], draw_density(rng)
    for _ in range(count):
        if style < 0.15:
            spots = [(25, 58, 14), (45, 20, -12), (30, 45, 30), (48, -5, 5)]
            centre = np.array(spots[rng.integers(4)]) + rng.normal(0, 5, 3)
        elif style < 0.5:  # deep: basal ganglia and thalamus
            centre = np.array([(24, 4, 8), (13, -12, 10)][rng.integers(2)]) + rng.normal(0, 3, 3)
        elif style < 0.6:  # cerebellum
            centre = np.array([rng.uniform(3, 28), -48, -25]) + rng.normal(0, 4, 3)
        else:  # lobar
            angle = focus.angle + rng.normal(0, 0.35)
            out = rng.uniform(0.6, 1.0)
            centre = np.array([8 + 40 * out * abs(np.cos(angle)), 60 * out * np.sin(angle), min(focus.height, 62)])
        radius = log_uniform(rng, low, high)
        size = tuple(radius * rng.uniform(0.7, 1.25, 3))
        mass = 0.35 * max(radius - 8, 0) * (style > 0.15)
        place = (side * centre[0], centre[1], centre[2])
        unclotted = draw_level(rng, 0.08, -0.5 * size[1], 0.5 * size[1])
        bleeds.append(Bleed("intraparenchymal", place, size, *look, style, mass, *unclotted))
    return bleeds


def draw_intraventricular(rng, head: Head, focus: Focus) -> list[Bleed]:
    """One, which sinks to a level or fills one side or all."""
    volume, look = log_uniform(rng, 1.5, 15), (*draw_density(rng), rng.random())
    sinks = volume * (look[-1] < SINKING)
    return [Bleed("intraventricular", (focus.side, 0, 0), (sinks, 0, 0), *look, 0)]


def draw_subarachnoid(rng, head: Head, focus: Focus) -> list[Bleed]:
    """One, in the cisterns as from an aneurysm, or over the convexity."""
    style = rng.random()
    if style < 0.35:  # aneurysmal: cisterns and fissures around the circle of Willis
        centre, reach = (rng.normal(0, 8), rng.uniform(-5, 18), rng.uniform(-8, 6)), log_uniform(rng, 18, 62)
    else:  # over the convexity
        height = np.clip(focus.height + rng.normal(0, 12), 8, 78)
        centre, reach = surface_point(head, focus.angle_around() + rng.normal(0, 0.3), height), log_uniform(rng, 9, 55)
    mass = rng.uniform(0, 5) * (style >= 0.35)  # the hemisphere under it swells
    return [Bleed("subarachnoid", centre, (reach, rng.uniform(1.4, 5.0), 0), *draw_density(rng), style, mass)]


DRAW = {
    "epidural": draw_epidural,
    "intraparenchymal": draw_intraparenchymal,
    "intraventricular": draw_intraventricular,
    "subarachnoid": draw_subarachnoid,
    "subdural": draw_subdural,
}


def mass_effect(bleeds: tuple[Bleed, ...], p) -> tuple[np.ndarray, np.ndarray]:
    """How far the bleeds push the midline (mm to the left) and close sulci (share) at points. # (n,), (n,)"""
    shift, swelling = np.zeros_like(p.x), np.zeros_like(p.x)
    for bleed in bleeds:
        if bleed.mass:
            side = np.sign(bleed.centre[0]) or 1.0
            y, z = (0.0, bleed.centre[2]) if bleed.kind == "subdural" else bleed.centre[1:]
            near = np.exp(-np.square((p.y - 0.6 * y) / 45) - np.square((p.z - z) / 35))
            shift += -side * bleed.mass * near * np.clip(1 - np.square(p.x / 65), 0, 1)
            swelling += 0.09 * bleed.mass * near * (p.x * side > 0)
    return np.clip(shift, -14, 14), np.clip(swelling, 0, 0.85)


def paint_bleeds(bleeds: tuple[Bleed, ...], brain: Brain, front: np.ndarray) -> np.ndarray:
    """Paint the blood over the brain's values and return where each kind lies. # (5, n)

    `front` (n,) is how far in front of the head's middle the points lie in the scanner, mm; so are the bleeds' levels.
    """
    blood = np.zeros((len(SUBTYPES), brain.depth.size), bool)
    for bleed in bleeds:
        if bleed.kind == "intraparenchymal":
            paint_oedema(bleed, brain)  # of all first: one does not darken the blood of another
    for bleed in bleeds:
        where = KINDS[bleed.kind](bleed, brain)
        if bleed.kind == "intraventricular" and np.isfinite(bleed.level):
            where &= front + brain.grain < bleed.level  # above it there is fluid
        brain.hounsfield[where] = density(bleed, front[where], brain.grain[where])
        blood[:, where] = False  # the last painted lies in front
        blood[SUBTYPES.index(bleed.kind)] |= where
    return blood


def density(bleed: Bleed, front: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Hounsfield values (n,) of settled blood so far in front of the head's middle (n,), mm, of texture grain (n,)."""
    dense = np.clip(bleed.hounsfield + bleed.swirl * grain, DENSE, 92)
    return np.where(front + grain < bleed.level, dense, bleed.thin + 1.5 * grain).astype(np.float32)


def epidural(bleed: Bleed, brain: Brain) -> np.ndarray:
    """A lens against the skull, (n,) bool: size is (thickness, radius), mm."""
    thick, radius, _ = bleed.size
    return brain.depth < thick * (1 - brain.points.distance2(bleed.centre) / radius**2)


def subdural(bleed: Bleed, brain: Brain) -> np.ndarray:
    """A crescent over one hemisphere, or a layer along the falx, (n,) bool.

    Centre is (side, angle, height), size is (thickness, half angle, half height), in mm and radian.
    """
    side, angle, height = bleed.centre
    thick, half_angle, half_height = bleed.size
    p = brain.points
    lateral = brain.midline * side
    along = np.arctan2(p.y, np.abs(p.x) + 1e-3) - angle
    inside = 1 - np.square((p.z - height) / half_height)
    if bleed.style < ALONG_FALX:
        span = np.sqrt(np.clip(inside - np.square((p.y - 40 * angle) / 70), 0, None))
        return (lateral > 0.4) & (lateral < 0.7 * min(thick, 9) * span) & (brain.depth < 38) & (p.z > 10)
    span = np.sqrt(np.clip(inside - np.square(along / half_angle), 0, None))
    return (brain.depth < thick * span * (1 + 0.12 * brain.grain)) & (lateral > 2)


def intraparenchymal(bleed: Bleed, brain: Brain) -> np.ndarray:
    """A ragged ellipsoid in the parenchyma, (n,) bool. Size is its radii, mm."""
    inside, radius = in_parenchyma(bleed, brain)
    return inside & (radius < 1)


def paint_oedema(bleed: Bleed, brain: Brain) -> None:
    """Paint the dark seam around a bleed in the parenchyma."""
    inside, radius = in_parenchyma(bleed, brain)
    seam = inside & (radius < 1 + (2 + 14 * bleed.style**3) / min(bleed.size))
    brain.hounsfield[seam & (brain.hounsfield > 20) & (brain.hounsfield < 45)] = 21


def in_parenchyma(bleed: Bleed, brain: Brain) -> tuple[np.ndarray, np.ndarray]:
    """Whether points lie in the parenchyma of the bleed's side, and how many of its radii from it: (n,) bool, (n,)."""
    p = brain.points
    radius = np.sqrt(p.distance2(bleed.centre, bleed.size)) + 0.18 * brain.grain
    return (p.x * bleed.centre[0] > 0) & (brain.depth > 1.0) & ~brain.ventricles, radius


def intraventricular(bleed: Bleed, brain: Brain) -> np.ndarray:
    """Blood in the ventricles, (n,) bool: where it can sink, a cast of one side, or of all.

    Centre is (side, 0, 0), size is (volume of what sinks, 0, 0), in ml.
    """
    side, p = bleed.centre[0], brain.points
    if bleed.style < SINKING:
        return brain.ventricles & (p.z > VENTRICULAR_FLOOR)
    if bleed.style < ONE_SIDED:
        return brain.ventricles & ((brain.midline * side > -1.5) | (np.abs(p.x) < 2.5))
    return brain.ventricles


def subarachnoid(bleed: Bleed, brain: Brain) -> np.ndarray:
    """Blood in sulci, cisterns and fissures around a point, (n,) bool: size is (reach, width of a sulcus), mm."""
    reach, width, _ = bleed.size
    near = np.sqrt(brain.points.distance2(bleed.centre)) + 5 * brain.grain < reach
    # Filled sulci are widened by what fills them.
    sulci = (brain.sulcus < 0.5 * width * (1 - brain.depth / 36)) & (brain.depth < SULCUS_DEPTH) & (brain.points.z > -8)
    rim = brain.depth < 0.45 * width * (brain.grain > -0.3)
    return near & (brain.cisterns & (brain.points.z > -20) | sulci | rim)


KINDS = {
    "epidural": epidural,
    "intraparenchymal": intraparenchymal,
    "intraventricular": intraventricular,
    "subarachnoid": subarachnoid,
    "subdural": subdural,
}
