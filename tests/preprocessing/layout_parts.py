"""A part of a series, whose slices belong together: drawn by a recipe, with the row of cache/series.csv that is due."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pydicom
from layout_files import AIR, Format, draw_stored, due_values

from models.preprocessing.problems import Problem

SIDE, NARROW = 40, 32  # pixels; encoders of JPEG 2000 want 32
FEW = 8  # slices
SCOUT = 3

# What may be odd about the headers of a series: elements, why it is left out, its state, and its row otherwise.
TRAITS: dict[str, tuple[dict, Problem | None, str | None, dict]] = {
    "bone kernel": ({"ConvolutionKernel": ["H60s", "3"]}, None, "bone kernel", {"kernel": "bone"}),
    "soft kernel": ({"ConvolutionKernel": "STANDARD"}, None, None, {"kernel": "soft"}),
    "contrast": ({"ContrastBolusAgent": "Ultravist 300"}, None, "contrast agent", {"contrast": "yes"}),
    "no contrast": ({"ContrastBolusAgent": "NONE"}, None, None, {}),
    "thickness": ({"SliceThickness": "1.25"}, None, None, {"thickness": 1.25}),
    "lossy": ({"LossyImageCompression": "01"}, None, "lossy compression", {}),
    "head": ({"BodyPartExamined": "HEAD"}, None, None, {}),
    "chest": ({"BodyPartExamined": "CHEST"}, Problem.NOT_HEAD, None, {}),
    "secondary": ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, Problem.SECONDARY, None, {}),
    "iodine": ({"RescaleType": "MGML"}, Problem.OTHER_UNIT, None, {"rescale": "other"}),
}
TOLD = {
    "uneven": Problem.UNEVEN_SPACING,
    "duplicates": Problem.DUPLICATE_POSITIONS,
    "location": Problem.BY_LOCATION,
    "number": Problem.BY_NUMBER,
    "nan by location": Problem.SOME_BY_LOCATION,
    "nan by number": Problem.SOME_BY_NUMBER,
    "one position": Problem.ONE_POSITION,
    "no orientation": Problem.NO_ORIENTATION,
}
ORDERS = ("positions", *TOLD)
PLANES = {  # to the right, downwards, and from slice to slice
    "axial": np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1)], float),
    "coronal": np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)], float),
    "sagittal": np.array([(0, 1, 0), (0, 0, -1), (1, 0, 0)], float),
}
NAMES = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID")


class Row(NamedTuple):
    """A slice that is due in the metadata."""

    values: np.ndarray | None  # (SIDE, SIDE) int16 as stored; None where it cannot be read
    z: float  # mm
    uid: str  # of its image, with the number of a frame
    has_own_name: bool = True  # not where several slices share it


class Slice(NamedTuple):
    """A slice before it is written."""

    upright: np.ndarray  # stored values (SIDE, columns) in the one frame
    stored: np.ndarray  # as the file has them
    form: Format
    elements: dict
    row: Row


@dataclass
class Part:
    """A row that is due in cache/series.csv, with its slices in anatomical order."""

    rows: list[Row]
    names: dict[str, str]  # NAMES
    plane: str
    facts: dict  # kernel, rescale, contrast, thickness
    states: set[str]
    why: set[str]
    folder: str = "test"  # train or test: where the files lie
    split: str = "test"  # what they are for
    taken: str = "yes"

    @property
    def owner(self) -> tuple[str, ...]:
        """What all parts of one series have."""
        return tuple(self.names[name] for name in NAMES)


@dataclass(frozen=True)
class Recipe:
    """What a part is to be."""

    names: dict[str, str]
    form: Format
    traits: tuple[str, ...] = ()
    plane: str = "axial"
    order: str = "positions"
    number: int = 8  # slices
    tilt: float = 0.0  # degrees of the gantry
    turn: tuple[bool, bool, bool] = (False, False, False)  # transposed, rows reversed, columns reversed
    spacing: tuple[float, float] = (0.5, 0.5)  # mm between rows, and columns
    gap: float = 5.0  # mm
    columns: int = SIDE
    height: float = -40.0  # mm of the slice below the first one
    numbers: range | None = None  # InstanceNumber of each slice; none are told where it is empty
    has_location: bool = True
    lost: frozenset[int] = frozenset()  # slices without a position, where the order is by what is left
    elements: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)  # beside what the traits tell

    @property
    def in_place(self) -> bool:
        """Whether slices are ordered by their positions, and two at one position by their numbers."""
        return self.order == "positions" and (self.numbers is None or len(self.numbers) > 0)


def draw_part(rng: np.random.Generator, recipe: Recipe, uids: list[str]) -> tuple[list[Slice], Part]:
    """The slices of a part in anatomical order, whose images have these identifiers, and what is due of it."""
    common = {"SOPClassUID": pydicom.uid.CTImageStorage, "Modality": "CT", **recipe.names}
    for trait in recipe.traits:
        common |= TRAITS[trait][0]
    slices = []
    for place, (height, uid) in enumerate(zip(_heights(recipe), uids, strict=True)):
        stored = draw_stored(rng, recipe.form, SIDE, recipe.columns)
        axes = PLANES[recipe.plane].copy()
        if recipe.tilt:
            axes[1, 1:] = np.cos(np.radians(recipe.tilt)), np.sin(np.radians(recipe.tilt))
        corner = np.array([-110.0, -120.0, 7.0]) * (axes[2] == 0) + height * axes[2]
        normal = np.cross(axes[0], axes[1])
        z = float(corner @ (normal if normal @ axes[2] > 0 else -normal))
        written, placed = lay(stored, corner, axes[0], axes[1], recipe.spacing, recipe.turn)
        numbers = range(1, recipe.number + 1) if recipe.numbers is None else recipe.numbers
        own = {
            "SOPInstanceUID": uid,
            "SliceLocation": f"{height:.2f}" if recipe.has_location else None,
            "InstanceNumber": numbers[place] if numbers else None,
        }
        elements = _forgotten(recipe, place, common | placed | own | recipe.elements)
        row = Row(squared(due_values(stored, recipe.form)), _known_z(recipe, z, height), uid)
        slices.append(Slice(stored, written, recipe.form, elements, row))
    if recipe.order == "one position":
        one = {"ImagePositionPatient": slices[0].elements["ImagePositionPatient"]}
        slices = [item._replace(elements=item.elements | one) for item in slices]
    return slices, _due_part(recipe, [item.row for item in slices])


def lay(
    stored: np.ndarray,
    corner: np.ndarray,
    right: np.ndarray,
    down: np.ndarray,
    spacing: tuple[float, float],
    turn: tuple[bool, bool, bool],
) -> tuple[np.ndarray, dict]:
    """A slice (rows, columns) as somebody's scanner has turned it, and the elements that say where its pixels lie.

    Upright, its first pixel lies at a `corner` (3,) and its rows and columns follow each other along two axes (3,).
    """
    rows, columns = np.indices(stored.shape)
    points = corner + rows[..., None] * spacing[0] * down + columns[..., None] * spacing[1] * right  # mm
    transposed, rows_reversed, columns_reversed = turn
    if transposed:
        stored, points = stored.T, points.swapaxes(0, 1)
    backwards = slice(None, None, -1)
    if rows_reversed:
        stored, points = stored[backwards], points[backwards]
    if columns_reversed:
        stored, points = stored[:, backwards], points[:, backwards]
    along, across = points[0, 1] - points[0, 0], points[1, 0] - points[0, 0]
    steps = float(np.linalg.norm(across)), float(np.linalg.norm(along))
    placed = {
        "ImagePositionPatient": _texts(points[0, 0]),
        "ImageOrientationPatient": _texts([*(along / steps[1]), *(across / steps[0])]),
        "PixelSpacing": _texts(steps),
    }
    return np.ascontiguousarray(stored), placed


def squared(values: np.ndarray) -> np.ndarray:
    """A slice with air about it where it is not square."""
    left = (SIDE - values.shape[1]) // 2
    return np.pad(values, ((0, 0), (left, SIDE - values.shape[1] - left)), constant_values=AIR)


def _texts(numbers) -> list[str]:
    return [f"{number + 0.0:.7f}" for number in numbers]


def _heights(recipe: Recipe) -> np.ndarray:
    gaps = np.full(recipe.number, recipe.gap)
    gaps[2:3] *= {"uneven": 2, "duplicates": 0}.get(recipe.order, 1)
    return recipe.height + np.cumsum(gaps)


def _known_z(recipe: Recipe, z: float, height: float) -> float:
    if recipe.order == "number":
        return np.nan
    return height if recipe.order in ("location", "one position") else round(z, 3)


def _forgotten(recipe: Recipe, place: int, elements: dict) -> dict:
    """The elements without those that the order does not have."""
    without = {
        "location": ["ImagePositionPatient"],
        "number": ["ImagePositionPatient", "SliceLocation"],
        "nan by number": ["SliceLocation"],
        "no orientation": ["ImageOrientationPatient"],
    }.get(recipe.order, [])
    elements = elements | dict.fromkeys(without)
    if place in recipe.lost:
        elements["ImagePositionPatient"] = [*elements["ImagePositionPatient"][:2], "nan"]
    return elements


def _due_part(recipe: Recipe, rows: list[Row]) -> Part:
    facts = {"kernel": "unknown", "rescale": "HU", "contrast": "no", "thickness": np.nan}
    states: set[str | None] = set()
    why: set[Problem | None] = set()
    for trait in recipe.traits:
        _, left, state, told = TRAITS[trait]
        facts, states, why = facts | told, states | {state}, why | {left}
    facts |= recipe.facts
    if recipe.form.kind == "table":  # it tells its own unit
        facts["rescale"], why = "HU by table", why - {Problem.OTHER_UNIT}
        states.add("a table in place of a rescale")
    if recipe.form.kind == "bare" and facts["rescale"] == "HU":
        facts["rescale"], why = "not told", why | {Problem.NO_UNIT}
    if recipe.plane != "axial":
        why.add(Problem.SCOUT if recipe.number <= SCOUT else Problem.NOT_AXIAL)
    states |= {
        "bone kernel" if facts["kernel"] == "bone" else None,
        "plane unknown" if recipe.order == "no orientation" else None,
        "pixels that are not square" if recipe.spacing[0] != recipe.spacing[1] else None,
    }
    plane = "unknown" if recipe.order == "no orientation" else recipe.plane
    reasons = {problem.value[0] for problem in why if problem}
    return Part(rows, recipe.names, plane, facts, {state for state in states if state}, reasons)
