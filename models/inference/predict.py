"""The weights of a fold -> probabilities of the test slices."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from models.common.cli import command
from models.common.config import Machine, RunConfig, SequenceConfig
from models.common.errors import InputError
from models.common.files import read_parquet, require_writable, write_parquet
from models.common.locks import only_process
from models.inference.parts import REPAIR, Parts, require_origin
from models.inference.predictions import fill_unreadable
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.d4 import GROUPS, mean_probability
from models.training.evaluation import View, predict_batches, single_view
from models.training.kinds import build, make_dataset, make_inputs, source_weights
from models.training.loading import make_loader
from models.training.processes import Processes, count_workers, started_processes
from models.training.recurrent import both_ways
from models.training.run_record import RunRecord, read_run
from models.training.stopping import Interrupted, Stop, same_command, stop_signals
from models.training.weights import load_trained

LISTED = 10  # names in a message; all of them stand in cache/problems.csv


@dataclass(frozen=True)
class InferOptions:
    name: str
    """the run"""
    fold: int = 0
    """the fold whose weights to use"""
    tta: Literal["none", "flip", "d4"] = "d4"
    """test-time augmentation: one, two or eight symmetries; over embeddings: studies as they are, or upside down too"""
    split: Literal["test", "train"] = "test"
    """the slices to predict; "train" is for a network that was trained on other data"""
    weights: Path | None = None
    """the folder of a fold that was trained elsewhere; none: runs/<name>/fold<fold> of the working folder"""
    batch_size: int = 32
    """slices at a time; studies, where a network looks at studies"""
    checkpoint_minutes: float = 5
    """what is predicted is saved every so many minutes, and the same command goes on after it"""
    machine: Machine = field(default_factory=Machine)


def main(name: str) -> None:
    """The command line of an inference script."""
    command(infer, InferOptions(name))


def infer(options: InferOptions) -> None:
    """Write a prediction file of a fold, one row for every slice of the metadata; one that is there is left alone.

    What is predicted already when it is cut short is kept, and the same command goes on after it. Raises InputError if
    the fold has not been trained, the cache lacks its image size, or another process predicts the same.
    """
    output = options.machine.working_folder.prediction(options.name, options.fold, options.split)
    folder = options.weights or output.parent
    with started_processes(options.machine.device) as processes, stop_signals() as stop, ExitStack() as held:
        try:
            record = processes.on_main(lambda: finished_run(folder, options))
            parts = Parts(output, {"tta": options.tta, "weights_sha256": record.weights_sha256})
            if processes.on_main(lambda: is_finished(output, parts)):
                return
            processes.on_main(lambda: held.enter_context(only_inference(output)))
            slices = processes.main_first(lambda: read_slices(options.machine.working_folder, options.split))
            readable = slices[slices["chunk"] != UNREADABLE]
            missing = readable[~readable["image_id"].isin(processes.on_main(parts.read).index)]
            if len(missing):
                processes.on_main(lambda: require_sources(record, folder))  # before hours of extraction
                make_inputs(record.config, slices, folder, options.machine, processes)
                print(f"{output}: {len(missing):,} of {len(slices):,} slices to predict")
                predict_missing(missing, record, folder, parts, options, processes, stop)
            processes.wait()
            processes.on_main(lambda: write_predictions(output, slices, parts, record))
        except Interrupted as interrupted:
            print(f"{output}: stopped by {interrupted}, what is predicted is saved; go on with: {same_command()}")
            raise SystemExit(128 + interrupted.number) from None


def finished_run(folder: Path, options: InferOptions) -> RunRecord:
    record = read_run(folder)
    if record is None:
        train = f"python models/train_{options.name}.py --fold {options.fold}"
        raise InputError(f"no trained network in {folder}; train it with: {train}")
    return record


def is_finished(output: Path, parts: Parts) -> bool:
    """Whether these predictions have been made. Raises InputError if `output` holds others."""
    if not output.is_file():
        return False
    require_origin(output, read_parquet(output, REPAIR), parts.origin)
    print(f"{output} is there; delete it to predict again")
    parts.delete()  # a kill may have come between the file and this
    return True


@contextmanager
def only_inference(output: Path) -> Iterator[None]:
    """Hold the lock of a prediction file. Raises InputError if another process has it, or it cannot be written."""
    require_writable(output.parent)
    lock = output.parent.parent / f".{output.parent.name}.{output.stem}.lock"
    with only_process(lock, "inference", lock.with_suffix(".holder"), output):
        yield


def predict_missing(
    slices: pd.DataFrame,
    record: RunRecord,
    folder: Path,
    parts: Parts,
    options: InferOptions,
    processes: Processes,
    stop: Stop,
) -> None:
    """Predict readable slices with the network in `folder`, and write a part every few minutes and when told to stop.

    Of several processes each predicts a stretch of the slices.
    """
    dataset = make_dataset(slices, options.machine.working_folder, record.config, "none", folder)
    network = build(record.config, dataset)
    load_trained(folder, record, network)
    workers = count_workers(options.machine.workers, processes.device)
    image_ids = slices["image_id"]
    loader = make_loader(dataset, options.batch_size, workers, image_ids=image_ids, processes=processes)
    own = image_ids.iloc[loader.batch_sampler.stretch]
    title = f"{options.name} fold {options.fold}: {options.split}, tta {options.tta}"
    view = make_view(record.config, options.tta)
    first, pending, saved = 0, [], time.monotonic()
    with stop.after_saving():
        for probability in predict_batches(network, loader, processes, record.config.precision, title, view):
            pending.append(probability)
            count = sum(map(len, pending))
            waited = time.monotonic() - saved >= 60 * options.checkpoint_minutes
            if waited or stop.number is not None or first + count == len(own):
                parts.write(own.iloc[first : first + count], np.concatenate(pending))
                first, pending, saved = first + count, [], time.monotonic()
            if stop.number is not None:
                raise Interrupted(stop.number)


def make_view(config: RunConfig, tta: str) -> View:
    """How a batch is looked at: each symmetry of the images, or studies as they are and upside down."""
    if isinstance(config, SequenceConfig):
        return single_view if tta == "none" else both_ways
    return partial(mean_probability, group=GROUPS[tta])


def require_sources(record: RunRecord, folder: Path) -> None:
    """Raise InputError if a network that this one builds on has been trained anew since."""
    for name, sha256 in source_weights(record.config, folder).items():
        if record.results["sources"].get(name) != sha256:
            raise InputError(f"{folder} was trained on another {name}; delete it and train that fold anew")


def write_predictions(output: Path, slices: pd.DataFrame, parts: Parts, record: RunRecord) -> None:
    """Write the finished file, in the order of the metadata, and delete its parts."""
    complete = fill_unreadable(slices, parts.read(), pd.Series(record.results["prevalence"])).reset_index()
    complete.attrs = parts.origin  # kept in the file
    write_parquet(output, complete)
    parts.delete()
    print(f"{output}: {len(slices):,} slices")
    if filled := list(slices.loc[slices["chunk"] == UNREADABLE, "image_id"]):
        more = f" and {len(filled) - LISTED:,} more" if len(filled) > LISTED else ""
        print(f"{len(filled):,} without an image have the mean of their neighbours: {', '.join(filled[:LISTED])}{more}")
