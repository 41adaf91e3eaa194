"""Predictions that are being made: the parts that are finished lie on disk, and the same command goes on after them."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import read_parquet, require_writable, write_parquet
from models.common.labels import LABELS
from models.common.locks import only_process
from models.common.options import InferOptions
from models.common.prediction_files import prediction_table, read_predictions
from models.common.repair import command_of_run
from models.inference.stored import NEEDED, Stored, look_at
from models.preprocessing.origin import prepare_command
from models.preprocessing.tables import UNREADABLE
from models.training.run_record import RunRecord, require_run
from models.training.seen import require_same_folds

REPAIR = "the same command"
# Notes in a prediction file: the slices that had no image, and of each series a checksum of its slices.
FILLED, MADE_FROM = "without_image", "made_from"


class Parts:
    """The folder of the parts of one prediction file; several processes may write to it."""

    def __init__(self, output: Path, origin: dict[str, str]) -> None:
        """`origin` is what the predictions depend on; parts of another one are refused."""
        self.folder = output.with_suffix(".parts")
        self.origin = origin

    def read(self, stored: Stored) -> pd.DataFrame:
        """All predictions that have been made, indexed by `image_id`; damaged parts are named and deleted.

        So are those of slices that are not any more what they were. Raises InputError if they were made in another way.
        """
        tables = []
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                table = read_predictions(path, REPAIR)
            except InputError:
                print(f"warning: {path} is damaged; its slices are predicted again")
                path.unlink()
                continue
            require_origin(path, table, self.origin)
            is_other = stored.is_of(table.index, stored.changed(table.attrs.get(MADE_FROM, {})))
            if is_other.any():
                path.unlink()
                table = table[~is_other]
                if len(table):
                    self.write(table.index.to_series(), table[list(LABELS)].to_numpy(), stored)
            tables.append(table)
        return pd.concat(tables) if tables else pd.DataFrame(columns=list(LABELS))

    def write(self, image_ids: pd.Series, probability: np.ndarray, stored: Stored) -> None:
        """Add the predictions of some slices (slices, 6). Raises InputError if the disk is full."""
        table = prediction_table(image_ids, probability)
        table.attrs = {**self.origin, MADE_FROM: stored.of(image_ids)}  # kept in the file
        write_parquet(self.folder / f"{image_ids.iloc[0]}.parquet", table)

    def take_over(self, output: Path, slices: pd.DataFrame, stored: Stored) -> None:
        """Delete a finished file that is not of all `slices` as they are now; what is keeps its place, as a part."""
        if not output.is_file():
            return
        table = read_parquet(output, REPAIR)
        changed = changed_series(table, slices, stored)
        kept = table.merge(slices.loc[~slices["series_id"].isin(changed), ["image_id"]], on="image_id")
        kept = kept[~kept["image_id"].isin(table.attrs.get(FILLED, []))]
        print(f"{output}: slices of {len(changed):,} series have come or changed since, or can be read now")
        if len(kept):
            self.write(kept["image_id"], kept[list(LABELS)].to_numpy(), stored)
        output.unlink()

    def delete(self) -> None:
        """Delete all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def require_origin(path: Path, table: pd.DataFrame, origin: dict[str, str]) -> None:
    """Raise InputError if the predictions in `path` were made in another way."""
    for name, value in origin.items():
        if table.attrs.get(name) != value:
            raise InputError(
                f"{path} was made with {name} {table.attrs.get(name)}, not {value}; delete it to make it anew"
            )


def find_run(options: InferOptions) -> RunRecord:
    """The record of the network that these options ask for.

    Raises InputError if there is none, and if it was trained in this working folder with other folds than the cache
    holds now. What was trained elsewhere (--weights) has other folds, which do not matter to other patients.
    """
    work = options.machine.working_folder
    record = require_run(options.folder, command_of_run("train", options.name, work, options.fold))
    if options.weights is None:
        require_same_folds(work, options.name, [options.fold])
    return record


def parts_of(options: InferOptions, record: RunRecord) -> Parts:
    """The parts of what these options ask for, from the network of a record."""
    return Parts(options.output, {"tta": options.tta, "weights_sha256": record.weights_sha256})


def changed_series(table: pd.DataFrame, slices: pd.DataFrame, stored: Stored) -> list[str]:
    """The series of `slices` that a finished prediction file lacks slices of, or saw otherwise.

    That is, had no image of a slice where there is one now, or were other slices, as a file tells that has noted it.
    """
    is_new = ~slices["image_id"].isin(table["image_id"])
    is_mended = slices["image_id"].isin(table.attrs.get(FILLED, [])) & (slices["chunk"] != UNREADABLE)
    is_other = slices["series_id"].isin(stored.changed(table.attrs.get(MADE_FROM, {})))
    return list(slices.loc[is_new | is_mended | is_other, "series_id"].unique())


def is_finished(options: InferOptions, record: RunRecord, parts: Parts) -> bool:
    """Whether these predictions have been made, of all slices that the cache has now, as they are now.

    Raises InputError if the file holds others.
    """
    output, work = options.output, options.machine.working_folder
    if not output.is_file():
        return False
    table = read_parquet(output, REPAIR)
    require_origin(output, table, parts.origin)
    if (metadata := work.metadata(options.split)).is_file():
        slices = read_parquet(metadata, prepare_command(work), NEEDED)
        if changed_series(table, slices, look_at(slices, work, record.config, options.folder)):
            return False
    print(f"{output} is there; delete it to predict again")
    parts.delete()  # a kill may have come between the file and this
    return True


@contextmanager
def only_inference(output: Path) -> Generator[None]:
    """Hold the lock of a prediction file. Raises InputError if another process has it, or it cannot be written."""
    require_writable(output.parent)
    lock = output.parent.parent / f".{output.parent.name}.{output.stem}.lock"
    with only_process(lock, "inference", lock.with_suffix(".holder"), output):
        yield
