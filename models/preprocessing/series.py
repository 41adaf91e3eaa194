"""The files of one series -> its stored slices at every asked size, and the pixel statistics of each."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.paths import Work
from models.preprocessing.dicom import UnreadableSliceError, clip, read_stored, to_hounsfield
from models.preprocessing.metadata import problem
from models.preprocessing.parallel import progress_map
from models.preprocessing.store import fit_to_square, write_series
from models.preprocessing.windows import fraction_in_window

UNREADABLE = -1  # the `chunk` of a slice that is not in the store


class SeriesTask(NamedTuple):
    files: list[Path]  # in anatomical order
    stores: dict[int, Path]  # image size -> file of the store


def store_all_series(
    table: pd.DataFrame, work: Work, image_sizes: Iterable[int], jobs: int, title: str
) -> tuple[pd.DataFrame, list[dict]]:
    """Write the store for an ordered slice table, but for the series that are there; its column `path` is used up.

    Returns the table with `chunk` (place in the series' file, UNREADABLE for a slice that cannot be read) and the
    pixel statistics, and the problems. Memory: one series a process.
    """
    groups = table.groupby("series_id", sort=False)["path"]
    tasks = [SeriesTask(list(paths), {size: work.series(size, name) for size in image_sizes}) for name, paths in groups]
    rows = [row for rows in progress_map(store_series, tasks, jobs, title) for row in rows]
    unreadable = [
        (path, row["reason"]) for path, row in zip(table["path"], rows, strict=True) if row["chunk"] == UNREADABLE
    ]
    problems = [
        problem(path.name, reason, "no slice; left out of training, its prediction comes from its neighbours")
        for path, reason in unreadable
    ]
    statistics = pd.DataFrame(rows, index=table.index).drop(columns="reason", errors="ignore")
    return pd.concat([table.drop(columns="path"), statistics], axis=1), problems


def store_series(task: SeriesTask) -> list[dict]:
    """Read the files of a series and write its stores; returns a row a file: `chunk` and statistics, or a `reason`."""
    rows: list[dict] = []
    slices = []
    for path in task.files:
        try:
            stored, rescale = read_stored(path)
        except UnreadableSliceError as error:
            rows.append({"chunk": UNREADABLE, "reason": str(error)})
            continue
        hounsfield = to_hounsfield(stored, rescale)
        rows.append({"chunk": len(slices), **pixel_statistics(stored, hounsfield)})
        slices.append(clip(hounsfield))
    for size, store in task.stores.items():
        if slices and not store.exists():
            write_series(store, np.stack([fit_to_square(hounsfield, size) for hounsfield in slices]))
    return rows


def pixel_statistics(stored: np.ndarray, hounsfield: np.ndarray) -> dict[str, float]:
    """The columns of fastai's `from_dicoms(px_summ=True)`: of the stored values, and the share of brain."""
    return {
        "img_min": float(stored.min()),
        "img_max": float(stored.max()),
        "img_mean": float(stored.mean()),
        "img_std": float(stored.std()),
        "img_pct_window": fraction_in_window(hounsfield),
    }
