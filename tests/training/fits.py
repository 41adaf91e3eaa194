"""Short trainings of a network without batch norm, whose result is that of a batch however it is divided."""

from dataclasses import replace

import torch
from torch import nn

from models.common.config import TrainConfig
from models.common.folders import Work
from models.preprocessing.tables import split_fold
from models.train_small import CONFIG
from models.training.dataset import SliceDataset
from models.training.learner import make_learner
from models.training.loading import make_loader
from models.training.networks import HemorrhageNetwork
from models.training.processes import Processes
from models.training.steps import StepLearner

ALONE = Processes(torch.device("cpu"))
SMALL = replace(CONFIG, name="steps", epochs=1, batch_size=12, augment="none")


class WithoutNorms(nn.Sequential):
    """A backbone whose gradients do not depend on the parts of a batch; it takes so many slices at a time.

    In training; where nothing is learnt it takes `valid_capacity`.
    """

    width = 16

    def __init__(self, capacity: int, error: Exception) -> None:
        super().__init__(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.capacity, self.valid_capacity, self.error = capacity, 1000, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > (self.capacity if self.training else self.valid_capacity):
            raise self.error
        return super().forward(x)


def seeded_network(capacity: int = 1000, error: Exception | None = None) -> HemorrhageNetwork:
    """The network, each time with the same weights."""
    torch.manual_seed(0)
    backbone = WithoutNorms(capacity, error or torch.OutOfMemoryError("CUDA out of memory"))
    return HemorrhageNetwork(backbone, WithoutNorms.width)


def learner_of(work: Work, config: TrainConfig, network: nn.Module, slices: int = 48) -> StepLearner:
    """A learner of the first slices of fold 0."""
    table, _ = split_fold(work, 0, skip_low_information=False)
    loader = make_loader(SliceDataset(table.head(slices), work, config, "none"), config.batch_size, 0, shuffle_seed=0)
    return make_learner(network, loader, loader, config, ALONE, [])


def weights_of(network: nn.Module) -> torch.Tensor:
    """All weights, (weights,)."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def fit_once(
    work: Work, config: TrainConfig, capacity: int = 1000, error: Exception | None = None
) -> tuple[torch.Tensor, StepLearner]:
    """Weights and learner after the epochs of a configuration over 48 slices."""
    learner = learner_of(work, config, seeded_network(capacity, error))
    learner.fit_one_cycle(config.epochs, config.max_lr)
    return weights_of(learner.model), learner
