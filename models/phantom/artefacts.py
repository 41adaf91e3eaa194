"""What a scanner adds to the Hounsfield values of a study: blur, calibration, beam hardening, streaks and noise.

What needs projections is in projections.py; here is what stands in for them, fitted to them.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from models.phantom.projections import add_projection_errors
from models.phantom.scan import Scan


def add_artefacts(hounsfield: np.ndarray, rng: np.random.Generator, scan: Scan) -> None:
    """Blur slices, and add what their projections do, calibration, the glow of bone, bands below it and a rare streak.

    Takes Hounsfield values (slices, size, size) and changes them in place; what follows projections changes soft tissue
    alone.
    """
    size = hounsfield.shape[-1]
    across = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * scan.field_of_view / size
    x, y = across[None, :], across[:, None]
    pixels = size / scan.field_of_view  # a millimetre
    for index, height in enumerate(scan.heights):
        hounsfield[index] = gaussian_filter(hounsfield[index], 1.3 * scan.kernel * pixels)
        add_projection_errors(hounsfield[index], rng, scan, height)
        bone = np.clip(hounsfield[index] - 150, 0, 1000)
        change = scan.calibration + (scan.shade[0] * x + scan.shade[1] * y) / 100
        angle, place, width, wave, strength, dice = rng.random(6)
        if not scan.projected:
            change += scan.glow * gaussian_filter(bone, 12 * pixels, truncate=2.5)
        if -45 < height < -5 and not scan.projected:  # beam hardening
            of_head = y + scan.climb(height)  # between the petrous bones, which climb through tilted slices
            band = np.cos((of_head - 15 - 20 * place) / (2 + 4 * width) + 0.1 * x * (wave - 0.5))
            change += (1 + 9 * strength) * band * np.exp(-np.square((of_head - 15) / 18) - np.square(x / 45))
        if dice < 0.04:  # one bright or dark streak
            along = x * np.cos(np.pi * angle) + y * np.sin(np.pi * angle) - 60 * (place - 0.5)
            change += (45 * strength - 15) * np.exp(-np.square(along / (1 + 4 * width)))
        soft = (hounsfield[index] > -20) & (hounsfield[index] < 100)
        hounsfield[index] += change * soft


def add_noise(hounsfield: np.ndarray, rng: np.random.Generator, scan: Scan) -> None:
    """Add the scanner's noise to (slices, size, size), stronger in the middle and where there is much bone.

    It is smooth over `scan.grain`; a pixel averages what lies in it, so that larger ones have less.
    """
    size = hounsfield.shape[-1]
    across = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / size
    middle = 1.25 - 2.0 * (across[None, :] ** 2 + across[:, None] ** 2)
    kernel = scan.grain * size / scan.field_of_view  # pixels
    amount = scan.noise * left_by_pixels(scan, size) / spread_of(grainy(impulse(), kernel))
    for index, image in enumerate(hounsfield):
        bony = 1 + 2.5 * (image > 300).mean()
        grain = grainy(rng.standard_normal((size, size), np.float32), kernel)
        hounsfield[index] += amount * bony * middle * grain


def left_by_pixels(scan: Scan, size: int) -> float:
    """What pixels of a size leave of the noise of 512 x 512 ones, for they average what lies in them."""
    fine = grainy(impulse(), scan.grain * 512 / scan.field_of_view)
    boxes = (gaussian_filter(fine, 512 / pixels / np.sqrt(12)) for pixels in (size, 512))  # as wide as a pixel is
    return spread_of(next(boxes)) / spread_of(next(boxes))


def grainy(noise: np.ndarray, kernel: float) -> np.ndarray:
    """White noise (size, size) as a reconstruction leaves it: smooth over a kernel (pixels), with little that is broad.

    Filtered back projection weights frequencies by their height; fitted to the spectrum of soft kernels.
    """
    smooth = gaussian_filter(noise, kernel)
    return smooth - 0.3 * gaussian_filter(smooth, np.sqrt(8) * kernel)


def impulse() -> np.ndarray:
    """A one among zeros (65, 65)."""
    impulse = np.zeros((65, 65))
    impulse[32, 32] = 1
    return impulse


def spread_of(response: np.ndarray) -> float:
    """Standard deviation of unit white noise after a filter of this response to an impulse (65, 65)."""
    return float(np.sqrt(np.square(response).sum()))
