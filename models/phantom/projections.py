"""What X-rays do before there is a picture: beam hardening, scatter, starved detectors, and a head that moves.

A slice is projected in parallel beams (Radon transform), the rays are attenuated as those of a tube are, and what the
scanner makes of them is projected back (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, chapters
3 and 4). The difference to what an ideal scanner would have made is added to the slice: fine detail, and the noise that
artefacts.py knows, stay as they are, and a coarse grid is enough.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike
from skimage.transform import iradon, radon

from models.phantom.anatomy import AIR
from models.phantom.scan import Scan, table

# Attenuation at 50, 60, 80 and 100 keV, 1/cm: water, and cortical bone of 1.92 g/cm3 (Hubbell and Seltzer, Tables of
# X-Ray Mass Attenuation Coefficients, NIST), and about which share of what is counted at 120 kV has these energies.
WATER = np.array([0.2269, 0.2059, 0.1837, 0.1707], np.float32)
BONE = 1.92 * np.array([0.4242, 0.3148, 0.2229, 0.1855], np.float32)
PHOTONS = np.array([0.25, 0.30, 0.28, 0.17], np.float32)
HEAD = np.array([14.0, 1.2], np.float32)  # cm of water and bone through a head: there a scanner reads bone as it is
SOFT = 1.1  # attenuation, that of water being 1, up to which there is no bone
METAL = 25.0  # the same of steel; titanium has 9, amalgam more, and starves the detectors as this does
METAL_HOUNSFIELD = 3000.0  # of it in a picture, whose scale ends there
METAL_RADIUS = 3.0  # mm of a clip, a coil, a crown
STILL, MOVING = 128, 256  # pixels of the grid, at most: the errors of bone are smooth, a moved edge is not
STARVED = 0.0015  # noise of a ray of the finest grid beside that of a slice, HU, where a head's photons are halved


class Beam(NamedTuple):
    """What a scanner knows of its own beam, by which it turns readings into lengths of water."""

    lengths: np.ndarray  # (k,) cm of water
    readings: np.ndarray  # (k,) what is measured behind them
    bone: float  # attenuation of cortical bone as it is displayed, that of water being 1


def add_projection_errors(image: np.ndarray, rng: np.random.Generator, scan: Scan, height: float) -> None:
    """Add to a slice (size, size), HU, at a height (mm) what its projections do to it, and metal, in place.

    Nothing, where the scan is not projected and has neither metal nor motion there.
    """
    noise, part = rng.standard_normal((MOVING, MOVING), np.float32), rng.uniform(0.2, 0.8)
    places = scan.metal_in(height, METAL_RADIUS)
    moving = scan.motion is not None and scan.motion.during(height)
    if not (scan.projected or len(places) or moving):
        return
    size = len(image)
    grid = min(size, MOVING if moving else STILL)
    cm = scan.field_of_view / grid / 10
    angles = np.linspace(0, 180, grid, endpoint=False)
    seen = attenuation(image, grid)
    error = np.zeros((grid, grid), np.float32)
    if scan.projected or len(places):
        metal = metal_disc(places, grid, scan.field_of_view)
        noise = cv2.resize(noise, (grid, grid), interpolation=cv2.INTER_AREA)  # wide bins average narrow ones
        error += misread(seen, metal, angles, cm, scan, noise)
    if moving:
        error += cm * moved(seen, angles, scan, height) * np.clip(6 * (angles / 180 - part), 0, 1)
    change = 1000 / cm * iradon(error, angles, filter_name="hann", circle=True)
    image += cv2.resize(change.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    image += metal_disc(places, size, scan.field_of_view) * np.maximum(METAL_HOUNSFIELD - image, 0)


def attenuation(image: np.ndarray, grid: int) -> np.ndarray:
    """Attenuation (grid, grid) of a slice (size, size), HU: 1 for water, none outside the circle that is seen."""
    coarse = cv2.resize(image, (grid, grid), interpolation=cv2.INTER_AREA)
    return np.maximum(1 + coarse / 1000, 0) * in_circle(grid)


def in_circle(grid: int) -> np.ndarray:
    """Where all of the rays pass. # (grid, grid) bool"""
    across = np.arange(grid) - grid // 2  # as radon() counts
    return across[:, None] ** 2 + across**2 < (grid // 2 - 1) ** 2


def metal_disc(places: np.ndarray, size: int, field_of_view: float) -> np.ndarray:
    """Which share of each pixel (size, size) is metal at places (n, 2), mm from the middle."""
    across = ((np.arange(size) - (size - 1) / 2) * field_of_view / size).astype(np.float32)
    share = np.zeros((size, size), np.float32)
    for x, y in places.astype(np.float32):
        distance = np.hypot(across - x, across[:, None] - y)
        share = np.maximum(share, np.clip(0.5 + (METAL_RADIUS - distance) * size / field_of_view, 0, 1))
    return share


def misread(
    seen: np.ndarray, metal: np.ndarray, angles: np.ndarray, cm: float, scan: Scan, noise: np.ndarray
) -> np.ndarray:
    """By how many cm of water each ray is misread: (bins, angles).

    Of what attenuates (grid, grid), pixels being `cm` wide, with a share of metal (grid, grid) in it. In a scan that is
    not projected it is what metal adds alone: for bone there are glow and bands in artefacts.py.
    """
    beam = beam_of_scanner()
    bone = np.clip((seen - SOFT) / (beam.bone - SOFT), 0, 1)
    water, bone = (cm * project(part, angles) for part in (np.maximum(seen - beam.bone * bone, 0), bone))
    clean = error_of_length(transmitted(water, bone), water, bone)
    with_metal = bone + cm * project(metal, angles) * METAL / beam.bone if metal.any() else bone
    photons, through = transmitted(water, with_metal), transmitted(*HEAD)
    if scan.projected:  # what a head scatters is calibrated away, and fills what is darker
        photons = photons + scan.scatter * np.maximum(through - photons, 0)
    starved = np.sqrt(np.maximum(through / photons - 1, 0)) * STARVED * scan.noise * noise
    left = scan.hardening if scan.projected else 0.0
    return error_of_length(photons * np.exp(-starved), water, with_metal) - (1 - left) * clean


def error_of_length(photons: np.ndarray, water: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """By how many cm of water (n, m) a scanner is wrong that counts this share of photons behind water and bone, cm."""
    beam = beam_of_scanner()
    return (np.interp(-np.log(photons), beam.readings, beam.lengths) - water - beam.bone * bone).astype(np.float32)


def moved(seen: np.ndarray, angles: np.ndarray, scan: Scan, height: float) -> np.ndarray:
    """What the motion at a height (mm) adds to sums along rays (bins, angles) of what attenuates (grid, grid)."""
    grid = len(seen)
    across = ((np.arange(grid) - (grid - 1) / 2) * scan.field_of_view / grid).astype(np.float32)
    head = seen * (table(scan, *np.meshgrid(across, across)) == AIR)  # the table lies still
    return project(in_plane(head, scan, height) - head, angles)


def in_plane(seen: np.ndarray, scan: Scan, height: float) -> np.ndarray:
    """An image (grid, grid) of a slice at a height (mm) after the motion of the scan."""
    assert scan.motion is not None
    grid = len(seen)
    axis = (grid - 1) / 2 - np.array([0, scan.climb(height)]) * grid / scan.field_of_view  # the scanner's, pixels
    turn = scan.motion.matrix()
    move = axis - turn @ axis + np.array(scan.motion.shift) * grid / scan.field_of_view
    after = cv2.warpAffine(seen, np.column_stack([turn, move]), seen.shape, flags=cv2.INTER_LINEAR)
    return after * in_circle(grid)


def project(image: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Sums of an image (grid, grid) along parallel rays: (bins, angles)."""
    return radon(image, angles, circle=True, preserve_range=True)


def transmitted(water: ArrayLike, bone: ArrayLike) -> np.ndarray:
    """Which share (n, m) of the photons passes so many cm (n, m) of water and of bone."""
    paths = np.multiply.outer(water, WATER) + np.multiply.outer(bone, BONE)
    return np.exp(-paths) @ PHOTONS


@lru_cache(maxsize=1)
def beam_of_scanner() -> Beam:
    """What a scanner is calibrated to: water at every length, and bone behind the water of a head."""
    lengths = np.linspace(0, 80, 400, dtype=np.float32)
    readings = -np.log(transmitted(lengths, 0))
    water, bone = HEAD
    whole = np.interp(-np.log(transmitted(water, bone)), readings, lengths)
    return Beam(lengths, readings, float((whole - water) / bone))
