"""What the networks of a run looked at in some slices: heat over the slice, and how its views differ."""

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from models.common.channels import Window
from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import ANY
from models.preprocessing.store import Series, fit_to_square
from models.preprocessing.windows import BRAIN
from models.reporting.figures import png_uri
from models.reporting.mistakes import SIDE, Case
from models.reporting.subject import Subject
from models.reporting.tints import under_heat
from models.training.run_record import RunRecord, read_record

LOOKED_AT = 2  # cases of each kind
_NAMES = ("image_id", "series_id", "chunk")


class Look(NamedTuple):
    """What a network has looked at in a slice, and what it says of it."""

    image: str  # a data URI
    lowest: float  # probability of `any`, of the eight views
    highest: float


class Looks(NamedTuple):
    """By image, or why there are none."""

    looks: dict[str, Look]
    reason: str


def look_at(cases: dict[str, list[Case]], metadata: pd.DataFrame, subject: Subject, work: Work) -> Looks:
    """How the network that has predicted a case looks at it and at its neighbours: of the first LOOKED_AT of each kind.

    Raises InputError if a record or the store is damaged.
    """
    if not subject.folds:
        return Looks({}, "a blend has no network of its own; the pages of its runs show where theirs looked")
    folds = {
        image: subject.fold_of.get(case.image_id, subject.folds[0])
        for some in cases.values()
        for case in some[:LOOKED_AT]
        for image in case.around
    }
    rows = metadata[metadata["image_id"].isin(set(folds) - {""})]
    looks: dict[str, Look] = {}
    for fold in sorted(set(folds.values())):
        record = read_record(work.run(subject.name, fold))
        if not isinstance(record, RunRecord):
            return Looks({}, "smoothed predictions have no network of their own")
        try:
            looks |= _of_fold(rows[rows["image_id"].map(folds) == fold], fold, subject.name, record, work)
        except InputError as error:
            return Looks({}, str(error))
    return Looks(looks, "" if looks else "its network sees no images")


def _of_fold(rows: pd.DataFrame, fold: int, name: str, record: RunRecord, work: Work) -> dict[str, Look]:
    """Raises InputError if the network cannot be had, or the store is not there or damaged."""
    # With torch and fastai, seconds of imports, which a page without heat does not need.
    from models.inference.heat import heat_maps, view_probabilities
    from models.training.kinds import OfSlices, kind_of
    from models.training.weights import load_trained

    folder = work.run(name, fold)
    kind = kind_of(record.config, folder)
    if not isinstance(kind, OfSlices):
        return {}
    dataset = kind.dataset(rows, work, "none")
    network = kind.network(dataset)
    load_trained(folder, record, network)
    looks = {}
    for row, (image_id, series_id, chunk) in enumerate(zip(*(rows[name] for name in _NAMES), strict=True)):
        image = dataset[0, row][0][None]
        heat = heat_maps(network, image, ANY)[0].numpy()
        views = view_probabilities(network, image)[:, 0, ANY]
        hounsfield = Series(work.series(kind.config.image_size, series_id)).read(int(chunk))
        looks[image_id] = Look(overlay(hounsfield, heat, BRAIN), float(views.min()), float(views.max()))
    return looks


def overlay(hounsfield: np.ndarray, heat: np.ndarray, window: Window) -> str:
    """A slice (size, size) under heat (input size, input size) of its middle, as PNG in a data URI.

    Colours as bright as they are hot, which people tell apart who see no red or green.
    """
    margin = (len(hounsfield) - len(heat)) // 2  # what a network that crops has not seen
    heat = np.pad(heat / max(float(heat.max()), 1e-9), (margin, len(hounsfield) - len(heat) - margin))
    if len(hounsfield) > SIDE:
        hounsfield = fit_to_square(hounsfield, SIDE)
        heat = cv2.resize(heat, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return png_uri(under_heat(hounsfield, heat, window))
