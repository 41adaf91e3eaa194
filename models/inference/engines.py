"""What carries out trained networks: torch where it is installed, else onnxruntime, which needs no torch.

Both are asked in the same words and answer with arrays; all that is made of them stands in ensemble.py.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np

from models.common.errors import InputError
from models.common.options import EngineName
from models.inference.asked_runs import Eye, Fold, Study
from models.inference.onnx_files import graph_files
from models.training.symmetries import Symmetry

PIXELS = 1 << 20  # that go through a network at a time: four slices of 512
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

    def heat(self, eye: Eye, study: Study) -> np.ndarray:
        """Where a network of slices looks for any hemorrhage, (slices, size, size) of what it is shown."""
        ...


def choose_engine(folds: Sequence[Fold], name: EngineName, device: str, threads: int | None) -> Engine:
    """The engine of a name; "auto" is torch where it is installed and all weights are there, else onnxruntime.

    `threads` are those of a CPU; none: the engine's own choice. Raises InputError if neither can carry out these folds.
    """
    parts = [part.folder for fold in folds for part in (fold, *fold.eyes)]
    by_torch = [folder for folder in parts if not (folder / "model.safetensors").is_file()]
    by_onnx = [folder for folder in parts if not graph_files(folder)]
    has_torch = find_spec("torch") is not None
    if name == "torch" or (name == "auto" and has_torch and (by_onnx or not by_torch)):
        if not has_torch:
            raise InputError("torch is not installed; install it with: pip install .[training], or take --engine onnx")
        from models.inference.torch_engine import TorchEngine  # seconds of imports

        return TorchEngine(device, threads)
    if by_onnx:
        missing = "" if has_torch else " and torch is not installed"
        make = "python models/export_onnx.py RUN --output onnx"
        raise InputError(f"{by_onnx[0]} has no ONNX network{missing}; make it, where torch is, with: {make}")
    from models.inference.onnx_engine import OnnxEngine

    return OnnxEngine(device, threads)


def at_once(input_size: int) -> int:
    """How many slices go through a network together."""
    return max(1, min(MOST, PIXELS // input_size**2))
