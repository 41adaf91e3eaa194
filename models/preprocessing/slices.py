"""One slice as it was read -> its row of the metadata, its compressed pixels at every asked size, and what is odd."""

from collections.abc import Collection
from typing import NamedTuple

import cv2
import numpy as np
from isal.isal_zlib import crc32

from models.preprocessing.dicom import Slice
from models.preprocessing.grouping import Look
from models.preprocessing.header_facts import HeaderFacts
from models.preprocessing.hounsfield import Rescale, clip, to_hounsfield
from models.preprocessing.metadata import STATISTICS
from models.preprocessing.orientation import to_one_frame
from models.preprocessing.problems import Problem
from models.preprocessing.pseudonyms import Names, Pseudonyms
from models.preprocessing.store import compress_slice, fit_to_square
from models.preprocessing.windows import fraction_in_window


class Prepared(NamedTuple):
    """What became of a slice."""

    file: Look
    row: dict  # of the metadata
    chunks: dict[int, bytes]  # image size -> the slice, compressed; none where it cannot be read
    facts: HeaderFacts | None = None  # None where it cannot be read, and of the challenge's
    checksum: int = 0  # of its values
    odd: frozenset[Problem] = frozenset()


def prepare_slice(item: Slice, file: Look, image_sizes: Collection[int], pseudonyms: Pseudonyms) -> Prepared:
    """A slice's row with its pixel statistics, its chunk at each size, and what its values show of its series."""
    item, turned = to_one_frame(item)
    stored = _signed(item.stored)
    hounsfield = to_hounsfield(stored, item.rescale)
    statistics = pixel_statistics(stored, hounsfield)
    constant = statistics["img_min"] == statistics["img_max"]
    row = pseudonymous(item.row, pseudonyms) | {"readable": True, "constant": constant} | statistics
    clipped = clip(hounsfield)
    chunks = {size: compress_slice(fit_to_square(clipped, size)) for size in image_sizes}
    odd = turned + _odd_values(item.rescale, statistics["img_min"], statistics["img_max"])
    return Prepared(file, row, chunks, item.facts, crc32(np.ascontiguousarray(clipped)), frozenset(odd))


def pseudonymous(row: dict, pseudonyms: Pseudonyms) -> dict:
    """A row with pseudonyms in place of its identifiers; the number of a frame stands behind the name of its image."""
    names = pseudonyms.names(Names(*(row[name] for name in Names._fields)))
    return row | names._asdict() | {"image_id": names.image_id + frame_suffix(row)}


def frame_suffix(row: dict) -> str:
    """What the name of a frame ends in; nothing in a file of one slice."""
    return f"_{row['frame']:04d}" if row.get("frame") else ""


def pixel_statistics(stored: np.ndarray, hounsfield: np.ndarray) -> dict[str, float]:
    """The columns of fastai's `from_dicoms(px_summ=True)`, STATISTICS, of one slice, both (rows, columns).

    Lowest, highest, mean and standard deviation of the stored values, and the share of pixels that show brain, 0 ... 1.
    """
    mean = cv2.sumElems(stored)[0] / stored.size
    variance = cv2.norm(stored, cv2.NORM_L2SQR) / stored.size - mean**2  # exact: sums of integers below 2^53
    values = (stored.min(), stored.max(), mean, max(variance, 0) ** 0.5, fraction_in_window(hounsfield))
    return dict(zip(STATISTICS, map(float, values), strict=True))


def _signed(stored: np.ndarray) -> np.ndarray:
    """The same values as int16 where that holds them, for which OpenCV is three times as fast as for uint16."""
    if stored.dtype != np.uint16:
        return stored
    signed = stored.view(np.int16)
    return signed if signed.min() >= 0 else stored


def _odd_values(rescale: Rescale, lowest: float, highest: float) -> list[Problem]:
    """What is odd about the stored values of a slice, which lie between `lowest` and `highest`."""
    if rescale.has_wrapped:
        return [Problem.WRAPPED]
    if lowest == highest or rescale.table is not None:
        return []
    low, high = sorted((rescale.slope * lowest, rescale.slope * highest))
    odd = {Problem.BELOW_AIR: low + rescale.intercept < -1024, Problem.BEYOND_BONE: high + rescale.intercept > 3071}
    return [problem for problem, is_so in odd.items() if is_so]
