"""The trained runs that a study is to be answered by: somebody's, or the default network. Read without torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from models.common.config import SequenceConfig, TrainConfig
from models.common.errors import InputError
from models.common.folders import Work, default_work
from models.inference.release import is_release, read_release
from models.preprocessing.geometry import USUAL_GAP
from models.training.fingerprint import Fingerprint, read_fingerprint
from models.training.run_record import RunRecord, SmoothedRecord, read_record, read_run
from models.training.sources import find_source

FLAG = "--weights"


class Eye(NamedTuple):
    """A network that looks at images."""

    folder: Path
    record: RunRecord
    config: TrainConfig  # the record's
    fingerprint: Fingerprint | None


class Fold(NamedTuple):
    """A trained fold, and the networks that look for it: itself, or those that it builds on."""

    folder: Path
    record: RunRecord
    fingerprint: Fingerprint | None
    eyes: list[Eye]

    @property
    def name(self) -> str:
        """What it is called, without the folder that all runs lie in."""
        return called(self.folder)

    @property
    def image_sizes(self) -> set[int]:
        """Sides of the slices that it, or what it builds on, looks at."""
        return {eye.config.image_size for eye in self.eyes}

    @property
    def weights(self) -> dict[str, str]:
        """The sha256 of all weights that go into its answers, by what they are called."""
        return {called(part.folder): part.record.weights_sha256 for part in (self, *self.eyes)}


class Study(NamedTuple):
    """What is to be answered: readable slices of one series, and the working folder that holds their store."""

    slices: pd.DataFrame
    work: Work


def find_folds(weights: Sequence[Path], work: Path | None = None) -> list[Fold]:
    """The folds that are named: their folders, those of runs with all finished folds in them, of such runs, or names.

    Names are those of runs/ in a working folder, of the usual one if none is told.
    A network of slices is left out where layers that build on it are named, too: these speak for it. Of a release those
    speak that it names. Raises InputError for what is no finished network, for what a network builds on and is not
    beside it, for a damaged release, and for one that is named among others.
    """
    if released := next(filter(is_release, weights), None):
        if len(weights) > 1:
            raise InputError(f"{released} is a release, which tells how its runs are joined; name it alone with {FLAG}")
        return [_read_fold(folder) for folder in read_release(released).speaking]
    folds = [_read_fold(folder) for named in weights for folder in _folders(named, work or default_work())]
    built_on = {eye.folder.resolve() for fold in folds for eye in fold.eyes if eye.folder != fold.folder}
    speaking = {fold.folder.resolve(): fold for fold in folds if fold.folder.resolve() not in built_on}
    _require_names(speaking.values())
    return list(speaking.values())


def _require_names(folds: Iterable[Fold]) -> None:
    """Raise InputError for two folds of one name, by which answers and calibrations are told apart."""
    places: dict[str, Path] = {}
    for folder in (part.folder for fold in folds for part in (fold, *fold.eyes)):
        other = places.setdefault(called(folder), folder)
        if other.resolve() != folder.resolve():
            raise InputError(f"{other} and {folder} are called alike; rename the folder of one of these runs")


def usual_spacing(folds: Sequence[Fold]) -> float:
    """The distance of slices that networks have learnt from, mm; a usual one where none has noted it."""
    prints = [eye.fingerprint for fold in folds for eye in fold.eyes]
    known = [one.spacing for one in prints if one is not None and one.spacing]
    return sum(known) / len(known) if known else USUAL_GAP


def of_drawings(folds: Sequence[Fold]) -> bool:
    """Whether a network has learnt from drawings of make_phantom.py."""
    return any(fold.record.ran.get("synthetic") for fold in folds)


def called(folder: Path) -> str:
    """The name of a fold's folder, b2/fold0, without the one that all runs lie in."""
    place = folder.absolute()
    return f"{place.parent.name}/{place.name}"


def _folders(named: Path, work: Path) -> list[Path]:
    """Those of the folds that somebody means."""
    for place in (named, Work(work).runs / named):
        if (place / "config.json").is_file():
            return [place]
        for pattern in ("fold*/config.json", "*/fold*/config.json"):
            folds = sorted(path.parent for path in place.glob(pattern))
            if trained := [fold for fold in folds if not isinstance(read_record(fold), SmoothedRecord)] or folds:
                return trained
    raise InputError(f"no finished run in {named}; name the folder of a run, or of one of its folds, with {FLAG}")


def _read_fold(folder: Path) -> Fold:
    record = read_run(folder)
    assert record is not None  # its config.json has been seen
    config, known = record.config, read_fingerprint(folder)
    if isinstance(config, TrainConfig):
        return Fold(folder, record, known, [Eye(folder, record, config, known)])
    assert isinstance(config, SequenceConfig)  # there is no other kind
    sources = [find_source(name, folder.absolute(), FLAG) for name in config.runs]
    for source in sources:
        if record.sources.get(source.name) != source.record.weights_sha256:
            raise InputError(f"{folder} was trained on another {source.name} than {source.folder}; name that one")
    eyes = [Eye(one.folder, one.record, one.config, read_fingerprint(one.folder)) for one in sources]
    return Fold(folder, record, known, eyes)
