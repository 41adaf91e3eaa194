"""What each part of the recipe is worth, one change at a time: out-of-fold scores beside a base, on a phantom.

    python benchmarks/ablation.py --work scratch                    # writes benchmarks/ablation.json; goes on there
    python benchmarks/ablation.py --work scratch --hours 2          # begins no run after two hours
    python benchmarks/ablation.py --work scratch --hours 0 --people ../shared/rsna_sample    # the same on people, too
    python benchmarks/ablation.py --work large --studies 1000 --epochs 16 --folds 5 --device cuda    # for a GPU

The small network and EfficientNet-Lite0 at 64 px, folds grouped by patient, five seeds. A row is the weighted log loss
of one change, its mean over the seeds, and how much it is worse than what it stands beside: the mean of the seeds, with
a 95 % interval over drawn patients and drawn seeds, paired. One of which the interval holds zero is "no effect". Where
a run is there it is not trained again; all that is finished is in the table. With labelled studies of people the table
tells, too, how much each change is worse on them, of whom no network has seen one, and of how many changes the sign is
the same.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from ablation_changes import CHANGES, NETWORKS, NOT_SWITCHED, VIEWS, config_of, judge_of, predict_again, train_cell
from ablation_people import agreement, compare, predict_people
from comparison import quiet
from experiment import (
    ExperimentOptions,
    paired,
    prepare_phantom,
    read_out_of_fold,
    score,
    working_folder,
    write_results,
)
from tqdm.auto import tqdm

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.files import write_parquet, write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import Machine, TrainOptions
from models.inference.comparing import Resampled
from models.inference.smoothed_run import SmoothOptions, smooth_run

RESULTS = Path(__file__).parent / "ablation.json"
THREADS = 1  # of each process: a small network makes little use of more


@dataclass(frozen=True)
class AblationOptions(ExperimentOptions):
    """The command line of this benchmark."""

    studies: int = 110
    epochs: int = 4
    output: Path = RESULTS
    seeds: int = 5
    folds: int = 2
    only: tuple[str, ...] = ()
    """some changes, beside the base; none: all"""
    networks: tuple[str, ...] = tuple(NETWORKS)
    hours: float = 2.0
    """begin nothing new after so many"""
    processes: int = 2
    """folds that are trained side by side"""
    people: Path | None = None
    """folder of labelled studies of people, in Kaggle's layout"""


class Cell(NamedTuple):
    """A change of a network with a seed."""

    network: str
    change: str
    seed: int

    @property
    def name(self) -> str:
        """That of its run."""
        return f"{self.network}_{self.change}_{self.seed}"


def main(options: AblationOptions) -> None:
    """Train and predict as many cells as there is time for; print the table of all that is there, and write it."""
    began = time.monotonic()
    with working_folder(options.work) as folder:
        work = Work(folder)
        prepare_phantom(folder, options)
        (folder / "cells").mkdir(exist_ok=True)
        left = 0
        with ProcessPoolExecutor(options.processes, get_context("spawn"), torch.set_num_threads, (THREADS,)) as pool:
            for cell in tqdm(list(plan(options)), desc="cells"):
                if is_finished(cell, work):
                    continue
                if time.monotonic() - began > 3600 * options.hours:
                    left += 1
                    continue
                seconds = make_cell(cell, work, options, pool)
                write_text(note_of(cell, work), json.dumps({"s CPU": round(seconds, 1)}))
            people = None
            if options.people is not None:
                runs = [cell.name for cell in plan(options) if is_finished(cell, work) and is_trained(cell)]
                people = predict_people(runs, work, options.people, options.folds, options.device, pool)
        report(work, people, options)
    if left:
        print(f"{left} cells are left; the same command goes on with them")


def plan(options: AblationOptions) -> Iterator[Cell]:
    """All cells, seed by seed, so that whatever there is time for has all changes; each after what it stands beside."""
    for seed in range(options.seeds):
        for network in options.networks:
            for change, of in CHANGES.items():
                wanted = not options.only or change in (*options.only, *needed_by(options.only))
                if wanted and network in of.networks and (change != "noisy_labels" or options.folds > 2):
                    yield Cell(network, change, seed)


def needed_by(changes: tuple[str, ...]) -> set[str]:
    """What some changes stand beside."""
    beside = {CHANGES[change].beside for change in changes} | {"base"}
    return beside if beside <= set(changes) | {"base"} else beside | needed_by(tuple(beside))


def make_cell(cell: Cell, work: Work, options: AblationOptions, pool: ProcessPoolExecutor) -> float:
    """Train the folds of a cell, or predict those of another one otherwise; the CPU seconds that it has taken."""
    change = CHANGES[cell.change]
    if not change.again:
        jobs = list(judge_options(cell, work, options)) if cell.change == "noisy_labels" else []
        took = list(pool.map(train_cell, jobs, [""] * len(jobs)))
        return sum(took) + sum(
            pool.map(train_cell, fold_options(cell, work, options), [change.patched] * options.folds)
        )
    trained = cell._replace(change="crop" if change.again == "whole" else "base")
    if change.again == "smoothed":
        began = time.process_time()
        with quiet():
            smooth_run(SmoothOptions(trained.name, work.root))
        made = [(read_out_of_fold(work, f"{trained.name}_smoothed"), time.process_time() - began)]
    else:
        made = list(pool.map(predict_again, fold_options(trained, work, options), [change.again] * options.folds))
    tables, took = zip(*made, strict=True)
    write_parquet(work.root / "cells" / f"{cell.name}.parquet", pd.concat(tables).reset_index())
    return sum(took)


def fold_options(cell: Cell, work: Work, options: AblationOptions) -> list[TrainOptions]:
    """The trainings of a cell, or where those are that it predicts with."""
    machine = Machine(work.root, device=options.device, workers=0)
    configs = [config_of(*cell, options.epochs, fold) for fold in range(options.folds)]
    return [TrainOptions(config, fold, tta=VIEWS, machine=machine) for fold, config in enumerate(configs)]


def judge_options(cell: Cell, work: Work, options: AblationOptions) -> Iterator[TrainOptions]:
    """The trainings that judge labels: for each fold all others, without it."""
    for fold in range(options.folds):
        name = judge_of(cell.network, cell.seed, fold)
        for base in fold_options(cell._replace(change="base"), work, options):
            if base.fold != fold:
                assert isinstance(base.config, TrainConfig)
                yield replace(base, config=replace(base.config, name=name, without=fold), tta="none")


# ---- the table ----


def report(work: Work, people: Work | None, options: AblationOptions) -> None:
    """Print a row for each change of each network that is finished, and write them as JSON.

    `people` is where their networks have predicted people, if they have.
    """
    rows = {
        f"{network} {change}": row
        for network in options.networks
        for change in CHANGES
        if (row := row_of(network, change, work, people, options))
    }
    for name, row in rows.items():
        change, beyond = CHANGES[name.split()[1]], ""
        if "of people worse by" in row:
            beyond = f"{row['of people worse by']:+9.4f} on people"
        print(f"{name:30}{row['mean']:9.4f}{describe(row):40}{row['s CPU']:7.0f} s CPU{beyond}   {change.what}")
    settings = {name: value for name, value in asdict(options).items() if isinstance(value, int)}
    agreed = agreement(rows)
    for name, count in agreed.items():
        print(f"{name}: {count}")
    told = {name: about(name.split()[1]) | row for name, row in rows.items()}
    results = {"settings": settings, "agreement": agreed, "not_switched": NOT_SWITCHED, "rows": told}
    write_results(options.output, results, another_plan(options))


def another_plan(options: AblationOptions) -> str:
    """What is otherwise than usual, under which name its table stands among the others; empty where nothing is."""
    asked = {name: (getattr(options, name), getattr(AblationOptions, name)) for name in ("studies", "epochs", "folds")}
    return ", ".join(f"{ours} {name}" for name, (ours, usual) in asked.items() if ours != usual)


def about(change: str) -> dict[str, str]:
    """What is changed, and which row it stands beside."""
    return {"what": CHANGES[change].what, "beside": CHANGES[change].beside}


def predictions(cell: Cell, work: Work, folds: int) -> pd.DataFrame:
    """Out-of-fold predictions of a cell, indexed and sorted by `image_id`, columns LABELS."""
    if CHANGES[cell.change].again:
        files = [work.root / "cells" / f"{cell.name}.parquet"]
    else:
        files = [work.run(cell.name, fold) / "valid.parquet" for fold in range(folds)]
    return pd.concat([pd.read_parquet(file) for file in files]).set_index("image_id").sort_index()[list(LABELS)]


def row_of(
    network: str, change: str, work: Work, people: Work | None, options: AblationOptions
) -> dict[str, float | int]:
    """A row of the table, of the seeds that are finished; empty where there is none."""
    finished = [cell for seed in range(options.seeds) if is_finished(cell := Cell(network, change, seed), work)]
    if not finished:
        return {}
    beside = [cell._replace(change=CHANGES[change].beside) for cell in finished]
    ours = [scored(cell, work, options.folds) for cell in finished]
    seconds = float(np.mean([json.loads(note_of(cell, work).read_text())["s CPU"] for cell in finished]))
    scores = [float(of.value[0]) for of in ours]
    row = {"seeds": len(finished), "mean": round(float(np.mean(scores)), 4), "s CPU": round(seconds, 1)}
    if change == "base":
        return row
    row |= paired(ours, [scored(cell, work, options.folds) for cell in beside])
    if people and is_trained(finished[0]) and not CHANGES[change].scored_on_seen:
        row |= compare(people, [cell.name for cell in finished], [cell.name for cell in beside], options.folds)
    return row


@cache
def scored(cell: Cell, work: Work, folds: int) -> Resampled:
    """The out-of-fold loss of a cell."""
    return score(predictions(cell, work, folds), work)


def is_trained(cell: Cell) -> bool:
    """Whether a cell has networks of its own, and is not another one's predicted otherwise."""
    return not CHANGES[cell.change].again


def is_finished(cell: Cell, work: Work) -> bool:
    """Whether a cell is there."""
    return note_of(cell, work).is_file()


def note_of(cell: Cell, work: Work) -> Path:
    """Where it stands that a cell is finished, and how long it took."""
    return work.root / "cells" / f"{cell.name}.json"


def describe(row: dict[str, float | int]) -> str:
    """By how much a change is worse, with the interval, and what that is called."""
    if "worse by" not in row:
        return ""
    word = "worse" if row["low"] > 0 else "better" if row["high"] < 0 else "no effect"
    return f"{row['worse by']:+9.4f} ({row['low']:+.4f} to {row['high']:+.4f}) {word}"


if __name__ == "__main__":
    command(main, AblationOptions)
