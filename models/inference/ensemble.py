"""Trained folds -> what each says of the slices of one study, under each of the views that it takes of them.

Networks are loaded once and kept. A network of slices looks at a study once, whoever needs what it sees: it itself,
layers over its embeddings, the check whether it has seen such slices before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.common.config import SequenceConfig, StudyConfig, TrainConfig
from models.common.labels import ANY
from models.common.options import TestTimeAugmentation
from models.inference.asked_runs import Eye, Fold, Study
from models.inference.heat import heat_maps
from models.training.d4 import GROUPS, Symmetry
from models.training.dataset import SliceDataset
from models.training.device import choose_device, use_device
from models.training.embeddings import in_half
from models.training.fingerprint import Fingerprint, distances, sums
from models.training.learnt import embedder
from models.training.networks import HemorrhageNetwork, build_network
from models.training.precision import autocast, usable_precision
from models.training.recurrent import RecurrentLayers, StudyNetwork, build_sequence_network, build_study_network
from models.training.run_record import RunRecord
from models.training.studies import places
from models.training.transfer import network_to_device
from models.training.weights import load_trained

_PIXELS = 1 << 20  # that go through a network at a time: four slices of 512
_MOST = 32  # slices


class Said(NamedTuple):
    """What a fold says of the readable slices of a study."""

    fold: Fold
    probability: np.ndarray  # (views, slices, 6), not calibrated
    strangeness: float | None  # how far what it sees is from its validation, of what was the most there


class Ensemble:
    """The networks of some folds on a device; `tta` are the views of networks of images.

    Layers over embeddings have the views that they were trained with. What it does raises InputError if weights or the
    store are damaged.
    """

    def __init__(self, folds: Sequence[Fold], device: str, tta: TestTimeAugmentation) -> None:
        self.folds, self.tta = list(folds), tta
        self.device = use_device(choose_device(device))
        self._networks: dict[Path, nn.Module] = {}

    @torch.no_grad()
    def ask(self, study: Study) -> list[Said]:
        """What each fold says of a study."""
        seen: dict[tuple[Path, str], torch.Tensor] = {}
        return [self._ask(fold, study, seen) for fold in self.folds]

    def heat(self, study: Study) -> np.ndarray:
        """Where the first network that looks at images looks for any hemorrhage, (slices, size, size) of its store."""
        eye = self.folds[0].eyes[0]
        network, dataset = self._eye(eye), _dataset(study, eye)
        images = (dataset[0, row][0][None].to(self.device) for row in range(len(study.slices)))
        heat = torch.cat([heat_maps(network, image, ANY) for image in images]).cpu().numpy()
        margin = (eye.config.image_size - eye.config.input_size) // 2  # what a network that crops has not seen
        beyond = eye.config.image_size - eye.config.input_size - margin
        return np.pad(heat, ((0, 0), (margin, beyond), (margin, beyond)))

    def _ask(self, fold: Fold, study: Study, seen: dict[tuple[Path, str], torch.Tensor]) -> Said:
        config = fold.record.config
        views = config.views if isinstance(config, SequenceConfig) else self.tta
        for eye in fold.eyes:
            if (eye.folder, views) not in seen:
                seen[eye.folder, views] = self._see(eye, study, GROUPS[views])
        own = [seen[eye.folder, views] for eye in fold.eyes]
        heads = [self._eye(eye).head for eye in fold.eyes]
        place = torch.from_numpy(places(study.slices))
        network = self._network(fold.folder, fold.record, sum(part.shape[2] for part in own))
        if isinstance(network, RecurrentLayers):
            mean = [part.mean(dim=0) for part in own]
            logits = [head(part) for head, part in zip(heads, mean, strict=True)]
            probability = _both_ways(network, torch.cat([in_half(part) for part in mean + logits], dim=1), place)
        elif isinstance(network, StudyNetwork):
            described = torch.cat([own[0], heads[0](own[0])], dim=2)
            probability = torch.stack([network.studies(view, place).sigmoid() for view in described])
        else:
            probability = heads[0](own[0]).sigmoid()
        strangeness = _strangeness(fold.eyes[0].fingerprint, own[0][0])  # the view as it is comes first
        return Said(fold, probability.float().cpu().numpy(), strangeness)

    def _see(self, eye: Eye, study: Study, group: tuple[Symmetry, ...]) -> torch.Tensor:
        """Embeddings of a study, (views, slices, width)."""
        network, dataset = self._eye(eye), _dataset(study, eye)
        at_once = max(1, min(_MOST, _PIXELS // eye.config.input_size**2))
        parts = []
        for first in range(0, len(study.slices), at_once):
            rows = range(first, min(first + at_once, len(study.slices)))
            images = torch.stack([dataset[0, row][0] for row in rows]).to(self.device)
            with autocast(self.device, usable_precision(eye.config.precision, self.device)):
                views = [network.embed(symmetry.apply(images)).float() for symmetry in group]
            parts.append(torch.stack(views))
        return torch.cat(parts, dim=1)

    def _eye(self, eye: Eye) -> HemorrhageNetwork:
        network = embedder(self._network(eye.folder, eye.record))
        assert network is not None  # it looks at images
        return network

    def _network(self, folder: Path, record: RunRecord, width: int = 0) -> nn.Module:
        """That of a fold, ready to look. `width` is that of the embeddings, of layers over them."""
        if folder not in self._networks:
            network = _build(record, width)
            load_trained(folder, record, network)
            self._networks[folder] = network_to_device(network, self.device).eval()
        return self._networks[folder]


def _build(record: RunRecord, width: int) -> nn.Module:
    config = record.config
    if isinstance(config, SequenceConfig):
        return build_sequence_network(config, width)
    if isinstance(config, StudyConfig):
        return build_study_network(config)
    assert isinstance(config, TrainConfig)  # there is no other kind
    return build_network(config)


def _dataset(study: Study, eye: Eye) -> SliceDataset:
    return SliceDataset(study.slices, study.work, eye.config, "none")


def _both_ways(network: RecurrentLayers, seen: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Probabilities of a study as it is, and turned upside down, (2, slices, 6)."""
    upright = network(seen, place).sigmoid()
    return torch.stack([upright, network(seen.flip(0), place.flip(0)).sigmoid().flip(0)])


def _strangeness(known: Fingerprint | None, seen: torch.Tensor) -> float | None:
    """How far a study is from what a network saw in its validation, of embeddings (slices, width)."""
    if known is None or known.familiar is None:
        return None
    familiar = known.familiar
    apart = distances(sums(seen.cpu().numpy()), familiar.mean, familiar.covariance)
    return float(apart.mean() / familiar.distance[2])
