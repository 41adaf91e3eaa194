"""How sure predictions are, and whether it is the sure ones that are right."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.inference.runs import read_fold
from models.reporting.subject import Scored, Subject
from models.training.metric import slice_losses

COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)
DISPUTED = 6  # slices that are shown
_OWN = "its own probability"
_EVEN = 0.5
_APART = 0.5  # between the lowest and the highest probability of networks that disagree


class Dispute(NamedTuple):
    """What several networks say of the same slices."""

    networks: list[str]
    slices: int
    spread: dict[str, float]  # standard deviation between networks: of the median slice, of one in ten, ...
    apart: float  # share of the slices on which two of them are further apart than _APART
    cases: list[tuple[str, str, list[float]]]  # image, what is true, and the probability of `any` by each network


def uncertainties(scored: Scored, members: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """How unsure `any` is of each slice, (slices,), in each way to tell: the higher, the less sure.

    By the probability itself, and by the spread of `members`, predictions of other networks, where all have the slices.
    """
    ways = {_OWN: -np.abs(scored.probability[:, ANY] - _EVEN)}
    said = _side_by_side(members, scored.slices["image_id"])
    if len(members) > 1 and not said.isna().any(axis=None):
        ways["the spread of networks"] = said.to_numpy().std(axis=1)
    return ways


def cover(scored: Scored, unsure: np.ndarray) -> pd.DataFrame:
    """The risk of answering only the surest slices: a row a number of them, `coverage`, `log loss` of any, and `wrong`.

    `unsure` is (slices,). Wrong is what lies on the wrong side of 0.5. Of equally sure slices all are answered or none.
    """
    target, probability = scored.target, scored.probability
    table = pd.DataFrame(
        {
            "unsure": unsure,
            "slices": 1,
            "loss": slice_losses(target, probability)[:, ANY],
            "wrong": (probability[:, ANY] >= _EVEN) != (target[:, ANY] == 1),
        }
    )
    sums = table.groupby("unsure").sum().cumsum()
    return pd.DataFrame(
        {
            "coverage": sums["slices"] / len(table),
            "log loss": sums["loss"] / sums["slices"],
            "wrong": sums["wrong"] / sums["slices"],
        }
    ).reset_index(drop=True)


def at_coverages(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of `cover` that first reach COVERAGES, by these."""
    rows = [int(np.searchsorted(curve["coverage"], coverage - 1e-9)) for coverage in COVERAGES]
    return curve.iloc[rows].set_axis(pd.Index(COVERAGES))


def find_dispute(scored: Scored, subject: Subject, work: Work) -> Dispute | None:
    """What the runs of a blend say of its slices, or the folds of a run of the test; None where one network speaks.

    Raises InputError if predictions of the test are damaged.
    """
    if len(subject.members) > 1:
        truth = dict(zip(scored.slices["image_id"], np.where(scored.target[:, ANY] == 1, "yes", "no"), strict=True))
        return _dispute(_side_by_side(subject.members, scored.slices["image_id"]), truth)
    tested = [fold for fold in subject.folds if work.prediction(subject.name, fold, "test").is_file()]
    if len(tested) < 2:
        return None
    tables = {f"fold {fold}": read_fold(work, subject.name, fold, "test") for fold in tested}
    return _dispute(_side_by_side(tables, next(iter(tables.values())).index.to_series()), {})


def _side_by_side(tables: Mapping[str, pd.DataFrame], image_ids: pd.Series) -> pd.DataFrame:
    """The probability of `any` by each network (columns) of some slices; NaN where one has not predicted it."""
    label = LABELS[ANY]
    return pd.DataFrame({name: table[label].reindex(image_ids) for name, table in tables.items()})


def _dispute(said: pd.DataFrame, truth: dict[str, str]) -> Dispute | None:
    """Of the slices that all networks have predicted."""
    known = said.dropna()
    if known.empty:
        return None
    values = known.to_numpy()
    deviation, apart = values.std(axis=1), np.ptp(values, axis=1)
    quantiles = {"half": 0.5, "nine in ten": 0.9, "99 in a hundred": 0.99}
    order = np.lexsort((known.index.to_numpy(str), -deviation))[:DISPUTED]
    return Dispute(
        list(known.columns),
        len(known),
        {name: float(np.quantile(deviation, share)) for name, share in quantiles.items()},
        float((apart > _APART).mean()),
        [(known.index[row], truth.get(known.index[row], "not known"), values[row].tolist()) for row in order],
    )
