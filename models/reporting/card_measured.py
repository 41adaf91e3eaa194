"""The fields of a card that were measured: scores, operating points, calibration, subgroups, failures, robustness."""

from collections.abc import Iterator, Sequence

from models.common.labels import LABELS
from models.inference.operating import FEWEST, YOUDEN
from models.inference.release import FACTS
from models.reporting import card_text as words
from models.reporting.card_fields import CARD_FACTS, Block, Field, Table
from models.reporting.traced import ONE_CLASS, Traced

_WEIGHTED = "weighted log loss"
_POINTS = {
    "sensitivity": "at least 95 % sensitivity",
    "specificity": "at least 95 % specificity",
    YOUDEN: "best Youden",
}
_FEW = f"not measured, because fewer than {FEWEST} of them have a label, or have not"
_OF_STUDIES = (
    " A study is as probable as its highest slice: for the log loss as calibrated by other patients, for what ranks "
    "studies as it is."
)
_BEYOND = "not reached: the network is too sure of too many of them"


def measured(show: Traced) -> list[Field]:
    """All of them."""
    return [
        Field("Scores of slices", list(_scores(show, "slices"))),
        Field("Scores of studies", list(_scores(show, "studies"))),
        Field("Operating points", list(_operating(show))),
        Field("Calibration", list(_calibration(show))),
        Field("Subgroups", list(_subgroups(show))),
        Field("Failure cases", list(_failures(show))),
        Field("Robustness", list(_robustness(show))),
        Field("Out of distribution", list(_outside(show))),
    ]


def _scores(show: Traced, of: str) -> Iterator[Block]:
    table = FACTS, "scores", of
    yield (
        "Out-of-fold; in brackets the 95 % interval of a bootstrap of patients, and Jeffreys' of an AUC by which all "
        "draws are alike. The prior's is the loss of the best constant prediction."
        f"{_OF_STUDIES if of == 'studies' else ''}"
    )
    rows = [
        [
            name,
            show(*table, name, "positives", style=",.0f", unknown="all"),
            show.range(*table, name, "log loss", style=".4f"),
            show(*table, name, "prior's", style=".4f"),
            "not of all labels together" if name == _WEIGHTED else show.range(*table, name, "AUC"),
            "not of all labels together"
            if name == _WEIGHTED
            else show(*table, name, "average precision", style=".3f", unknown=ONE_CLASS),
        ]
        for name in (_WEIGHTED, *LABELS)
    ]
    yield Table(["label", f"{of} that have it", "log loss", "prior's", "AUC", "average precision"], rows)


def _operating(show: Traced) -> Iterator[Block]:
    yield (
        "Thresholds of calibrated probabilities, chosen once on the own validation and frozen in this release: an "
        "alarm is a probability at the threshold or above. In brackets Jeffreys' 95 % interval, of patients."
    )
    for of in ("studies", "slices"):
        rows = []
        for label in LABELS:
            known = show.files[CARD_FACTS]["operating_points"][of][label]
            for name, goal in _POINTS.items() if known else ():
                told = _point(show, of, label, name) if name in known else [_BEYOND] * 4
                rows.append([label, goal, *told])
            if not known:
                rows.append([label, *[_FEW] * 5])
        head = ["label", "chosen for", "threshold", "sensitivity", "specificity", "patients with and without"]
        yield f"Of {of}:"
        yield Table(head, rows)


def _point(show: Traced, of: str, label: str, name: str) -> list[str]:
    place = CARD_FACTS, "operating_points", of, label, name
    shares = [
        f"{show(*place, share, '0', style='.3f')} ({show(*place, share, '1', style='.3f')} to "
        f"{show(*place, share, '2', style='.3f')})"
        for share in ("sensitivity", "specificity")
    ]
    patients = [show(*place, count, style=",d") for count in ("positives", "negatives")]
    return [show(*place, "threshold", style=".4f"), *shares, " and ".join(patients)]


def _calibration(show: Traced) -> Iterator[Block]:
    yield (
        "A temperature and a bias of each label, fitted on the own validation: calibrated logit = logit / temperature "
        "+ bias. The error is the expected calibration error in tenths; that of slices is told on what it was fitted "
        "on, that of studies on other patients."
    )
    for of in ("slices", "studies"):
        table = FACTS, "scores", "calibration", of
        rows = [
            [
                label,
                show(CARD_FACTS, "calibration", of, label, "0", style=".3f"),
                show(CARD_FACTS, "calibration", of, label, "1", style=".3f"),
                *(show(*table, label, name, style=".4f") for name in ("predicted", "observed", "error")),
            ]
            for label in LABELS
        ]
        yield f"Of {of}:"
        yield Table(["label", "temperature", "bias", "mean predicted", "share observed", "error"], rows)


def _subgroups(show: Traced) -> Iterator[Block]:
    yield "Of `any`, slices; groups of few patients say little."
    for way in show.names(FACTS, "scores", "subgroups"):
        rows = []
        for group in show.names(FACTS, "scores", "subgroups", way):
            place = FACTS, "scores", "subgroups", way, group
            counts = [show(*place, name, style=",.0f") for name in ("slices", "patients", "positives")]
            rows.append([group, *counts, show.range(*place, "log loss"), show.range(*place, "AUC")])
        yield Table([way, "slices", "patients", "positives", "weighted log loss", "AUC"], rows)
    rows = []
    for size in show.names(FACTS, "scores", "sizes"):
        place = FACTS, "scores", "sizes", size
        counts = [show(*place, name, style=",.0f") for name in ("slices", "patients")]
        rows.append([size, *counts, show.range(*place, "found"), show.range(*place, "AUC")])
    if rows:
        yield "By how far the blood reaches along the body; found: at nine in ten of specificity."
        yield Table(["size of the bleed", "slices", "patients", "found", "AUC"], rows)
    yield words.DEMOGRAPHICS


def _failures(show: Traced) -> Iterator[Block]:
    yield "What an alarm for `any` misses, and how often it is false, at each threshold."
    for of in ("studies", "slices"):
        rows = []
        for name in show.names(FACTS, "scores", "failures", of):
            place = FACTS, "scores", "failures", of, name
            missed = [
                f"{show(*place, 'missed', label, style=',d')} of {show(*place, 'with', label, style=',d')}"
                for label in LABELS
            ]
            false = f"{show(*place, 'false alarms', style=',d')} of {show(*place, 'without hemorrhage', style=',d')}"
            rows.append([f"{name}, {show(*place, 'threshold', style='.4f')}", false, *missed])
        yield Table([f"{of}, threshold", "false alarms", *(f"missed: {label}" for label in LABELS)], rows)
    rows = []
    for name in show.names(FACTS, "scores", "named"):
        place = FACTS, "scores", "named", name
        shares = [show(*place, label, style=".1%", unknown="no slice") for label in LABELS[:-1]]
        rows.append([name, show(*place, "slices", style=",.0f"), *shares])
    yield "Slices of one type alone, and for which type they are taken:"
    yield Table(["type", "slices", *(f"taken for {label}" for label in LABELS[:-1])], rows)


def _robustness(show: Traced) -> Iterator[Block]:
    measured_on = FACTS, "measured on"
    yield (
        f"Measured on {show(*measured_on, 'slices', style=',d')} slices of {show(*measured_on, 'series', style=',d')} "
        f"series of the own validation of fold {show(*measured_on, 'fold', style='d')}, each as one view, and not "
        "calibrated. Beside each score stands that of the same slices as they are, of two that are joined by the "
        "larger probability, for they have what either has."
    )
    rows = []
    for name in show.names(FACTS, "robustness"):
        place = FACTS, "robustness", name
        losses = [show(*place, one, style=".4f") for one in (f"{_WEIGHTED} as it is", _WEIGHTED)]
        aucs = [show(*place, one, style=".3f", unknown=ONE_CLASS) for one in ("AUC any as it is", "AUC any")]
        count = show(*place, "slices", style=",d")
        rows.append([name, count, *losses, *aucs, show(*place, "mean move of any", style=".3f")])
    head = ["change", "slices", "weighted log loss as it is", "after", "AUC of any as it is", "after"]
    yield Table([*head, "mean move of any"], rows)


def _outside(show: Traced) -> Iterator[Block]:
    yield words.OUTSIDE
    rows: list[Sequence[str]] = []
    for name in show.names(FACTS, "strangeness"):
        place = FACTS, "strangeness", name
        unknown = "not measured, because the network has noted too few series"
        rows.append(
            [
                name,
                show(*place, "series", style=",d"),
                show(*place, "median", style=".2f", unknown=unknown),
                show(*place, "called strange", style=".1%", unknown=unknown),
            ]
        )
    yield Table(["series of the own validation", "series", "median distance", "called strange"], rows)
    yield words.EXPLAINED
