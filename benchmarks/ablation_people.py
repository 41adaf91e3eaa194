"""The networks of the ablation, which have learnt from drawings alone, on labelled studies of people."""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
from ablation_changes import VIEWS
from comparison import quiet

from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine
from models.inference.predict import infer
from models.preprocessing.preparation import PrepareOptions, prepare
from models.train_small import CONFIG as SMALL


def predict_people(
    runs: Iterable[str], work: Work, data: Path, folds: int, device: str, pool: ProcessPoolExecutor
) -> Work:
    """The working folder, within that of the ablation, in which all folds of runs have predicted people.

    What is there is not predicted again. Raises InputError for a folder that holds no head CT.
    """
    people = Work(work.root / "people")
    with quiet():
        prepare(PrepareOptions(data, people.root, image_size=(SMALL.image_size,)))
    machine = Machine(people.root, device=device, workers=0)
    wanted = [
        InferOptions(run, fold, VIEWS, "train", weights=work.run(run, fold), machine=machine)
        for run in runs
        for fold in range(folds)
    ]
    list(pool.map(_infer_quietly, wanted))
    return people


def mean_of_folds(people: Work, run: str, folds: int) -> pd.DataFrame:
    """What a run says of people, indexed by `image_id`, columns LABELS: the mean of its folds, which saw none."""
    tables = [pd.read_parquet(people.prediction(run, fold, "train")) for fold in range(folds)]
    return pd.concat(tables).groupby("image_id")[list(LABELS)].mean()


def agreement(rows: dict[str, dict[str, float | int]]) -> dict[str, int]:
    """Of how many changes the sign is the same on people as on drawings: of all, and of those that are proven there.

    `rows` have "worse by" on drawings, and "of people worse by" on people; nothing is told where none has.
    """
    signed = [row for row in rows.values() if "of people worse by" in row]
    proven = [row for row in signed if row["low"] > 0 or row["high"] < 0]
    told: dict[str, int] = {}
    for name, some in {"changes": signed, "proven on drawings": proven}.items() if signed else ():
        told[name] = len(some)
        told[f"{name}, same sign on people"] = sum(row["worse by"] * row["of people worse by"] > 0 for row in some)
    return told


def _infer_quietly(options: InferOptions) -> None:
    with quiet():
        infer(options)
