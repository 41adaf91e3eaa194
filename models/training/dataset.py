"""Slices of the store -> network inputs."""

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from models.common.config import Augment, StudyConfig, TrainConfig
from models.common.folders import Work
from models.common.labels import LABEL_WEIGHTS, LABELS
from models.preprocessing.windows import apply_window
from models.training.appearance import change_appearance
from models.training.augmentation import Augmentation, gamma_table
from models.training.balance import EXPECTED
from models.training.planes import Planes
from models.training.study_places import places, study_lengths
from models.training.warping import warp


class SliceDataset(Planes, Dataset):
    """Slices as uint8 tensors (channels, size, size), with their labels, float32 (6,).

    Where the table has LABEL_WEIGHTS, labels and weights, float32 (2, 6).

    `slices` are readable rows of the metadata, any of them: neighbours come from the whole series. Indexed by
    (epoch, row): the augmentation of a sample depends on the seed, the epoch and the row alone, not on the process that
    makes it. Raises InputError if the cache has no slices of this size.
    """

    def __init__(self, slices: pd.DataFrame, work: Work, config: TrainConfig, augment: Augment) -> None:
        super().__init__(slices, work, config)
        self.targets = slices.reindex(columns=LABELS).to_numpy(np.float32, copy=True)  # (slices, 6); NaN where unknown
        if set(LABEL_WEIGHTS) <= set(slices):
            self.targets = np.stack([self.targets, slices[list(LABEL_WEIGHTS)].to_numpy(np.float32)], axis=1)
        self.seed = config.seed
        self.image_size, self.input_size = config.image_size, config.input_size
        self.augmentation = Augmentation(config, augment)
        self.expected = slices[EXPECTED].to_numpy() if EXPECTED in slices else None  # draws an epoch; none: one of each
        self.draws = np.arange(len(slices))  # rows with the same number are augmented alike

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        grey = np.empty(self.shape, np.uint8)
        self.draw(index, grey)
        return torch.from_numpy(grey), torch.from_numpy(self.targets[index[1]])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, rows, columns."""
        return self.places.shape[1], self.input_size, self.input_size

    def beside(self, rows: list[int]) -> tuple[torch.Tensor]:
        """What stands beside the images of some rows: their labels, (rows, 6) or (rows, 2, 6)."""
        return (torch.from_numpy(self.targets[rows]),)

    def draw(self, index: tuple[int, int], grey: np.ndarray) -> None:
        """Write the image of a sample to `grey`, uint8 (channels, size, size). Raises InputError as `read`."""
        epoch, row = index
        draw = self.augmentation.draw((self.seed, epoch, int(self.draws[row])))
        planes, sources = self.read(row)
        slices = warp(planes, draw.geometry, self.image_size, self.input_size)
        # For several windows of a slice: OpenCV maps float32 to grey values faster than int16.
        slices = [hounsfield.astype(np.float32) for hounsfield in slices]
        if draw.appearance is not None:
            slices = change_appearance(slices, draw.appearance, row)
        for plane, source, window in zip(grey, sources, draw.windows, strict=True):
            apply_window(slices[source], window, out=plane)
        if draw.gamma is not None:
            flat = grey.reshape(-1, self.input_size)
            cv2.LUT(flat, gamma_table(draw.gamma), dst=flat)


class StudyDataset(Dataset):
    """Slices of a SliceDataset, with their places (3,) between image and labels; a study is augmented as a whole."""

    def __init__(self, slices: pd.DataFrame, work: Work, config: StudyConfig, augment: Augment) -> None:
        self.slices = SliceDataset(slices, work, config, augment)
        self.places = torch.from_numpy(places(slices))
        self.lengths = study_lengths(slices)
        self.slices.draws = np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        self.recurrence, self.longest = config, config.study_slices

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        _, row = index
        grey, target = self.slices[index]
        return grey, self.places[row], target

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, rows, columns."""
        return self.slices.shape

    def beside(self, rows: list[int]) -> tuple[torch.Tensor, ...]:
        """What stands beside the images of some rows: places (rows, 3) and labels."""
        return self.places[rows], *self.slices.beside(rows)

    def draw(self, index: tuple[int, int], grey: np.ndarray) -> None:
        """Write the image of a sample to `grey`, uint8 (channels, size, size). Raises InputError as SliceDataset."""
        self.slices.draw(index, grey)
