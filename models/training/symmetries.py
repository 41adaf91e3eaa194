"""The eight symmetries of the square (the dihedral group D4), and the groups of them that views are taken from.

The original's "D4" had six of the eight.
"""

from typing import Any, NamedTuple

import numpy as np


class Symmetry(NamedTuple):
    """First a mirror about the vertical axis (or none), then quarter turns counter-clockwise."""

    mirror: bool
    quarter_turns: int  # 0 ... 3

    def apply(self, images: Any) -> Any:
        """Transform square images (..., size, size), of numpy or of torch."""
        if isinstance(images, np.ndarray):
            return np.rot90(np.flip(images, -1) if self.mirror else images, self.quarter_turns, (-2, -1))
        mirrored = images.flip(-1) if self.mirror else images
        return mirrored.rot90(self.quarter_turns, (-2, -1)) if self.quarter_turns else mirrored

    @property
    def inverse(self) -> "Symmetry":
        """The symmetry that undoes this one; a mirrored one undoes itself."""
        return self if self.mirror else Symmetry(False, -self.quarter_turns % 4)


IDENTITY = Symmetry(mirror=False, quarter_turns=0)
D4 = tuple(Symmetry(mirror, turns) for mirror in (False, True) for turns in range(4))
GROUPS = {"none": (IDENTITY,), "flip": (IDENTITY, Symmetry(mirror=True, quarter_turns=0)), "d4": D4}
