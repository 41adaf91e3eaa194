"""Score predictions beside the prior: every run and the blend out-of-fold, or any prediction files or submissions.

    python models/score.py
    python models/score.py FILE ... --labels data/stage_2_train.csv --stage 1

The second line is a local leaderboard: stage_2_train.csv holds the labels of the slices that were the test of stage 1.
Needs cache/ and finished folds in runs/, or prediction files (.parquet) or submissions (.csv) and a label file in
Kaggle's format. Prints a table: weighted log loss, the prior's (the best constant prediction), and the AUC of each
label. Before it, for each named file, the log loss of each label with a 95 % interval from a bootstrap of patients: of
all slices, of those of patients who are also in train, and of the others. The cache tells whose a slice is.
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
from models.inference.predictions import mean_prediction, read_probabilities
from models.inference.runs import load_runs
from models.inference.scoring import in_common, read_patients, score_parts, score_table
from models.preprocessing.challenge_csv import read_labels
from models.preprocessing.pseudonyms import cached_images
from models.preprocessing.tables import PREPARE, read_slices
from models.training.scoring import label_table


@dataclass(frozen=True)
class ScoreOptions:
    """The command line of this script."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """prediction files or submissions; none: every run of the working folder, out-of-fold"""
    labels: Path | None = None
    """label file in Kaggle's format; none: the labels of metadata_train.parquet in the cache"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None


def score(options: ScoreOptions) -> None:
    """Print the tables. Raises InputError if there are no predictions, or none of a slice that has a label."""
    work = Work(options.work, options.stage)
    labels = read_labels(options.labels)[0] if options.labels else read_slices(work, "train")
    if options.labels:
        labels = labels.assign(image_id=cached_images(work.root, labels["image_id"]))
    labels = labels.set_index("image_id")[list(LABELS)].dropna()
    if options.files:
        predictions = {str(file): read_probabilities(file) for file in options.files}
        for name, table in predictions.items():
            if name.endswith(".csv"):  # a submission, which names the images as the files do
                images = cached_images(work.root, table.index.to_series())
                predictions[name] = table.set_index(pd.Index(images, name="image_id"))
    else:
        predictions = {run.name: run.out_of_fold for run in load_runs(work)}
    if len(predictions) > 1:
        predictions["blend, equal weights"] = mean_prediction(predictions)
    table = score_table(labels, predictions)
    if table["slices"].eq(0).any():
        raise InputError(
            f"{table.index[table['slices'].eq(0)][0]} holds no slice that has a label; name its file with --labels"
        )
    if options.files:
        patients = read_patients(work)
        for name, probabilities in predictions.items():
            print_labels(name, labels, probabilities, patients)
    print(table.to_string(float_format="{:.4f}".format))
    last = table.iloc[-1]
    share = 1 - last["weighted log loss"] / last["prior"]
    print(
        f"{table.index[-1]}: weighted log loss {last['weighted log loss']:.4f}, {share:.0%} below the prior's "
        f"{last['prior']:.4f}; AUC of any {last['AUC any']:.3f} over {last['slices']:,.0f} slices"
    )


def print_labels(name: str, labels: pd.DataFrame, predictions: pd.DataFrame, patients: pd.DataFrame) -> None:
    """The log loss of each label: with intervals, and by kind of patient too, where the cache knows all patients."""
    slices, target, probability = in_common(labels, predictions)
    print(
        f"{name}: {len(slices):,} of {len(predictions):,} predicted slices have a label, {len(slices):,} of "
        f"{len(labels):,} labelled slices a prediction"
    )
    patients = patients.reindex(slices)
    unknown = patients["patient_id"].isna().sum()
    if unknown:
        print(
            f"no intervals: the patient of {unknown:,} of these slices is not in the cache; name another with --work "
            f"or --stage, or make it with: {PREPARE}"
        )
        parts = {f"all: {len(slices):,} slices": label_table(target, probability)}
    else:
        parts = score_parts(target, probability, patients)
    for part, table in parts.items():
        print(f"{part}\n{table.to_string(float_format='{:.4f}'.format, na_rep='')}\n")


if __name__ == "__main__":
    command(score, ScoreOptions)
