"""Test predictions of runs -> cache/pseudolabels_<name>_fold<k>.parquet, in which no fold knows whom it validates."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pandas as pd
import tyro

from models.common.errors import InputError
from models.common.files import hash_file, read_parquet, write_parquet
from models.common.folders import Stage, Work, WorkFolder, default_work
from models.common.labels import LABELS
from models.common.repair import command_of_run
from models.inference.parts import require_origin
from models.inference.predictions import align
from models.inference.pseudolabels import Kind, make_labels, report
from models.inference.runs import finished_folds, read_fold
from models.preprocessing.folds import label_shares
from models.preprocessing.origin import describe_synthetic
from models.preprocessing.tables import UNREADABLE, patients_of_fold, read_slices, split_fold
from models.training.run_record import SmoothedRecord, read_record
from models.training.seen import require_unseen


@dataclass(frozen=True)
class PseudolabelOptions:
    """The command line of models/make_pseudolabels.py."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """runs whose test predictions are averaged"""
    kind: Kind = "soft"
    """soft: all probabilities, weighted by confidence; hard: positives alone, which raise the prevalence"""
    threshold: float | None = None
    """hard: probabilities above it are positives; none: 0.9"""
    name: str = "pseudo"
    """of the pseudolabels"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None

    @property
    def least(self) -> float:
        """What probabilities of hard ones are above."""
        return 0.9 if self.threshold is None else self.threshold


def make_pseudolabels(options: PseudolabelOptions) -> None:
    """Write the pseudolabels of every fold that all runs have predicted; a file that is there is left alone.

    Raises InputError if there is no such fold, a run may have trained on patients whom a fold validates on, or a file
    was made in another way.
    """
    if not options.runs or len(set(options.runs)) < len(options.runs):
        raise InputError("name one or more different runs, like b5")
    if not 0 <= options.least < 1:
        raise InputError(f"--threshold {options.least:g} must be at least 0 and below 1")
    if options.kind == "soft" and options.threshold is not None:
        raise InputError("soft pseudolabels have no --threshold; leave it out, or take --kind hard")
    work = Work(options.work, options.stage)
    folds, slices = predicted_folds(work, options.runs), read_slices(work, "test")
    readable = slices[slices["chunk"] != UNREADABLE]
    for fold in folds:
        train_slices, valid_slices = split_fold(work, fold, skip_low_information=False)
        for run in options.runs:
            require_fold_safe(work, run, fold, valid_slices)
        usable = readable[~readable["patient_id"].isin(patients_of_fold(work, fold))]
        table = make_fold(work, fold, usable["image_id"], options)
        print(
            f"{work.pseudolabels(options.name, fold)}: {len(table):,} of {len(slices):,} test slices; left out: "
            f"{len(readable) - len(usable):,} of patients whom the fold validates on, {len(slices) - len(readable):,} "
            "without an image"
        )
        print(describe_synthetic(work), end="")
        print(report(table, len(usable), label_shares(train_slices)).to_string(float_format="{:,.4g}".format))


def predicted_folds(work: Work, runs: tuple[str, ...]) -> list[int]:
    """The folds of which every run has test predictions; where only some runs have them, that is printed.

    Raises InputError, naming the command that predicts, if there is no such fold.
    """
    predicted = {
        run: {fold for fold in finished_folds(work, run) if work.prediction(run, fold, "test").is_file()}
        for run in runs
    }
    common = set.intersection(*predicted.values())
    if not common:
        lacking = min(predicted, key=lambda run: len(predicted[run]))
        raise InputError(
            f"no fold has test predictions of {' and '.join(runs)}; make them with: "
            f"{command_of_run('infer', lacking, work)}"
        )
    for fold in sorted(set.union(*predicted.values()) - common):
        print(
            f"fold {fold} is left out: not predicted by {', '.join(run for run in runs if fold not in predicted[run])}"
        )
    return sorted(common)


def require_fold_safe(work: Work, run: str, fold: int, valid_slices: pd.DataFrame) -> None:
    """Raise InputError if the labels of what a fold validates may have gone into its test predictions."""
    folder = work.run(run, fold)
    require_unseen(folder, valid_slices, work, fold)
    record = read_record(folder)
    if isinstance(record, SmoothedRecord) and record.fitted_on_own:
        raise InputError(
            f"{folder} has a width that is fitted on its own labels; train another fold of {record.run} and "
            f"smooth anew, or name {record.run}"
        )


def make_fold(work: Work, fold: int, image_ids: pd.Series, options: PseudolabelOptions) -> pd.DataFrame:
    """Write the pseudolabels of a fold, or read them where they have been made.

    Raises InputError if that was in another way, or predictions lack.
    """
    file, origin = work.pseudolabels(options.name, fold), origin_of(work, fold, options)
    if file.is_file():
        table = read_parquet(file, "the same command")
        require_origin(file, table, origin)
        return table
    predictions = [
        align(read_fold(work, run, fold, "test"), image_ids, f"runs/{run}, fold {fold}").to_numpy()
        for run in options.runs
    ]
    mean = pd.DataFrame(np.mean(predictions, axis=0), index=pd.Index(image_ids), columns=list(LABELS))
    table = make_labels(mean, options.kind, options.least).reset_index()
    table.attrs = {**origin}  # kept in the file
    write_parquet(file, table)
    return table


def origin_of(work: Work, fold: int, options: PseudolabelOptions) -> dict[str, str]:
    """What the pseudolabels of a fold depend on: options, and the sha256 of files."""
    predictions = {run: work.prediction(run, fold, "test") for run in options.runs}
    files = {f"{run}'s {file.name}": file for run, file in predictions.items()}
    files |= {file.name: file for file in (work.folds, work.metadata("test"))}
    threshold = {"threshold": str(options.least)} if options.kind == "hard" else {}
    settings = {"runs": " ".join(options.runs), "fold": str(fold), "kind": options.kind} | threshold
    return settings | {name: hash_file(file) for name, file in files.items()}
