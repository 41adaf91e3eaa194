"""What several folds and runs say -> one answer: calibrated each by its own validation, then averaged."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.common.labels import ANY, LABELS
from models.inference.asked_runs import Fold
from models.inference.calibration import Calibration
from models.inference.joining import join
from models.inference.operating import YOUDEN, Meaning, Point, Range, calibrated, meaning_of
from models.inference.release import Frozen, Release

_AS_IT_IS = dict.fromkeys(LABELS, Calibration(1.0, 0.0))


class Reading(NamedTuple):
    """How the folds of a run are read."""

    slices: Mapping[str, Calibration]
    studies: Mapping[str, Calibration]
    points: Mapping[str, Point]
    of_slices: bool  # whether they are calibrated at all
    of_studies: bool


class Combined(NamedTuple):
    """The answer of all."""

    slices: np.ndarray  # (readable slices, 6)
    study: np.ndarray  # (6,)
    low: float  # of `any` in the study, the lowest of all networks and views
    high: float
    between_networks: float  # standard deviation of that; NaN where one speaks alone
    between_views: float


def read_runs(folds: Sequence[Fold], default: Mapping[str, Calibration] | None = None) -> dict[str, Reading]:
    """How each run is read, by its name; `default` calibrates the slices of folds that have no fingerprint."""
    runs: dict[str, list[Fold]] = {}
    for fold in folds:
        runs.setdefault(run_of(fold), []).append(fold)
    return {name: _reading(own, default) for name, own in runs.items()}


def run_of(fold: Fold) -> str:
    """The name of a fold's run."""
    return fold.name.rpartition("/")[0]


def combine(
    said: Sequence[tuple[str, np.ndarray]], readings: Mapping[str, Reading], release: Release | None = None
) -> Combined:
    """The answer from the name of each fold's run, and its probabilities (views, slices, 6) that are not calibrated.

    Runs count alike, and so do the folds of a run, and the views of a fold. In the release of a blend runs count as it
    tells, and what they say together is calibrated by it; the range is theirs, each by its own calibration.
    """
    means: dict[str, list[np.ndarray]] = {}
    slices: dict[str, list[np.ndarray]] = {}
    studies: dict[str, list[np.ndarray]] = {}
    seen, apart = [], []
    for run, probability in said:
        reading, mean = readings[run], probability.mean(axis=0)
        means.setdefault(run, []).append(mean)
        slices.setdefault(run, []).append(calibrated(mean, reading.slices))
        studies.setdefault(run, []).append(calibrated(mean.max(axis=0), reading.studies))
        views = calibrated(probability.max(axis=1), reading.studies)[:, ANY]
        seen.append(views)
        apart.append(views.std() if len(views) > 1 else np.nan)
    each = [float(study[ANY]) for own in studies.values() for study in own]
    of_slices = np.mean([np.mean(own, axis=0) for own in slices.values()], axis=0)
    of_study = np.mean([np.mean(own, axis=0) for own in studies.values()], axis=0)
    if release is not None and release.shares is not None:
        joined = join(release.shares, {run: np.mean(own, axis=0) for run, own in means.items()})
        of_slices = calibrated(joined, release.frozen.slices)
        of_study = calibrated(joined.max(axis=0), release.frozen.studies)
    everything = np.concatenate([*seen, each, of_study[[ANY]]])
    return Combined(
        of_slices,
        of_study,
        float(everything.min()),
        float(everything.max()),
        float(np.std(each)) if len(each) > 1 else np.nan,
        float(np.nanmax(apart)) if np.isfinite(apart).any() else np.nan,
    )


def frozen_reading(frozen: Frozen) -> Reading:
    """How a release is read."""
    points = frozen.points["studies"][LABELS[ANY]]
    alarms = {name: point for name, point in points.items() if name != YOUDEN}
    return Reading(frozen.slices, frozen.studies, alarms, True, True)


def points_of(readings: Mapping[str, Reading]) -> dict[str, Point]:
    """The operating points of all runs together: the mean threshold, and what the least able of them reaches there.

    None where a run has none.
    """
    found = {}
    for name in ("sensitivity", "specificity"):
        own = [reading.points[name] for reading in readings.values() if name in reading.points]
        if own and len(own) == len(readings):
            found[name] = Point(
                float(np.mean([point.threshold for point in own])),
                _least([point.sensitivity for point in own]),
                _least([point.specificity for point in own]),
                min(point.positives for point in own),
                min(point.negatives for point in own),
            )
    return found


def _reading(folds: Sequence[Fold], default: Mapping[str, Calibration] | None) -> Reading:
    known = [fold.fingerprint for fold in folds if fold.fingerprint is not None]
    if len(known) == len(folds):
        meaning: Meaning = meaning_of(known)
        return Reading(meaning.slices, meaning.studies, meaning.points, True, True)
    return Reading(default or _AS_IT_IS, default or _AS_IT_IS, {}, default is not None, False)


def _least(shares: Sequence[Range]) -> Range:
    return min(shares, key=lambda share: share.value)
