"""The weights of a fold -> probabilities of the test slices."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from models.cli import command
from models.config import Machine
from models.errors import InputError
from models.inference.d4 import GROUPS, mean_probability
from models.inference.predictions import fill_unreadable
from models.paths import Work, read_parquet, require_writable, write_parquet
from models.preprocessing.series import UNREADABLE
from models.training.checkpoint import RunRecord, load_trained, read_run
from models.training.dataset import SliceDataset, read_slices
from models.training.evaluation import choose_device, count_workers, predict
from models.training.learner import prediction_table
from models.training.loading import make_loader
from models.training.networks import build_network

LISTED = 10  # names in a message; all of them stand in cache/problems.csv


@dataclass(frozen=True)
class InferOptions:
    name: str
    """the run"""
    fold: int = 0
    """the fold whose weights to use"""
    tta: Literal["none", "flip", "d4"] = "d4"
    """test-time augmentation: one, two or eight symmetries"""
    split: Literal["test", "train"] = "test"
    """the slices to predict; "train" is for a network that was trained on other data"""
    weights: Path | None = None
    """the folder of a fold that was trained elsewhere; none: runs/<name>/fold<fold> of the working folder"""
    batch_size: int = 32
    """slices at a time"""
    machine: Machine = field(default_factory=Machine)


def main(name: str) -> None:
    """The command line of an inference script."""
    command(infer, InferOptions(name))


def infer(options: InferOptions) -> None:
    """Write <split>.parquet of a fold, one row for every slice of the metadata; a file that is there is left alone.

    Raises InputError if the fold has not been trained, or the cache lacks its image size.
    """
    work = Work(options.machine.work)
    output = work.run(options.name, options.fold) / f"{options.split}.parquet"
    folder = options.weights or output.parent
    record = read_run(folder)
    if record is None:
        train = f"python models/train_{options.name}.py --fold {options.fold}"
        raise InputError(f"no trained network in {folder}; train it with: {train}")
    origin = {"tta": options.tta, "weights_sha256": record.weights_sha256}
    if is_finished(output, origin):
        print(f"{output} is there; delete it to predict again")
        return
    require_writable(output.parent)
    slices = read_slices(work, options.split)
    readable = slices[slices["chunk"] != UNREADABLE]
    predictions = predict_slices(readable, record, folder, options)
    complete = fill_unreadable(slices, predictions, pd.Series(record.results["prevalence"])).reset_index()
    complete.attrs = origin  # kept in the file
    write_parquet(output, complete)
    print(f"{output}: {len(slices):,} slices")
    if filled := list(slices.loc[slices["chunk"] == UNREADABLE, "image_id"]):
        more = f" and {len(filled) - LISTED:,} more" if len(filled) > LISTED else ""
        print(f"{len(filled):,} without an image have the mean of their neighbours: {', '.join(filled[:LISTED])}{more}")


def predict_slices(slices: pd.DataFrame, record: RunRecord, folder: Path, options: InferOptions) -> pd.DataFrame:
    """Probabilities of readable slices by the network in `folder`, indexed by `image_id`."""
    dataset = SliceDataset(slices, Work(options.machine.work), record.config, augment="none")
    network = build_network(record.config)
    load_trained(folder, record, network)
    device = choose_device(options.machine.device)
    workers = count_workers(options.machine.workers, device)
    loader = make_loader(dataset, options.batch_size, workers, image_ids=slices["image_id"])
    group = GROUPS[options.tta]
    view = partial(mean_probability, group=group)
    title = f"{options.name} fold {options.fold}: {options.split}, {len(group)} views"
    probability = predict(network, loader, device, record.config.precision, title, view)
    return prediction_table(slices["image_id"], probability).set_index("image_id")


def is_finished(output: Path, origin: dict[str, str]) -> bool:
    """Whether these predictions have been made. Raises InputError if `output` holds others."""
    if not output.is_file():
        return False
    previous = read_parquet(output, "the same command").attrs
    for name, value in origin.items():
        if previous.get(name) != value:
            raise InputError(
                f"{output} was made with {name} {previous.get(name)}, not {value}; delete it to make it anew"
            )
    return True
