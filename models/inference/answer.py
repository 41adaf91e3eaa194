"""The answer to one study, as answer.json, slices.csv and a row of answers.csv tell it (docs/own_ct.md)."""

import platform
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from models.common.labels import ANY, LABELS
from models.inference.asked_runs import Fold, of_drawings
from models.inference.combining import Reading
from models.inference.judging import Check, Verdict, reasons_of
from models.inference.operating import Point, Range, predictive_values
from models.preprocessing.measures import Measures
from models.preprocessing.tables import UNREADABLE
from models.training.run_record import commit, package_versions, project_version

FORMAT = 1  # of answer.json: another number where a reader of the last one would be misled
WARNING = "Research software, not a medical device: do not base a decision about a patient on it."


@dataclass(frozen=True)
class Answer:
    """What is said of a study."""

    study: str  # keys
    patient: str
    content: str  # a hash of its files
    verdict: Verdict
    checks: list[Check]
    notes: list[str]  # what holds of every answer of these networks
    series: pd.DataFrame  # a row each: what it is, whether it was taken, and why
    slices: pd.DataFrame  # of the series that is judged; none where there is none
    image_size: int = 0  # of its store
    measures: Measures | None = None
    probability: np.ndarray | None = None  # (slices, 6), calibrated; none where it is refused
    study_probability: np.ndarray | None = None  # (6,)
    any_range: tuple[float, float] | None = None  # over networks and views
    folds: list[Fold] = field(default_factory=list)
    readings: dict[str, Reading] = field(default_factory=dict)
    points: dict[str, Point] = field(default_factory=dict)
    prevalence: float | None = None
    synthetic: bool = False
    engine: str = ""  # what carried out the networks

    @property
    def any(self) -> float:
        """The probability of any hemorrhage in the study, NaN where it is refused."""
        return float("nan") if self.study_probability is None else float(self.study_probability[ANY])

    @property
    def by_drawings(self) -> bool:
        """Whether what is told of how often it is right was counted on drawings, and not on people."""
        return of_drawings(self.folds)

    def highest(self, column: int = ANY) -> int:
        """The row of the slice in which a label is most probable, of those that can be read."""
        assert self.probability is not None  # it is answered
        readable = (self.slices["chunk"] != UNREADABLE).to_numpy()
        return int(np.where(readable, self.probability[:, column], -1.0).argmax())

    @property
    def alarm(self) -> bool | None:
        """Whether it is at or above the threshold at which 95 % of studies with hemorrhage are found."""
        point = self.points.get("sensitivity")
        return None if point is None or self.study_probability is None else self.any >= point.threshold

    @property
    def taken(self) -> str:
        """The key of the series that is judged, "" where there is none."""
        return "" if self.slices.empty else str(self.slices["series_id"].iloc[0])


def to_json(answer: Answer, command: str) -> dict[str, Any]:
    """What answer.json holds."""
    return {
        "format": FORMAT,
        "warning": WARNING,
        "study": answer.study,
        "patient": answer.patient,
        "content": answer.content,
        "synthetic": answer.synthetic,
        "verdict": answer.verdict,
        "reasons": reasons_of(answer.checks),
        "notes": answer.notes,
        "study_probability": _by_label(answer.study_probability),
        "any_range": None if answer.any_range is None else [_rounded(value) for value in answer.any_range],
        "operating_points": {
            name: _point(point, answer.prevalence) | {"alarm": answer.any >= point.threshold}
            for name, point in answer.points.items()
            if answer.study_probability is not None
        },
        "prevalence": answer.prevalence,
        "series": answer.taken,
        "slices": _slices(answer),
        "checks": [check._asdict() for check in answer.checks],
        "measures": None if answer.measures is None else _known(answer.measures._asdict()),
        "all_series": [_known(dict(row)) for _, row in answer.series.iterrows()],
        "calibration": {name: _calibration(reading) for name, reading in answer.readings.items()},
        "weights": {name: sha256 for fold in answer.folds for name, sha256 in fold.weights.items()},
        "software": _software(answer.engine),
        "command": command,
    }


def slice_rows(answer: Answer, files: dict[str, str] | None) -> pd.DataFrame:
    """What slices.csv holds: a row a slice from the feet to the head, `files` naming theirs."""
    slices = answer.slices
    table = pd.DataFrame({"image_id": slices["image_id"], "slice": range(1, len(slices) + 1), "z": slices["z"]})
    if files is not None:
        table["file"] = [files.get(name, files.get(name.rpartition("_")[0], "")) for name in slices["image_id"]]
    for column, label in enumerate(LABELS):
        table[label] = np.nan if answer.probability is None else answer.probability[:, column].round(6)
    return table.assign(readable=(slices["chunk"] >= 0).to_numpy(), synthetic=answer.synthetic)


def row_of(content: dict[str, Any], folder: str) -> dict[str, Any]:
    """The row of answers.csv, from what answer.json holds."""
    probability = content["study_probability"] or dict.fromkeys(LABELS)
    low, high = content["any_range"] or (None, None)
    readable = [one for one in content["slices"] if one["readable"]]
    highest = max(readable, key=lambda one: (one["probability"] or {"any": -1})["any"], default={})
    point = content["operating_points"].get("sensitivity")
    return {
        "study": content["study"],
        "verdict": content["verdict"],
        "any": probability["any"],
        "any_low": low,
        "any_high": high,
        "alarm": "" if point is None else "yes" if point["alarm"] else "no",
        "slice": highest.get("slice") if probability["any"] is not None else None,
        **{label: probability[label] for label in LABELS[:ANY]},
        "reasons": "; ".join(content["reasons"]),
        "series": content["series"],
        "patient": content["patient"],
        "folder": folder,
        "synthetic": content["synthetic"],
    }


def worklist(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of answers.csv, what is most probable first, then what is refused."""
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).astype({"slice": "Int64"})  # of what is refused there is none
    return table.sort_values(["any", "study"], ascending=[False, True], na_position="last")


def _slices(answer: Answer) -> list[dict[str, Any]]:
    rows = slice_rows(answer, None)
    return [
        {
            "image_id": row["image_id"],
            "slice": row["slice"],
            "z": None if np.isnan(row["z"]) else row["z"],
            "readable": bool(row["readable"]),
            "probability": None if answer.probability is None else {label: row[label] for label in LABELS},
        }
        for row in rows.to_dict("records")
    ]


def _point(point: Point, prevalence: float | None) -> dict[str, Any]:
    shares = {"sensitivity": point.sensitivity, "specificity": point.specificity}
    if prevalence is not None:
        shares |= predictive_values(point, prevalence)
    ranges = {name: _range(share) for name, share in shares.items()}
    return {"threshold": _rounded(point.threshold), "patients": [point.positives, point.negatives], **ranges}


def _range(share: Range) -> list[float]:
    return [_rounded(value) for value in share]


def _calibration(reading: Reading) -> dict[str, Any]:
    """Temperature and bias of each label; nothing where probabilities are as the network says them."""
    return {
        "slices": {label: [*map(_rounded, reading.slices[label])] for label in LABELS} if reading.of_slices else None,
        "studies": {label: [*map(_rounded, reading.studies[label])] for label in LABELS}
        if reading.of_studies
        else None,
    }


def _software(engine: str) -> dict[str, str]:
    own = {"commit": commit() or "not known", "project": project_version(), "Python": platform.python_version()}
    return own | package_versions() | ({"engine": engine} if engine else {})


def _by_label(probability: np.ndarray | None) -> dict[str, float] | None:
    return None if probability is None else {label: _rounded(probability[i]) for i, label in enumerate(LABELS)}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers that are not known as JSON has them."""
    return {
        name: None
        if isinstance(value, float) and np.isnan(value)
        else _rounded(value)
        if isinstance(value, float)
        else value
        for name, value in values.items()
    }


def _rounded(value: float) -> float:
    return float(f"{float(value):.6g}")
