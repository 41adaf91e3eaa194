"""What can be measured on a head CT without looking: HU by tissue, noise, sharpness of edges, areas by depth.

Each measure is one number of a study; how far real studies differ in it is the yardstick for the drawn ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from realism_slices import BONE, Slices, cavity_mask, disk, head_mask
from scipy.ndimage import gaussian_filter, map_coordinates

from models.preprocessing.parallel import progress_map

BRAIN_DEPTHS = (25, 95)  # mm below the vertex, where the skull is closed
EDGE_DEPTHS = (30, 80)  # where its walls are steep
HEAD_DEPTHS, CAVITY_DEPTHS = (20, 50, 80, 110, 135), (15, 30, 45, 60, 75, 90)  # where areas are measured
SMOOTHING = 1.5  # mm, before tissues are told by their HU
NOISE_SIDE = 15  # mm of a patch
BANDS = (0.125, 0.25, 0.5, 0.75, 1.0)  # of Nyquist's frequency, between which noise has its power
SPREAD = (10, 50, 90)  # per cent of the studies
RAYS, STEP = 36, 0.25  # across the inner table of the skull in a slice, and mm between their points
STEEP = 300  # HU that bone must rise above the brain

Measures = dict[str, float]


@dataclass(frozen=True)
class Section:
    """One slice, and where its head and the inside of its skull are."""

    hounsfield: np.ndarray  # (size, size) int16
    depth: float  # mm
    spacing: float  # mm
    head: np.ndarray  # (size, size) bool
    cavity: np.ndarray  # (size, size) bool

    def inner(self, millimetres: float) -> np.ndarray:
        """The inside of the skull without its outermost millimetres (size, size)."""
        return cv2.erode(self.cavity.astype(np.uint8), disk(millimetres, self.spacing)) > 0

    def is_between(self, depths: tuple[float, float]) -> bool:
        """Whether its skull is closed, and it lies between two depths."""
        return bool(self.cavity.any()) and depths[0] <= self.depth <= depths[1]


def compare(real: list[Measures], phantom: list[Measures]) -> dict[str, dict]:
    """Of each measure the spread of real studies and of drawn ones, and the share of these that lies within the former.

    Of a perfect drawing that share is about .8, for the spread is from the tenth of a hundred to the ninetieth.
    """
    rows = {}
    for name in {name: None for study in real for name in study}:
        peers, values = (np.array([study.get(name, np.nan) for study in studies]) for studies in (real, phantom))
        values, peers = values[np.isfinite(values)], peers[np.isfinite(peers)]
        if len(values) and len(peers):
            low, _, high = spread = np.percentile(peers, SPREAD)
            inside = float(((low <= values) & (values <= high)).mean())
            own = np.percentile(values, SPREAD)
            rows[name] = {"real": as_numbers(spread), "phantom": as_numbers(own), "inside": round(inside, 3)}
    return rows


def as_numbers(values: np.ndarray) -> list[float]:
    """Values (n,) for JSON, to four digits."""
    return [float(f"{value:.4g}") for value in values]


def measure_all(slices: Slices) -> list[Measures]:
    """The measures of each study."""
    return progress_map(measure_study, slices.studies(), -1, f"studies measured at {slices.hounsfield.shape[1]} px")


def measure_study(slices: Slices) -> Measures:
    """All measures of one study; what it does not show is NaN."""
    parts = zip(slices.hounsfield, slices.depth, slices.spacing, strict=True)
    sections = [Section(hu, depth, mm, head_mask(hu, mm), cavity_mask(hu, mm)) for hu, depth, mm in parts]
    return {**tissues(sections), **noise(sections), **edges(sections), **areas(sections)}


def tissues(sections: list[Section]) -> Measures:
    """HU of brain, scalp, bone and air, and the shares of what is unlike brain."""
    brain, deep, scalp, bone, air, head = [], [], [], [], [], 0
    for one in sections:
        hu = one.hounsfield
        air.append(hu[~one.head])
        if not one.is_between(BRAIN_DEPTHS):
            continue
        smooth = gaussian_filter(hu.astype(np.float32), SMOOTHING / one.spacing)
        brain.append(smooth[one.inner(3)])
        deep.append(smooth[one.inner(12)])
        outside = one.head & ~one.cavity
        scalp.append(hu[outside & (hu < 100) & (hu > -200)])
        bone.append(hu[outside & (hu > BONE)])
        head += one.head.sum()
    if not brain:
        return {}
    brain, deep, scalp, bone = (np.concatenate(values) for values in (brain, deep, scalp, bone))
    matter = deep[(deep > 20) & (deep < 45)]
    marks = [5, 25, 50, 75, 95]
    quantiles = zip(marks, np.percentile(brain, marks), strict=True)
    low, high = np.percentile(matter, [10, 90]) if len(matter) else (np.nan, np.nan)
    return {
        **{f"brain, HU, {mark} %": float(value) for mark, value in quantiles},
        "brain, grey above white, HU": float(high - low),
        "brain, share below 15 HU": float((brain < 15).mean()),
        "brain, share above 50 HU": float((brain > 50).mean()),
        "bone, HU, 10 %": float(np.percentile(bone, 10)),
        "bone, HU, 50 %": float(np.median(bone)),
        "bone, HU, 90 %": float(np.percentile(bone, 90)),
        "bone, share of head": float(len(bone) / head),
        "scalp, HU of fat": float(np.median(scalp[scalp < -20])),
        "scalp, HU of muscle and skin": float(np.median(scalp[scalp > 0])),
        "scalp, fat and muscle, share of head": float(len(scalp) / head),
        "scalp, share of fat": float((scalp < -20).mean()),
        "air, HU": float(np.median(np.concatenate(air))),
        "air, share above -900 HU": float((np.concatenate(air) > -900).mean()),
    }


def noise(sections: list[Section]) -> Measures:
    """Standard deviation of the quietest patches of brain, HU, and in which band of frequencies their power lies."""
    spectra, energies = [], []
    for one in sections:
        if one.is_between(BRAIN_DEPTHS):
            for patch in quiet_patches(one):
                rest = without_trend(patch)
                power = np.abs(np.fft.fft2(rest * np.outer(*[np.hanning(len(rest))] * 2))) ** 2
                energies.append(rest.var())
                spectra.append(in_bands(power))
    if not spectra:
        return {}
    least = np.array(energies) <= np.percentile(energies, 25)  # those without an edge
    power = np.mean(np.array(spectra)[least], axis=0)
    shares = zip(pairwise(BANDS), power / power.sum(), strict=True)
    named = {f"noise, share of {low:g} to {high:g} Nyquist": float(share) for (low, high), share in shares}
    return {"noise, HU": float(np.sqrt(np.array(energies)[least].mean())), **named}


def quiet_patches(one: Section) -> Iterator[np.ndarray]:
    """The square patches of a slice that are brain alone, each (side, side) float32."""
    side = 2 * round(NOISE_SIDE / one.spacing / 2)
    inside = one.inner(3)
    for top in range(0, len(inside) - side, side // 2):
        for left in range(0, len(inside) - side, side // 2):
            place = np.s_[top : top + side, left : left + side]
            if inside[place].all():
                yield one.hounsfield[place].astype(np.float32)


def without_trend(patch: np.ndarray) -> np.ndarray:
    """A patch (side, side) less the parabola that fits it best."""
    across = np.linspace(-1, 1, len(patch))
    x, y = (grid.ravel() for grid in np.meshgrid(across, across))
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=1)
    return patch - (terms @ np.linalg.lstsq(terms, patch.ravel())[0]).reshape(patch.shape)


def in_bands(power: np.ndarray) -> np.ndarray:
    """The power (side, side) of the frequencies between BANDS, summed over all directions."""
    frequency = 2 * np.fft.fftfreq(len(power))  # of Nyquist's
    radius = np.hypot(frequency[:, None], frequency[None])
    return np.array([power[(radius > low) & (radius <= high)].sum() for low, high in pairwise(BANDS)])


def edges(sections: list[Section]) -> Measures:
    """How far brain takes to become bone, mm from 10 to 90 % of the rise, the mean of rays; medians of what they rise.

    The steepest of it in HU a mm, and all of it in HU.
    """
    widths, slopes, rises = [], [], []
    for one in sections:
        if one.is_between(EDGE_DEPTHS):
            for profile in profiles(one):
                low = np.median(profile[:12])
                top = low + (profile[12:] - low).max()
                above = (profile - low) / max(top - low, 1)
                if top - low > STEEP:
                    end = int(np.argmax(above >= 0.9))
                    begin = int(np.flatnonzero(above[: end + 1] <= 0.1).max(initial=0))
                    widths.append((end - begin) * STEP)
                    slopes.append(np.diff(profile[: end + 1]).max() / STEP if end else np.nan)
                    rises.append(top - low)
    if not widths:
        return {}
    return {
        "edge of the skull, mm": float(np.mean(widths)),
        "edge of the skull, HU a mm": float(np.nanmedian(slopes)),
        "edge of the skull, HU of the rise": float(np.median(rises)),
    }


def profiles(one: Section) -> np.ndarray:
    """HU along rays from 6 mm within the skull to 6 mm beyond its inner edge, each step STEP: (rays, points)."""
    rows, columns = np.nonzero(one.cavity)
    middle = np.array([rows.mean(), columns.mean()])
    angles = np.arange(RAYS) * 2 * np.pi / RAYS
    ways = np.stack([np.sin(angles), np.cos(angles)])  # (2, rays)
    distance = np.arange(0, len(one.cavity) / 2, 0.5)  # pixels
    seen = map_coordinates(one.cavity.astype(np.uint8), along(middle, ways, distance), order=0)
    edge = distance[seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)]  # the last point within, of each ray
    offsets = np.arange(-6, 6, STEP) / one.spacing
    points = middle[:, None, None] + ways[:, :, None] * (edge[:, None] + offsets)[None]
    return map_coordinates(one.hounsfield.astype(np.float32), points, order=1, mode="nearest")


def along(middle: np.ndarray, ways: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Points (2, rays, distances) from a middle (2,) along directions (2, rays)."""
    return middle[:, None, None] + ways[:, :, None] * distance


def areas(sections: list[Section]) -> Measures:
    """Areas of head and of the inside of the skull at some depths, cm2; length to width; how far down it is scanned."""
    sections = sorted(sections, key=lambda one: one.depth)
    depths = np.array([one.depth for one in sections])
    square = np.array([one.spacing**2 / 100 for one in sections])  # cm2
    head = np.array([one.head.sum() for one in sections]) * square
    cavity = np.array([one.cavity.sum() for one in sections]) * square
    broad = sections[int(np.abs(depths - 60).argmin())]
    extent = [np.ptp(place) + 1 if len(place) else np.nan for place in np.nonzero(broad.head)]
    return {
        **{f"head, cm2 {depth} mm down": at(depth, depths, head) for depth in HEAD_DEPTHS},
        **{f"inside of the skull, cm2 {depth} mm down": at(depth, depths, cavity) for depth in CAVITY_DEPTHS},
        "head, length to width": float(extent[0] / extent[1]),
        "scanned, mm down": float(depths.max()),
        "scanned, mm between slices": float(np.median(np.diff(depths))) if len(depths) > 1 else np.nan,
    }


def at(depth: float, depths: np.ndarray, values: np.ndarray) -> float:
    """A value between slices; NaN beyond them."""
    return float(np.interp(depth, depths, values, left=np.nan, right=np.nan))
