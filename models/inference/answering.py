"""One study -> its answer: its series are read, one is chosen and checked, and networks are asked about that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import EngineName, TestTimeAugmentation
from models.inference import default
from models.inference.answer import Answer
from models.inference.asked_runs import Fold, Study, find_folds, of_drawings, usual_spacing
from models.inference.combining import Combined, Reading, combine, frozen_reading, points_of, read_runs, run_of
from models.inference.judging import Check, check_answer, check_series, verdict_of
from models.inference.operating import Point
from models.inference.predictions import fill_unreadable
from models.inference.release import Release, is_release, read_release
from models.preprocessing.choice import candidates_of, rank
from models.preprocessing.measures import Measures, measure
from models.preprocessing.metadata import slice_table
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.own_studies import OwnStudy, ReadStudy, read_study, write_chosen
from models.preprocessing.problems import is_unread
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE
from models.training.planes import open_series

if TYPE_CHECKING:
    from models.inference.ensemble import Ensemble

FULL = 512  # pixels: the size that series are measured and shown at
_TRIES = 3  # series of a study that are looked at before it is refused


@dataclass
class Court:
    """Who answers: the runs, how they are read, and their networks, which are loaded when they are needed."""

    folds: list[Fold]
    readings: dict[str, Reading]
    notes: list[str]
    device: str
    tta: TestTimeAugmentation
    engine: EngineName = "auto"
    threads: int | None = None  # of a CPU; none: as many as the engine takes
    prevalence: float | None = None
    synthetic: bool = False
    series: tuple[str, ...] = ()
    release: Release | None = None  # where all of them are one
    _ensemble: "Ensemble | None" = field(default=None, repr=False)

    @property
    def ensemble(self) -> "Ensemble":
        """The networks."""
        if self._ensemble is None:
            from models.inference.ensemble import Ensemble  # a second, which a refusal does not need

            self._ensemble = Ensemble(self.folds, self.device, self.tta, self.engine, self.threads)
        return self._ensemble

    @property
    def points(self) -> dict[str, Point]:
        """Thresholds for `any` in a study: those of the release, or of all runs together."""
        return points_of(self.readings if self.release is None else {"": frozen_reading(self.release.frozen)})

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Sides of the stores that are made of a series, pixels."""
        return tuple(sorted({FULL, *(size for fold in self.folds for size in fold.image_sizes)}))


def open_court(weights: Sequence[Path], device: str, tta: TestTimeAugmentation, synthetic: bool) -> Court:
    """The runs of these folders, or the default network where none is named. Raises InputError as `find_folds`.

    `synthetic`: what is to be answered are drawings.
    """
    folds = find_folds(weights or default.default_runs())
    release = read_release(weights[0]) if weights and is_release(weights[0]) else None
    readings = read_runs(folds, None if weights else default.default_calibration())
    if release is not None:
        whole, is_single = frozen_reading(release.frozen), release.shares is None
        readings = dict.fromkeys(readings, whole) if is_single else readings | {f"{release.name}, joined": whole}
    notes = [] if weights else [default.WARNING]
    if weights and of_drawings(folds) and not synthetic:
        notes.append("the network has learnt from drawings of make_phantom.py; it knows nothing of people")
    if release is not None:  # it is calibrated as a whole
        return Court(folds, readings, notes, device, tta, synthetic=synthetic, release=release)
    if not all(reading.of_slices for reading in readings.values()):
        notes.append("probabilities are not calibrated: the network has no fingerprint.json")
    elif not all(reading.of_studies for reading in readings.values()):
        notes.append("the study's probability is that of its highest slice, and not calibrated on studies")
    return Court(folds, readings, notes, device, tta, synthetic=synthetic)


def answer_study(study: OwnStudy, court: Court, work: Work) -> Answer:
    """The answer to a study, whose series are read into a working folder of its own.

    Raises InputError if that cannot be written, or weights are damaged.
    """
    read = read_study(study, work, court.image_sizes, court.series)
    open_series.cache_clear()  # of a study that has grown, other slices lie under the same names
    tables = {notes.series_id: slice_table([notes])[0] for notes in read.notes}
    order = rank(candidates_of(list(tables.values()), read.series, usual_spacing(court.folds)), court.series)
    notes = {one.series_id: one for one in read.notes}
    series, tried = _reasons(read, order), list[tuple[str, list[Check], Measures]]()
    for name, _ in order[:_TRIES]:
        facts = dict(read.series.set_index("series_id", drop=False).loc[name])
        measures = _measure(tables[name], work)
        checks = check_series(tables[name], facts, measures, asked=name in court.series)
        tried.append((name, checks, measures))
        if verdict_of(checks) != "refused":
            break
    if not tried:
        return _refused(study, court, read, series)
    name, checks, measures = tried[-1] if verdict_of(tried[-1][1]) != "refused" else tried[0]
    series.loc[series["series_id"] == name, "taken"] = "yes"
    for other, own, _ in tried:
        if other != name and verdict_of(own) == "refused":
            why = next(check.found for check in own if check.result == "refused")
            series.loc[series["series_id"] == other, ["taken", "why"]] = ["no", f"cannot be judged: {why}"]
    made = _Made(study, court, series, tables[name], measures)
    return made.refuse(checks) if verdict_of(checks) == "refused" else made.answer(notes[name], checks, work)


@dataclass
class _Made:
    """What stands in an answer whatever is said."""

    study: OwnStudy
    court: Court
    series: pd.DataFrame
    slices: pd.DataFrame
    measures: Measures

    def refuse(self, checks: list[Check]) -> Answer:
        return Answer(**self._common(), verdict="refused", checks=checks)

    def answer(self, notes: SeriesNotes, checks: list[Check], work: Work) -> Answer:
        slices = write_chosen([notes], work)
        said = self.court.ensemble.ask(readable_study(slices, work))
        combined = combine(
            [(run_of(one.fold), one.probability) for one in said], self.court.readings, self.court.release
        )
        agree = check_answer([one.strangeness for one in said], combined.between_networks, combined.between_views)
        return Answer(
            **self._common() | {"slices": slices},
            verdict=verdict_of(checks + agree),
            checks=checks + agree,
            probability=_of_all(slices, combined, self.court.folds),
            study_probability=combined.study,
            any_range=(combined.low, combined.high),
            folds=self.court.folds,
            readings=self.court.readings,
            points=self.court.points,
            prevalence=self.court.prevalence,
            engine=self.court.ensemble.engine.name,
        )

    def _common(self) -> dict[str, Any]:
        return {
            "study": self.study.key,
            "patient": str(self.slices["patient_id"].iloc[0]),
            "content": self.study.content,
            "notes": self.court.notes,
            "series": self.series,
            "slices": self.slices,
            "image_size": FULL,
            "measures": self.measures,
            "synthetic": self.court.synthetic,
        }


def readable_study(slices: pd.DataFrame, work: Work) -> Study:
    """The readable slices of a series, as networks are asked about them."""
    return Study(slices[slices["chunk"] != UNREADABLE].reset_index(drop=True), work)


def _of_all(slices: pd.DataFrame, combined: Combined, folds: Sequence[Fold]) -> np.ndarray:
    """Probabilities of all slices (slices, 6): those that cannot be read have the mean of their neighbours."""
    readable = slices.loc[slices["chunk"] != UNREADABLE, "image_id"]
    said = pd.DataFrame(combined.slices, index=readable.to_numpy(), columns=list(LABELS)).astype(np.float32)
    prior = pd.DataFrame([fold.record.results["prevalence"] for fold in folds]).mean()
    return fill_unreadable(slices, said, prior).to_numpy(float)


def _measure(slices: pd.DataFrame, work: Work) -> Measures:
    store = Series(work.series(FULL, str(slices["series_id"].iloc[0])))
    side = slices[["rows", "columns"]].max(axis=1)
    spacing = float((slices[["pixel_spacing_0", "pixel_spacing_1"]].mean(axis=1) * side / FULL).median())
    return measure(store, spacing, float(slices["gap_above"].median()), int(side.median()))


def _reasons(read: ReadStudy, order: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The rows of cache/series.csv, with why each is taken or left; `order` has those that may be taken."""
    why = dict(order)
    series = read.series.drop(columns="split").reset_index(drop=True)
    left = series["taken"] == "left out"
    series["left_out_otherwise"] = series["why"].where(~left, "")
    names = series["series_id"]
    series["why"] = series["why"].where(left, names.map(lambda name: why.get(name, "no slice can be read")))
    series["taken"] = "no"
    return series


def _refused(study: OwnStudy, court: Court, read: ReadStudy, series: pd.DataFrame) -> Answer:
    """A study without a series that can be judged."""
    problems = sorted({problem for _, problem, _ in read.problems})
    unread = [problem for problem in problems if is_unread(problem)]
    kinds = list(dict.fromkeys([*series["why"], *unread])) or problems or ["no slice"]
    found = f"none of {len(series)} series is an axial head CT that can be read: {'; '.join(kinds)}"
    names = study.series[0].files[0].names
    return Answer(
        study=study.key,
        patient=names.patient_id,
        content=study.content,
        verdict="refused",
        checks=[Check("series", "refused", found)],
        notes=court.notes,
        series=series,
        slices=pd.DataFrame(columns=["image_id", "series_id", "z", "chunk"]),
        synthetic=court.synthetic,
    )
