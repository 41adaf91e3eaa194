"""Predictions that are being made: the parts that are finished lie on disk, and the same command goes on after them."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.labels import LABELS
from models.common.prediction_files import prediction_table, read_predictions

REPAIR = "the same command"


class Parts:
    """The folder of the parts of one prediction file; several processes may write to it."""

    def __init__(self, output: Path, origin: dict[str, str]) -> None:
        """`origin` is what the predictions depend on; parts of another one are refused."""
        self.folder = output.with_suffix(".parts")
        self.origin = origin

    def read(self) -> pd.DataFrame:
        """All predictions that have been made, indexed by `image_id`; damaged parts are named and deleted.

        Raises InputError if they were made in another way.
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
            tables.append(table)
        return pd.concat(tables) if tables else pd.DataFrame(columns=list(LABELS))

    def write(self, image_ids: pd.Series, probability: np.ndarray) -> None:
        """Add the predictions of some slices (slices, 6). Raises InputError if the disk is full."""
        table = prediction_table(image_ids, probability)
        table.attrs = self.origin  # kept in the file
        write_parquet(self.folder / f"{image_ids.iloc[0]}.parquet", table)

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def require_origin(path: Path, table: pd.DataFrame, origin: dict[str, str]) -> None:
    """Raise InputError if the predictions in `path` were made in another way."""
    for name, value in origin.items():
        if table.attrs.get(name) != value:
            raise InputError(
                f"{path} was made with {name} {table.attrs.get(name)}, not {value}; delete it to make it anew"
            )
