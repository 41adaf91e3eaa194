"""A network that has been trained -> its fingerprint.json: what it saw in its validation, and what it said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.covariance import LedoitWolf
from torch import nn
from torch.utils.data import DataLoader

from models.common.files import write_json
from models.common.labels import LABELS
from models.training.fingerprint import FILE, SUMS, count_logits, distances, lower_half, of_studies, sums
from models.training.loading import WatchedDataset
from models.training.networks import HemorrhageNetwork
from models.training.recurrent import StudyNetwork

_SERIES = 40  # whose slices are looked at
_FEWEST = 4  # of them, without which no spread is told
_AT_ONCE = 16  # slices
_QUANTILES = (0.05, 0.5, 0.95)


def write_fingerprint(
    folder: Path, network: nn.Module, slices: pd.DataFrame, loader: DataLoader, probability: np.ndarray
) -> None:
    """Write fingerprint.json of a run from the slices of its validation, and what it says of them (slices, 6).

    `loader` is theirs. Raises InputError if it cannot be written.
    """
    dataset = loader.dataset
    assert isinstance(dataset, WatchedDataset)  # as make_loader makes them
    target = slices[list(LABELS)].to_numpy()
    embed, series = embedder(network), slices.groupby("series_id")
    content: dict[str, Any] = {
        "slices": len(slices),
        "patients": slices["patient_id"].nunique(),
        "studies": slices["study_id"].nunique(),
        "spacing": _quantiles(series["gap_below"].median()),
        "pixel": _quantiles(series["pixel_spacing_0"].median()),
        "of_slices": count_logits(target, probability),
        "of_studies": count_logits(*of_studies(slices["study_id"], target, probability)),
        "embedding": None if embed is None else _spread(slices, dataset, embed),
    }
    write_json(folder / FILE, content, indent=None)


def embedder(network: nn.Module) -> HemorrhageNetwork | None:
    """The part of a network that looks at single slices; None where it is given what another one has seen."""
    part = network.slices if isinstance(network, StudyNetwork) else network
    return part if isinstance(part, HemorrhageNetwork) else None


def _spread(slices: pd.DataFrame, dataset: WatchedDataset, network: HemorrhageNetwork) -> dict[str, Any] | None:
    """Mean and covariance of sums over the slices of some series, and how far series are from those of the others."""
    names = slices["series_id"].unique()
    chosen = names[np.unique(np.linspace(0, len(names) - 1, _SERIES).astype(int))]
    if len(chosen) < _FEWEST:
        return None
    rows = np.flatnonzero(slices["series_id"].isin(chosen))
    series, _ = pd.factorize(slices["series_id"].iloc[rows])
    seen = sums(_embed(dataset, rows, network))
    apart = np.zeros(len(rows))
    for half in (series % 2 == 0, series % 2 == 1):
        apart[half] = distances(seen[half], *_fit(seen[~half]))
    mean, covariance = _fit(seen)
    return {
        "series": len(chosen),
        "mean": _rounded(mean),
        "covariance": _rounded(lower_half(covariance)),
        "distance": _quantiles(pd.Series(apart).groupby(series).mean(), (0.5, 0.95, 1.0)),
    }


def _fit(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (SUMS,) and covariance (SUMS, SUMS) of sums (slices, SUMS), shrunk as far as few slices need it."""
    fitted = LedoitWolf().fit(seen)
    return fitted.location_, fitted.covariance_ + 1e-9 * np.eye(SUMS)


@torch.inference_mode()
def _embed(dataset: WatchedDataset, rows: np.ndarray, network: HemorrhageNetwork) -> np.ndarray:
    """What a network sees in some slices, (slices, width)."""
    device, was_training = network.head.weight.device, network.training
    network.eval()
    parts = []
    for first in range(0, len(rows), _AT_ONCE):
        images = dataset.__getitems__([(0, int(row)) for row in rows[first : first + _AT_ONCE]])[0]
        parts.append(network.embed(images.to(device)).float().cpu().numpy())
    network.train(was_training)
    return np.concatenate(parts)


def _quantiles(values: pd.Series, shares: tuple[float, ...] = _QUANTILES) -> list[float] | None:
    known = values.dropna()
    return _rounded(known.quantile(list(shares)).to_numpy()) if len(known) else None


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values.ravel()]
