"""Score predictions beside the prior: every run out-of-fold and the blend, or what is named.

    python models/score.py
    python models/score.py b2 blend
    python models/score.py FILE ... --labels data/stage_2_train.csv --stage 1
    python models/score.py --external cq500 --labels reads.csv --predictions answers

The third line is a local leaderboard: stage_2_train.csv holds the labels of the slices that were the test of stage 1.
The fourth scores what predict.py has answered to a published set, at thresholds that were frozen before, and tells how
far that is from what the networks reached in their own validation (docs/external.md).
Needs cache/ and finished folds in runs/, or prediction files (.parquet) or submissions (.csv) and a label file in
Kaggle's format. Prints a table: weighted log loss, the prior's (the best constant prediction), and the AUC of each
label. Before it, for what is named, the log loss of each label with a 95 % interval from a bootstrap of patients; below
it, where a run and the one that it was made from are both scored (b5_pseudo and b5), their paired difference.
Patients whom a network has trained on are never in one score with others; the cache tells whose a slice is.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from models.common.cli import command
from models.common.errors import InputError
from models.common.folders import Stage, Work, WorkFolder, default_work
from models.common.labels import LABELS
from models.inference.external_names import Set
from models.inference.gained import describe_gains
from models.inference.scored import Scored, print_table, read_everything, read_named
from models.inference.scoring import read_patients
from models.preprocessing.challenge_csv import read_labels
from models.preprocessing.origin import describe_synthetic
from models.preprocessing.pseudonyms import cached_images
from models.preprocessing.tables import read_slices


@dataclass(frozen=True)
class ScoreOptions:
    """The command line of this script."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """prediction files, submissions, names of runs, or blend; none: every run out-of-fold, and the blend"""
    labels: Path | None = None
    """label file in Kaggle's format; none: the labels of metadata_train.parquet in the cache. With --external the
    file, or the folder of masks, that the set is published with"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None
    external: Set | None = None
    """a published set to score answers to (docs/external.md)"""
    predictions: Path | None = None
    """with --external: the folder that predict.py has written its answers to"""
    release: Path | None = None
    """with --external: the release that has answered, whose own figures stand beside"""


def score(options: ScoreOptions) -> None:
    """Print the tables. Raises InputError if there are no predictions, or none of a slice that has a label."""
    work = Work(options.work, options.stage)
    if options.external is not None:
        score_external(options, options.external, work)
        return
    if options.predictions is not None or options.release is not None:
        raise InputError("--predictions and --release belong to a published set; name that with --external")
    labels = read_labels(options.labels)[0] if options.labels else read_slices(work, "train")
    if options.labels:
        labels = labels.assign(image_id=cached_images(work.root, labels["image_id"]))
    labels = labels.set_index("image_id")[list(LABELS)].dropna()
    predictions = [read_named(work, str(file)) for file in options.files] or read_everything(work)
    for each in predictions:
        require_labels(each, labels)
    print(describe_synthetic(work), end="")
    patients = read_patients(work)
    print_table(predictions, labels, patients, work, with_intervals=bool(options.files))
    tables = {each.name: each.table for each in predictions}
    for line in describe_gains(work, tables, labels, patients["patient_id"]):
        print(line)


def score_external(options: ScoreOptions, published: Set, work: Work) -> None:
    """Print how networks do in a published set. Raises InputError for flags that lack, and as `print_external`."""
    if options.labels is None or options.predictions is None:
        raise InputError(f"--external {published} needs the labels of the set, --labels, and answers, --predictions")
    if options.files:
        raise InputError(f"{options.files[0]}: with --external, answers are named with --predictions FOLDER alone")
    from models.reporting.external import print_external  # with scikit-learn, which a misspelt flag does not need

    print_external(published, options.labels, options.predictions, work, options.release)


def require_labels(predictions: Scored, labels: pd.DataFrame) -> None:
    """Raise InputError if predictions hold no slice that has a label."""
    if predictions.table.index.intersection(labels.index).empty:
        raise InputError(f"{predictions.name} holds no slice that has a label; name its file with --labels")


if __name__ == "__main__":
    command(score, ScoreOptions)
