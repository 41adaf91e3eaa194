"""What is learnt of a study at once: its slices by themselves, its slices together, and what all of it shows."""

from functools import partial
from typing import NamedTuple

import torch

from models.common.config import RunConfig, StudyConfig
from models.common.recurrence import Recurrence
from models.training.loss import WeightedLogLoss


class JointLogits(NamedTuple):
    """What a network of studies says in training: logits of slices, each (slices, 6), those of a study repeated."""

    together: torch.Tensor  # its prediction
    lengths: list[int]  # slices of each study
    alone: torch.Tensor | None = None  # before the slices have seen each other
    study: torch.Tensor | None = None  # that any slice of the study shows it


class JointLoss(WeightedLogLoss):
    """The weighted mean of up to three losses, each the challenge's; of plain logits it is the challenge's alone.

    Each is a mean over slices, that of a study counts as often as it has slices: so a batch may go through in parts.
    """

    def __init__(self, together: float, alone: float, study: float, smoothing: float = 0.0) -> None:
        """By the weights of the three, and how much targets are smoothed."""
        super().__init__(smoothing)
        self.shares = [weight / (together + alone + study) for weight in (together, alone, study)]

    def forward(self, logits: torch.Tensor | JointLogits, target: torch.Tensor) -> torch.Tensor:
        """Logits (slices, 6), or several of them, and targets (slices, 6) -> scalar."""
        if not isinstance(logits, JointLogits):
            return super().forward(logits, target)
        loss = self.shares[0] * super().forward(logits.together, target)
        if logits.alone is not None:
            loss = loss + self.shares[1] * super().forward(logits.alone, target)
        if logits.study is not None:
            loss = loss + self.shares[2] * super().forward(logits.study, of_study(target, logits.lengths))
        return loss


def of_study(target: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """The labels of slices (slices, 6) -> those of their study, (slices, 6): what any of its slices has.

    Or labels and weights (slices, 2, 6), likewise: what a study has counts as the slice that shows it most surely, and
    what it has not as the slice of which that is least sure.
    """
    joined = _joined if target.ndim == 3 else partial(torch.amax, dim=0)
    return torch.cat([joined(slices).expand_as(slices) for slices in target.split(lengths)])


def _joined(slices: torch.Tensor) -> torch.Tensor:
    """Labels and weights of the slices of a study (slices, 2, 6) -> its own (2, 6)."""
    label, weight = slices.unbind(dim=1)
    shown, absent = (label * weight).amax(dim=0), weight.amin(dim=0)
    label = label.amax(dim=0)
    return torch.stack([label, shown.where(label > 0, absent)])


def loss_of(config: RunConfig) -> WeightedLogLoss:
    """What a run of a configuration makes small."""
    if not isinstance(config, Recurrence):
        return WeightedLogLoss(config.label_smoothing)
    together, alone = (config.sequence_weight, config.slice_weight) if isinstance(config, StudyConfig) else (1.0, 0.0)
    return JointLoss(together, alone, config.study_weight, config.label_smoothing)
