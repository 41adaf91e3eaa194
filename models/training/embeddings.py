"""What a trained network sees in each slice: extracted once a fold, stored as float16, read a study at a time."""

from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from models.common.config import SequenceConfig, Views
from models.common.files import require_writable
from models.common.folders import STORED, Work
from models.common.labels import LABELS
from models.common.options import Machine
from models.preprocessing.store import Series, compress_slice, made_from, write_series
from models.preprocessing.tables import UNREADABLE
from models.training.dataset import SliceDataset
from models.training.device import count_workers
from models.training.evaluation import predict_batches
from models.training.loading import load_batches
from models.training.networks import HemorrhageNetwork, build_network
from models.training.processes import Processes
from models.training.sources import Source, find_source
from models.training.studies import OrderedStudies
from models.training.study_places import places, study_lengths
from models.training.symmetries import GROUPS, Symmetry
from models.training.weights import load_trained

AT_ONCE = 32  # slices of a study that go through a network together
_LARGEST = float(np.finfo(np.float16).max)


def find_sources(config: SequenceConfig, folder: Path) -> list[Source]:
    """The folds that a sequence run in `folder` builds on: runs/<run>/fold<k> beside runs/<name>/fold<k>.

    Raises InputError if one is not trained, or is no network of single slices.
    """
    return [find_source(name, folder, "--runs") for name in config.runs]


def extract(
    slices: pd.DataFrame,
    sources: Iterable[Source],
    views: Views,
    machine: Machine,
    processes: Processes,
    apart: bool = False,
) -> None:
    """Store the embeddings and logits of all readable slices of a split; series that are stored are left alone.

    Those are the mean over the views, or those of each view `apart`. A series that has changed since is stored anew.

    Of several processes each extracts a stretch of the studies. It can be stopped at any moment: a series is one file,
    written whole or not at all. Raises InputError if the disk is full, or the weights have changed.
    """
    work = machine.working_folder
    readable = slices[slices["chunk"] != UNREADABLE]
    for source in sources:
        store = source.store(work, views, apart)
        processes.on_main(lambda store=store: require_writable(store))
        stored = processes.on_main(partial(_stored, readable, source, store, work))
        missing = readable[~readable["series_id"].isin(stored)].reset_index(drop=True)
        if len(missing):
            processes.on_main(partial(_require_room, source, store, len(missing), views, apart, machine))
            with processes.as_one():
                _extract(missing, source, store, views, apart, machine, processes)


def _stored(slices: pd.DataFrame, source: Source, store: Path, work: Work) -> set[str]:
    """The series whose embeddings are there, and are of the slices that these have today."""
    there = {path.stem for path in store.glob(f"*{STORED}")}
    of_series = slices[slices["series_id"].isin(there)].groupby("series_id", sort=False)
    return {str(name) for name, rows in of_series if _is_of(store / f"{name}{STORED}", rows, source, work)}


def _is_of(file: Path, rows: pd.DataFrame, source: Source, work: Work) -> bool:
    series = work.series(source.config.image_size, rows["series_id"].iloc[0])
    if not series.exists():  # the store has been deleted to make room: nobody can tell
        return True
    return Series(file, "the same command").notes().get("made_from") == made_from(rows["z"].to_numpy(float), series)


def _require_room(source: Source, store: Path, slices: int, views: Views, apart: bool, machine: Machine) -> None:
    size = bytes_of_embeddings(source, slices, views, apart)
    what, repair = f"{source.name} {source.folder.name}: embeddings", "or choose another folder with --work"
    machine.session.require_room(store, size, what, repair)


def _extract(
    slices: pd.DataFrame,
    source: Source,
    store: Path,
    views: Views,
    apart: bool,
    machine: Machine,
    processes: Processes,
) -> None:
    config = source.config
    dataset = SliceDataset(slices, machine.working_folder, config, augment="none")
    network = build_network(config)
    load_trained(source.folder, source.record, network)
    workers = count_workers(machine.workers, processes.device)
    studies = OrderedStudies(study_lengths(slices), 1, processes.rank, processes.count)
    loader = load_batches(dataset, studies, workers, slices["image_id"], pinned=processes.on_cuda)
    view = partial(each_embedding if apart else mean_embedding, group=GROUPS[views])
    title = f"{source.name} {source.folder.name}: embeddings of studies, {len(GROUPS[views])} views"
    embeddings = predict_batches(network, loader, processes, config.precision, title, view)
    notes = {"weights_sha256": source.record.weights_sha256, "views": views}
    for rows, seen in zip(studies.batches, embeddings, strict=True):
        chunks = [compress_slice(row.view(np.int16)) for row in seen]
        name = slices["series_id"][rows[0]]
        z = slices.loc[rows, "z"].to_numpy(float)
        of = made_from(z, machine.working_folder.series(config.image_size, name))
        write_series(store / f"{name}{STORED}", chunks, seen.shape[1:], notes | {"made_from": of})


def bytes_of_embeddings(source: Source, slices: int, views: Views, apart: bool) -> int:
    """How much of the disk they take: numbers of two bytes, which hardly compress."""
    width = build_network(source.config).width + len(LABELS)
    return 2 * slices * width * (len(GROUPS[views]) if apart else 1)


def mean_embedding(network: HemorrhageNetwork, images: torch.Tensor, group: tuple[Symmetry, ...]) -> torch.Tensor:
    """Embeddings and logits of square images, float16 (slices, 1, width + 6), the mean over a group of symmetries."""
    parts = []
    for some in images.split(AT_ONCE):
        total = sum((network.embed(symmetry.apply(some)).float() for symmetry in group), torch.tensor(0.0))
        parts.append(with_logits(network, (total / len(group)).unsqueeze(1)))  # linear: the mean of the logits, too
    return torch.cat(parts)


def each_embedding(network: HemorrhageNetwork, images: torch.Tensor, group: tuple[Symmetry, ...]) -> torch.Tensor:
    """Embeddings and logits of square images under each of some symmetries, float16 (slices, symmetries, width + 6)."""
    parts = []
    for some in images.split(AT_ONCE):
        views = [network.embed(symmetry.apply(some)).float() for symmetry in group]
        parts.append(with_logits(network, torch.stack(views, dim=1)))
    return torch.cat(parts)


def with_logits(network: HemorrhageNetwork, embedding: torch.Tensor) -> torch.Tensor:
    """Embeddings (slices, views, width), and the logits that a network makes of them: float16 (..., width + 6)."""
    seen = torch.cat([embedding, network.head(embedding)], dim=2)
    return in_half(seen)


def in_half(values: torch.Tensor) -> torch.Tensor:
    """Values of any shape as they are stored, float16."""
    return values.float().clamp(-_LARGEST, _LARGEST).half()


class SequenceDataset(Dataset):
    """Slices as what networks see in them, float32 (width + 6 networks,), with their places (3,) and labels (6,).

    Embeddings come first, then the logits of each network. Indexed by (epoch, row) as a SliceDataset. Where they are
    `drawn`, all slices of a study show one of the views that are stored apart, or the mean of them: by the seed, the
    epoch and the study. Where not, it is the mean.
    """

    def __init__(
        self, slices: pd.DataFrame, work: Work, config: SequenceConfig, sources: list[Source], drawn: bool = False
    ) -> None:
        self.stores = [source.store(work, config.views, config.views_apart) for source in sources]
        self.series_ids = slices["series_id"].to_numpy()
        self.chunks = slices["chunk"].to_numpy(int)
        self.targets = torch.from_numpy(slices.reindex(columns=LABELS).to_numpy(np.float32, copy=True))
        self.places = torch.from_numpy(places(slices))
        self.lengths = study_lengths(slices)
        self.recurrence, self.longest, self.seed = config, None, config.seed
        self.views = len(GROUPS[config.views]) if drawn and config.views_apart else 0  # to draw from

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        epoch, row = index
        number = draw_view(self.views, self.seed, epoch, int(self.places[row, 0]))
        seen = self.read(row) if number == self.views else read_views(*self.files(row))[:, number]
        return seen[self.chunks[row]], self.places[row], self.targets[row]

    def read(self, row: int) -> torch.Tensor:
        """What networks see in all slices of the series of a row, float32 (slices, width + 6 networks).

        Raises InputError as `read_views`.
        """
        return read_study(*self.files(row))

    def files(self, row: int) -> list[Path]:
        """Where that is stored, a file a network."""
        return [store / f"{self.series_ids[row]}{STORED}" for store in self.stores]

    @property
    def width(self) -> int:
        """How many numbers the embeddings of a slice have, those of all networks together."""
        return len(self[0, 0][0]) - len(self.stores) * len(LABELS)


@lru_cache(maxsize=4)  # the slices of a study are asked for in turn
def draw_view(views: int, *origin: int) -> int:
    """A number from 0 to `views`, that one included, by the numbers of an origin."""
    return int(np.random.default_rng(origin).integers(views + 1)) if views else 0


@lru_cache(maxsize=4)
def read_study(*files: Path) -> torch.Tensor:
    """What networks see in all slices of a series, float32 (slices, width + 6 networks), the mean over its views.

    Raises InputError as `read_views`.
    """
    return read_views(*files).mean(dim=1)


@lru_cache(maxsize=4)
def read_views(*files: Path) -> torch.Tensor:
    """What networks see in all slices of a series, float32 (slices, views, width + 6 networks), a file a network.

    Raises InputError if a file is missing or damaged.
    """
    seen = []
    for file in files:
        series = Series(file, "the same command")
        seen.append(np.stack(series.read_some(range(len(series)))).view(np.float16))
    cut = -len(LABELS)
    columns = [values[..., :cut] for values in seen] + [values[..., cut:] for values in seen]
    return torch.from_numpy(np.concatenate(columns, axis=2).astype(np.float32))
