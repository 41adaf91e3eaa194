"""Runs -> one blend -> submission.csv."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from models.errors import InputError
from models.inference.predictions import align, read_predictions
from models.labels import LABELS
from models.paths import Work, write_csv
from models.training.checkpoint import SmoothedRecord, read_record

# blending.ipynb of the original: 0.4 for the mean of five B2 folds, 0.2 for the finetuned B5, and so on.
ORIGINAL_WEIGHTS = {"b2": 0.4, "b5": 0.2, "b0": 0.2, "b0_224": 0.1, "resnext101": 0.1}


class Run(NamedTuple):
    """The predictions of one run, all its folds together."""

    name: str
    folds: list[int]
    out_of_fold: pd.DataFrame  # one row a validated slice, index image_id, columns LABELS
    test: pd.DataFrame  # the mean over the folds, one row a test slice


def load_runs(work: Work) -> list[Run]:
    """Read every finished run below runs/, in the order of their names.

    Raises InputError if there is none, if a fold has no test predictions, or if folds disagree about the slices.
    """
    names = sorted(folder.name for folder in work.runs.iterdir() if folder.is_dir()) if work.runs.is_dir() else []
    runs = [_load_run(work, name, folds) for name in names if (folds := finished_folds(work, name))]
    if not runs:
        raise InputError(f"no finished run in {work.runs}; train one with: python models/train_small.py")
    return runs


def normalised(weights: dict[str, float], runs: list[Run]) -> dict[str, float]:
    """The weights of those runs that are there, scaled to a sum of 1. Raises InputError if none of them has any."""
    present = {run.name: weights[run.name] for run in runs if weights.get(run.name, 0) > 0}
    if not present:
        raise InputError(
            f"none of the runs {[run.name for run in runs]} has a weight; weights are for {sorted(weights)}"
        )
    return {name: weight / sum(present.values()) for name, weight in present.items()}


def equal_weights(runs: list[Run]) -> dict[str, float]:
    return {run.name: 1 / len(runs) for run in runs}


def blend(predictions: dict[str, pd.DataFrame], weights: dict[str, float]) -> pd.DataFrame:
    """Weighted mean of predictions, aligned by `image_id`; a slice that some lack gets the mean of the others.

    Weights are taken relative to the sum of those of the runs that have the slice.
    """
    image_ids = pd.Index(sorted(set().union(*(predictions[name].index for name in weights))), name="image_id")
    total = np.zeros((len(image_ids), len(LABELS)))
    mass = np.zeros((len(image_ids), 1))
    for name, weight in weights.items():
        values = predictions[name].reindex(image_ids)
        total += weight * values.fillna(0).to_numpy()
        mass += weight * values.notna().to_numpy()[:, :1]
    return pd.DataFrame((total / mass).astype(np.float32), index=image_ids, columns=list(LABELS))


def write_submission(file: Path, predictions: pd.DataFrame, submission_ids: pd.Series) -> pd.DataFrame:
    """Write `ID,Label` with exactly the IDs of the sample submission, in its order; returns what was written.

    Raises InputError if a slice lacks or a value is not a probability; then nothing is written.
    """
    parts = submission_ids.str.rsplit("_", n=1)
    slices = align(predictions, parts.str[0], "the blend").to_numpy()  # (rows, 6): a slice's six labels in each row
    column = pd.Index(LABELS).get_indexer(parts.str[1])
    values = np.take_along_axis(slices, column[:, None], axis=1)[:, 0]
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"the blend holds a value that is no probability; {file} is not written")
    table = pd.DataFrame({"ID": submission_ids.to_numpy(), "Label": values})
    write_csv(file, table)
    return table


def finished_folds(work: Work, name: str) -> list[int]:
    """The folds of a run that have config.json, sorted. Raises InputError if one is damaged."""
    numbers = [folder.name.removeprefix("fold") for folder in (work.runs / name).glob("fold*")]
    folds = sorted(int(number) for number in numbers if number.isdecimal())  # fold0_old is none
    return [fold for fold in folds if read_record(work.run(name, fold)) is not None]


def read_fold(work: Work, name: str, fold: int, split: Literal["valid", "test"]) -> pd.DataFrame:
    """The predictions of a finished fold. Raises InputError, naming the command that makes them, if they lack."""
    record = read_record(work.run(name, fold))
    if isinstance(record, SmoothedRecord):
        repair = f"python models/smooth.py {record.run}"
    else:
        repair = f"python models/{'train' if split == 'valid' else 'infer'}_{name}.py --fold {fold}"
    return read_predictions(work.prediction(name, fold, split), repair + work.flag)


def join_folds(name: str, valid: list[pd.DataFrame]) -> pd.DataFrame:
    """The out-of-fold predictions of a run. Raises InputError if two folds have validated one slice."""
    out_of_fold = pd.concat(valid)
    if (repeated := out_of_fold.index.duplicated()).any():
        raise InputError(
            f"{out_of_fold.index[repeated][0]} is in the validation of two folds of {name}; train them on one folds.csv"
        )
    return out_of_fold


def _load_run(work: Work, name: str, folds: list[int]) -> Run:
    out_of_fold = join_folds(name, [read_fold(work, name, fold, "valid") for fold in folds])
    test = [read_fold(work, name, fold, "test") for fold in folds]
    image_ids = pd.concat(test).index.unique().to_series()
    means = np.mean([align(fold, image_ids, f"runs/{name}: a fold's test file").to_numpy() for fold in test], axis=0)
    return Run(name, folds, out_of_fold, pd.DataFrame(means, index=image_ids.index, columns=list(LABELS)))
