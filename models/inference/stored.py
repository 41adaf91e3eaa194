"""What the slices of a split are now, by which predictions of other ones are known: a file may have been exchanged."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.config import RunConfig, SequenceConfig, TrainConfig
from models.common.errors import InputError
from models.common.folders import Work
from models.preprocessing.store import made_from
from models.preprocessing.tables import UNREADABLE
from models.training.sources import find_source

NEEDED = ["image_id", "series_id", "chunk", "z"]  # columns of the metadata


class Stored(NamedTuple):
    """The series of each image, and a checksum of the slices of each series."""

    series: pd.Series  # series_id, indexed by image_id
    checksums: dict[str, int]  # by series_id; none of those whose store has been deleted, of which nobody can tell

    def changed(self, noted: Mapping[str, int]) -> set[str]:
        """The series that are not what they were when these checksums were noted."""
        return {name for name, checksum in noted.items() if self.checksums.get(name, checksum) != checksum}

    def of(self, image_ids: pd.Series | pd.Index) -> dict[str, int]:
        """The checksums of the series of some images."""
        names = self.series.reindex(image_ids).dropna().unique()
        return {name: self.checksums[name] for name in names if name in self.checksums}

    def is_of(self, image_ids: pd.Index, series: set[str]) -> np.ndarray:
        """Whether each image (images,) belongs to one of some series."""
        return self.series.reindex(image_ids).isin(series).to_numpy()


def look_at(slices: pd.DataFrame, work: Work, config: RunConfig, folder: Path) -> Stored:
    """Slices (their columns NEEDED) as the network in `folder`, of this configuration, is shown them.

    Raises InputError for a damaged store.
    """
    sizes, checksums = _image_sizes(config, folder), {}
    for name, rows in slices[slices["chunk"] != UNREADABLE].groupby("series_id", sort=False):
        files = [work.series(size, str(name)) for size in sizes]
        if files and all(file.is_file() for file in files):
            z = rows["z"].to_numpy(float)
            checksums[str(name)] = sum(made_from(z, file) for file in files) & 0xFFFFFFFF
    return Stored(slices.set_index("image_id")["series_id"], checksums)


def _image_sizes(config: RunConfig, folder: Path) -> list[int]:
    """Sides of the slices that a network looks at, or those that it builds on; nothing where these are gone."""
    if isinstance(config, TrainConfig):
        return [config.image_size]
    assert isinstance(config, SequenceConfig)  # there is no other kind
    with suppress(InputError):
        return sorted({find_source(name, folder.absolute(), "--runs").config.image_size for name in config.runs})
    return []
