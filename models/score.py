"""Score predictions beside the prior: every run and the blend out-of-fold, or any prediction files.

    python models/score.py
    python models/score.py FILE.parquet ... --labels stage_2_train.csv

Needs cache/ and finished folds in runs/, or prediction files and a label file in Kaggle's format.
Prints a table: weighted log loss, the prior's (the best constant prediction), and the AUC of each label.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from models.cli import command
from models.errors import InputError
from models.inference.predictions import mean_prediction, read_predictions
from models.inference.runs import load_runs
from models.inference.scoring import score_table
from models.labels import LABELS
from models.paths import Work, WorkFolder, default_work
from models.preprocessing.cleaning import read_labels
from models.training.dataset import read_slices


@dataclass(frozen=True)
class ScoreOptions:
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """prediction files; none: every run of the working folder, out-of-fold"""
    labels: Path | None = None
    """label file in Kaggle's format; none: the labels of cache/metadata_train.parquet"""
    work: WorkFolder = field(default_factory=default_work)


def score(options: ScoreOptions) -> None:
    work = Work(options.work)
    labels = read_labels(options.labels)[0] if options.labels else read_slices(work, "train")
    labels = labels.set_index("image_id")[list(LABELS)].dropna()
    if options.files:
        predictions = {str(file): read_predictions(file, "the inference script") for file in options.files}
    else:
        predictions = {run.name: run.out_of_fold for run in load_runs(work)}
    if len(predictions) > 1:
        predictions["blend, equal weights"] = mean_prediction(predictions)
    table = score_table(labels, predictions)
    if table["slices"].eq(0).any():
        raise InputError(
            f"{table.index[table['slices'].eq(0)][0]} holds no slice that has a label; name its file with --labels"
        )
    print(table.to_string(float_format="{:.4f}".format))
    last = table.iloc[-1]
    share = 1 - last["weighted log loss"] / last["prior"]
    print(
        f"{table.index[-1]}: weighted log loss {last['weighted log loss']:.4f}, {share:.0%} below the prior's "
        f"{last['prior']:.4f}; AUC of any {last['AUC any']:.3f} over {last['slices']:,.0f} slices"
    )


if __name__ == "__main__":
    command(score, ScoreOptions)
