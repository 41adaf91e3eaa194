"""Stored values -> Hounsfield units."""

from dataclasses import dataclass

import cv2
import numpy as np

from models.preprocessing.modality_table import ModalityTable

# Air ... beyond any tissue; padding (-2000 stored) and metal fall on the ends.
HOUNSFIELD_RANGE = (-1000, 2000)
AIR = HOUNSFIELD_RANGE[0]
_AIR_WIDTH, _AIR_SHARE = 64, 0.05  # Hounsfield units that air spreads over; its least share of a slice of a head


@dataclass(frozen=True)
class Rescale:
    """The header fields that turn stored values into Hounsfield units (PS3.3 C.11.1.1.2)."""

    bits_stored: int
    pixel_representation: int  # 0: unsigned, 1: two's complement
    intercept: float
    slope: float
    padding: tuple[float, float] | None = None  # stored values that are no measurement (PS3.3 C.7.5.1.1.2)
    table: ModalityTable | None = None  # in place of slope and intercept
    may_wrap: bool = True  # False where there is no intercept, or the values of somebody's own file do not show it

    @property
    def has_wrapped(self) -> bool:
        """True for the 123 files of the RSNA set whose 12-bit values have wrapped around.

        12 bits, unsigned, and an intercept near 0 cannot hold air at -1000 HU, so its values stand 4096 too high.
        """
        return self.may_wrap and self.bits_stored == 12 and self.pixel_representation == 0 and self.intercept > -100


def to_hounsfield(stored: np.ndarray, rescale: Rescale) -> np.ndarray:
    """Stored values -> Hounsfield units of the same shape: int16, int32 where repaired, float32 if not whole.

    stored * slope + intercept, or what the table of the file says, after the one repair where it is due (J. Howard,
    "Some DICOM gotchas to be aware of", 2019): values that have wrapped are unwrapped, and get the intercept -1000 that
    they were stored with. Padding becomes air.
    """
    if rescale.table is not None:
        hounsfield = rescale.table.apply(stored)
    elif rescale.has_wrapped:
        hounsfield = stored.astype(np.int32) + 1000
        hounsfield[hounsfield >= 4096] -= 4096
        hounsfield -= 1000
    elif rescale.slope == 1 and float(rescale.intercept).is_integer() and abs(rescale.intercept) < 1 << 16:
        # Exact, saturated at the ends of int16; the RSNA's slices take this way.
        # pyrefly: ignore[no-matching-overload]  # OpenCV's types do not know that it adds a number
        hounsfield = cv2.add(stored, (rescale.intercept, 0, 0, 0), dtype=cv2.CV_16S)
    else:
        hounsfield = stored.astype(np.float32) * np.float32(rescale.slope) + np.float32(rescale.intercept)
    if rescale.padding is not None:
        low, high = rescale.padding
        hounsfield[(stored >= low) & (stored <= high)] = AIR
    return hounsfield


def shows_wrapped_air(stored: np.ndarray, rescale: Rescale) -> bool:
    """Whether much of a slice (rows, columns) stands where air comes to lie when 12-bit values wrap around."""
    air = 4096 + AIR - int(rescale.intercept)
    near = cv2.inRange(stored, air - _AIR_WIDTH, air + _AIR_WIDTH)
    return cv2.countNonZero(near) >= _AIR_SHARE * stored.size


def clip(hounsfield: np.ndarray) -> np.ndarray:
    """Hounsfield units of any shape, rounded to int16 within HOUNSFIELD_RANGE."""
    clipped = np.clip(hounsfield, *HOUNSFIELD_RANGE)
    return np.rint(clipped).astype(np.int16) if clipped.dtype == np.float32 else clipped.astype(np.int16, copy=False)
