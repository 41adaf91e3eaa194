"""The kinds of runs: networks of slices, finetuned ones, networks of studies, and layers over embeddings.

Each is one object that says what its run builds on, which slices it sees and as what, and which network it is.
"""

from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd
from torch import nn

from models.common.config import Augment, FinetuneConfig, RunConfig, SequenceConfig, StudyConfig, TrainConfig
from models.common.files import hash_file
from models.common.folders import Work
from models.common.options import Machine
from models.preprocessing.tables import hash_tables, split_fold
from models.training.balance import drawn_evenly, first_drawn
from models.training.d4 import mean_probability
from models.training.dataset import SliceDataset, StudyDataset
from models.training.embeddings import SequenceDataset, extract, find_sources
from models.training.evaluation import View, single_view
from models.training.finetuning import add_pseudolabels, seen_by_labellers
from models.training.label_noise import judged_by, judgements, leave_out, weigh_labels
from models.training.loading import Samples
from models.training.networks import HemorrhageNetwork, build_network, hub_weights, load_initial_weights
from models.training.processes import Processes
from models.training.recurrent import (
    RecurrentLayers,
    StudyNetwork,
    both_ways,
    build_sequence_network,
    build_study_network,
)
from models.training.seen import Seen, join_seen, require_unseen, seen_in, seen_or_unknown
from models.training.sources import Source, find_start
from models.training.study_places import first_studies
from models.training.symmetries import GROUPS
from models.training.weights import load_trained

Config = TypeVar("Config", bound=RunConfig)
ImageConfig = TypeVar("ImageConfig", bound=TrainConfig)
Dataset = TypeVar("Dataset", bound=Samples)
Network = TypeVar("Network", bound=nn.Module)


class Kind(Generic[Config, Dataset, Network]):
    """What all kinds do alike, and what most of them do: a run that builds on the cache alone."""

    augment: Augment = "none"
    skip_low_information = False

    def __init__(self, config: Config, folder: Path) -> None:
        """Of the run in `folder`, runs/<name>/fold<k>; what it builds on lies beside it."""
        self.config, self.folder = config, folder

    # ---- what it builds on ----

    def builds_on(self) -> list[Source]:
        """The trained folds whose weights go into it. Raises InputError if one is not trained, or of no use here."""
        return []

    def input_weights(self) -> dict[str, str]:
        """The sha256 of the weights that give it its inputs, which it needs for ever, by the name of their run."""
        return {}

    def sources(self, work: Work, fold: int) -> dict[str, str]:
        """The sha256 of all that it is trained with, by name: folds, slices and their labels, and what it builds on."""
        return hash_tables(work) | self.input_weights()

    def seen(self, slices: pd.DataFrame, work: Work, fold: int) -> Seen:
        """Whose labels it learns from: the patients of its slices, and those whom what it builds on has seen."""
        return join_seen([seen_in(slices), *(seen_or_unknown(source.folder) for source in self.builds_on())])

    def require_fold_safe(self, work: Work, fold: int) -> None:
        """Raise InputError if a run that it builds on may have trained on the slices of its validation."""
        if builds_on := self.builds_on():
            _, valid_slices = split_fold(work, fold, skip_low_information=False)
            for source in builds_on:
                require_unseen(source.folder, valid_slices, work, fold)

    def make_inputs(self, slices: pd.DataFrame, machine: Machine, processes: Processes) -> None:
        """Make what it needs of all slices of a split beside the cache. Raises InputError if that cannot be done."""

    # ---- slices and network ----

    def training_slices(self, slices: pd.DataFrame, work: Work, fold: int) -> pd.DataFrame:
        """The slices that a fold trains on: those that have labels, and others that its kind adds.

        Raises InputError if what it adds cannot be had.
        """
        return slices

    def allowed(self, slices: pd.DataFrame, work: Work) -> pd.DataFrame:
        """Those of the slices with labels, outside of the validation, on which it may train.

        Raises InputError for a fold that does not exist.
        """
        return slices

    def first(self, slices: pd.DataFrame, count: int) -> pd.DataFrame:
        """The first slices of a table, as many as `count` of what a batch holds so many of."""
        return first_drawn(slices, count)

    def dataset(self, slices: pd.DataFrame, work: Work, augment: Augment) -> Dataset:
        """The inputs and labels of slices, readable rows of the metadata."""
        raise NotImplementedError

    def network(self, dataset: Dataset) -> Network:
        """The network for the inputs of a dataset, with random weights. Raises InputError for an unknown name."""
        raise NotImplementedError

    def load_start(self, network: Network) -> None:
        """Give a new network the weights that it starts from. Raises InputError if they cannot be had."""

    def view(self, tta: str) -> View:
        """How test slices are looked at: "none", "flip" or "d4", as they are or under each symmetry of a group."""
        return partial(mean_probability, group=GROUPS[tta])


class OfImages(Kind[ImageConfig, Dataset, Network]):
    """A network that looks at images, augmented as its configuration says."""

    def __init__(self, config: ImageConfig, folder: Path) -> None:
        super().__init__(config, folder)
        self.augment, self.skip_low_information = config.augment, config.skip_low_information

    def builds_on(self) -> list[Source]:
        """Needed until it is trained, no longer."""
        start = find_start(self.config, self.folder)
        return [start] if isinstance(start, Source) else []

    def sources(self, work: Work, fold: int) -> dict[str, str]:
        start, others = find_start(self.config, self.folder), super().sources(work, fold)
        others |= judged_by(work, self.config, fold)
        if start is None:
            return others | hub_weights(self.config)
        return others | {start.name: start.record.weights_sha256 if isinstance(start, Source) else hash_file(start)}

    def seen(self, slices: pd.DataFrame, work: Work, fold: int) -> Seen:
        start = find_start(self.config, self.folder)
        seen = super().seen(slices, work, fold)
        judges = judgements(work, self.config, fold)
        seen = join_seen([seen, *(seen_or_unknown(file.parent) for file in judges)])
        if isinstance(start, Path) and start.suffix != ".pth":  # ImageNet's shows no patients
            return join_seen([seen, Seen(frozenset(), frozenset([start.name]))])
        return seen

    def allowed(self, slices: pd.DataFrame, work: Work) -> pd.DataFrame:
        return leave_out(slices, work, self.config)

    def training_slices(self, slices: pd.DataFrame, work: Work, fold: int) -> pd.DataFrame:
        return drawn_evenly(weigh_labels(slices, work, self.config, fold), self.config)

    def load_start(self, network: Network) -> None:
        start, slices = find_start(self.config, self.folder), self.network_of_slices(network)
        if not isinstance(start, Source):
            load_initial_weights(slices, self.config, start)
            return
        load_trained(start.folder, start.record, slices)
        loss, size = start.record.results["weighted_log_loss"], start.config.input_size
        print(f"{self.folder}: starting from {start.folder}, of {size} px, weighted log loss {loss:.4f}")

    def network_of_slices(self, network: Network) -> HemorrhageNetwork:
        """The part of a network that looks at single slices, for which there are weights to start from."""
        raise NotImplementedError


class OfSlices(OfImages[ImageConfig, SliceDataset, HemorrhageNetwork]):
    """One that looks at single slices."""

    def dataset(self, slices: pd.DataFrame, work: Work, augment: Augment) -> SliceDataset:
        return SliceDataset(slices, work, self.config, augment)

    def network(self, dataset: SliceDataset) -> HemorrhageNetwork:
        return build_network(self.config)

    def network_of_slices(self, network: HemorrhageNetwork) -> HemorrhageNetwork:
        return network


class Finetuned(OfSlices[FinetuneConfig]):
    """One that goes on from a run's weights of the same fold, with pseudolabelled test slices among the others."""

    def sources(self, work: Work, fold: int) -> dict[str, str]:
        file = work.pseudolabels(self.config.pseudolabels, fold)
        return super().sources(work, fold) | {file.name: hash_file(file)}

    def seen(self, slices: pd.DataFrame, work: Work, fold: int) -> Seen:
        return join_seen([super().seen(slices, work, fold), seen_by_labellers(work, self.config, fold)])

    def training_slices(self, slices: pd.DataFrame, work: Work, fold: int) -> pd.DataFrame:
        return super().training_slices(add_pseudolabels(slices, work, self.config, fold), work, fold)


class OfStudies(OfImages[StudyConfig, StudyDataset, StudyNetwork]):
    """A network of slices and recurrent layers over the slices of a study, trained together."""

    def dataset(self, slices: pd.DataFrame, work: Work, augment: Augment) -> StudyDataset:
        return StudyDataset(slices, work, self.config, augment)

    def network(self, dataset: StudyDataset) -> StudyNetwork:
        return build_study_network(self.config)

    def first(self, slices: pd.DataFrame, count: int) -> pd.DataFrame:
        return first_studies(slices, count)

    def network_of_slices(self, network: StudyNetwork) -> HemorrhageNetwork:
        return network.slices


class OfEmbeddings(Kind[SequenceConfig, SequenceDataset, RecurrentLayers]):
    """Recurrent layers over what trained networks see in the slices of a study; they start from random weights."""

    augment: Augment = "light"  # a view is drawn, where they are stored apart

    def first(self, slices: pd.DataFrame, count: int) -> pd.DataFrame:
        return first_studies(slices, count)

    def builds_on(self) -> list[Source]:
        return find_sources(self.config, self.folder)

    def input_weights(self) -> dict[str, str]:
        return {source.name: source.record.weights_sha256 for source in self.builds_on()}

    def make_inputs(self, slices: pd.DataFrame, machine: Machine, processes: Processes) -> None:
        views, apart = self.config.views, self.config.views_apart
        extract(slices, processes.on_main(self.builds_on), views, machine, processes, apart)

    def dataset(self, slices: pd.DataFrame, work: Work, augment: Augment) -> SequenceDataset:
        return SequenceDataset(slices, work, self.config, self.builds_on(), drawn=augment != "none")

    def network(self, dataset: SequenceDataset) -> RecurrentLayers:
        return build_sequence_network(self.config, dataset.width)

    def view(self, tta: str) -> View:
        return single_view if tta == "none" else both_ways


KINDS: dict[type[RunConfig], type[Kind]] = {
    TrainConfig: OfSlices,
    FinetuneConfig: Finetuned,
    StudyConfig: OfStudies,
    SequenceConfig: OfEmbeddings,
}


def kind_of(config: RunConfig, folder: Path) -> Kind:
    """The kind of the run in `folder`, by the class of its configuration."""
    return KINDS[type(config)](config, folder)
