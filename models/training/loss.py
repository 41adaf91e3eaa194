"""The challenge's metric, as a training loss in torch and as a score in numpy: the same number."""

import numpy as np
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

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits (slices, 6) and targets (slices, 6), or targets and weights (slices, 2, 6) -> scalar.

        Computed in float32 whatever the precision of the logits.
        """
        target, weight = target.float().unbind(dim=1) if target.ndim == 3 else (target.float(), None)
        losses = binary_cross_entropy_with_logits(logits.float(), target, weight, reduction="none")  # (slices, 6)
        return losses.mean(dim=0) @ self.weights


def log_losses(target: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Log loss of each label, (6,), of targets and probabilities (slices, 6)."""
    return slice_losses(target, probability).mean(axis=0)


def slice_losses(target: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """What each label of each slice costs, (slices, 6), of targets and probabilities of that shape.

    Probabilities are kept 1e-15 away from 0 and 1, as the competition did it.
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-15, 1 - 1e-15)
    return -np.where(np.asarray(target) == 1, np.log(p), np.log1p(-p))


def prior(target: np.ndarray) -> np.ndarray:
    """The best constant prediction for targets (slices, 6): each label's prevalence for every slice, (slices, 6)."""
    return np.tile(target.mean(axis=0), (len(target), 1))


def weighted_log_loss(target: np.ndarray, probability: np.ndarray) -> float:
    """The competition's score of targets and probabilities (slices, 6); lower is better, 0.693 for 0.5 throughout."""
    return float(np.average(log_losses(target, probability), weights=METRIC_WEIGHTS))
