"""Can this be judged? What a series shows, and how networks take it -> checks in words, and a verdict.

The bounds lie far from what is usual: of the nine real studies of the tests, and of clean drawings, none comes near.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from models.preprocessing.measures import Measures
from models.preprocessing.selection import FEW_SLICES
from models.preprocessing.tables import UNREADABLE

Result = Literal["passed", "warning", "refused", "not made"]
Verdict = Literal["answered", "answered with warnings", "refused"]
_SHARP_FROM = 256  # pixels of a file's slice: of coarser ones the kernel cannot be told
_GAP, _RUN = 1.7, 3  # of the gaps beside it; so many wide gaps in a row are how it was scanned
_LOST = 0.2  # share of the slices that may lack
_SPREAD = 0.35  # standard deviation of the probability between networks


class Check(NamedTuple):
    """One of them."""

    name: str
    result: Result
    found: str


class Bounds(NamedTuple):
    """What is usual, and beyond what nothing can be said; NaN: there is no such bound."""

    low: float
    high: float
    lowest: float
    highest: float


_NO = float("nan")
_UNIT = {"air": "HU", "brain": "HU", "noise": "HU", "metal": "ml", "volume": "ml", "jump": "mm", "width": "mm"}
_BOUNDS = {  # of Measures: its bounds, and what it is called
    "volume": (Bounds(550, 2600, 300, 4000), "brain within the skull"),
    "air": (Bounds(-1100, -930, -1200, -850), "air around the head"),
    "brain": (Bounds(8, 54, -8, 75), "brain, its median"),
    "noise": (Bounds(_NO, 11, _NO, 40), "noise in the brain"),
    "bright": (Bounds(_NO, 0.03, _NO, _NO), "share of the brain as bright as vessels with contrast agent"),
    "metal": (Bounds(_NO, 0.5, _NO, _NO), "metal within the skull"),
    "jump": (Bounds(_NO, 9, _NO, _NO), "largest step of the head from a slice to the next: it may have moved"),
    "width": (Bounds(140, 360, 90, 600), "field of view"),
}
_SHARP = 1.75  # of Measures.sharpness, from which on a kernel is one for bone


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """What the checks come to."""
    results = {check.result for check in checks}
    return "refused" if "refused" in results else "answered with warnings" if "warning" in results else "answered"


def reasons_of(checks: Iterable[Check]) -> list[str]:
    """What was found by the checks that were not passed, the worst first."""
    order = {"refused": 0, "warning": 1}
    wrong = [check for check in checks if check.result in order]
    return [f"{check.name}: {check.found}" for check in sorted(wrong, key=lambda check: order[check.result])]


def check_series(slices: pd.DataFrame, facts: dict[str, Any], measures: Measures, asked: bool) -> list[Check]:
    """Checks of a series before any network sees it: its rows of the metadata and of cache/series.csv, and its values.

    `asked`: somebody has asked for it by its key, whatever it is; then nothing is refused.
    """
    checks = [_skull(measures), *_covered(measures), *_gaps(slices), *_of_headers(slices, facts)]
    shown = _BOUNDS if measures.heads else ("air", "width")
    checks += [_bounded(name, getattr(measures, name)) for name in shown]
    if measures.heads:
        checks.append(_kernel(measures, facts, float(slices["rows"].median())))
    if asked:
        checks = [check._replace(result="warning") if check.result == "refused" else check for check in checks]
    return checks


def check_answer(strangeness: Sequence[float | None], spread: float, views: float) -> list[Check]:
    """Checks of what networks say: whether they have seen such slices, and whether networks and views agree.

    `spread` and `views` are standard deviations of the study's probability between networks, and between views.
    """
    known = [value for value in strangeness if value is not None]
    checks = []
    if known:
        farthest = max(known)
        found = f"{farthest:.1f} times as far from what the network was validated on as the farthest of that"
        checks.append(Check("familiar", "warning" if farthest > 3 else "passed", found))
    else:
        checks.append(Check("familiar", "not made", "the network has not noted what it was validated on"))
    for name, value in (("networks agree", spread), ("views agree", views)):
        if np.isnan(value):
            checks.append(Check(name, "not made", "there is one alone"))
        else:
            found = f"standard deviation of the study's probability {value:.2f}"
            checks.append(Check(name, "warning" if value > _SPREAD else "passed", found))
    return checks


def _skull(measures: Measures) -> Check:
    """Whether a head is there at all."""
    least = max(3, 0.3 * measures.slices)
    found = f"a skull surrounds {measures.heads} of {measures.slices} slices"
    return Check("head", "passed" if measures.heads >= least else "refused", found)


def _covered(measures: Measures) -> list[Check]:
    """Whether the head is there from the base to the vertex."""
    if not measures.heads:
        return []
    lacking = [
        name for name, share, most in (("vertex", measures.top, 0.25), ("base", measures.bottom, 0.6)) if share > most
    ]
    found = f"brain over {measures.extent:.0f} mm"
    if lacking:
        found += f"; the end at the {' and at the '.join(lacking)} is cut off"
    short = measures.extent < (90 if lacking else 75)
    result: Result = "refused" if short else "warning" if lacking or measures.extent < 85 else "passed"
    return [Check("whole head", result, found)]


def _bounded(name: str, value: float) -> Check:
    bounds, called = _BOUNDS[name]
    if np.isnan(value):
        return Check(name, "not made", f"{called}: not known")
    unit = _UNIT.get(name, "")
    text = f"{value:.1%}" if not unit else f"{value:.1f} {unit}" if abs(value) < 10 else f"{value:.0f} {unit}"
    result: Result = "passed"
    if value < bounds.low or value > bounds.high:
        result = "refused" if value < bounds.lowest or value > bounds.highest else "warning"
    return Check(name, result, f"{called}: {text}{_usual(bounds, unit) if result != 'passed' else ''}")


def _usual(bounds: Bounds, unit: str) -> str:
    if np.isnan(bounds.low):
        most = f"{bounds.high:g} {unit}".strip() if unit else f"{bounds.high:.0%}"
        return f", usual are {most} at most"
    return f", usual are {bounds.low:g} to {bounds.high:g} {unit}".rstrip()


def _kernel(measures: Measures, facts: dict[str, Any], rows: float) -> Check:
    """By the header, or where that does not tell by how sharp the noise is."""
    if facts["kernel"] in ("bone", "several"):
        return Check("kernel", "warning", f"{facts['kernel']} kernel, where networks have learnt from soft ones")
    if rows < _SHARP_FROM or np.isnan(measures.sharpness):
        return Check("kernel", "not made", "slices too coarse to tell")
    sharp = measures.sharpness > _SHARP
    found = f"differences of neighbouring pixels are {measures.sharpness:.1f} times the noise"
    return Check("kernel", "warning" if sharp else "passed", found + (", as with a kernel for bone" if sharp else ""))


def _gaps(slices: pd.DataFrame) -> list[Check]:
    """Whether slices lack, or cannot be read."""
    unread = (slices["chunk"] == UNREADABLE).sum()
    found = f"{unread} of {len(slices)} cannot be read"
    checks = [] if not unread else [_lost("readable", unread, len(slices) - unread, found)]
    if len(slices) < FEW_SLICES:
        checks.append(Check("slices", "refused", f"{len(slices)}, fewer than {FEW_SLICES}: no study of a head"))
    lacking, widest = missing_slices(slices["gap_above"].to_numpy(float))
    if lacking:
        found = f"about {lacking} lack, the widest gap is {widest:.1f} mm"
        checks.append(_lost("complete", lacking, len(slices), found))
    elif slices["z"].notna().all():
        checks.append(Check("complete", "passed", f"{len(slices)} slices without a gap"))
    return checks


def _lost(name: str, lost: int, there: int, found: str) -> Check:
    """Slices that are lost, beside those that are there."""
    return Check(name, "refused" if lost > _LOST * (there + lost) else "warning", found)


def missing_slices(gaps: np.ndarray) -> tuple[int, float]:
    """How many slices lack, and the widest gap (mm), by the gaps above slices (slices,), NaN at the end.

    A gap in which slices lack is wider than those on both sides of it; where many are as wide, it was scanned so.
    """
    gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
    if len(gaps) < 3:
        return 0, 0.0
    lacking, widest, place = 0, 0.0, 1
    while place < len(gaps) - 1:
        beside, end = gaps[place - 1], place
        while end < len(gaps) and gaps[end] > _GAP * beside:
            end += 1
        run = gaps[place:end]
        if 0 < len(run) < _RUN and end < len(gaps) and (run > _GAP * gaps[end]).all():
            lacking += sum(max(1, round(float(gap) / float(max(beside, gaps[end]))) - 1) for gap in run)
            widest = max(widest, float(run.max()))
        place = max(end, place + 1)
    return lacking, widest


def _of_headers(slices: pd.DataFrame, facts: dict[str, Any]) -> list[Check]:
    """What headers tell that no value shows."""
    checks = [Check("orientation", "passed", facts["plane"])]
    if facts["plane"] == "unknown":
        checks = [Check("orientation", "warning", "not told: left and right, or head and feet, may be exchanged")]
    if facts["contrast"] == "yes":
        checks.append(Check("contrast", "warning", "the header names a contrast agent"))
    if "lossy compression" in facts["states"]:
        checks.append(Check("compression", "warning", "lossy"))
    if slices["z"].isna().any():
        checks.append(Check("order", "warning", "positions are not told: slices are ordered by number or name"))
    if facts["why"]:
        checks.append(Check("series", "warning", f"asked for although it is left out otherwise: {facts['why']}"))
    return checks
