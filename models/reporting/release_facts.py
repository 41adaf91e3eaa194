"""facts.json of a release: what was counted and measured. All numbers of its card stand here, or in its records."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.inference.operating import YOUDEN, Point, calibrated
from models.inference.release import Frozen
from models.preprocessing.elements import Reason
from models.preprocessing.origin import noted
from models.preprocessing.problems import Problem
from models.preprocessing.tables import UNREADABLE
from models.reporting.studies import join_studies
from models.reporting.subgroups import read_series, score_sizes, score_subgroups
from models.reporting.subject import Scored
from models.reporting.tables import calibrate, calibration_error, confuse_named, score_labels
from models.training.fingerprint import of_studies
from models.training.run_record import RunRecord

_HALF = 0.5  # calibrated: more likely than not


def count_data(metadata: pd.DataFrame, work: Work) -> dict[str, Any]:
    """Of whom the labelled slices of the cache are, and what of the data could not be used as it was."""
    labelled = metadata.dropna(subset=list(LABELS))
    studies = labelled.groupby("study_id")[list(LABELS)].max()
    problems = pd.read_csv(work.problems)["problem"].astype(str) if work.problems.is_file() else pd.Series(dtype=str)
    listed = {one.value for one in (*Problem, *Reason)}  # nothing else is told: it could name a file
    settings = noted(work)
    return {
        **{f"{name}s": labelled[f"{name}_id"].nunique() for name in ("image", "patient", "series")},
        "studies": len(studies),
        "unreadable": int(np.count_nonzero(labelled["chunk"] == UNREADABLE)),
        "slices with": {label: int(labelled[label].sum()) for label in LABELS},
        "studies with": {label: int(studies[label].sum()) for label in LABELS},
        "problems": dict(sorted(Counter(name for name in problems if name in listed).items())),
        "folds": settings.get("folds"),
        "seed of the folds": settings.get("seed"),
    }


def count_scored(scored: Scored) -> dict[str, Any]:
    """Of whom the slices are that are scored."""
    names = {"slices": "image_id", "studies": "study_id", "patients": "patient_id"}
    return {name: scored.slices[column].nunique() for name, column in names.items()}


def count_patients(scored: Scored) -> dict[str, dict[str, tuple[int, int]]]:
    """How many patients have a label, and how many have `slices`, or `studies`, without it, by label."""
    patients, studies = (scored.slices[f"{of}_id"].reset_index(drop=True) for of in ("patient", "study"))
    target, _ = of_studies(studies, scored.target, scored.probability)
    whose = patients[~studies.duplicated()]  # in the order of `target`
    return {
        of: _count_both(*both) for of, both in {"slices": (patients, scored.target), "studies": (whose, target)}.items()
    }


def _count_both(patients: pd.Series, target: np.ndarray) -> dict[str, tuple[int, int]]:
    """Of labels (n, 6)."""
    return {
        label: (patients[target[:, place] == 1].nunique(), patients[target[:, place] == 0].nunique())
        for place, label in enumerate(LABELS)
    }


def measure_scores(scored: Scored, metadata: pd.DataFrame, work: Work, frozen: Frozen) -> dict[str, Any]:
    """Scores of slices and studies, calibration, subgroups, and what is taken for what."""
    studies = join_studies(scored)
    return {
        "slices": _table(score_labels(scored)),
        "studies": _table(score_labels(studies.calibrated, studies.highest)),
        "calibration": {
            "slices": _calibration(scored._replace(probability=calibrated(scored.probability, frozen.slices))),
            "studies": _calibration(studies.calibrated),
        },
        "subgroups": {
            name: _table(table) for name, table in score_subgroups(scored, metadata, read_series(work)).items()
        },
        "sizes": _table(score_sizes(scored)),
        "named": _table(confuse_named(scored)),
        "failures": count_failures(scored, frozen),
    }


def count_failures(scored: Scored, frozen: Frozen) -> dict[str, Any]:
    """Bleeds that are missed by their type, and false alarms, at each threshold of `any`, of slices and of studies."""
    target, highest = of_studies(scored.slices["study_id"].reset_index(drop=True), scored.target, scored.probability)
    levels = {
        "slices": (scored.target, calibrated(scored.probability, frozen.slices)),
        "studies": (target, calibrated(highest, frozen.studies)),
    }
    return {
        of: {name: _failures(*both, threshold) for name, threshold in thresholds(frozen.points[of]).items()}
        for of, both in levels.items()
    }


def thresholds(points: Mapping[str, Mapping[str, Point]]) -> dict[str, float]:
    """Those of `any` by what they are called; a half, where too few were seen to choose one."""
    names = {"sensitivity": "sensitivity", "specificity": "specificity", YOUDEN: "Youden"}
    own = points[LABELS[ANY]]
    return {"a half": _HALF} | {names[name]: point.threshold for name, point in own.items()}


def count_training(records: Mapping[str, RunRecord], folder: Path) -> dict[str, Any]:
    """How long each fold was trained, and how large its weights and statistics are, by what they are called."""
    hours = {name: record.ran.get("train_seconds") for name, record in records.items()}
    known = [value for value in hours.values() if value is not None]
    return {
        "hours": {name: None if value is None else value / 3600 for name, value in hours.items()},
        "hours of all": sum(known) / 3600 if len(known) == len(hours) else None,
        "bytes": {name: (folder / name / "model.safetensors").stat().st_size for name in records},
        "numbers": {name: _numbers(folder / name / "model.safetensors") for name in records},
    }


def _numbers(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, "numpy") as tensors:
        return sum(int(np.prod(tensors.get_slice(name).get_shape(), dtype=int)) for name in tensors.keys())  # noqa: SIM118


def _failures(target: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, Any]:
    """Of labels and calibrated probabilities (n, 6)."""
    alarm, bled = probability[:, ANY] >= threshold, target[:, ANY] == 1
    return {
        "threshold": threshold,
        "without hemorrhage": int((~bled).sum()),
        "false alarms": int((alarm & ~bled).sum()),
        "with": {label: int((target[:, place] == 1).sum()) for place, label in enumerate(LABELS)},
        "missed": {label: int((~alarm & (target[:, place] == 1)).sum()) for place, label in enumerate(LABELS)},
    }


def _calibration(scored: Scored) -> dict[str, dict[str, float | None]]:
    patients, rows = scored.slices["patient_id"].to_numpy(), {}
    for place, label in enumerate(LABELS):
        target, probability = scored.target[:, place], scored.probability[:, place]
        error = calibration_error(calibrate(target, probability, patients))
        rows[label] = {"predicted": probability.mean(), "observed": target.mean(), "error": error}
    return {label: {name: _known(value) for name, value in row.items()} for label, row in rows.items()}


def _table(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    rows = table.to_dict("index")
    return {str(name): {str(column): _known(value) for column, value in row.items()} for name, row in rows.items()}


def _known(value: Any) -> Any:
    """A value as JSON has it; nothing where it is not known."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
