"""Folds: grouped by patient, stratified by label."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from models.errors import InputError
from models.labels import LABELS, SUBTYPES


def make_folds(table: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """Assign every patient of a labelled slice table to a fold; returns `patient_id`, `fold`, sorted by patient.

    A patient's slices never stand on both sides of a split (285 patients of the challenge have several studies).
    Stratified by each slice's rarest subtype, so that epidural, 0.4 % of slices, is spread too. Raises InputError for
    fewer than two folds, and with fewer patients than folds.
    """
    if folds < 2:
        raise InputError(f"--folds {folds} leaves nothing to validate on; ask for at least 2")
    patients = table["patient_id"].nunique()
    if patients < folds:
        raise InputError(
            f"{patients} patients cannot be put into {folds} folds; add studies, or ask for fewer with --folds"
        )
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.empty(len(table), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a small set may hold fewer epidural slices than folds
        for number, (_, validation) in enumerate(split.split(table, rarest_subtype(table), table["patient_id"])):
            fold[validation] = number
    return table[["patient_id"]].assign(fold=fold).drop_duplicates().sort_values("patient_id", ignore_index=True)


def rarest_subtype(table: pd.DataFrame) -> np.ndarray:
    """For each slice the name of its subtype that is rarest in the table, or "none"; (slices,)."""
    by_frequency = table[list(SUBTYPES)].sum().sort_values(kind="stable", ascending=False).index
    rarest = np.full(len(table), "none", dtype=object)
    for subtype in by_frequency:  # rarer ones overwrite
        rarest[table[subtype].to_numpy() == 1] = subtype
    return rarest


def label_shares(table: pd.DataFrame) -> pd.Series:
    """Prevalence of the six labels among the slices of a table: the prior that every model is compared with."""
    return table[list(LABELS)].mean()
