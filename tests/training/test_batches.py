"""Laws of a batch: it is what its samples are, drawn where it is handed over from."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, default_collate

from models.common.channels import Channel
from models.common.config import StudyConfig, TrainConfig
from models.common.labels import LABEL_WEIGHTS
from models.preprocessing.tables import read_slices
from models.preprocessing.windows import BONE, BRAIN
from models.training.dataset import SliceDataset, StudyDataset
from models.training.loading import make_loader

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
SETTINGS = {
    "name": "test",
    "network": "small",
    "image_size": 64,
    "crop_size": 48,
    "channels": (Channel(0, BRAIN), Channel(-1, BONE), Channel(5, BRAIN, "mm")),
    "optimizer": "radam",
    "max_lr": 1e-3,
    "epochs": 1,
    "batch_size": 4,
}
DATASETS = {
    "slices": lambda slices, work: SliceDataset(slices, work, TrainConfig(**SETTINGS), "hard"),
    "weighted": lambda slices, work: SliceDataset(weighted(slices), work, TrainConfig(**SETTINGS), "hard"),
    "studies": lambda slices, work: StudyDataset(
        slices, work, StudyConfig(**SETTINGS, hidden=4, study_slices=8), "hard"
    ),
}


def weighted(slices):
    return slices.assign(**{label: np.arange(len(slices)) / 7 for label in LABEL_WEIGHTS})


class Drawn(Dataset):
    """Samples that can be drawn, of which each tells whether it is drawn into memory that processes share."""

    shape = (1, 2, 2)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        raise AssertionError("drawn somewhere else, and copied")

    def draw(self, index: tuple[int, int], grey: np.ndarray) -> None:
        grey[:] = 10 * index[1] + is_shared(grey)

    def beside(self, rows: list[int]) -> tuple[torch.Tensor, ...]:
        return (torch.tensor(rows),)


def is_shared(array: np.ndarray) -> bool:
    """Whether other processes see what is written to an array: its memory is a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(place, 16) for place in line.split()[0].split("-"))
        if first <= array.ctypes.data < last:
            return line.split()[1].endswith("s")
    raise AssertionError


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", DATASETS)
def test_a_batch_is_its_samples_stacked(kind, workers, prepared):
    dataset = DATASETS[kind](read_slices(prepared, "train"), prepared)
    batches = list(make_loader(dataset, 5, workers))
    first = 0
    for batch in batches[:3]:
        count = len(batch[0])
        expected = default_collate([dataset[0, row] for row in range(first, first + count)])
        for found, due in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), due.numpy(), strict=True)
        first += count
    assert sum(len(batch[0]) for batch in batches) == len(dataset)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_drawn_into_the_memory_that_they_are_handed_over_in(workers):
    batches = list(make_loader(Drawn(), 4, workers))
    assert [images[:, 0, 0, 0].tolist() for images, _ in batches] == [
        [10 * row + workers for row in rows] for rows in ([0, 1, 2, 3], [4, 5])
    ]
    assert torch.cat([rows for _, rows in batches]).tolist() == list(range(6))
    assert all(images.shape[1:] == Drawn.shape and images.dtype == torch.uint8 for images, _ in batches)


def test_each_row_is_noted_before_it_is_read():
    dataset = Drawn()
    loader = make_loader(dataset, 4, workers=1, image_ids=map(str, range(6)))
    dataset.draw = partial(noted, loader.dataset.reading)
    assert [images[:, 0, 0, 0].tolist() for images, _ in loader] == [[0, 1, 2, 3], [4, 5]]
    (process,) = {int(number) for number in loader.dataset.reading[:, 0]}
    assert process != os.getpid()
    assert loader.dataset.read_by(process) == "5"


def noted(reading: torch.Tensor, index: tuple[int, int], grey: np.ndarray) -> None:
    assert reading[0].tolist() == [os.getpid(), index[1]]
    grey[:] = index[1]
