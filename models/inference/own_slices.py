"""Slices of a fold's own validation, on which networks that are to travel are measured: whole studies, not too many."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.inference.asked_runs import Fold, Study
from models.inference.combining import run_of
from models.inference.ensemble import Ensemble
from models.inference.joining import Share, join
from models.preprocessing.tables import split_fold
from models.training.memory import is_out_of_memory


class Own(NamedTuple):
    """Series of a fold's validation, and where their slices are stored."""

    work: Work
    series: list[pd.DataFrame]  # rows of the metadata, each in anatomical order

    @property
    def slices(self) -> pd.DataFrame:
        """All of them, one after the other."""
        return pd.concat(self.series, ignore_index=True)

    @property
    def target(self) -> np.ndarray:
        """Their labels, (slices, 6)."""
        return self.slices[list(LABELS)].to_numpy()


class Said(NamedTuple):
    """What is said of them."""

    probability: np.ndarray  # (slices, 6), as a blend joins its runs, not calibrated
    strangeness: np.ndarray  # of each series the largest of all networks (series,); NaN where none has noted anything


def own_slices(work: Work, fold: int, most: int) -> Own:
    """Whole series of the validation of a fold, by turns one with and one without blood, `most` slices or one series.

    Raises InputError for a fold that does not exist.
    """
    _, valid = split_fold(work, fold, skip_low_information=False)
    bled = valid.groupby("series_id", sort=False)[LABELS[ANY]].max() > 0
    kinds = [list(bled.index[bled == value]) for value in (True, False)]
    order = [name for place in range(len(bled)) for kind in kinds for name in kind[place : place + 1]]
    tables = dict(iter(valid.groupby("series_id", sort=False)))
    series, count = [], 0
    for name in order:
        if series and count + len(tables[name]) > most:
            break
        series.append(tables[name].reset_index(drop=True))
        count += len(tables[name])
    return Own(work, series)


def ask_own(own: Own, folds: Sequence[Fold], shares: Mapping[str, Share] | None, device: str) -> Said:
    """What some folds say together, each of one view.

    Raises InputError if weights or the store are damaged, or the folds look at slices of a size that the cache lacks.
    """
    ensemble = Ensemble(folds, device, "none")
    probability, strangeness = [], []
    for series in own.series:
        try:
            said = ensemble.ask(Study(series, own.work))
        except RuntimeError as error:
            if is_out_of_memory(error):  # it is of the machine, not of the networks
                raise
            raise InputError(f"the networks cannot look at their own validation ({error}); train them anew") from error
        each = {run_of(one.fold): one.probability.mean(axis=0) for one in said}
        probability.append(join(shares, each) if shares is not None else np.mean([*each.values()], axis=0))
        known = [one.strangeness for one in said if one.strangeness is not None]
        strangeness.append(max(known, default=np.nan))
    return Said(np.concatenate(probability), np.array(strangeness, float))
