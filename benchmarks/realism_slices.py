"""Real slices and drawn ones, side by side: read and drawn at one size, at the same depths below the vertex."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from comparison import quiet
from scipy.optimize import linear_sum_assignment

from models.common.folders import Work
from models.phantom.study import draw_study
from models.preprocessing.affine import place_series
from models.preprocessing.geometry import known_z, unit_normals
from models.preprocessing.hounsfield import clip
from models.preprocessing.parallel import progress_map
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.raw import find_raw
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE, read_slices

SKIN = -300  # HU: from here on a pixel is no air
BONE = 150  # HU
VERTEX = 15.0  # cm2 of head, from which on a slice is the uppermost of it
SEEDS_APART = 1000  # between the first studies of two seeds


@dataclass(frozen=True)
class Slices:
    """Slices of one size, of several studies."""

    hounsfield: np.ndarray  # (slices, size, size) int16
    study: np.ndarray  # (slices,) names
    depth: np.ndarray  # (slices,) mm below the uppermost slice of the head; negative above it
    spacing: np.ndarray  # (slices,) mm a pixel

    def __len__(self) -> int:
        return len(self.study)

    def take(self, which: np.ndarray) -> "Slices":
        """Those of a mask or of indexes (slices,)."""
        return Slices(self.hounsfield[which], self.study[which], self.depth[which], self.spacing[which])

    def studies(self) -> list["Slices"]:
        """Each study by itself, in the order of their names."""
        return [self.take(self.study == name) for name in np.unique(self.study)]


def join(parts: list[Slices]) -> Slices:
    """The slices of several as one."""
    names = ("hounsfield", "study", "depth", "spacing")
    return Slices(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def read_real(data: Path, folder: Path, sizes: tuple[int, ...]) -> dict[int, Slices]:
    """All slices of a raw folder, of training and test, by size; its cache is made in a folder to work in.

    Raises InputError if the data cannot be used.
    """
    with quiet():
        prepare(PrepareOptions(data, folder, image_size=sizes, folds=2))
    work, splits = Work(folder), find_raw(data, None, folder).splits
    table = pd.concat([read_slices(work, split) for split in splits])
    series = [rows.sort_values("chunk") for _, rows in table[table["chunk"] != UNREADABLE].groupby("series_id")]
    return {size: join([read_series(work, rows, size) for rows in series]) for size in sizes}


def read_series(work: Work, rows: pd.DataFrame, size: int) -> Slices:
    """The stored slices of a series, by its rows of the metadata."""
    name = str(rows["series_id"].iloc[0])
    hounsfield = np.stack(Series(work.series(size, name)).read_some(rows["chunk"]))
    return of_study(name, hounsfield, known_z(rows), float(np.mean(place_series(rows, size).pixel)))


def draw_phantoms(seed: int, studies: int, size: int) -> Slices:
    """The phantom's studies of one seed of this benchmark, drawn by as many processes as there are cores."""
    seeds = [SEEDS_APART * (seed + 1) + number for number in range(studies)]
    return join(progress_map(partial(draw_phantom, size=size), seeds, -1, f"seed {seed}: studies drawn at {size} px"))


def draw_phantom(seed: int, size: int) -> Slices:
    """One study of the phantom, clipped as the store clips."""
    study = draw_study(seed, size)
    z = study.positions @ unit_normals(study.orientation[None])[0]
    return of_study(f"phantom_{seed}", clip(study.hounsfield), z, study.pixel_spacing)


def of_study(name: str, hounsfield: np.ndarray, z: np.ndarray, spacing: float) -> Slices:
    """Slices (slices, size, size) of one study, at heights `z` (slices,) mm, with their depth below its vertex."""
    areas = np.array([head_mask(image, spacing).sum() for image in hounsfield]) * spacing**2 / 100  # cm2
    shown = np.flatnonzero(areas > VERTEX)
    top = z[shown].max() if len(shown) else z.max()
    return Slices(hounsfield, np.full(len(z), name), top - z, np.full(len(z), spacing))


def match(phantom: Slices, real: Slices, seed: int) -> tuple[Slices, dict[str, float]]:
    """As many drawn slices as there are real ones, at depths that are as close to theirs as can be, and how close.

    Which of those that fit is drawn by lot, so that all studies have their share.
    """
    lot = np.random.default_rng(seed).uniform(0, 5, (len(real), len(phantom)))  # mm: any slice this close is as good
    apart = np.abs(real.depth[:, None] - phantom.depth[None])
    rows, chosen = linear_sum_assignment(np.maximum(apart, lot))
    left = apart[rows, chosen]
    how = {"median mm": round(float(np.median(left)), 2), "most mm": round(float(left.max()), 2)}
    return phantom.take(chosen), how


def head_mask(hounsfield: np.ndarray, spacing: float) -> np.ndarray:
    """Where a slice (size, size) shows the head, air cells within it too: bool (size, size)."""
    body = (hounsfield > SKIN).astype(np.uint8)
    body = cv2.morphologyEx(body, cv2.MORPH_OPEN, disk(4, spacing))  # parts the head from its table
    outlines, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(body)
    if outlines:
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled.astype(bool)


def cavity_mask(hounsfield: np.ndarray, spacing: float) -> np.ndarray:
    """Where a slice (size, size) shows the inside of a closed skull: bool (size, size); nothing where it is open."""
    closed = cv2.morphologyEx((hounsfield > BONE).astype(np.uint8), cv2.MORPH_CLOSE, disk(4, spacing))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    inside = np.zeros_like(closed)
    cv2.drawContours(inside, outlines, -1, 1, cv2.FILLED)
    inside = cv2.morphologyEx(np.where(closed > 0, 0, inside).astype(np.uint8), cv2.MORPH_OPEN, disk(3, spacing))
    _, parts, numbers, _ = cv2.connectedComponentsWithStats(inside)
    if len(numbers) == 1:
        return np.zeros(inside.shape, bool)
    largest = (parts == 1 + numbers[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    # What closing the bone took from the edge comes back.
    whole = (cv2.dilate(largest, disk(3, spacing)) > 0) & (hounsfield < BONE)
    soft = -50 < hounsfield[whole].mean() < 100  # a sinus is air
    return whole if soft else np.zeros(inside.shape, bool)


def disk(radius: float, spacing: float) -> np.ndarray:
    """A round structuring element of a radius in mm, for pixels of so many mm."""
    pixels = max(round(radius / spacing), 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
