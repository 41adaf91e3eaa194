"""The challenge's metric as a training loss in torch: the same number as models/training/metric.py in numpy."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models.common.labels import METRIC_WEIGHTS


class WeightedLogLoss(nn.Module):
    """Weighted multi-label log loss of logits: the mean over slices and labels, `any` counting twice.

    The weight multiplies the whole term of a label. (`pos_weight`, which the original used, multiplies only the
    positive half, and moves the best prediction for `any` from p to 2p / (1 + p).)

    Where targets come with weights, each term is multiplied by its own. It is the mean over the slices all the same,
    not over the weights: a weight of 0 takes a term out, and the gradients of all others stay what they were.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        """`smoothing` is the share of each target that is moved to a half (Szegedy et al. 2016, arXiv:1512.00567)."""
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", torch.tensor(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits (slices, 6) and targets (slices, 6), or targets and weights (slices, 2, 6) -> scalar.

        Computed in float32 whatever the precision of the logits.
        """
        target, weight = target.float().unbind(dim=1) if target.ndim == 3 else (target.float(), None)
        if self.smoothing:
            target = target.lerp(torch.full_like(target, 0.5), self.smoothing)
        losses = binary_cross_entropy_with_logits(logits.float(), target, weight, reduction="none")  # (slices, 6)
        return losses.mean(dim=0) @ self.weights
