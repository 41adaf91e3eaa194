"""Which series of a study is judged, of those that can be: one, the most like what networks have learnt from."""

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.preprocessing.geometry import USUAL_GAP
from models.preprocessing.selection import FEW_SLICES
from models.preprocessing.tables import UNREADABLE

_WHOLE = 0.8  # of the longest series' length: one that is shorter does not show the whole head
_READABLE = 0.99  # share of slices
_ALIKE = 0.15  # relative difference of thicknesses that makes none
_KERNELS = ("soft", "unknown", "several", "bone")


class Candidate(NamedTuple):
    """A series that may be predicted, and what speaks against it: of each point, the higher the worse."""

    series_id: str
    few: bool
    contrast: bool
    kernel: int
    short: bool
    unread: bool
    strange: int  # how far its thickness is from the usual one, in steps of _ALIKE
    lossy: bool
    fewer: int  # slices, negative
    readable: float  # share of its slices


# In words, from what counts most on.
_AGAINST = {
    "few": "fewer slices than a head has",
    "contrast": "contrast agent, and another series has none",
    "kernel": "a sharper kernel than another series has",
    "short": "it shows less of the head than another series",
    "unread": "slices that cannot be read",
    "strange": "the thickness of another series is nearer to what networks have learnt from",
    "lossy": "lossy compression, and another series has none",
    "fewer": "another series has more slices",
    "series_id": "another series is like it in all that counts",
}


def candidates_of(tables: Sequence[pd.DataFrame], series: pd.DataFrame, usual: float) -> list[Candidate]:
    """What may be predicted: `tables` are the slices of each, in order, `series` the rows of cache/series.csv.

    `usual` is the distance between slices that networks have learnt from, mm.
    """
    facts = series.set_index("series_id")
    lengths = [_length(table) for table in tables]
    found = []
    for table, length in zip(tables, lengths, strict=True):
        name = str(table["series_id"].iloc[0])
        own: Any = facts.loc[name]
        readable = float((table["chunk"] != UNREADABLE).mean())
        found.append(
            Candidate(
                series_id=name,
                few=len(table) < FEW_SLICES,
                contrast=bool(own["contrast"] == "yes"),
                kernel=_KERNELS.index(own["kernel"]),
                short=length < _WHOLE * max(lengths),
                unread=readable < _READABLE,
                strange=_strangeness(own["thickness"], own["spacing"], usual),
                lossy="lossy" in own["states"],
                fewer=-len(table),
                readable=readable,
            )
        )
    return found


def rank(candidates: Sequence[Candidate], asked: Collection[str] = ()) -> list[tuple[str, str]]:
    """Series, the best first: of that one why it is taken, of each of the others why it is not.

    Those that are `asked` for by their keys come first; what has no readable slice is left out.
    """
    order = sorted(
        (one for one in candidates if one.readable > 0), key=lambda one: (one.series_id not in asked, *_points(one))
    )
    if not order:
        return []
    best, others = order[0], order[1:]
    is_asked = best.series_id in asked
    why = "the one that is most like what networks have learnt from" if others else "the only one that can be"
    reasons = [(best.series_id, "asked for with --series" if is_asked else why)]
    for one in others:
        beaten = is_asked and one.series_id not in asked
        reasons.append((one.series_id, "another series is asked for with --series" if beaten else _why(one, best)))
    return reasons


def _points(one: Candidate) -> list:
    return [getattr(one, name) for name in _AGAINST]


def _why(one: Candidate, best: Candidate) -> str:
    return next(text for name, text in _AGAINST.items() if getattr(one, name) > getattr(best, name))


def _length(table: pd.DataFrame) -> float:
    """mm from the first to the last slice."""
    z = table["z"].dropna()
    return float(z.max() - z.min()) if len(z) else USUAL_GAP * len(table)


def _strangeness(thickness: float | None, spacing: float, usual: float) -> int:
    known = [value for value in (thickness, spacing) if value is not None and value > 0 and np.isfinite(value)]
    return round(abs(math.log(max(known) / usual)) / _ALIKE) if known else 0
