"""The slices of an answer as pictures: the most suspicious ones with where the network looked, and all of them."""

from typing import NamedTuple

import cv2
import numpy as np

from models.common.channels import Window
from models.common.folders import Work
from models.common.labels import ANY
from models.inference.answer import Answer
from models.inference.answering import Court, readable_study
from models.inference.asked_runs import Study
from models.preprocessing.store import Series, fit_to_square
from models.preprocessing.tables import UNREADABLE
from models.preprocessing.windows import BRAIN, SUBDURAL, apply_window
from models.reporting.markup import data_uri
from models.reporting.tints import under_heat

KEY_SLICES = 3  # the most suspicious ones
_APART = 3  # places between them, so that they do not all show one spot
_LARGE, _SMALL = 384, 160  # pixels, of a key slice and of one of all
_WINDOWS: dict[str, Window] = {"brain": BRAIN, "subdural": SUBDURAL}
_QUALITY = 88  # of JPEG, 0 to 100


class KeySlice(NamedTuple):
    """A slice that is shown large."""

    row: int  # of the answer's slices
    hounsfield: np.ndarray  # (size, size)
    heat: np.ndarray | None  # (size, size), 0 ... 1, the same scale in all key slices; none: nobody can tell


def key_slices(answer: Answer, court: Court, work: Work) -> list[KeySlice]:
    """The most suspicious readable slices of an answer, the most suspicious first; none where it is refused.

    Raises InputError if the store is damaged.
    """
    if answer.probability is None:
        return []
    rows = _suspicious(answer)
    study = readable_study(answer.slices, work)
    chunks = answer.slices["chunk"].to_numpy(int)
    shown = study.slices[study.slices["chunk"].isin(chunks[rows])]
    heat = court.ensemble.heat(Study(shown.reset_index(drop=True), work))
    of_chunk = {} if heat is None else dict(zip(shown["chunk"], heat / (heat.max() or 1.0), strict=True))
    store = Series(work.series(answer.image_size, answer.taken))
    found = []
    for row in rows:
        hounsfield = store.read(int(chunks[row]))
        found.append(KeySlice(row, hounsfield, spread(of_chunk[chunks[row]], len(hounsfield)) if of_chunk else None))
    return found


def spread(heat: np.ndarray, side: int) -> np.ndarray:
    """Heat (size, size) over a picture of another side, (side, side), 0 ... 1."""
    resized = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return np.clip(resized, 0.0, 1.0)


def large(slice_: KeySlice) -> dict[str, str]:
    """A key slice in both windows, and under heat if there is some, as data URIs by what they show."""
    hounsfield = fit_to_square(slice_.hounsfield, _LARGE)
    windows = {name: jpeg_uri(apply_window(hounsfield, window)) for name, window in _WINDOWS.items()}
    if slice_.heat is None:
        return windows
    return windows | {"where the network looked": jpeg_uri(under_heat(hounsfield, spread(slice_.heat, _LARGE), BRAIN))}


def all_slices(answer: Answer, work: Work) -> list[dict[str, str]]:
    """Each slice in both windows, small, as data URIs by the name of the window; none of what cannot be read.

    Raises InputError if the store is damaged.
    """
    store = Series(work.series(answer.image_size, answer.taken))
    chunks = answer.slices["chunk"].to_numpy(int)
    return [{} if chunk == UNREADABLE else _small(store.read(int(chunk))) for chunk in chunks]


def jpeg_uri(pixels: np.ndarray) -> str:
    """A grey image (rows, columns), or one of colours (rows, columns, 3) in OpenCV's order, uint8, as JPEG."""
    return data_uri("image/jpeg", cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())


def _small(hounsfield: np.ndarray) -> dict[str, str]:
    small = fit_to_square(hounsfield, _SMALL)
    return {name: jpeg_uri(apply_window(small, window)) for name, window in _WINDOWS.items()}


def _suspicious(answer: Answer) -> list[int]:
    """Rows of readable slices, the most suspicious first, _APART from each other where the series is long enough."""
    assert answer.probability is not None  # it is answered
    readable = (answer.slices["chunk"] != UNREADABLE).to_numpy()
    order = [int(row) for row in np.argsort(-answer.probability[:, ANY], kind="stable") if readable[row]]
    chosen: list[int] = []
    for row in order:
        if len(chosen) < KEY_SLICES and all(abs(row - other) >= _APART for other in chosen):
            chosen.append(row)
    return chosen
