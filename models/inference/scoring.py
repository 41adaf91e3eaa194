"""Scores of several predictions, and how far those of other patients may lie from them."""

import numpy as np
import pandas as pd

from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.comparing import intervals, resample, resample_prior
from models.preprocessing.tables import read_slices
from models.training.metric import prior, weighted_log_loss
from models.training.scoring import WEIGHTED, score


def score_table(labels: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each named prediction: slices, weighted log loss, the prior's, and the AUC of each label.

    `labels` and predictions are indexed by `image_id` with columns LABELS; only slices that have both count.
    """
    rows: dict[str, dict[str, float]] = {}
    for name, table in predictions.items():
        slices, target, probability = in_common(labels, table)
        if len(slices) == 0:
            rows[name] = {"slices": 0}
            continue
        scores = score(target, probability)
        aucs = {f"AUC {label}": scores[f"AUC {label}"] for label in reversed(LABELS)}
        of_prior = weighted_log_loss(target, prior(target))
        rows[name] = {"slices": len(slices), WEIGHTED: scores[WEIGHTED], "prior": of_prior, **aucs}
    return pd.DataFrame.from_dict(rows, orient="index")


def in_common(labels: pd.DataFrame, predictions: pd.DataFrame) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """The slices that have a label and a prediction, their targets and their probabilities, (slices, 6)."""
    slices = predictions.index.intersection(labels.index)
    return slices, labels.loc[slices, list(LABELS)].to_numpy(), predictions.loc[slices].to_numpy()


def read_patients(work: Work) -> pd.DataFrame:
    """The patient of each slice of the cache, and whether train has slices of this patient.

    Indexed by `image_id`, columns `patient_id` and `in_train`; without rows where there is no cache. Raises InputError
    if a table of it is damaged.
    """
    none = pd.DataFrame(columns=["image_id", "patient_id"])
    splits = [split for split in ("train", "test") if work.metadata(split).is_file()]
    tables = {split: read_slices(work, split)[list(none)] for split in splits}
    slices = pd.concat([none, *tables.values()]).drop_duplicates("image_id").set_index("image_id")
    return slices.assign(in_train=slices["patient_id"].isin(tables.get("train", none)["patient_id"]))


def score_intervals(
    target: np.ndarray, probability: np.ndarray, patients: np.ndarray, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A row for the weighted log loss and for each label: log loss, its 95 % interval (low, high), the prior's.

    Targets and probabilities are (slices, 6), at least one slice; `patients` names the patient of each slice, who are
    drawn as `resample` does it. A single patient has no interval (NaN).
    """
    table = intervals(resample(target, probability, patients, draws, seed)).head(1 + len(LABELS))
    of_prior = resample_prior(target, patients, draws=1).value[: len(table)]
    names = {"value": "log loss"}
    return table.rename(columns=names).assign(**{"prior's": of_prior}).set_axis([WEIGHTED, *LABELS])
