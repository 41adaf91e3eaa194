"""What becomes of answers where slices are not as they were: noise, another zero of the scanner, gaps, thick slices."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd

from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.inference.asked_runs import Fold
from models.inference.joining import Share
from models.inference.own_slices import Own, Said, ask_own
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.store import Series, compress_slice, write_series
from models.training.metric import weighted_log_loss
from models.training.scoring import auc

_LOWEST, _HIGHEST = HOUNSFIELD_RANGE
STRANGE = 3.0  # of the check "familiar" of predict.py


class Changed(NamedTuple):
    """A series as it is after a change."""

    values: np.ndarray  # Hounsfield units (slices, size, size)
    kept: list[int]  # the slices of before, of which these are
    with_next: bool = False  # each is joined with the slice after it

    def parts(self, count: int) -> np.ndarray:
        """The slices of before, of `count`, that each is made of, (slices, 2); twice the same where it is of one."""
        kept = np.array(self.kept)
        return np.stack([kept, np.minimum(kept + self.with_next, count - 1)], axis=1)


Change = Callable[[np.ndarray, int], Changed]


def add_noise(spread: float, values: np.ndarray, seed: int) -> Changed:
    """Independent noise in every pixel of (slices, size, size), of a standard deviation in HU."""
    noise = np.random.default_rng(seed).normal(0, spread, values.shape)
    return Changed(values + noise, list(range(len(values))))


def shift(offset: float, values: np.ndarray, seed: int) -> Changed:
    """Another zero: so many HU more in every pixel of (slices, size, size)."""
    return Changed(values + offset, list(range(len(values))))


def leave_out(every: int, values: np.ndarray, seed: int) -> Changed:
    """Each third slice, say, of (slices, size, size) is missing."""
    kept = [place for place in range(len(values)) if place % every != every - 1]
    return Changed(values[kept], kept)


def make_thick(values: np.ndarray, seed: int) -> Changed:
    """Twice as thick, and half as many: the mean of each slice of (slices, size, size) and the next one."""
    kept = list(range(0, len(values) - 1, 2)) or [0]
    after = np.minimum(np.array(kept) + 1, len(values) - 1)
    return Changed((values[kept] + values[after]) / 2, kept, with_next=True)


def noise_alone(values: np.ndarray, seed: int) -> Changed:
    """No head at all: noise of the same mean and spread in the place of (slices, size, size)."""
    noise = np.random.default_rng(seed).normal(values.mean(), values.std(), values.shape)
    return Changed(noise, list(range(len(values))))


CHANGES: dict[str, Change] = {
    "noise of 5 HU": partial(add_noise, 5.0),
    "noise of 20 HU": partial(add_noise, 20.0),
    "10 HU too high": partial(shift, 10.0),
    "10 HU too low": partial(shift, -10.0),
    "every third slice missing": partial(leave_out, 3),
    "slices twice as thick": make_thick,
}
STRANGERS: dict[str, Change] = {"no head, but noise of the same spread": noise_alone}


def measure_changes(
    own: Own, folds: Sequence[Fold], shares: Mapping[str, Share] | None, device: str
) -> tuple[dict[str, dict[str, float | None]], dict[str, dict[str, float | None]]]:
    """Scores after each of CHANGES beside those of the same slices as they are, and how strange the series become.

    Two slices that are joined have what either has; so their probability as they are is the larger of both.
    Raises InputError as `ask_own`.
    """
    before = ask_own(own, folds, shares, device)
    scores, strange = {}, {"as it is": _strange(before)}
    for name, change in (CHANGES | STRANGERS).items():
        with tempfile.TemporaryDirectory(prefix="release_") as folder:
            changed, rows = change_all(own, sorted(set().union(*(one.image_sizes for one in folds))), change, folder)
            after = ask_own(changed, folds, shares, device)
        strange[name] = _strange(after)
        if name in CHANGES:
            scores[name] = _scores(changed.target, before.probability[rows].max(axis=1), after.probability)
    return scores, strange


def change_all(own: Own, image_sizes: Sequence[int], change: Change, folder: str) -> tuple[Own, np.ndarray]:
    """Changed series in a working folder of their own, and of which slices of before theirs are made, (slices, 2).

    Raises InputError if a store is damaged, or the folder cannot be written to.
    """
    work, series, rows, first = Work(Path(folder)), [], [], 0
    for table in own.series:
        *_, last = (_change_series(table, own.work, work, size, change) for size in image_sizes)  # all keep the same
        series.append(_rows(table, last))
        rows.append(first + last.parts(len(table)))
        first += len(table)
    write_parquet(work.metadata("train"), pd.concat(series, ignore_index=True))  # neighbours in mm are looked up there
    return Own(work, series), np.concatenate(rows)


def _change_series(table: pd.DataFrame, before: Work, after: Work, size: int, change: Change) -> Changed:
    """Write a series of one size as it is after a change."""
    name = str(table["series_id"].iloc[0])
    stored = np.stack(Series(before.series(size, name)).read_some(table["chunk"].tolist())).astype(np.float32)
    changed = change(stored, crc32(name.encode()))
    values = np.clip(np.round(changed.values), _LOWEST, _HIGHEST).astype(np.int16)
    write_series(after.series(size, name), [compress_slice(one) for one in values], (size, size), {})
    return changed


def _rows(table: pd.DataFrame, changed: Changed) -> pd.DataFrame:
    """The metadata of a changed series: a slice that is joined with the next one has what either has."""
    kept = table.iloc[changed.kept].reset_index(drop=True)
    if changed.with_next:
        after = table.iloc[changed.parts(len(table))[:, 1]].reset_index(drop=True)
        kept[list(LABELS)] = np.maximum(kept[list(LABELS)], after[list(LABELS)])
        kept["z"] = (kept["z"] + after["z"]) / 2
    return kept.assign(chunk=range(len(kept)))


def _scores(target: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, float | None]:
    any_before, any_after = before[:, ANY], after[:, ANY]
    values = {
        "slices": len(target),
        "weighted log loss as it is": weighted_log_loss(target, before),
        "weighted log loss": weighted_log_loss(target, after),
        "AUC any as it is": auc(target[:, ANY], any_before),
        "AUC any": auc(target[:, ANY], any_after),
        "mean move of any": float(np.abs(any_after - any_before).mean()),
    }
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _strange(said: Said) -> dict[str, float | None]:
    known = said.strangeness[~np.isnan(said.strangeness)]
    if not len(known):
        return {"series": 0, "median": None, "called strange": None}
    return {
        "series": len(known),
        "median": float(np.median(known)),
        "called strange": float((known > STRANGE).mean()),
    }
