"""The slices on which a network is most wrong, and a few that it finds best, as a radiologist would look at them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.channels import Window
from models.common.folders import Work
from models.common.labels import ANY
from models.preprocessing.store import Series, fit_to_square
from models.preprocessing.tables import UNREADABLE
from models.preprocessing.windows import BONE, BRAIN, SUBDURAL, apply_window
from models.reporting.figures import plot_course, png_uri, to_svg
from models.reporting.subject import Scored

SHOWN = 6  # mistakes of each kind
SHOWN_BEST = 2
SIDE = 256  # of a picture at most, pixels
_BEYOND = -2  # in place of a chunk: there is no slice
_REASONS = {UNREADABLE: "cannot be read", _BEYOND: "end of the series"}


class Picture(NamedTuple):
    """A view of a slice, or why there is none."""

    caption: str
    image: str | None  # a data URI; none: there is nothing to see,
    reason: str  # and this is why


class Case(NamedTuple):
    """A slice, what is true of it, and what it was taken for."""

    image_id: str
    place: int  # in its series, from 1 at its lower end
    length: int  # of its series, slices
    target: np.ndarray  # (6,)
    probability: np.ndarray  # (6,)
    pictures: list[Picture]
    around: list[str]  # images: the slice below, itself, the slice above; "" where there is none that can be read
    course: str  # the probabilities of its series over z, a data URI


def nearest_store(work: Work) -> int | None:
    """The image size of the store that suits a page best, or None if there is none."""
    sizes = [folder.name.removeprefix("slices_") for folder in work.cache.glob("slices_*")]
    return min((int(size) for size in sizes if size.isdecimal()), key=lambda size: abs(size - SIDE), default=None)


def worst_mistakes(scored: Scored, metadata: pd.DataFrame, work: Work) -> dict[str, list[Case]]:
    """The false negatives of `any` with the lowest probability, and the false positives with the highest.

    At most SHOWN of each, and one a study; and of all with blood SHOWN_BEST with the highest. Raises InputError if the
    store is damaged.
    """
    size = nearest_store(work)
    target, probability = scored.target[:, ANY], scored.probability[:, ANY]
    rows = {
        "false negatives": _pick(scored, target == 1, probability),
        "false positives": _pick(scored, target == 0, -probability),
        "found most clearly": _pick(scored, target == 1, -probability)[:SHOWN_BEST],
    }
    return {kind: [_show(scored, row, metadata, work, size) for row in chosen] for kind, chosen in rows.items()}


def _pick(scored: Scored, chosen: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows of the chosen slices, the lowest in `order` first; of equal ones the first by identifier."""
    table = pd.DataFrame(
        {
            "row": np.flatnonzero(chosen),
            "order": order[chosen],
            "image_id": scored.slices["image_id"].to_numpy()[chosen],
            "study_id": scored.slices["study_id"].to_numpy()[chosen],
        }
    )
    ordered = table.sort_values(["order", "image_id"])
    return ordered.drop_duplicates("study_id")["row"].to_numpy()[:SHOWN]


def _show(scored: Scored, row: int, metadata: pd.DataFrame, work: Work, size: int | None) -> Case:
    slice_ = scored.slices.iloc[row]
    series = metadata[metadata["series_id"] == slice_["series_id"]]
    place = series.index.get_loc(slice_.name)
    chunks = [_BEYOND, *series["chunk"].astype(int), _BEYOND][place : place + 3]  # below, itself, above
    pictures = [] if size is None else _pictures(Series(work.series(size, slice_["series_id"])), *chunks)
    names = ["", *series["image_id"], ""][place : place + 3]
    around = [name if chunk not in _REASONS else "" for name, chunk in zip(names, chunks, strict=True)]
    said = scored.target[row], scored.probability[row]
    return Case(slice_["image_id"], place + 1, len(series), *said, pictures, around, _course(scored, row))


def _course(scored: Scored, row: int) -> str:
    """The series of a scored slice over z."""
    of_series = (scored.slices["series_id"] == scored.slices["series_id"].iloc[row]).to_numpy()
    slices = scored.slices[of_series]
    shown = int(of_series[:row].sum())
    return to_svg(plot_course(slices, scored.target[of_series], scored.probability[of_series], shown))


def _pictures(series: Series, below: int, itself: int, above: int) -> list[Picture]:
    """The slice between its neighbours, then in the other windows."""
    views = {
        "slice below, brain": (below, BRAIN),
        "brain": (itself, BRAIN),
        "slice above, brain": (above, BRAIN),
        "subdural": (itself, SUBDURAL),
        "bone": (itself, BONE),
    }
    return [
        Picture(
            f"{name} {window.center}/{window.width}",
            None if chunk in _REASONS else _png(series.read(chunk), window),
            _REASONS.get(chunk, ""),
        )
        for name, (chunk, window) in views.items()
    ]


def _png(hounsfield: np.ndarray, window: Window) -> str:
    if len(hounsfield) > SIDE:
        hounsfield = fit_to_square(hounsfield, SIDE)
    return png_uri(apply_window(hounsfield, window))
