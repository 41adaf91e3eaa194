"""What is asked of whatever carries out trained networks: torch (torch_engine.py), or onnxruntime (onnx_engine.py).

Both are asked in the same words and answer with arrays; ensemble.py chooses one, and makes an answer of what it says.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from models.inference.asked_runs import Eye, Fold, Study
from models.training.symmetries import Symmetry

PIXELS = 1 << 19  # that go through a network at a time: two slices of 512, so that EfficientNet-B2 stays below 1.5 GB
MOST = 32  # slices


class Seen(NamedTuple):
    """What a network of slices sees in the slices of a study, float32."""

    embedding: np.ndarray  # (views, slices, width)
    logits: np.ndarray  # (views, slices, 6), what it makes of that


class Engine(Protocol):
    """Networks that are loaded when they are needed first, and kept. Arrays of slices are in the order of a study's.

    Its methods raise InputError if weights or the store are damaged.
    """

    name: str
    """with its version"""

    def see(self, eye: Eye, study: Study, group: Sequence[Symmetry]) -> Seen:
        """What a network of slices sees under each symmetry of a group."""
        ...

    def carry(self, fold: Fold, seen: np.ndarray, place: np.ndarray) -> np.ndarray:
        """What the layers of a fold make of a study: logits (slices, 6).

        `seen` has the embeddings of all its networks, then their logits (slices, width + 6 networks); `place` is
        (slices, 3), as `models.training.study_places.places` gives it.
        """
        ...

    def heat(self, eye: Eye, study: Study) -> np.ndarray | None:
        """Where a network of slices looks for any hemorrhage, (slices, size, size) of what it is shown.

        None where the engine cannot tell.
        """
        ...


def at_once(input_size: int) -> int:
    """How many slices go through a network together."""
    return max(1, min(MOST, PIXELS // input_size**2))
