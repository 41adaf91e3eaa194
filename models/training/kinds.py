"""What differs between the kinds of runs: networks of slices, of studies, and over the embeddings of others."""

from pathlib import Path

import pandas as pd
from torch import nn
from torch.utils.data import Dataset

from models.config import Augment, Machine, RunConfig, SequenceConfig, StudyConfig
from models.paths import Work
from models.training.dataset import SliceDataset, StudyDataset
from models.training.embeddings import SequenceDataset, extract, find_sources
from models.training.networks import build_network, load_initial_weights
from models.training.processes import Processes
from models.training.recurrent import build_sequence_network, build_study_network


def make_inputs(config: RunConfig, slices: pd.DataFrame, folder: Path, machine: Machine, processes: Processes) -> None:
    """Make what a run in `folder` needs of all slices of a split beside the cache: embeddings, where it reads them."""
    if isinstance(config, SequenceConfig):
        extract(slices, processes.on_main(lambda: find_sources(config, folder)), config.views, machine, processes)


def source_weights(config: RunConfig, folder: Path) -> dict[str, str]:
    """The sha256 of the weights that a run in `folder` builds on, by the name of the run."""
    if not isinstance(config, SequenceConfig):
        return {}
    return {source.name: source.record.weights_sha256 for source in find_sources(config, folder)}


def make_dataset(slices: pd.DataFrame, work: Work, config: RunConfig, augment: Augment, folder: Path) -> Dataset:
    """The inputs and labels of slices, for the run in `folder`."""
    if isinstance(config, SequenceConfig):
        return SequenceDataset(slices, work, config, find_sources(config, folder))
    kind = StudyDataset if isinstance(config, StudyConfig) else SliceDataset
    return kind(slices, work, config, augment)


def build(config: RunConfig, dataset: Dataset) -> nn.Module:
    """The network of a configuration for the inputs of a dataset, with random weights."""
    if isinstance(config, SequenceConfig):
        return build_sequence_network(config, dataset.width)
    return build_study_network(config) if isinstance(config, StudyConfig) else build_network(config)


def load_start(network: nn.Module, config: RunConfig) -> None:
    """Give a new network the weights that its configuration starts from."""
    if not isinstance(config, SequenceConfig):  # which starts from random ones
        load_initial_weights(network.slices if isinstance(config, StudyConfig) else network, config)
