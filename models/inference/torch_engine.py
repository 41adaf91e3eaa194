"""torch, as the engine that networks are carried out by (engines.py)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.common.config import SequenceConfig, StudyConfig, TrainConfig
from models.common.labels import ANY, LABELS
from models.inference.asked_runs import Eye, Fold, Study
from models.inference.engines import Seen, at_once
from models.inference.heat import heat_maps
from models.training.dataset import SliceDataset
from models.training.device import choose_device, use_device
from models.training.learnt import embedder
from models.training.networks import HemorrhageNetwork, build_network
from models.training.precision import autocast, usable_precision
from models.training.recurrent import RecurrentLayers, StudyNetwork, build_sequence_network, build_study_network
from models.training.run_record import RunRecord
from models.training.symmetries import Symmetry
from models.training.transfer import network_to_device
from models.training.weights import load_trained


class TorchEngine:
    """On the device of a name; `threads` are those of a CPU. Raises InputError for a device that is not there."""

    name = f"torch {torch.__version__}"

    def __init__(self, device: str, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = use_device(choose_device(device))
        self._networks: dict[Path, nn.Module] = {}

    @torch.no_grad()
    def see(self, eye: Eye, study: Study, group: Sequence[Symmetry]) -> Seen:
        """As `Engine.see`: embeddings (views, slices, width) and logits (views, slices, 6)."""
        network, dataset = self.eye(eye), _dataset(study, eye)
        parts, some = [], at_once(eye.config.input_size)
        for first in range(0, len(study.slices), some):
            rows = range(first, min(first + some, len(study.slices)))
            images = torch.stack([dataset[0, row][0] for row in rows]).to(self.device)
            with autocast(self.device, usable_precision(eye.config.precision, self.device)):
                views = [network.embed(symmetry.apply(images)).float() for symmetry in group]
            parts.append(torch.stack(views))
        embedding = torch.cat(parts, dim=1)
        return Seen(embedding.cpu().numpy(), network.head(embedding).float().cpu().numpy())

    @torch.no_grad()
    def carry(self, fold: Fold, seen: np.ndarray, place: np.ndarray) -> np.ndarray:
        """As `Engine.carry`: `seen` (slices, width + 6 networks), `place` (slices, 3) -> logits (slices, 6)."""
        layers = self.layers(fold, seen.shape[1] - len(fold.eyes) * len(LABELS))
        seen, place = np.ascontiguousarray(seen), np.ascontiguousarray(place)
        return layers(torch.from_numpy(seen).to(self.device), torch.from_numpy(place)).float().cpu().numpy()

    def heat(self, eye: Eye, study: Study) -> np.ndarray:
        """As `Engine.heat`: (slices, size, size)."""
        network, dataset = self.eye(eye), _dataset(study, eye)
        images = (dataset[0, row][0][None].to(self.device) for row in range(len(study.slices)))
        return torch.cat([heat_maps(network, image, ANY) for image in images]).cpu().numpy()

    def eye(self, eye: Eye) -> HemorrhageNetwork:
        """A network that looks at images. Raises InputError if its weights are damaged."""
        network = embedder(self._network(eye.folder, eye.record, 0))
        assert network is not None  # it looks at images
        return network

    def layers(self, fold: Fold, width: int) -> RecurrentLayers:
        """The layers of a fold over embeddings of `width` numbers. Raises InputError if its weights are damaged."""
        network = self._network(fold.folder, fold.record, width)
        layers = network.studies if isinstance(network, StudyNetwork) else network
        assert isinstance(layers, RecurrentLayers)  # it has some
        return layers

    def _network(self, folder: Path, record: RunRecord, width: int) -> nn.Module:
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
