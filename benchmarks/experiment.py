"""What the experiments share: options, a phantom, a folder to work in, and a table of the mean and spread of seeds."""

import json
import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
import torch
from comparison import quiet
from run import commit, describe_machine
from scipy.stats import norm
from scipy.stats import t as student

from models.common.config import RunConfig
from models.common.files import write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import Machine, TestTimeAugmentation, TrainOptions
from models.inference.comparing import Resampled, resample, tails
from models.inference.predictions import align
from models.inference.runs import finished_folds, join_folds, read_fold
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_slices
from models.train_small import CONFIG as SMALL
from models.training.run import train

Trainer = Callable[[RunConfig, Machine], None]
Rows = dict[str, dict[str, float]]  # of each name: mean, spread, and what else there is to tell


@dataclass(frozen=True)
class ExperimentOptions:
    """What the command lines of the experiments share."""

    studies: int
    """of the phantom, to train and validate on"""
    epochs: int
    """of the networks of slices"""
    output: Path
    """the table as JSON"""
    test_studies: int = 1
    """of the phantom, without labels"""
    seeds: int = 3
    """of the networks; the phantom stays the same"""
    folds: int = 2
    """grouped by patient"""
    work: Path | None = None
    """folder for the phantom, the cache and the runs, which are kept; none: a temporary one"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""


class Reported(Protocol):
    """A command line that ends in a table."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def output(self) -> Path:
        """The table as JSON."""
        ...


@contextmanager
def working_folder(folder: Path | None) -> Generator[Path]:
    """The folder that was asked for, which is kept, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def prepare_phantom(folder: Path, options: ExperimentOptions) -> None:
    """Draw the phantom at the size of the small network, and make its cache."""
    with quiet():
        counts = {"studies": options.studies, "test_studies": options.test_studies}
        write_phantom(folder / "data", **counts, image_size=SMALL.image_size, seed=0)
        prepare(PrepareOptions(folder / "data", folder, image_size=(SMALL.image_size,), folds=options.folds))


@contextmanager
def fold_trainer(folds: int, tta: TestTimeAugmentation = "d4") -> Generator[Trainer]:
    """Yield a function that trains all folds of a run at once, each in a process with its share of the cores.

    Small networks make little use of several threads: two folds side by side take less time than one after the other.
    """
    threads = max((os.cpu_count() or 1) // folds, 1)
    with ProcessPoolExecutor(folds, get_context("spawn"), torch.set_num_threads, (threads,)) as processes:

        def train_folds(config: RunConfig, machine: Machine) -> None:
            options = [TrainOptions(config, fold, tta=tta, machine=machine) for fold in range(folds)]
            list(processes.map(train_quietly, options))

        yield train_folds


def train_quietly(options: TrainOptions) -> None:
    """Train a fold without a word; what a process is asked to do."""
    with quiet():
        train(options)


def read_out_of_fold(work: Work, run: str) -> pd.DataFrame:
    """Of all finished folds, indexed by `image_id`, columns LABELS."""
    return join_folds(run, [read_fold(work, run, fold, "valid") for fold in finished_folds(work, run)])


@cache
def known_slices(work: Work) -> pd.DataFrame:
    """The table of training slices, indexed by `image_id`, read once."""
    return read_slices(work, "train").set_index("image_id")


def score(said: pd.DataFrame, work: Work) -> Resampled:
    """Weighted log loss of predictions, indexed by `image_id`, columns LABELS, with its draws of patients."""
    known = align(known_slices(work), said.index.to_series(), "the table of labels")
    return resample(known[list(LABELS)].to_numpy(), said.to_numpy(), known["patient_id"].to_numpy())


def summarise(scored: Sequence[Resampled]) -> dict[str, float]:
    """The mean of the seeds' scores, and their standard deviation."""
    values = [float(of.value[0]) for of in scored]
    return {"mean": round(float(np.mean(values)), 4), "spread": round(float(np.std(values, ddof=1)), 4)}


def paired(ours: Sequence[Resampled], theirs: Sequence[Resampled]) -> dict[str, float]:
    """How much higher our weighted log loss is, the mean of the seeds, and its interval over patients and seeds.

    Each draw has patients of its own, the same for both and in all seeds, and seeds of its own. What differs between
    seeds counts for more the fewer they are, as `tails` does for patients: drawn anew, a few vary less than others
    would. Of a single seed the interval is of patients alone.
    """
    value = float(np.mean([a.value[0] - b.value[0] for a, b in zip(ours, theirs, strict=True)]))
    draws = np.array([a.draws[:, 0] - b.draws[:, 0] for a, b in zip(ours, theirs, strict=True)])  # (seeds, draws)
    seeds = np.random.default_rng(0).integers(len(ours), size=draws.shape)
    means, drawn = draws.mean(axis=0), np.take_along_axis(draws, seeds, axis=0).mean(axis=0)
    low, high = np.percentile(means + _widening(len(ours)) * (drawn - means), tails(ours[0].patients))
    return {name: round(float(number), 4) for name, number in {"worse by": value, "low": low, "high": high}.items()}


def _widening(seeds: int) -> float:
    """How much wider the interval of a mean of so many is than their bootstrap's: Student's t, of n - 1."""
    if seeds < 2:
        return 1.0
    return float(np.sqrt(seeds / (seeds - 1)) * student.ppf(0.975, seeds - 1) / norm.ppf(0.975))


def report(options: Reported, rows: Rows, descriptions: dict[str, str], under: str = "") -> None:
    """Print the table, and write it as JSON with its machine, commit and settings.

    One that is not the usual one stands `under` a name among the others of the file, which stay.
    """
    settings = {name: value for name, value in asdict(options).items() if isinstance(value, int)}
    print(f"{'weighted log loss, out-of-fold':20}{'mean':>10}{'spread':>10}")
    for name, row in rows.items():
        further = "".join(f"; {what} {value}" for what, value in row.items() if what not in ("mean", "spread"))
        print(f"{name:20}{row['mean']:10.4f}{row['spread']:10.4f}   {descriptions[name]}{further}")
    write_results(options.output, {"settings": settings, "rows": rows}, under)


def write_results(output: Path, results: dict[str, Any], under: str = "") -> None:
    """Write a table with its machine and commit as JSON; what is written under another name stays."""
    results = {"machine": describe_machine(), "commit": commit(), **results}
    known = json.loads(output.read_text()) if output.is_file() else {}
    others = known.get("others", {})
    if under:
        written = {**known, "others": {**others, under: results}}
    else:
        written = {**results, **({"others": others} if others else {})}
    write_text(output, json.dumps(written, indent=1) + "\n")
    print(f"{output}: commit {results['commit']}")
