"""Do labels run the way that slices do? A volume that was turned upside down on its way gives each label to another.

Three witnesses: where labels and answers say that slices lie; masks beside a table; and what the networks say, which
fits labels better in their own order than from the other end, if they see anything at all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference.comparing import drawn_totals, placements, tails

_ANY, _SAID = LABELS[ANY], f"p_{LABELS[ANY]}"
_REPAIR = (
    "answer the set's own volumes as they were downloaded, with its own labels: one of them was turned upside down, or "
    "counts slices from the other end"
)
_OPINIONS = 2  # slices of a study, one at either end, in which a label and a mask may differ
_FEWEST = 5  # studies with slices of both classes; of fewer it is not rare that all fit better turned by chance


class Fit(NamedTuple):
    """How well answers fit the labels of the slices of single studies: means of their AUC of any."""

    studies: int
    as_joined: float
    reversed: float  # with the labels of each study from its other end
    low: float  # 95 % of the difference, as joined less reversed, by drawn patients; NaN of a single one
    high: float


def require_same_way(slices: pd.DataFrame, patients: pd.Series) -> list[str]:
    """What was found of joined slices, in words; `patients` is by study.

    Raises InputError if labels run the other way.
    """
    notes = [_by_place(slices)]
    if slices["drawn"].notna().any():
        notes.append(_by_masks(slices))
    fit = fit_of(slices, patients)
    if fit.studies < _FEWEST:
        return [*notes, f"orientation by what the networks say: {fit.studies} studies with both kinds, too few to tell"]
    if fit.high < 0:
        raise InputError(
            f"the networks fit the labels better from the other end of the head: mean AUC within {fit.studies} studies "
            f"{fit.reversed:.3f}, and {fit.as_joined:.3f} as they are numbered; {_REPAIR}"
        )
    certain = "as it should be" if fit.low > 0 else "which does not tell the two apart"
    return [
        *notes,
        f"orientation by what the networks say: mean AUC within {fit.studies} studies {fit.as_joined:.3f}, and "
        f"{fit.reversed:.3f} from the other end, {certain}",
    ]


def fit_of(slices: pd.DataFrame, patients: pd.Series, draws: int = 1000, seed: int = 0) -> Fit:
    """How well the answers fit in either order, of the studies whose slices are of both classes."""
    rows = []
    for study, own in slices.sort_values(["study", "number"]).groupby("study"):
        positive, said = own[_ANY].to_numpy() == 1, own[_SAID].to_numpy(float)
        if positive.any() and not positive.all():
            rows.append((patients[study], _auc(positive, said), _auc(positive[::-1], said)))
    if len(rows) < _FEWEST:
        return Fit(len(rows), np.nan, np.nan, np.nan, np.nan)
    table = pd.DataFrame(rows, columns=["patient", "as joined", "reversed"]).assign(studies=1.0)
    totals = drawn_totals(table.groupby("patient").sum().to_numpy(), draws, seed)
    means = totals[:, :2] / totals[:, 2:]
    apart = means[1:, 0] - means[1:, 1]
    count = table["patient"].nunique()
    low, high = np.percentile(apart, tails(count)) if count > 1 else (np.nan, np.nan)
    return Fit(len(rows), float(means[0, 0]), float(means[0, 1]), float(low), float(high))


def _auc(positive: np.ndarray, said: np.ndarray) -> float:
    return float(placements(positive, said)[0, positive].mean())


def _by_place(slices: pd.DataFrame) -> str:
    """Where both tell a place, it must rise and fall together."""
    known = slices.dropna(subset=["z", "z_told"])
    rises = {
        str(study): float(np.cov(own["z"], own["z_told"])[0, 1])
        for study, own in known.groupby("study")
        if len(own) > 1
    }
    _require_none(
        [study for study, rise in rises.items() if rise < 0],
        "lie head to feet where what was answered lies feet to head",
    )
    return f"orientation by place: the same in {len(rises)} of {slices['study'].nunique()} studies, of others not told"


def _by_masks(slices: pd.DataFrame) -> str:
    """A slice with a label of hemorrhage is one in which it was drawn.

    One that was drawn and not told, at either end, is a matter of opinion: a blot in the middle of the head, whose ends
    differ so, fits no worse from the other end.
    """
    turned, differ = [], 0
    known = slices.dropna(subset="drawn").sort_values(["study", "number"])
    for study, own in known.groupby("study"):
        told, drawn = own[_ANY].to_numpy() == 1, own["drawn"].to_numpy() == 1
        wrong, wrong_reversed = (drawn != told).sum(), (drawn[::-1] != told).sum()
        differ += int(wrong)
        if wrong > wrong_reversed + _OPINIONS:
            turned.append(str(study))
    _require_none(turned, "fit their masks better from the other end")
    return f"orientation by masks: {known['study'].nunique()} studies, {differ:,} labels are others than what is drawn"


def _require_none(turned: Sequence[str], how: str) -> None:
    if turned:
        names = ", ".join(turned[:3]) + (", ..." if len(turned) > 3 else "")
        raise InputError(f"the labels of {len(turned)} studies ({names}) {how}; {_REPAIR}")
