"""Scores in groups of slices that look alike: how they were stored, how thick they are, where in the head they lie."""

import numpy as np
import pandas as pd

from models.common.labels import ANY
from models.reporting.subject import Scored
from models.training.metric import prior, weighted_log_loss
from models.training.scoring import auc

FEW = 20  # patients: with fewer of them a group's score says little
_UNKNOWN = "unknown"
_FORMATS = 8  # pixel formats that get a row; files from many scanners may hold hundreds
_GAPS = {"below 2 mm": 2, "2 to below 4 mm": 4, "4 to below 6 mm": 6, "6 mm and more": np.inf}
_THIRDS = {"lower third": 1 / 3, "middle third": 2 / 3, "upper third": np.inf}
_LENGTHS = {"fewer than 25": 25, "25 to 34": 35, "35 to 44": 45, "45 and more": np.inf}


def score_subgroups(scored: Scored, metadata: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table for each way to divide the slices, a row a group that has any.

    Columns: `slices`, `patients`, `positives` (of `any`), `log loss` (weighted), `prior's` (of the best constant for
    that group), `AUC` (of `any`; NaN if only one class is there) and `few` (fewer than FEW patients).
    """
    groupings = group_slices(metadata).loc[scored.slices.index]
    return {str(name): _score_groups(scored, groups) for name, groups in groupings.items()}


def group_slices(metadata: pd.DataFrame) -> pd.DataFrame:
    """The group of every slice of the metadata in each way to divide them: categories, in the order of the page."""
    series = metadata.groupby("series_id", sort=False)
    gaps = metadata["gap_below"].where(metadata["gap_below"] > 0)  # slices at one position tell no thickness
    thickness = gaps.groupby(metadata["series_id"]).transform("median").round(3)
    lowest, highest = series["z"].transform("min"), series["z"].transform("max")
    height = (metadata["z"] - lowest) / (highest - lowest).where(highest > lowest)
    length = metadata.groupby("study_id")["image_id"].transform("size")
    return pd.DataFrame(
        {
            "Pixel format": _pixel_formats(metadata),
            "Distance between slices": _cut(thickness, _GAPS),
            "Position in the head": _cut(height, _THIRDS),
            "Slices of the study": _cut(length, _LENGTHS),
        }
    )


def _pixel_formats(metadata: pd.DataFrame) -> pd.Series:
    """Bits stored, sign and intercept of each slice, the most frequent first."""
    known = metadata[["bits_stored", "pixel_representation", "rescale_intercept"]].astype(str)
    bits, sign, intercept = (known[name].str.removesuffix(".0") for name in known)
    sign = sign.replace({"0": "unsigned", "1": "signed"})
    names = bits + " bits " + sign + ", intercept " + intercept
    order = list(names.value_counts().index)
    names = names.where(names.isin(order[:_FORMATS]) | names.isna(), "others")
    return _categorical(names, [*order[:_FORMATS], "others"])


def _cut(values: pd.Series, bounds: dict[str, float]) -> pd.Series:
    """Groups by upper bounds, which themselves lie in the next group."""
    cut = pd.cut(values, [-np.inf, *bounds.values()], right=False, labels=list(bounds))
    return _categorical(cut.astype(object), list(bounds))


def _categorical(names: pd.Series, order: list[str]) -> pd.Series:
    return names.fillna(_UNKNOWN).astype(pd.CategoricalDtype([*order, _UNKNOWN], ordered=True))


def _score_groups(scored: Scored, groups: pd.Series) -> pd.DataFrame:
    rows = {}
    for name in groups.cat.categories:
        if not (chosen := (groups == name).to_numpy()).any():
            continue
        target, probability = scored.target[chosen], scored.probability[chosen]
        patients = scored.slices.loc[chosen, "patient_id"].nunique()
        rows[name] = {
            "slices": len(target),
            "patients": patients,
            "positives": target[:, ANY].sum(),
            "log loss": weighted_log_loss(target, probability),
            "prior's": weighted_log_loss(target, prior(target)),
            "AUC": auc(target[:, ANY], probability[:, ANY]),
            "few": patients < FEW,
        }
    return pd.DataFrame.from_dict(rows, orient="index")
