"""Networks elsewhere: a published set and the answers to it -> what may be scored, and what was found on the way.

external_names        what sets call their studies
external_labels       what a set says                    (external_tables: in csv files; external_masks: in masks)
external_volumes      volumes beside it, masks among them
external_answers      what predict.py has said
external_joining      each study and slice beside its answer
external_overlap      whom the networks have trained on
external_orientation  whether labels run the way that slices do
external_scores       scores, beside those of the release
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.common.errors import InputError
from models.common.folders import Work
from models.inference.external_answers import Answers, read_answers
from models.inference.external_joining import Joined, join
from models.inference.external_labels import Published
from models.inference.external_masks import read_bhsd, read_instance
from models.inference.external_names import Set
from models.inference.external_orientation import require_same_way
from models.inference.external_overlap import Networks, find_networks, record_of, without_seen
from models.inference.external_tables import read_cq500, read_physionet
from models.inference.release import read_release
from models.training.fingerprint import Fingerprint, read_fingerprint

_READERS: dict[Set, Callable[[Path], Published]] = {
    "cq500": read_cq500,
    "physionet": read_physionet,
    "instance": read_instance,
    "bhsd": read_bhsd,
}


class External(NamedTuple):
    """What may be scored."""

    published: Published
    answers: Answers
    joined: Joined
    own: list[list[Fingerprint]]  # of each run that speaks: what its folds said of their own validation, if it is known


def read_external(published: Set, labels: Path, predictions: Path, work: Work, release: Path | None) -> External:
    """A set beside the answers to it: of patients that no network is known to have trained on, the right way up.

    Raises InputError for labels of another layout, answers that are of none of its studies or of several networks,
    patients that were all seen, labels that run from the other end, and a release that is damaged or has not answered.
    """
    if not labels.exists():
        raise InputError(f"there is no {labels}; name the labels of {published} with --labels")
    if release is not None and not release.is_dir():
        raise InputError(f"there is no {release}; name the folder of the release that has answered with --release")
    answers = read_answers(predictions)
    told = _READERS[published](labels)
    networks = find_networks(answers, work, release)
    if release is not None:
        require_answered(release, answers)
    joined = without_seen(told, join(told, answers), answers, networks, work)
    if len(joined.slices):
        joined = joined._replace(notes=[*joined.notes, *require_same_way(joined.slices, joined.patients)])
    return External(told, answers, joined, _own(answers, networks, release))


def require_answered(release: Path, answers: Answers) -> None:
    """Raise InputError if a release is damaged, or others than its networks have answered."""
    read_release(release)  # all of it is what it was made with
    others = [name for name, own in answers.weights.items() if record_of(release / name).get("weights_sha256") != own]
    if others:
        raise InputError(
            f"{release} has not answered {answers.folder}: it does not hold the weights of {others[0]} that have; name "
            "the release that has with --release, or none"
        )


def alarms(external: External, point: str) -> np.ndarray:
    """What was said of each study at an operating point when it was answered: (studies,) of bool."""
    told = [external.joined.told[name].content["operating_points"] for name in external.joined.studies.index]
    return np.array([bool(one[point]["alarm"]) for one in told])


def _own(answers: Answers, networks: Networks, release: Path | None) -> list[list[Fingerprint]]:
    """None where one of the folds that speak is not found, or has not noted what it said."""
    if release is not None and (whole := read_fingerprint(release)) is not None:
        return [[whole]]  # of a blend
    runs: dict[str, list[Fingerprint | None]] = {}
    for name in answers.weights:
        if (run := name.rpartition("/")[0]) in answers.runs:
            folder = networks.folders.get(name)
            runs.setdefault(run, []).append(read_fingerprint(folder) if folder else None)
    if not runs or any(fold is None for folds in runs.values() for fold in folds):
        return []
    return [[fold for fold in folds if fold is not None] for folds in runs.values()]
