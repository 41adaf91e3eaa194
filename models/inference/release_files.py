"""Finished runs -> the files of a release that networks are asked by; weights as float16 where that changes nothing."""

import shlex
import tempfile
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.common.config import SequenceConfig
from models.common.errors import InputError
from models.common.files import write_json
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.common.progress import say
from models.common.repair import command_of_run
from models.inference.asked_runs import Fold, find_folds
from models.inference.halving import as_half, as_it_is, copy_run
from models.inference.joining import Share
from models.inference.own_slices import ask_own, own_slices
from models.inference.release import fold_folder
from models.training.fingerprint import FILE, count_logits, of_studies
from models.training.run_record import require_run

MOST = 1e-3  # that a probability may move
# Of a run's record; not who its patients were, nor what a training has warned of.
_PLACES = ("--work", "--data", "--start", "--weights", "--work-from", "--pseudolabels")
_TOLD = ("kind", "config", "fold", "stage", "results", "ran", "versions", "torch_threads", "project")


class Plan(NamedTuple):
    """Which runs a release holds."""

    name: str  # of the run, or "blend"
    speaking: dict[str, list[int]]  # run -> folds
    silent: dict[str, list[int]]  # those that others build on
    shares: dict[str, Share] | None  # of a blend

    @property
    def all(self) -> dict[str, list[int]]:
        """All runs, those that others build on first, each with all of its folds."""
        runs = [*self.silent, *self.speaking]
        return {run: sorted({*self.silent.get(run, ()), *self.speaking.get(run, ())}) for run in runs}

    @property
    def own_fold(self) -> int:
        """The first fold that all speaking runs have: on its validation they can be measured together.

        Raises InputError if there is none.
        """
        if common := set.intersection(*map(set, self.speaking.values())):
            return min(common)
        raise InputError(f"{', '.join(self.speaking)} have no fold in common, on which they could be measured")


def plan(work: Work, name: str, speaking: Mapping[str, list[int]], shares: dict[str, Share] | None) -> Plan:
    """What a release of some runs has to hold. Raises InputError if a run, or one that it builds on, lacks."""
    silent: dict[str, set[int]] = {}
    for run, folds in speaking.items():
        for fold in folds:
            record = require_run(work.run(run, fold), command_of_run("train", run, work, fold))
            for other in record.config.runs if isinstance(record.config, SequenceConfig) else ():
                require_run(work.run(other, fold), command_of_run("train", other, work, fold))
                silent.setdefault(other, set()).add(fold)
    # A run may speak for itself by some folds, and be built on by more of them.
    only = {run: sorted(folds - set(speaking.get(run, ()))) for run, folds in silent.items()}
    order = {run: sorted(folds) for run, folds in speaking.items()}
    return Plan(name, order, {run: folds for run, folds in only.items() if folds}, shares)


def write_runs(folder: Path, work: Work, runs: Mapping[str, list[int]], whole: Collection[str]) -> None:
    """Copy the folds of some runs; those in `whole`, like b2/fold0, as float32, all others as float16.

    Raises InputError if one is damaged, or the folder cannot be written to.
    """
    renamed: dict[str, str] = {}  # the sha256 of weights -> as they travel
    builds_on = {run: isinstance(_config(work, run, folds[0]), SequenceConfig) for run, folds in runs.items()}
    for run in sorted(runs, key=lambda run: builds_on[run]):
        for fold in runs[run]:
            before, target = work.run(run, fold), fold_folder(folder, run, fold)
            change = as_it_is if f"{run}/fold{fold}" in whole else as_half
            copy_run(before, target, change, (FILE,), partial(as_it_travels, renamed=renamed))
            old = require_run(before, "").weights_sha256
            renamed[old] = require_run(target, "").weights_sha256


def as_it_travels(record: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """A run's record without what may name a person or a folder; what it builds on is named as it travels."""
    told = {name: record[name] for name in _TOLD if name in record}
    config, ran, results = dict(told["config"]), dict(told.get("ran", {})), dict(told["results"])
    if config.get("start"):
        config["start"] = PurePath(config["start"]).name
    if ran.get("command"):
        ran["command"] = without_places(ran["command"])
    if "sources" in results:
        sources = results["sources"].items()
        results["sources"] = {PurePath(name).name: renamed.get(sha256, sha256) for name, sha256 in sources}
    return told | {"config": config, "ran": ran, "results": results}


def without_places(command: str) -> str:
    """A command line with PATH in place of every folder and file but the script."""
    first, *words = shlex.split(command)
    told, is_place = [PurePath(first).name], False
    for word in words:
        flag, equals, _ = word.partition("=")
        if word.startswith("--"):
            told.append(f"{flag}=PATH" if equals and (flag in _PLACES or "/" in word) else word)
        else:
            told.append("PATH" if is_place or ("/" in word and not word.startswith("models/")) else word)
        is_place = word in _PLACES or (is_place and not word.startswith("--"))
    return shlex.join(told)


def choose_precision(work: Work, planned: Plan, slices: int, device: str) -> dict[str, dict[str, Any]]:
    """By how much float16 moves what each speaking fold says of its own validation, and what it is kept as.

    By what they are called, b2/fold0: `moved`, `slices`, `kept`, and `parts`, all folds that speak by it. Raises
    InputError as `ask_own`.
    """
    found: dict[str, dict[str, Any]] = {}
    count = sum(map(len, planned.speaking.values()))
    with tempfile.TemporaryDirectory(prefix="release_") as scratch:
        write_runs(Path(scratch), work, planned.all, ())
        for run, folds in planned.speaking.items():
            for fold in folds:
                own = own_slices(work, fold, max(1, slices // count))
                before, after = (
                    find_folds([place]) for place in (work.run(run, fold), fold_folder(Path(scratch), run, fold))
                )
                said = [ask_own(own, folds, None, device).probability for folds in (before, after)]
                moved = float(np.abs(said[0] - said[1]).max())
                kept = "float16" if moved < MOST else "float32"
                parts = sorted(before[0].weights)
                say(f"{run}/fold{fold}: float16 moves a probability by {moved:.1e} at most; kept as {kept}")
                found[f"{run}/fold{fold}"] = {"moved": moved, "slices": len(own.slices), "kept": kept, "parts": parts}
    return found


def whole_parts(precision: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The folds that stay float32: those by which one speaks that float16 would move."""
    return {part for told in precision.values() if told["kept"] == "float32" for part in told["parts"]}


def folds_of(folder: Path, planned: Plan, fold: int) -> list[Fold]:
    """The speaking folds of this number, as they travel. Raises InputError if one is damaged."""
    return [one for run in planned.speaking for one in find_folds([fold_folder(folder, run, fold)])]


def write_counts(folder: Path, patients: np.ndarray, studies: np.ndarray, target: np.ndarray, said: np.ndarray) -> None:
    """Write fingerprint.json of what all runs together say (slices, 6) of slices that they have not learnt from.

    Of their patients and studies (slices,), and labels (slices, 6). Raises InputError if it cannot be written.
    """
    of = pd.Series(studies)
    content = {
        "slices": len(target),
        "patients": len(set(patients)),
        "studies": of.nunique(),
        "positives": int(target[:, ANY].sum()),
        "labels": list(LABELS),
        "spacing": None,
        "pixel": None,
        "of_slices": count_logits(target, said),
        "of_studies": count_logits(*of_studies(of, target, said)),
        "embedding": None,
    }
    write_json(folder / FILE, content, indent=None)


def _config(work: Work, run: str, fold: int) -> Any:
    return require_run(work.run(run, fold), command_of_run("train", run, work, fold)).config
