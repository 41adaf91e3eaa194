"""The page: everything that is known of predictions, in one HTML file that asks nothing of a network.

No identifier of a patient, a study or a series reaches the template: images alone are named.
"""

import platform
from importlib.metadata import version

import numpy as np
import pandas as pd

from models.common.folders import Work, default_work
from models.common.labels import ANY, LABELS, SUBTYPES
from models.common.repair import command_of
from models.preprocessing.origin import is_synthetic
from models.reporting import figures
from models.reporting.certainty import at_coverages, cover, find_dispute, uncertainties
from models.reporting.figures import to_svg
from models.reporting.looks import LOOKED_AT, Looks, look_at
from models.reporting.markup import fill
from models.reporting.mistakes import SHOWN, SIDE, Case, nearest_store, worst_mistakes
from models.reporting.studies import LEVELS, Studies, join_studies, operate, predict_values
from models.reporting.subgroups import FEW, read_series, score_sizes, score_subgroups
from models.reporting.subject import Scored, Subject, join_truth
from models.reporting.tables import calibrate, calibration_error, confuse_named, confuse_types, score_labels
from models.training.run_record import commit
from models.training.scoring import WEIGHTED

_PACKAGES = ("rsna-intracranial-hemorrhage", "numpy", "pandas", "scikit-learn", "matplotlib", "jinja2")
_NOTHING = "\N{EN DASH}"  # where there is no number
FIXED = (("specificity", 0.95), ("sensitivity", 0.95))  # thresholds at which the worth of an alarm is told
_SHADES = 10  # of the cells of a table: .shade0 ... .shade10 of page.css


def render(subject: Subject, metadata: pd.DataFrame, work: Work, heat: bool = True) -> str:
    """The report on `subject` as HTML; `metadata` is that of training, and images come from the store of `work`.

    `heat`: show where its networks looked, which loads them.
    Raises InputError if predicted slices have no labels, or the store is damaged.
    """
    scored = join_truth(subject, metadata)
    studies, cases = join_studies(scored), worst_mistakes(scored, metadata, work)
    return fill(
        "page.html",
        {"count": _count, "number": _number, "percent": _percent, "shade": _shade, "range": _range},
        subject=subject,
        synthetic=is_synthetic(work),
        stage=work.stage,
        labels=LABELS,
        subtypes=SUBTYPES,
        any=ANY,
        weighted=WEIGHTED,
        few=FEW,
        shown=SHOWN,
        side=SIDE,
        looked_at=LOOKED_AT,
        store=nearest_store(work),
        made={**subject.made, "This page": _origin(subject, work, heat)},
        counts={name: scored.slices[f"{name}_id"].nunique() for name in ("image", "study", "patient")},
        **_evidence(scored),
        subgroups={name: _rows(table) for name, table in score_subgroups(scored, metadata, read_series(work)).items()},
        sizes=_rows(score_sizes(scored)),
        **_of_studies(studies),
        **_certainty(scored, subject, work),
        mistakes=cases,
        of_study=_say_of_studies(cases, scored, studies.calibrated),
        looks=look_at(cases, metadata, subject, work) if heat else Looks({}, "not asked for"),
    )


def _of_studies(studies: Studies) -> dict:
    """Tables and figures of studies as a whole."""
    highest, calibrated = studies
    target, probability = calibrated.target[:, ANY], calibrated.probability[:, ANY]
    values = {name: predict_values(highest, *name) for name in FIXED}
    points = calibrate(target, probability, calibrated.slices["patient_id"].to_numpy())
    return {
        "study_scores": _rows(score_labels(calibrated, highest)),
        "operating": _rows(operate(highest)),
        "levels": LEVELS,
        "values": {f"{name} {level:.0%}": table.to_dict("index") for (name, level), table in values.items()},
        "study_calibration": to_svg(figures.plot_calibration("any", points, "studies")),
        "study_error": calibration_error(points),
    }


def _say_of_studies(cases: dict[str, list[Case]], scored: Scored, studies: Scored) -> dict[str, float]:
    """The probability of `any` of the study that each case is of, by its image."""
    said = dict(zip(studies.slices["study_id"], studies.probability[:, ANY], strict=True))
    study = dict(zip(scored.slices["image_id"], scored.slices["study_id"], strict=True))
    return {case.image_id: said[study[case.image_id]] for some in cases.values() for case in some}


def _certainty(scored: Scored, subject: Subject, work: Work) -> dict:
    """Whether the sure answers are the right ones, and where networks disagree."""
    curves = {way: cover(scored, unsure) for way, unsure in uncertainties(scored, subject.members).items()}
    return {
        "covered": {way: at_coverages(curve).to_dict("index") for way, curve in curves.items()},
        "covered_figure": to_svg(figures.plot_covered(curves)),
        "dispute": find_dispute(scored, subject, work),
    }


def _evidence(scored: Scored) -> dict:
    """Tables and figures of all scored slices."""
    scores, target, probability = score_labels(scored), scored.target, scored.probability
    patients, calibration = scored.slices["patient_id"].to_numpy(), {}
    for number, label in enumerate(LABELS):
        points = calibrate(target[:, number], probability[:, number], patients)
        calibration[label] = {
            "predicted": probability[:, number].mean(),
            "observed": target[:, number].mean(),
            "error": calibration_error(points),
            "figure": to_svg(figures.plot_calibration(label, points)),
        }
    return {
        "scores": _rows(scores),
        "losses": to_svg(figures.plot_losses(scores)),
        "roc": to_svg(figures.plot_roc(target, probability)),
        "precision": to_svg(figures.plot_precision(target, probability)),
        "calibration": calibration,
        "confusion": _rows(confuse_types(scored)),
        "named": _rows(confuse_named(scored)),
    }


def _rows(table: pd.DataFrame) -> dict[str, dict]:
    return {str(name): row for name, row in table.to_dict("index").items()}


def _origin(subject: Subject, work: Work, heat: bool) -> dict[str, str]:
    """By which command, code and packages; without folders, whose names may tell of a person."""
    flags = [] if heat else ["--no-heat"]
    command = command_of("report", subject.name, *flags, work=Work(default_work(), work.stage))
    code = {"command": command, "commit": commit() or "not known", "Python": platform.python_version()}
    return code | {name: version(name) for name in _PACKAGES}


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return _NOTHING if np.isnan(value) else f"{value:.{digits}f}"


def _range(row: dict[str, float], name: str, digits: int = 3) -> str:
    """The interval of a number that a row has by its name; a dash where there is none."""
    low, high = (row[f"{name} {end}".strip()] for end in ("low", "high"))
    return _NOTHING if np.isnan(low) else f"{low:.{digits}f} {_NOTHING} {high:.{digits}f}"


def _percent(value: float, digits: int = 1) -> str:
    return _NOTHING if np.isnan(value) else f"{value:.{digits}%}"


def _shade(value: float) -> str:
    """The class of a cell with a share."""
    return "" if np.isnan(value) else f"shade{round(value * _SHADES)}"
