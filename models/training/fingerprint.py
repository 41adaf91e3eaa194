"""What a run knows of itself, in a few KB beside its weights: which slices it was validated on, and what it said.

fingerprint.json holds no slice and no patient: how far apart slices and pixels were, the mean and covariance of what
the network saw in them (of a few sums of its embedding), and for each label how often it said what, of slices that have
it and of those that have not; the same of studies, by their highest slice. Counts of several folds add up. It is
written by models/training/learnt.py; reading it needs no torch.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logit

from models.common.errors import InputError
from models.common.files import read_json
from models.common.labels import LABELS

FILE = "fingerprint.json"
EDGES = np.round(np.arange(-10.0, 10.01, 0.25), 2)  # of logits that are counted; beyond them lie the first and last
SUMS = 24  # of the numbers of an embedding
_LOWER = np.tril_indices(SUMS)

Counts = dict[str, np.ndarray]  # by label (2, len(EDGES) + 1): without it, and with it


class Familiar(NamedTuple):
    """What a network saw in the slices of its validation, as sums of its embedding."""

    mean: np.ndarray  # (SUMS,)
    covariance: np.ndarray  # (SUMS, SUMS)
    distance: tuple[float, float, float]  # mean distances of series from the others: the median, the 95th, the largest


class Fingerprint(NamedTuple):
    """What fingerprint.json tells."""

    patients: int  # of the validation
    studies: int
    spacing: float | None  # mm between slices, the median of series
    of_slices: Counts
    of_studies: Counts
    familiar: Familiar | None


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """That of a run; None where an older version has trained it. Raises InputError if it is damaged."""
    file = folder / FILE
    if not file.is_file():
        return None
    content = read_json(file, "training that fold again, after deleting its folder")
    try:
        seen = content["embedding"]
        return Fingerprint(
            content["patients"],
            content["studies"],
            content["spacing"][1] if content["spacing"] else None,
            {label: np.array(content["of_slices"][label]) for label in LABELS},
            {label: np.array(content["of_studies"][label]) for label in LABELS},
            _familiar(seen) if seen else None,
        )
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"{file} was written by another version of this project ({error}); delete it") from error


def of_studies(studies: pd.Series, target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities (slices, 6) of slices -> those of their studies (studies, 6): of the highest slice."""
    codes, names = pd.factorize(studies)
    joined = np.zeros((2, len(names), len(LABELS)))
    np.maximum.at(joined[0], codes, target)
    np.maximum.at(joined[1], codes, probability)
    return joined[0], joined[1]


def count_logits(target: np.ndarray, probability: np.ndarray) -> dict[str, list[list[int]]]:
    """For each label how many of those without and with it have a logit between EDGES; both arrays are (n, 6)."""
    places = np.digitize(logit(np.clip(probability.astype(float), 1e-7, 1 - 1e-7)), EDGES)
    return {
        label: [
            np.bincount(places[target[:, column] == value, column], minlength=len(EDGES) + 1).tolist()
            for value in (0, 1)
        ]
        for column, label in enumerate(LABELS)
    }


def sums(embedding: np.ndarray) -> np.ndarray:
    """SUMS sums of the numbers of embeddings (slices, width), each with signs of its own: (slices, SUMS).

    Random projections keep distances (Johnson and Lindenstrauss 1984), and need no file: the signs are those of a hash.
    """
    width = embedding.shape[1]
    random = hashlib.shake_256(b"signs of the sums of an embedding").digest(SUMS * width // 8 + 1)
    signs = 1.0 - 2.0 * np.unpackbits(np.frombuffer(random, np.uint8))[: SUMS * width].reshape(width, SUMS)
    return embedding.astype(float) @ signs / width**0.5


def distances(seen: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances of sums (slices, SUMS) from a mean (SUMS,): (slices,), about 1 of what belongs."""
    apart = seen - mean
    return np.einsum("ij,ij->i", apart, np.linalg.solve(covariance, apart.T).T) / seen.shape[1]


def lower_half(covariance: np.ndarray) -> np.ndarray:
    """What is written of a covariance (SUMS, SUMS), which is symmetric: (SUMS (SUMS + 1) / 2,)."""
    return covariance[_LOWER]


def _familiar(seen: dict) -> Familiar:
    covariance = np.zeros((SUMS, SUMS))
    covariance[_LOWER] = seen["covariance"]
    covariance = covariance + np.tril(covariance, -1).T
    low, high, highest = seen["distance"]
    return Familiar(np.array(seen["mean"]), covariance, (low, high, highest))
