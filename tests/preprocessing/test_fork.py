"""Laws of loading: after this process has read a slice, workers of every kind read slices too, and end."""

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
import torch
from once import HANG
from torch.utils.data import DataLoader
from torture import SIZES, large, small, undisturbed

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.folders import Work
from models.preprocessing.store import Series
from models.preprocessing.tables import read_slices
from models.preprocessing.windows import BRAIN, SUBDURAL
from models.training.dataset import SliceDataset
from models.training.loading import make_loader

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def slices_of(work: Path, count: int) -> SliceDataset:
    """Some slices, each in three channels with its neighbours."""
    channels = (Channel(-1, BRAIN), Channel(0, SUBDURAL), Channel(1, BRAIN))
    config = TrainConfig(
        name="fork",
        network="small",
        image_size=SIZES[0],
        channels=channels,
        optimizer="radam",
        max_lr=1e-3,
        epochs=1,
        batch_size=8,
    )
    table = read_slices(Work(work), "train").iloc[:: max(1, len(read_slices(Work(work), "train")) // count)]
    return SliceDataset(table.reset_index(drop=True), Work(work), config, augment="light")


def context_of(name: str) -> multiprocessing.context.BaseContext:
    """A way to start processes; the server of forks has imported what they need, which takes seconds."""
    context = multiprocessing.get_context(name)
    if name == "forkserver":
        context.set_forkserver_preload(["models.training.dataset"])
    return context


def loader_of(dataset: SliceDataset, context: str) -> DataLoader:
    """A loader whose two workers are started anew, and stopped at the end of their epoch."""
    loader = make_loader(dataset, batch_size=8, workers=2)
    loader.multiprocessing_context = context_of(context)
    loader.timeout = HANG
    return loader


def read_in_parent(dataset: SliceDataset, work: Path) -> list[torch.Tensor]:
    """Use in this process all that a fork could inherit in an unusable state; returns the batches."""
    for path in sorted(Work(work).slices(SIZES[0]).iterdir()):
        series = Series(path)
        assert len([series.read(index) for index in range(len(series))]) == len(series)
    return [images for images, _ in make_loader(dataset, batch_size=8, workers=0)]


def run_epochs(work: Path, count: int, contexts: list[str], epochs: int) -> Counter:
    """Epochs that each context has ended with the slices that this process reads."""
    dataset, ended = slices_of(work, count), Counter()
    for context in contexts:
        for _ in range(epochs):
            expected = read_in_parent(dataset, work)
            loader = loader_of(dataset, context)
            found = [images for images, _ in loader]
            assert len(found) == len(expected)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
            ended[context] += 1
            del loader  # ends its workers
    return ended


def test_workers_read_after_the_parent_has_read(tmp_path_factory):
    work = undisturbed(tmp_path_factory, small(tmp_path_factory))
    assert run_epochs(work, 24, ["fork", "forkserver"], 2) == {"fork": 2, "forkserver": 2}


@pytest.mark.torture
@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_twenty_epochs_of_new_workers_end(context, tmp_path_factory):
    work = undisturbed(tmp_path_factory, large(tmp_path_factory))
    assert run_epochs(work, 200, [context], 20) == {context: 20}
