"""The eight symmetries of the square (the dihedral group D4), and the mean of a prediction over them.

The original's "D4" had six of the eight.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn


class Symmetry(NamedTuple):
    """First a mirror about the vertical axis (or none), then quarter turns counter-clockwise."""

    mirror: bool
    quarter_turns: int  # 0 ... 3

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Transform square images (..., size, size)."""
        mirrored = images.flip(-1) if self.mirror else images
        return torch.rot90(mirrored, self.quarter_turns, (-2, -1)) if self.quarter_turns else mirrored

    @property
    def inverse(self) -> "Symmetry":
        """The symmetry that undoes this one; a mirrored one undoes itself."""
        return self if self.mirror else Symmetry(False, -self.quarter_turns % 4)


IDENTITY = Symmetry(mirror=False, quarter_turns=0)
D4 = tuple(Symmetry(mirror, turns) for mirror in (False, True) for turns in range(4))
TOGETHER_ON = ("cuda", "mps")  # where small batches wait for launches; a CPU is slower on large ones
_AT_ONCE = 32  # images that a pass takes at least, if a group has as many views
GROUPS = {"none": (IDENTITY,), "flip": (IDENTITY, Symmetry(mirror=True, quarter_turns=0)), "d4": D4}


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
