"""What a run gains on the one that it was made from: by smoothing, by pseudolabels, by any other training that goes on.

Both are scored on the same slices, out-of-fold, with the paired difference of `comparing`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.config import TrainConfig
from models.common.folders import Work
from models.inference.comparing import differences, resample
from models.inference.runs import finished_folds
from models.inference.scoring import in_common
from models.training.run_record import SmoothedRecord, read_record
from models.training.scoring import WEIGHTED


class Gain(NamedTuple):
    """The weighted log loss of a prediction less that of another one; below 0 it is better."""

    value: float
    low: float | None  # of the 95 % interval; None for a single patient, who has none
    high: float | None
    slices: int
    patients: int

    def describe(self, ours: str, theirs: str) -> str:
        """In a sentence, by the names of the two."""
        told = f"{ours} less {theirs}: weighted log loss {self.value:+.4f}"
        if self.low is None or self.high is None:
            return f"{told}, on {self.slices:,} slices of a single patient, and so without an interval"
        doubt = ": it may be none" if self.low <= 0 <= self.high else ""
        interval = f"[{self.low:+.4f}, {self.high:+.4f}]"
        return f"{told} {interval}, paired, on {self.slices:,} slices of {self.patients:,} patients{doubt}"


def measure_gain(ours: pd.DataFrame, theirs: pd.DataFrame, labels: pd.DataFrame, patients: pd.Series) -> Gain | None:
    """What one prediction gains on another, on the slices that both have, and that have a label and a known patient.

    None if there is no such slice. All are indexed by `image_id`; `patients` names the patient of a slice.
    """
    known = labels[labels.index.isin(theirs.index.intersection(patients.dropna().index))]
    slices, target, probability = in_common(known, ours)
    if len(slices) == 0:
        return None
    whose = patients.loc[slices].to_numpy()
    drawn = [resample(target, values, whose) for values in (probability, theirs.loc[slices].to_numpy())]
    value, low, high = differences(*drawn).loc[[WEIGHTED], ["value", "low", "high"]].to_numpy()[0].tolist()
    if np.isnan(low):
        return Gain(value, None, None, len(slices), drawn[0].patients)
    return Gain(value, low, high, len(slices), drawn[0].patients)


def made_from(work: Work, name: str) -> str | None:
    """The run whose predictions, or weights, the run of this name was made from; None if it is no such run.

    Raises InputError if a record is damaged.
    """
    if Path(name).name != name or not (work.runs / name).is_dir():
        return None
    for fold in finished_folds(work, name):
        record = read_record(work.run(name, fold))
        if isinstance(record, SmoothedRecord):
            return record.run
        if record is not None and isinstance(record.config, TrainConfig):
            return record.config.start
    return None


def describe_gains(
    work: Work, tables: Mapping[str, pd.DataFrame], labels: pd.DataFrame, patients: pd.Series
) -> list[str]:
    """A line for each prediction, by the name of its run, that stands beside the run that it was made from.

    Raises InputError if a record is damaged.
    """
    lines = []
    for name, table in tables.items():
        before = made_from(work, name)
        if before in tables and (gain := measure_gain(table, tables[before], labels, patients)) is not None:
            lines.append(gain.describe(name, before))
    return lines
