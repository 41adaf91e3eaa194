"""An answer -> page.html, which a person reads: one file, no scripts, nothing that is asked of a network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.common.folders import Work
from models.common.labels import ANY, LABELS, SUBTYPES
from models.inference.answer import WARNING, Answer
from models.inference.judging import reasons_of
from models.inference.operating import predictive_values
from models.reporting.ends import ends_of
from models.reporting.key_slices import KeySlice, all_slices, large
from models.reporting.markup import fill

_NOTHING = "\N{EN DASH}"
_PREVALENCES = (0.02, 0.1, 0.3)  # of which the page tells where nobody has named one


def render_answer(answer: Answer, keys: Sequence[KeySlice], work: Work, command: str) -> str:
    """The page of an answer. Raises InputError if the store is damaged."""
    is_answered = answer.probability is not None
    start, end = ends_of(answer.slices) if len(answer.slices) else ("", "")
    return fill(
        "answer.html",
        {"percent": percent, "known": _known},
        answer=answer,
        warning=WARNING,
        sentence=sentence(answer),
        reasons=reasons_of(answer.checks),
        any=ANY,
        subtypes=SUBTYPES,
        keys=[_caption(answer, key) | {"pictures": large(key)} for key in keys],
        heat=any(key.heat is not None for key in keys),
        start=start,
        end=end,
        curve=_curve(answer, keys),
        grid=all_slices(answer, work) if answer.measures is not None else [],
        z=[float(value) for value in answer.slices["z"]],
        points=[_point(answer, name) for name in answer.points] if is_answered else [],
        series=[dict(row) for _, row in answer.series.iterrows()],
        made=_made(answer, command),
    )


def _curve(answer: Answer, keys: Sequence[KeySlice]) -> str:
    if answer.probability is None:
        return ""
    from models.reporting.figures import plot_answer, to_svg  # with matplotlib, which a refusal does not need

    return to_svg(plot_answer(answer.slices, answer.probability, [key.row for key in keys]))


def sentence(answer: Answer) -> str:
    """The answer, with its uncertainty."""
    if answer.study_probability is None or answer.any_range is None or answer.probability is None:
        return "This study cannot be judged."
    low, high = answer.any_range
    text = f"The probability of intracranial hemorrhage in this study is {percent(answer.any)}"
    text += f" ({percent(low)} to {percent(high)} by network and view)"
    if answer.alarm is not None:
        point = answer.points["sensitivity"]
        found, side = point.sensitivity, "above" if answer.alarm else "below"
        whom = "drawn patients" if answer.by_drawings else "patients"
        text += f", {side} the threshold of {percent(point.threshold)}: of {point.positives} {whom} with hemorrhage "
        text += f"it found {percent(found.value)} ({percent(found.low)} to {percent(found.high)})"
    row = answer.highest()
    kind = int(np.argmax(answer.study_probability[:ANY]))
    text += f". The most suspicious slice is {row + 1} of {len(answer.slices)}"
    return f"{text}; the most probable kind is {LABELS[kind]} ({percent(float(answer.study_probability[kind]))})."


def percent(value: float | None) -> str:
    """A share in words that do not claim more than is known."""
    if value is None or np.isnan(value):
        return _NOTHING
    words = "less than " if value < 0.01 else "more than " if value > 0.99 else ""
    return f"{words}{100 * min(max(value, 0.01), 0.99):.0f}\N{NO-BREAK SPACE}%"


def _known(value: Any) -> str:
    """A cell of a table."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return _NOTHING
    return f"{value:g}" if isinstance(value, float) else str(value) or _NOTHING


def _caption(answer: Answer, key: KeySlice) -> dict[str, Any]:
    assert answer.probability is not None  # else there are none
    own = answer.probability[key.row]
    kinds = [f"{LABELS[kind]} {percent(float(own[kind]))}" for kind in np.argsort(-own[:ANY])[:2]]
    z = float(answer.slices["z"].iloc[key.row])
    return {"number": key.row + 1, "any": float(own[ANY]), "kinds": ", ".join(kinds), "z": z}


def _point(answer: Answer, name: str) -> dict[str, Any]:
    """An operating point, and what an alarm is worth there."""
    point, prevalences = answer.points[name], (answer.prevalence,) if answer.prevalence else _PREVALENCES
    worth = {share: predictive_values(point, share) for share in prevalences}
    return {"name": f"{name} 95 %", "point": point, "alarm": answer.any >= point.threshold, "worth": worth}


def _made(answer: Answer, command: str) -> dict[str, str]:
    """By what, without any name of a folder."""
    weights = {name: f"sha256 {sha256}" for fold in answer.folds for name, sha256 in fold.weights.items()}
    return {"command": command, "study": answer.study, "series": answer.taken or _NOTHING, **weights}
