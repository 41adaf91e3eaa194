"""Which series are axial head CT in Hounsfield units: cache/series.csv, a row a series, and what is left out.

The challenge's series are all taken; so is what somebody asks for by its key.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.preprocessing.geometry import plane_of
from models.preprocessing.header_facts import HeaderFacts
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.problems import NOT_USED, Problem, ProblemRows, problem_rows

COLUMNS = [
    "series_id",
    "split",
    "slices",
    "plane",
    "spacing",  # mm between neighbouring slices, the median
    "thickness",  # mm
    "kernel",  # soft, bone, several or unknown
    "rescale",  # HU, HU by table, HU by air, other or not told
    "contrast",  # yes, no or unknown
    "states",  # what else is odd about the series
    "taken",  # yes, left out or by --take
    "why",  # it would be left out
    "part_of",  # the key of the first part of what has its SeriesInstanceUID
]
FEW_SLICES = 8
_SCOUT = 3  # images at most
NIFTI = "NIfTI: padding, kernel, contrast, thickness and part of the body are not told"
# The first that a slice has is that of its series: of a volume some slice shows air.
_UNITS = ("other", "not told", "HU by table", "HU", "HU by air", "no air")
_SQUARE = 0.01  # relative difference of pixel spacing


def series_facts(slices: Sequence[HeaderFacts]) -> dict[str, Any]:
    """What the headers of a series tell together, for its notes."""
    thickness = [facts.thickness for facts in slices if np.isfinite(facts.thickness)]
    bodies = {facts.body for facts in slices}
    unit = min((facts.unit for facts in slices), key=_UNITS.index)
    return {
        "kernel": _one_of({facts.kernel for facts in slices}),
        "unit": "not told" if unit == "no air" else unit,
        "body": next((body for body in ("head", "other") if body in bodies), "unknown"),
        "thickness": round(float(np.median(thickness)), 3) if thickness else None,
        "contrast": any(facts.contrast for facts in slices),
        "lossy": any(facts.lossy for facts in slices),
        "secondary": any(facts.secondary for facts in slices),
        "volume": any(facts.is_volume for facts in slices),
    }


def reasons_to_leave(notes: SeriesNotes) -> list[Problem]:
    """Why a series is no axial head CT in Hounsfield units, as far as its headers tell; none for the challenge's."""
    facts = notes.facts
    if facts is None or not len(notes):
        return []
    is_axial = plane_of(notes.columns) in ("axial", "unknown")
    return [
        problem
        for problem, is_so in {
            Problem.SCOUT: not is_axial and len(notes) <= _SCOUT,
            Problem.NOT_AXIAL: not is_axial and len(notes) > _SCOUT,
            Problem.OTHER_UNIT: facts["unit"] == "other",
            Problem.NO_UNIT: facts["unit"] == "not told",
            Problem.SECONDARY: facts["secondary"],
            Problem.NOT_HEAD: facts["body"] == "other",
        }.items()
        if is_so
    ]


def select_series(
    series: Iterable[SeriesNotes], split: str, take: Collection[str]
) -> tuple[list[SeriesNotes], pd.DataFrame, ProblemRows]:
    """Those series of "train" or "test" that are taken, the rows of cache/series.csv, and the problems of the others.

    `take` names series by their keys that are taken whatever they are.
    """
    taken, rows, problems = [], [], []
    for notes in series:
        if not len(notes):  # none of its files is a slice; its problems say so
            taken.append(notes)
            continue
        row = _row(notes, split)
        reasons = reasons_to_leave(notes)
        is_left = bool(reasons) and row["series_id"] not in take
        if is_left:
            problems += [line for line in notes.problems if line[2] == NOT_USED]
            problems += [line for reason in reasons for line in problem_rows(reason, [row["series_id"]])]
        else:
            taken.append(notes)
        state = "left out" if is_left else "by --take" if reasons else "yes"
        rows.append(row | {"taken": state, "why": "; ".join(reason.value[0] for reason in reasons)})
    return taken, pd.DataFrame(rows, columns=COLUMNS), problems


def require_keys(take: Collection[str], series: pd.DataFrame) -> None:
    """Raise InputError if a key of --take is not among the series."""
    if unknown := set(take) - set(series["series_id"]):
        raise InputError(f"--take {min(unknown)}: there is no series of this key; cache/series.csv names them")


def pictures(series: pd.DataFrame) -> set[str]:
    """The keys of series in whose pixels text may stand: no picture is made of them."""
    return set(series.loc[series["why"].str.contains(Problem.SECONDARY.value[0], regex=False), "series_id"])


def count_states(series: pd.DataFrame) -> list[tuple[str, int]]:
    """How many series are left out, and have each of the states, the most frequent first."""
    left = series[series["taken"] == "left out"]
    states = Counter(state for row in series["states"] for state in row.split("; ") if state)
    reasons = Counter(f"left out: {reason}" for row in left["why"] for reason in row.split("; "))
    return sorted((reasons + states).items(), key=lambda item: (-item[1], item[0]))


def _row(notes: SeriesNotes, split: str) -> dict[str, Any]:
    columns, facts, plane = notes.columns, notes.facts, plane_of(notes.columns)
    gaps = columns["gap_below"][np.isfinite(columns["gap_below"])]
    told = np.isfinite(columns["rescale_intercept"]).all()
    return {
        "series_id": notes.series_id,
        "split": split,
        "slices": len(notes),
        "plane": plane,
        "spacing": round(float(np.median(gaps)), 3) if len(gaps) else np.nan,
        "thickness": facts["thickness"] if facts else np.nan,
        "kernel": facts["kernel"] if facts else "unknown",
        "rescale": facts["unit"] if facts else "HU" if told else "not told",
        "contrast": ("yes" if facts["contrast"] else "no") if facts and not facts.get("volume") else "unknown",
        "states": "; ".join(_states(columns, facts, plane)),
        "part_of": notes.part_of,
    }


def _states(columns: dict[str, np.ndarray], facts: dict[str, Any] | None, plane: str) -> list[str]:
    """What is odd about a series that is taken all the same."""
    spacing = np.array([columns[f"pixel_spacing_{i}"] for i in range(2)])  # (2, slices) mm
    spacing = spacing[:, np.isfinite(spacing).all(axis=0)]
    odd = {
        f"fewer than {FEW_SLICES} slices": len(columns["z"]) < FEW_SLICES,
        "plane unknown": plane == "unknown",
        "pixels that are not square": _differ(spacing, axis=0),
        "pixel spacing that changes": _differ(spacing, axis=1),
    }
    if facts:
        odd |= {
            "bone kernel": facts["kernel"] == "bone",
            "several kernels": facts["kernel"] == "several",
            "contrast agent": facts["contrast"],
            "lossy compression": facts["lossy"],
            "a table in place of a rescale": facts["unit"] == "HU by table",
            NIFTI: facts.get("volume", False),  # older records lack it
        }
    return [state for state, is_so in odd.items() if is_so]


def _differ(spacing: np.ndarray, axis: int) -> bool:
    if not spacing.size:
        return False
    low, high = spacing.min(axis=axis), spacing.max(axis=axis)
    return bool((high - low > _SQUARE * high).any())


def _one_of(values: set[str]) -> str:
    known = values - {"unknown"}
    return "unknown" if not known else known.pop() if len(known) == 1 else "several"
