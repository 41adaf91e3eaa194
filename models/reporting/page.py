"""The page: everything that is known of predictions, in one HTML file that asks nothing of a network.

A content security policy forbids scripts and requests, every text is escaped, and no identifier of a patient, a study
or a series reaches the template: images alone are named.
"""

import base64
import hashlib
import platform
import shlex
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from models.common.folders import Work
from models.common.labels import ANY, LABELS, SUBTYPES
from models.reporting import figures
from models.reporting.figures import to_svg
from models.reporting.mistakes import SHOWN, nearest_store, worst_mistakes
from models.reporting.subgroups import FEW, score_subgroups
from models.reporting.subject import Scored, Subject, join_truth
from models.reporting.tables import calibrate, calibration_error, confuse_named, confuse_types, score_labels
from models.training.scoring import WEIGHTED

_FOLDER = Path(__file__).parent
_PACKAGES = ("rsna-intracranial-hemorrhage", "numpy", "pandas", "scikit-learn", "matplotlib", "jinja2")
_NOTHING = "\N{EN DASH}"  # where there is no number
_SHADES = 10  # of the cells of a table: .shade0 ... .shade10 of page.css


def render(subject: Subject, metadata: pd.DataFrame, work: Work) -> str:
    """The report on `subject` as HTML; `metadata` is that of training, and images come from the store of `work`.

    Raises InputError if predicted slices have no labels, or the store is damaged.
    """
    scored = join_truth(subject, metadata)
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "number": _number, "percent": _percent, "shade": _shade}
    return environment.get_template("page.html").render(
        style=Markup(style),  # the one text that is not escaped: it is this project's own
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        subject=subject,
        labels=LABELS,
        subtypes=SUBTYPES,
        any=ANY,
        weighted=WEIGHTED,
        few=FEW,
        shown=SHOWN,
        store=nearest_store(work),
        made={**subject.made, "This page": _origin(subject)},
        counts={name: scored.slices[f"{name}_id"].nunique() for name in ("image", "study", "patient")},
        **_evidence(scored),
        subgroups={name: _rows(table) for name, table in score_subgroups(scored, metadata).items()},
        mistakes=worst_mistakes(scored, metadata, work),
    )


def _evidence(scored: Scored) -> dict:
    """Tables and figures of all scored slices."""
    scores, target, probability = score_labels(scored), scored.target, scored.probability
    calibration = {}
    for number, label in enumerate(LABELS):
        points = calibrate(target[:, number], probability[:, number])
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


def _origin(subject: Subject) -> dict[str, str]:
    command = shlex.join(["python", "models/report.py", subject.name])
    return {"command": command, "Python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return _NOTHING if np.isnan(value) else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _shade(value: float) -> str:
    """The class of a cell with a share."""
    return "" if np.isnan(value) else f"shade{round(value * _SHADES)}"
