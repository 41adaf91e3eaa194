"""The moving average of the weights, which steps around less than they do."""

from copy import deepcopy

import torch
from fastai.callback.core import Callback
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_LAG = 10  # steps: an average of fewer would be that of the random weights


class Average(Callback):
    """After each step, moves an average of the weights and of the batch-norm statistics; validations see it.

    An exponential one (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, arXiv:1703.01780), which in the first n steps
    keeps no more than (1 + n) / (10 + n). By torch's function, not its AveragedModel: that one waits for the device in
    each step.
    """

    order = -20  # before fastai tells the network whether it trains or is validated

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network, self.decay, self.steps = network, decay, 0
        self.averaged = deepcopy(network)

    def before_train(self) -> None:
        """Let the steps be those of the network itself."""
        self.learn.model = self.network

    def after_batch(self) -> None:
        """Move the average, after a step."""
        if self.training:
            self.steps += 1
            self.move(min(self.decay, (1 + self.steps) / (_LAG + self.steps)))

    def before_validate(self) -> None:
        """Validate the average."""
        self.learn.model = self.averaged

    @torch.no_grad()
    def move(self, decay: float) -> None:
        """Keep so much of the average; what is no real number, as counts of batches, is the network's."""
        pairs = list(zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True))
        averages, values = zip(*((a, b) for a, b in pairs if a.is_floating_point()), strict=True)
        get_ema_multi_avg_fn(decay)(list(averages), list(values), 0)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
