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
the same. What each cell scores is kept beside the table, patient by patient: a seed that is whole there is not trained
again in another folder either, so that seeds can be added day by day, or on several machines.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ablation_changes import CHANGES, NETWORKS, NOT_SWITCHED, VIEWS, config_of, judge_of, predict_again, train_cell
from ablation_kept import CELL, COLUMNS, DRAWINGS, PEOPLE, Cell, keep, patient_losses, read_kept, resampled
from ablation_people import agreement, mean_of_folds, predict_people
from comparison import quiet
from experiment import ExperimentOptions, paired, prepare_phantom, read_out_of_fold, working_folder, write_results
from run import commit
from tqdm.auto import tqdm

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.files import write_parquet, write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import Machine, TrainOptions
from models.inference.comparing import Resampled
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.phantom.dicom import VERSION

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


def main(options: AblationOptions) -> None:
    """Train and predict as many cells as there is time for; print the table of all that is kept, and write it."""
    due = cells_due(options)
    if due:
        with working_folder(options.work) as folder:
            measured = measure(due, Work(folder), options)
        if len(measured):
            keep(file_of(options), measured)
        if left := len(due) - measured.groupby(CELL).ngroups:
            print(f"{left} cells are left; the same command goes on with them")
    report(options)


def cells_due(options: AblationOptions) -> list[Cell]:
    """The cells of those seeds and networks of which the file beside the table lacks any."""
    kept = read_kept(file_of(options), name_of_plan(options))
    there = {whom: set(of[CELL].itertuples(index=False, name=None)) for whom, of in kept.groupby("whom")}
    wanted = list(plan(options))
    lacking = {
        (cell.network, cell.seed)
        for cell in wanted
        for whom in (DRAWINGS, PEOPLE if options.people and is_trained(cell) else DRAWINGS)
        if cell not in there.get(whom, set())
    }
    return [cell for cell in wanted if (cell.network, cell.seed) in lacking]


def measure(cells: list[Cell], work: Work, options: AblationOptions) -> pd.DataFrame:
    """Make what is not there of cells while there is time, and give what those that are there score, to be kept."""
    began = time.monotonic()
    prepare_phantom(work.root, options)
    (work.root / "cells").mkdir(exist_ok=True)
    with ProcessPoolExecutor(options.processes, get_context("spawn"), torch.set_num_threads, (THREADS,)) as pool:
        for cell in tqdm(cells, desc="cells"):
            if not is_finished(cell, work) and time.monotonic() - began <= 3600 * options.hours:
                seconds = make_cell(cell, work, options, pool)
                write_text(note_of(cell, work), json.dumps({"s CPU": round(seconds, 1), "commit": commit()}))
        finished = [cell for cell in cells if is_finished(cell, work)]
        people = None
        if options.people is not None:
            runs = [cell.name for cell in finished if is_trained(cell)]
            people = predict_people(runs, work, options.people, options.folds, options.device, pool)
    tables = [scored(cell, work, people, options) for cell in finished]
    return pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)


def scored(cell: Cell, work: Work, people: Work | None, options: AblationOptions) -> pd.DataFrame:
    """What a finished cell scores on drawings and, if it has networks that have predicted people, on them."""
    told = {"plan": name_of_plan(options), **cell._asdict(), **json.loads(note_of(cell, work).read_text())}
    losses = {DRAWINGS: patient_losses(predictions(cell, work, options.folds), work)}
    if people is not None and is_trained(cell):
        losses[PEOPLE] = patient_losses(mean_of_folds(people, cell.name, options.folds), people)
    return pd.concat([of.assign(**told, whom=whom) for whom, of in losses.items()])[COLUMNS]


def file_of(options: AblationOptions) -> Path:
    """Where it is kept what each cell scores, beside the table."""
    return options.output.with_name(f"{options.output.stem}_patients.parquet")


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


def report(options: AblationOptions) -> None:
    """Print a row for each change of each network that is kept, and write them as JSON."""
    kept = read_kept(file_of(options), name_of_plan(options)).query("seed < @options.seeds")
    cells = {Cell(*name): of for name, of in kept.groupby(CELL)}
    rows = {
        f"{network} {change}": row
        for network in options.networks
        for change in CHANGES
        if (row := row_of(network, change, cells))
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
    of_cells = {"settings": settings, "commits of the cells": sorted(kept["commit"].unique())}
    results = of_cells | {"agreement": agreed, "not_switched": NOT_SWITCHED, "rows": told}
    write_results(options.output, results, another_plan(options))


def name_of_plan(options: AblationOptions) -> str:
    """What cells have in common that can be compared."""
    return f"drawing {VERSION}, {options.studies} studies, {options.epochs} epochs, {options.folds} folds"


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


def row_of(network: str, change: str, cells: dict[Cell, pd.DataFrame]) -> dict[str, float | int]:
    """A row of the table, of the seeds that are kept; empty where there is none."""
    ours = [cell for cell in cells if (cell.network, cell.change) == (network, change)]
    if not ours:
        return {}
    scores = [float(losses_on(DRAWINGS, cells[cell]).value[0]) for cell in ours]
    seconds = float(np.mean([cells[cell]["s CPU"].iloc[0] for cell in ours]))
    row = {"seeds": len(ours), "mean": round(float(np.mean(scores)), 4), "s CPU": round(seconds, 1)}
    if change == "base":
        return row
    for whom, prefix in {DRAWINGS: "", PEOPLE: "of people "}.items():
        if whom == PEOPLE and CHANGES[change].scored_on_seen:
            continue
        pairs = [(cells[cell], cells[cell._replace(change=CHANGES[change].beside)]) for cell in ours]
        told = [pair for pair in pairs if all(whom in set(of["whom"]) for of in pair)]
        if told:
            beside = paired(*([losses_on(whom, of) for of in side] for side in zip(*told, strict=True)))
            row |= {f"{prefix}{name}": value for name, value in beside.items()}
    return row


def losses_on(whom: str, cell: pd.DataFrame) -> Resampled:
    """The loss of what is kept of a cell."""
    return resampled(cell[cell["whom"] == whom])


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
