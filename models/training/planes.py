"""The slices of the store that a network is shown of a sample: its own and, for channels of neighbours, others."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.folders import STORED, Work
from models.preprocessing.neighbours import neighbour_chunks
from models.preprocessing.origin import prepare_command
from models.preprocessing.store import Series
from models.preprocessing.tables import read_slices


class Planes:
    """Slices as Hounsfield units, by row.

    `slices` are readable rows of the metadata, any of them: neighbours come from the whole series. Raises InputError if
    the cache has no slices of this size.
    """

    def __init__(self, slices: pd.DataFrame, work: Work, config: TrainConfig) -> None:
        if not work.slices(config.image_size).is_dir():
            size = config.image_size
            raise InputError(f"no slice store at {work.slices(size)}; make it with: {prepare_command(work, size)}")
        self.folder = work.slices(config.image_size)
        self.series_ids = slices["series_id"].to_numpy()
        self.chunks = slices["chunk"].to_numpy(int)
        self.places = channel_places(slices, work, config.channels)

    def __len__(self) -> int:
        return len(self.chunks)

    def read(self, row: int) -> tuple[list[np.ndarray], list[int]]:
        """The slices that a sample shows, Hounsfield units (size, size), each once, and which of them each channel is.

        Beyond an end of the series its last slice stands in. Raises InputError if the series is missing or damaged.
        """
        series = open_series(self.folder / f"{self.series_ids[row]}{STORED}")
        last = len(series) - 1
        places = [min(max(place, 0), last) for place in self.places[row].tolist()]
        distinct = list(dict.fromkeys(places))
        return series.read_some(distinct), [distinct.index(place) for place in places]


def channel_places(slices: pd.DataFrame, work: Work, channels: tuple[Channel, ...]) -> np.ndarray:
    """Places in the store of the slices that channels show, (slices, channels), those in slices beyond the ends too."""
    in_mm = [channel.unit == "mm" for channel in channels]
    offsets = np.array([channel.offset for channel in channels])
    places = slices["chunk"].to_numpy(int)[:, None] + np.where(in_mm, 0, offsets).astype(int)
    if any(in_mm):
        tables = [read_slices(work, split) for split in ("train", "test") if work.metadata(split).is_file()]
        whole = pd.concat([table[["series_id", "chunk", "z"]] for table in tables], ignore_index=True)
        places[:, in_mm] = neighbour_chunks(slices, whole, offsets[in_mm].tolist())
    return places


@lru_cache(maxsize=2**15)  # more than the challenge's 21,744, of which each takes 1.2 KB in a loader process
def open_series(path: Path) -> Series:
    """A series of the store; where its slices lie in its file is kept, the file is not kept open."""
    return Series(path)
