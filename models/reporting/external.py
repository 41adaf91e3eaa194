"""What score.py --external prints: how networks do in a published set, beside what they were released with."""

from math import isnan
from pathlib import Path

import pandas as pd

from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.inference.external import External, alarms, read_external
from models.inference.external_joining import Rows
from models.inference.external_names import Set
from models.inference.external_scores import apart, at_threshold, own_aucs, own_points, score_labels, worse
from models.inference.operating import Range
from models.inference.scoring import score_intervals
from models.reporting.tables import calibrate, calibration_error
from models.training.scoring import WEIGHTED

PRIOR = "prior's"  # log loss
OWN = "own validation"
_UNKNOWN = Range(*[float("nan")] * 3)


def print_external(published: Set, labels: Path, predictions: Path, work: Work, release: Path | None) -> None:
    """Print all tables. Raises InputError as `read_external`."""
    external = read_external(published, labels, predictions, work, release)
    joined = external.joined
    print(*external.answers.notes, *external.published.notes, *joined.notes, sep="\n")
    if external.answers.synthetic:
        print("synthetic: the answers are to drawings, not to people")
    if not external.own:
        print("what the networks reached in their own validation is not known: name --release, or their --work")
    _print_scores(external, joined.of_studies, "studies")
    _print_alarms(external)
    _print_reliability(joined.of_studies, "studies")
    if len(joined.slices):
        _print_scores(external, joined.of_slices, "slices")
        if set(external.published.labels) == set(LABELS):
            loss = score_intervals(*joined.of_slices).astype(float).loc[WEIGHTED].to_dict()
            here = Range(loss["log loss"], loss["low"], loss["high"])
            print(f"{WEIGHTED} {_range(here)}, the prior's {_number(loss[PRIOR])}")
        _print_reliability(joined.of_slices, "slices")


def score_table(external: External, rows: Rows, of: str) -> pd.DataFrame:
    """Scores of "studies" or "slices" as text, a row for each label that the set tells of.

    Beside the AUC stands that of the networks' own validation. `in the large` is the mean probability less the share
    that has the label; ECE is that of tenths.
    """
    scores = score_labels(rows, external.published.labels)
    own = own_aucs(external.own, f"of_{of}")
    table = {}
    for label, row in scores.iterrows():
        place = LABELS.index(str(label))
        here, there = Range(row["AUC"], row["AUC low"], row["AUC high"]), own.get(str(label), _UNKNOWN)
        points = calibrate(rows.target[:, place], rows.probability[:, place], rows.patients)
        predicted, observed = row["predicted"], row["observed"]
        table[label] = {
            "positive": f"{row['positive']:,.0f}",
            "AUC": _range(here),
            OWN: _range(there),
            "difference": _signed(apart(here, there)),
            "log loss": _range(Range(row["log loss"], row["loss low"], row["loss high"])),
            PRIOR: _number(row[PRIOR]),
            "in the large": f"{predicted:.3f} - {observed:.3f} = {predicted - observed:+.3f}",
            "ECE": _number(calibration_error(points)),
        }
    return pd.DataFrame.from_dict(table, orient="index")


def threshold_table(external: External) -> pd.DataFrame:
    """Sensitivity and specificity for any as text, two rows an operating point of the answers.

    Nothing is fitted: the thresholds are those of the answers, and an alarm is what an answer has called one.
    """
    studies, rows = external.joined.of_studies, {}
    for name, point in external.answers.points.items():
        here = at_threshold(alarms(external, name), studies.target[:, ANY], studies.patients)
        for what, own, released in zip(("sensitivity", "specificity"), here, own_points(point), strict=True):
            difference = apart(own, released)
            rows[f"{what} at {point['threshold']:.4g}, chosen for {name}"] = {
                "here": _range(own),
                OWN: _range(released),
                "difference": _signed(difference),
                "": worse(difference),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def _print_alarms(external: External) -> None:
    if external.answers.points:
        print("\nalarms for any in studies, at thresholds that were frozen before the set was seen")
        print(threshold_table(external).to_string())
    else:
        print("\nno sensitivity or specificity: the networks have no threshold, and none is fitted here")


def _print_scores(external: External, rows: Rows, of: str) -> None:
    print(f"\n{of}: {len(rows.target):,} of {len(set(rows.patients)):,} patients")
    print(score_table(external, rows, of).to_string())


def _print_reliability(rows: Rows, of: str) -> None:
    points = calibrate(rows.target[:, ANY], rows.probability[:, ANY], rows.patients).rename(columns={"slices": of})
    print(f"\nreliability of any in {of}, by tenths of the probability")
    print(points.to_string(index=False, float_format="{:.3f}".format))


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}"


def _range(share: Range) -> str:
    if isnan(share.low):
        return _number(share.value)
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def _signed(share: Range) -> str:
    if isnan(share.value):
        return "-"
    return f"{share.value:+.3f}" + ("" if isnan(share.low) else f" [{share.low:+.3f}, {share.high:+.3f}]")
