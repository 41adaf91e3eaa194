"""The eight symmetries of the square (the dihedral group D4), and the mean of a prediction over them.

The original's "D4" had six of the eight.
"""

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
GROUPS = {"none": (IDENTITY,), "flip": (IDENTITY, Symmetry(mirror=True, quarter_turns=0)), "d4": D4}


def mean_probability(
    network: nn.Module, images: torch.Tensor, *rest: torch.Tensor, group: tuple[Symmetry, ...]
) -> torch.Tensor:
    """Probabilities (slices, 6) of square images (slices, channels, size, size), the mean over a group.

    `rest` is what a network is given beside the images.
    """
    views = (network(symmetry.apply(images), *rest).float().sigmoid() for symmetry in group)
    return sum(views, torch.tensor(0.0)) / len(group)
