"""What differs between the kinds of runs: networks of slices, of studies, over embeddings, and finetuned ones."""

from pathlib import Path

import pandas as pd
from torch import nn
from torch.utils.data import Dataset

from models.common.config import Augment, FinetuneConfig, Machine, RunConfig, SequenceConfig, StudyConfig
from models.common.files import hash_file
from models.common.folders import Work
from models.preprocessing.tables import split_fold
from models.training.dataset import SliceDataset, StudyDataset
from models.training.embeddings import SequenceDataset, extract, find_sources
from models.training.finetuning import add_pseudolabels, find_start
from models.training.networks import build_network, load_initial_weights
from models.training.processes import Processes
from models.training.recurrent import build_sequence_network, build_study_network
from models.training.sources import require_unseen
from models.training.weights import load_trained


def make_inputs(config: RunConfig, slices: pd.DataFrame, folder: Path, machine: Machine, processes: Processes) -> None:
    """Make what a run in `folder` needs of all slices of a split beside the cache: embeddings, where it reads them."""
    if isinstance(config, SequenceConfig):
        extract(slices, processes.on_main(lambda: find_sources(config, folder)), config.views, machine, processes)


def require_fold_safe(config: RunConfig, folder: Path, work: Work, fold: int) -> None:
    """Raise InputError if a run that the one in `folder` builds on may have trained on the slices of its validation."""
    if isinstance(config, SequenceConfig):
        sources = find_sources(config, folder)
    elif isinstance(config, FinetuneConfig):
        sources = [find_start(config, folder)]
    else:
        return
    _, valid_slices = split_fold(work, fold, skip_low_information=False)
    for source in sources:
        require_unseen(source.folder, valid_slices["image_id"], work.folds)


def source_weights(config: RunConfig, folder: Path) -> dict[str, str]:
    """The sha256 of the weights that give a run in `folder` its inputs, by the name of the run."""
    if not isinstance(config, SequenceConfig):
        return {}
    return {source.name: source.record.weights_sha256 for source in find_sources(config, folder)}


def training_sources(config: RunConfig, folder: Path, work: Work, fold: int) -> dict[str, str]:
    """The sha256 of all that a run in `folder` is trained with beside the cache: weights, and a file of pseudolabels.

    A finetuned network needs neither any more once it is trained, layers over embeddings need the weights always.
    """
    if not isinstance(config, FinetuneConfig):
        return source_weights(config, folder)
    file = work.pseudolabels(config.pseudolabels, fold)
    return {config.start: find_start(config, folder).record.weights_sha256, file.name: hash_file(file)}


def add_training_slices(slices: pd.DataFrame, work: Work, config: RunConfig, fold: int) -> pd.DataFrame:
    """The slices that a fold trains on: those that have labels and, where it is finetuned, those with pseudolabels."""
    return add_pseudolabels(slices, work, config, fold) if isinstance(config, FinetuneConfig) else slices


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


def load_start(network: nn.Module, config: RunConfig, folder: Path) -> None:
    """Give a new network, of the run in `folder`, the weights that its configuration starts from."""
    if isinstance(config, FinetuneConfig):
        start = find_start(config, folder)
        load_trained(start.folder, start.record, network)
        loss = start.record.results["weighted_log_loss"]
        print(f"{folder}: starting from {start.folder}, weighted log loss {loss:.4f}")
    elif not isinstance(config, SequenceConfig):  # which starts from random ones
        load_initial_weights(network.slices if isinstance(config, StudyConfig) else network, config)
