"""The mean of a prediction over symmetries of the square."""

from collections.abc import Iterator

import torch
from torch import nn

from models.training.symmetries import Symmetry

TOGETHER_ON = ("cuda", "mps")  # where small batches wait for launches; a CPU is slower on large ones
_AT_ONCE = 32  # images that a pass takes at least, if a group has as many views


def mean_probability(
    network: nn.Module, images: torch.Tensor, *rest: torch.Tensor, group: tuple[Symmetry, ...]
) -> torch.Tensor:
    """Probabilities (slices, 6) of square images (slices, channels, size, size), the mean over a group.

    `rest` is what a network is given beside the images. Without it, views of few images go through a GPU together.
    """
    slices, format_ = len(images), memory_format(images)
    alone = bool(rest) or images.device.type not in TOGETHER_ON
    together = 1 if alone else max(1, _AT_ONCE // slices)
    total = torch.zeros((), device=images.device)
    for some in batched(group, together):
        views = [symmetry.apply(images) for symmetry in some]
        stacked = views[0] if alone else torch.cat(views).contiguous(memory_format=format_)
        total = total + network(stacked, *rest).float().sigmoid().unflatten(0, (len(some), slices)).sum(dim=0)
    return total / len(group)


def memory_format(images: torch.Tensor) -> torch.memory_format:
    """That of images (slices, channels, size, size)."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def batched(group: tuple[Symmetry, ...], size: int) -> Iterator[tuple[Symmetry, ...]]:
    """The symmetries of a group, so many at a time."""
    return (group[first : first + size] for first in range(0, len(group), size))
