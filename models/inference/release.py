"""A release: trained runs as they travel, in a folder that needs nothing beside it (docs/release.md).

FOLDER/
    release.json            members, calibration, operating points, and the sha256 of all files; written last
    <run>/fold<k>/          config.json, model.safetensors, fingerprint.json: a finished run, without a name of a person
    fingerprint.json        of a blend: what all of them together say of their validation
    facts.json              what was counted and measured; sources.csv tells which number of the card stands where
    card.md  card.html      what it is good for
    README.md  metadata.json  .eval_results/    for Hugging Face and MONAI
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from models.common.errors import InputError
from models.common.files import first_changed, read_json
from models.common.folders import RELEASE
from models.common.labels import LABELS
from models.common.repair import command_of
from models.inference.calibration import Calibration
from models.inference.joining import Share
from models.inference.operating import Point, Range

FORMAT = 1  # another number where a reader of the last one would be misled
FACTS = "facts.json"
RUN_FILES = ("config.json", "model.safetensors", "fingerprint.json")  # of each fold; not every run has the last one
_REPAIR = "unpack the release again, or get it again from whoever has made it"
_PLAIN = r"\w[\w.-]*"  # as the name of a run in a configuration


class Member(NamedTuple):
    """A run of a release."""

    run: str
    folds: tuple[int, ...]
    speaks: bool  # others are there because a speaking one builds on them


class Frozen(NamedTuple):
    """How a release is read: what was fitted once, on its own validation, and is not fitted again."""

    slices: dict[str, Calibration]
    studies: dict[str, Calibration]  # of the highest slice of a study
    points: dict[str, dict[str, dict[str, Point]]]  # of "slices" and "studies", by label, by the name of the point


class Release(NamedTuple):
    """What release.json tells."""

    folder: Path
    name: str
    synthetic: bool  # whether it has learnt from drawings
    members: tuple[Member, ...]
    frozen: Frozen
    shares: dict[str, Share] | None  # by label: how the runs of a blend are joined; a single run has none
    told: dict[str, Any]  # all of it

    @property
    def speaking(self) -> list[Path]:
        """The folders of the folds that speak."""
        return [fold_folder(self.folder, one.run, fold) for one in self.members if one.speaks for fold in one.folds]


def is_release(folder: Path) -> bool:
    """Whether a folder is one."""
    return (folder / RELEASE).is_file()


def fold_folder(folder: Path, run: str, fold: int) -> Path:
    """Where a fold lies: as in runs/, since what builds on another one looks for it beside itself."""
    return folder / run / f"fold{fold}"


def read_release(folder: Path) -> Release:
    """What a release tells of itself.

    Raises InputError if it is none, a file of it is missing or another one than it was made with, or a newer version of
    this project has made it.
    """
    if not is_release(folder):
        raise InputError(f"no release in {folder}; make one with: {command_of('release', 'RUN')}, or name its folder")
    told = _read(folder)
    require_whole(folder, told["sha256_of"])
    members = tuple(Member(one["run"], tuple(one["folds"]), one["speaks"]) for one in told["members"])
    for one in members:
        if not re.fullmatch(_PLAIN, one.run):
            raise InputError(f"{folder / RELEASE} names a run {one.run!r}, which is no plain name; {_REPAIR}")
        for fold in one.folds:
            require_nothing_else(fold_folder(folder, one.run, fold), folder, told["sha256_of"])
    calibration, shares = told["calibration"], told["blend"]
    frozen = Frozen(
        {label: Calibration(*calibration["slices"][label]) for label in LABELS},
        {label: Calibration(*calibration["studies"][label]) for label in LABELS},
        points_from_json(told["operating_points"]),
    )
    joined = None if shares is None else {label: Share.from_json(shares[label]) for label in LABELS}
    return Release(folder, told["name"], told["synthetic"], members, frozen, joined, told)


def require_whole(folder: Path, sha256_of: Mapping[str, str]) -> None:
    """Raise InputError if a file of a release is missing, or is not the one of this sha256."""
    if (path := first_changed(folder, sha256_of)) is not None:
        what = "damaged, or was changed: its sha256 is not the one that was noted" if path.is_file() else "missing"
        raise InputError(f"{path} is {what}; {_REPAIR}")


def require_nothing_else(fold: Path, folder: Path, sha256_of: Mapping[str, str]) -> None:
    """Raise InputError if the folder of a fold holds a file that a release does not name: it could be taken for one."""
    for path in fold.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in sha256_of:
            raise InputError(f"{path} is no part of the release: delete it, or {_REPAIR}")


def weights_of_release(folder: Path, name: str, fold: int) -> Path:
    """The folder of a fold of a release, for an inference script: that of the run `name`, or of its only one.

    Raises InputError if it has no such fold, or several runs and none of this name; and as `read_release`.
    """
    release = read_release(folder)
    named = [one for one in release.members if one.run == name]
    chosen = named or [one for one in release.members if one.speaks]
    if len({one.run for one in chosen}) > 1:
        runs = ", ".join(dict.fromkeys(one.run for one in release.members))
        raise InputError(f"{folder} holds the runs {runs}; name one of them with --name")
    folds = sorted(fold for one in chosen for fold in one.folds)
    if fold not in folds:
        raise InputError(f"{folder} holds no fold {fold} of {chosen[0].run}; it has {folds}: repair --fold")
    return fold_folder(folder, chosen[0].run, fold)


def points_to_json(points: Mapping[str, Mapping[str, Mapping[str, Point]]]) -> dict[str, Any]:
    """Operating points as release.json holds them, their numbers as they are."""
    return {
        of: {label: {name: _point_to_json(point) for name, point in own.items()} for label, own in labels.items()}
        for of, labels in points.items()
    }


def points_from_json(values: dict[str, Any]) -> dict[str, dict[str, dict[str, Point]]]:
    """The same from there."""
    return {
        of: {label: {name: _point_from_json(point) for name, point in own.items()} for label, own in labels.items()}
        for of, labels in values.items()
    }


def _point_to_json(point: Point) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, Range) else value for name, value in point._asdict().items()}


def _point_from_json(values: dict[str, Any]) -> Point:
    sensitivity, specificity = Range(*values["sensitivity"]), Range(*values["specificity"])
    return Point(values["threshold"], sensitivity, specificity, values["positives"], values["negatives"])


def _read(folder: Path) -> dict[str, Any]:
    try:
        told = read_json(folder / RELEASE, "")
    except InputError as error:
        raise InputError(f"{folder / RELEASE} is damaged, or was changed; {_REPAIR}") from error
    if told.get("format") != FORMAT:
        raise InputError(
            f"{folder / RELEASE} is of format {told.get('format')}, and this version of the project knows {FORMAT}; "
            "use the version that has made it"
        )
    return told
