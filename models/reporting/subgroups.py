"""Scores in groups of slices that look alike: how they were made and stored, where they lie, how large a bleed is."""

import numpy as np
import pandas as pd

from models.common.folders import Work
from models.common.labels import ANY, METRIC_WEIGHTS
from models.preprocessing.geometry import known_z
from models.reporting.resampling import auc_interval, mean_interval, share_interval
from models.reporting.subject import Scored
from models.training.metric import prior, slice_losses, weighted_log_loss
from models.training.scoring import auc

FEW = 20  # patients: with fewer of them a group's score says little
SPECIFICITY = 0.9  # over all slices, at which those of a bleed are found
_UNKNOWN = "unknown"
_FORMATS = 8  # pixel formats that get a row; files from many scanners may hold hundreds
_GAPS = {"below 2 mm": 2, "2 to below 4 mm": 4, "4 to below 6 mm": 6, "6 mm and more": np.inf}
_THIRDS = {"lower third": 1 / 3, "middle third": 2 / 3, "upper third": np.inf}
_LENGTHS = {"fewer than 25": 25, "25 to 34": 35, "35 to 44": 45, "45 and more": np.inf}
_SIZES = {"below 15 mm": 15, "15 to below 30 mm": 30, "30 to below 60 mm": 60, "60 mm and more": np.inf}
_KERNELS = ("soft", "bone", "several")  # of cache/series.csv


def read_series(work: Work) -> pd.DataFrame | None:
    """What the headers of each series told, indexed by `series_id`: `kernel` and `thickness`; None from old caches."""
    if not work.series_list.is_file():
        return None
    return pd.read_csv(work.series_list).set_index("series_id")[["kernel", "thickness"]]


def score_subgroups(
    scored: Scored, metadata: pd.DataFrame, series: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """A table for each way to divide the slices, a row a group that has any; a way that divides nothing is left out.

    Columns: `slices`, `patients`, `positives` (of `any`), `log loss` (weighted), `prior's` (of the best constant for
    that group), `AUC` (of `any`; NaN if only one class is there), both with their intervals (`low`, `high`, `AUC low`,
    `AUC high`) and `few` (fewer than FEW patients). `series` is what `read_series` gives.
    """
    groupings = group_slices(metadata, series).loc[scored.slices.index]
    return {
        str(name): _score_groups(scored, groups)
        for name, groups in groupings.items()
        if set(groups) != {_UNKNOWN} or series is None
    }


def group_slices(metadata: pd.DataFrame, series: pd.DataFrame | None = None) -> pd.DataFrame:
    """The group of every slice of the metadata in each way to divide them: categories, in the order of the page."""
    of_series = metadata.groupby("series_id", sort=False)
    gaps = metadata["gap_below"].where(metadata["gap_below"] > 0)  # slices at one position tell no thickness
    distance = gaps.groupby(metadata["series_id"]).transform("median").round(3)
    lowest, highest = of_series["z"].transform("min"), of_series["z"].transform("max")
    height = (metadata["z"] - lowest) / (highest - lowest).where(highest > lowest)
    length = metadata.groupby("study_id")["image_id"].transform("size")
    groups = {
        "Scanner family, by pixel format": _pixel_formats(metadata),
        "Distance between slices": _cut(distance, _GAPS),
        "Position in the head": _cut(height, _THIRDS),
        "Slices of the study": _cut(length, _LENGTHS),
    }
    if series is not None:
        of_slice = series.reindex(metadata["series_id"]).set_axis(metadata.index)
        kernel = of_slice["kernel"].where(of_slice["kernel"].isin(_KERNELS))
        groups["Kernel of the reconstruction"] = _categorical(kernel, list(_KERNELS))
        groups["Thickness of a slice"] = _cut(of_slice["thickness"], _GAPS)
    return pd.DataFrame(groups)


def score_sizes(scored: Scored) -> pd.DataFrame:
    """A row for each size of bleed, the slices with blood on end in its series, from the lowest to the highest.

    Columns: `slices`, `patients`, `found`, the share of the slices that get a higher probability of `any` than nine in
    ten of all slices without blood, and `AUC`, beside all of these, each with its interval (`found low`, ...), `few`.
    """
    bled, probability = scored.target[:, ANY] == 1, scored.probability[:, ANY]
    patients = scored.slices["patient_id"].to_numpy()
    sizes = _cut(pd.Series(extents(scored.slices, bled)), _SIZES)
    rows = {}
    for name in list(_SIZES):
        if not (chosen := (sizes == name).to_numpy()).any() or bled.all():
            continue
        found = probability[chosen] > np.quantile(probability[~bled], SPECIFICITY)
        beside = chosen | ~bled
        rank = bled[beside].astype(float), probability[beside]
        rows[name] = {
            "slices": chosen.sum(),
            "patients": len(set(patients[chosen])),
            "found": found.mean(),
            **_interval("found", share_interval(found, patients[chosen])),
            "AUC": auc(*rank),
            **_interval("AUC", auc_interval(*rank, patients[beside])),
            "few": len(set(patients[chosen])) < FEW,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def extents(slices: pd.DataFrame, bled: np.ndarray) -> np.ndarray:
    """How far, mm, the blood of each slice reaches along z, with the slices (slices,) above and below it that have any.

    `bled` (slices,) says which do; NaN for the others. A slice alone reaches as far as to its neighbour.
    """
    z, series = known_z(slices), slices["series_id"].to_numpy()
    starts = np.r_[True, (series[1:] != series[:-1]) | (bled[1:] != bled[:-1])]
    stretch = np.cumsum(starts)
    gap = pd.Series(np.r_[np.nan, np.diff(z)]).where(np.r_[False, series[1:] == series[:-1]])
    step = gap.groupby(series).transform("median")
    heights = pd.Series(z).groupby(stretch)
    reach = heights.transform("max") - heights.transform("min")
    return (reach + step.fillna(0)).where(bled).to_numpy()


def _pixel_formats(metadata: pd.DataFrame) -> pd.Series:
    """Bits stored, sign and intercept of each slice, the most frequent first."""
    known = metadata[["bits_stored", "pixel_representation", "rescale_intercept"]]
    known = known.astype(str).where(known.notna())  # pandas 2 would call what is missing "nan"
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
        patients = scored.slices["patient_id"].to_numpy()[chosen]
        losses = np.average(slice_losses(target, probability), axis=1, weights=METRIC_WEIGHTS)
        rows[name] = {
            "slices": len(target),
            "patients": len(set(patients)),
            "positives": target[:, ANY].sum(),
            "log loss": weighted_log_loss(target, probability),
            **_interval("", mean_interval(losses, patients)),
            "prior's": weighted_log_loss(target, prior(target)),
            "AUC": auc(target[:, ANY], probability[:, ANY]),
            **_interval("AUC", auc_interval(target[:, ANY], probability[:, ANY], patients)),
            "few": len(set(patients)) < FEW,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _interval(name: str, ends: np.ndarray) -> dict[str, float]:
    return dict(zip((f"{name} low".strip(), f"{name} high".strip()), ends, strict=True))
