"""Folds: grouped by patient, stratified by label."""

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.labels import LABELS


def make_folds(table: pd.DataFrame, folds: int, seed: int, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """Assign every patient of a labelled slice table to a fold; returns `patient_id`, `fold`, sorted by patient.

    A patient's slices never stand on both sides of a split (285 patients of the challenge have several studies).
    Every fold gets nearly its share of the slices and of each of LABELS, also of epidural, 0.4 % of slices. A patient
    whose fold is `known` keeps it, so that data may grow and no run has seen what it is validated on. Raises InputError
    for fewer than two folds, and with fewer patients than folds.
    """
    if folds < 2:
        raise InputError(f"--folds {folds} leaves nothing to validate on; ask for at least 2")
    patients = table["patient_id"].nunique()
    if patients < folds:
        raise InputError(
            f"{patients} patients cannot be put into {folds} folds; add studies, or ask for fewer with --folds"
        )
    counts = table.assign(slices=1).groupby("patient_id")[["slices", *LABELS]].sum()
    earlier = known.set_index("patient_id")["fold"] if known is not None else pd.Series(dtype=int)
    places = earlier.reindex(counts.index, fill_value=-1).to_numpy(int)
    fold = spread(counts.to_numpy(np.float64), folds, np.random.default_rng(seed), places)
    return pd.DataFrame({"patient_id": counts.index, "fold": fold})


def spread(
    counts: np.ndarray, folds: int, generator: np.random.Generator, known: np.ndarray | None = None
) -> np.ndarray:
    """A fold for each group (groups,): every fold gets about the same sum of each column of counts (groups, columns).

    A group whose fold is `known` (groups,), not -1, keeps it.

    Greedy: the groups that hold most come first, and each goes to the fold that has least of what it holds.
    """
    shares = counts / counts.sum(axis=0).clip(min=1)
    # The jitter is what another seed changes. More of it leaves large groups for the end, where nothing evens them out.
    order = np.argsort(-shares.sum(axis=1) * generator.uniform(0.8, 1, len(shares)), kind="stable")
    fold = np.full(len(shares), -1) if known is None else known.copy()
    held = np.array([shares[fold == number].sum(axis=0) for number in range(folds)])
    for group in order[fold[order] < 0]:
        fold[group] = (held * shares[group]).sum(axis=1).argmin()  # not @: BLAS rounds differently on each machine
        held[fold[group]] += shares[group]
    return fold


def label_shares(table: pd.DataFrame) -> pd.Series:
    """Prevalence of the six labels among the slices of a table: the prior that every model is compared with."""
    return table[list(LABELS)].mean()
