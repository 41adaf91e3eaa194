"""Finished runs -> the predictions of all their folds."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.inference.predictions import align
from models.training.run_record import SmoothedRecord, read_record
from models.training.seen import require_same_folds


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


def finished_folds(work: Work, name: str) -> list[int]:
    """The folds of a run that have config.json, sorted.

    Raises InputError if one is damaged, or was trained with other folds than those of the cache.
    """
    numbers = [folder.name.removeprefix("fold") for folder in (work.runs / name).glob("fold*")]
    folds = sorted(int(number) for number in numbers if number.isdecimal())  # fold0_old is none
    finished = [fold for fold in folds if read_record(work.run(name, fold)) is not None]
    require_same_folds(work, name, finished)
    return finished


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
