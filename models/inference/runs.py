"""Finished runs -> the predictions of all their finished folds. A run that is damaged is left out and named."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.common.repair import command_of, command_of_run
from models.inference.predictions import align
from models.training.run_record import RunRecord, SmoothedRecord, read_record
from models.training.seen import require_same_folds, seen_or_unknown

Loaded = TypeVar("Loaded")


class Run(NamedTuple):
    """The predictions of one run, all its folds together."""

    name: str
    folds: list[int]
    out_of_fold: pd.DataFrame  # one row a validated slice, index image_id, columns LABELS
    test: pd.DataFrame  # the mean over the folds that have test predictions, one row a test slice


def load_runs(work: Work, names: Sequence[str] = ()) -> list[Run]:
    """Read the runs of these names, in their order; without names all that are finished, in the order of theirs.

    Of those that nobody has named, one that cannot be read, or has no test predictions, is left out: a line says so.
    Raises InputError if there is none, and for a named one that cannot be read or has none.
    """
    return _load_each(work, names, _load_run)


def load_out_of_fold(work: Work, names: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """The out-of-fold predictions of runs by name, whether or not they have others. Raises as `load_runs`."""
    return dict(_load_each(work, names, lambda work, name, folds: (name, read_out_of_fold(work, name, folds))))


def read_out_of_fold(work: Work, name: str, folds: list[int]) -> pd.DataFrame:
    """Those of some folds of a run. Raises InputError if they lack, or as `join_folds`."""
    return join_folds(name, [read_fold(work, name, fold, "valid") for fold in folds])


def finished_folds(work: Work, name: str) -> list[int]:
    """The folds of a run that have config.json, sorted.

    Raises InputError if one is damaged, or was trained with other folds than those of the cache.
    """
    numbers = [folder.name.removeprefix("fold") for folder in (work.runs / name).glob("fold*")]
    folds = sorted(int(number) for number in numbers if number.isdecimal())  # fold0_old is none
    finished = [fold for fold in folds if read_record(work.run(name, fold)) is not None]
    require_same_folds(work, name, finished)
    return finished


def require_finished(work: Work, name: str) -> list[int]:
    """The same. Raises InputError, naming the command that trains it, if there is none, too."""
    if folds := finished_folds(work, name):
        return folds
    raise InputError(f"no finished fold in {work.runs / name}; train one with: {command_of_run('train', name, work)}")


def read_fold(work: Work, name: str, fold: int, split: Literal["valid", "test"]) -> pd.DataFrame:
    """The predictions of a finished fold. Raises InputError, naming the command that makes them, if they lack.

    And for smoothed ones if those that they were made from are others now.
    """
    record = read_record(work.run(name, fold))
    if isinstance(record, SmoothedRecord):
        repair = command_of("smooth", record.run, work=work)
        if changed := changed_files(work, record.run, record.predictions_sha256):
            raise InputError(
                f"{work.run(name, fold)} was made from another {record.run}/{changed[0]}; delete {work.runs / name} "
                f"and make it anew with: {repair}"
            )
    elif split == "valid":  # training has written it, and leaves alone what is finished
        repair = f"{command_of_run('train', name, work, fold)}, after deleting {work.run(name, fold)}"
    else:
        repair = command_of_run("infer", name, work, fold)
    return read_predictions(work.prediction(name, fold, split), repair)


def changed_files(work: Work, name: str, hashes: dict[str, str]) -> list[str]:
    """Which files of a run, fold0/valid.parquet, are others now than these hashes; one that is gone tells nothing."""
    files = {file: work.runs / name / file for file in hashes}
    return [file for file, path in files.items() if path.is_file() and hash_file(path) != hashes[file]]


def join_folds(name: str, valid: list[pd.DataFrame]) -> pd.DataFrame:
    """The out-of-fold predictions of a run. Raises InputError if two folds have validated one slice."""
    out_of_fold = pd.concat(valid)
    if (repeated := out_of_fold.index.duplicated()).any():
        raise InputError(
            f"{out_of_fold.index[repeated][0]} is in the validation of two folds of {name}; train them on one folds.csv"
        )
    return out_of_fold


def chosen_on_own_slices(work: Work, name: str, folds: list[int]) -> list[str]:
    """What of a run was chosen on the slices that it is scored on, in words: its score is better than it is.

    So may be weights of elsewhere that it started from, if nobody has noted whom they have seen. Raises InputError if a
    record, or a note, is damaged.
    """
    records = {fold: record for fold in folds if (record := read_record(work.run(name, fold))) is not None}
    widths = [fold for fold, record in records.items() if isinstance(record, SmoothedRecord) and record.fitted_on_own]
    epochs = [fold for fold, record in records.items() if "best_epoch" in _results(work, record, fold)]
    named = {"the epoch whose weights are kept": epochs, "the width of the smoothing": widths}
    for fold in folds:
        for start in sorted(seen_or_unknown(work.run(name, fold)).unknown):
            if "/" not in start:  # a run of this folder has validated on them
                named.setdefault(f"perhaps {start}, of which nobody has noted whom it was trained on", []).append(fold)
    return [f"{what}, of {describe_folds(of)}" for what, of in named.items() if of]


def describe_folds(folds: list[int]) -> str:
    """Fold 0, or folds 0, 1 and 3."""
    *others, last = map(str, folds)
    return f"folds {', '.join(others)} and {last}" if others else f"fold {last}"


def _results(work: Work, record: RunRecord | SmoothedRecord, fold: int) -> dict:
    of_network = read_record(work.run(record.run, fold)) if isinstance(record, SmoothedRecord) else record
    return of_network.results if isinstance(of_network, RunRecord) else {}


def _load_each(work: Work, names: Sequence[str], load: Callable[[Work, str, list[int]], Loaded]) -> list[Loaded]:
    if names:
        return [load(work, name, require_finished(work, name)) for name in names]
    loaded, left_out = [], {}
    for name in sorted(folder.name for folder in work.runs.iterdir() if folder.is_dir()) if work.runs.is_dir() else []:
        try:
            if folds := finished_folds(work, name):
                loaded.append(load(work, name, folds))
        except InputError as error:
            left_out[name] = error
    if not loaded:
        train = command_of_run("train", "small", work)
        raise next(iter(left_out.values()), InputError(f"no finished run in {work.runs}; train one with: {train}"))
    for name, error in left_out.items():
        print(f"{name} is left out: {error}")
    return loaded


def _load_run(work: Work, name: str, folds: list[int]) -> Run:
    out_of_fold = read_out_of_fold(work, name, folds)
    predicted = [fold for fold in folds if work.prediction(name, fold, "test").is_file()]
    test = [read_fold(work, name, fold, "test") for fold in predicted or folds]  # if none has them, that is an error
    if lacking := [fold for fold in folds if fold not in predicted]:
        repair = command_of_run("infer", name, work, lacking[0])
        print(f"{name}: its test predictions are those of {describe_folds(predicted)}; the others lack: {repair}")
    image_ids = pd.concat(test).index.unique().to_series()
    means = np.mean([align(fold, image_ids, f"runs/{name}: a fold's test file").to_numpy() for fold in test], axis=0)
    return Run(name, folds, out_of_fold, pd.DataFrame(means, index=image_ids.index, columns=list(LABELS)))
