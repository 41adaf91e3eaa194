"""Trained folds -> what each says of the slices of one study, under each of the views that it takes of them.

A network of slices looks at a study once, whoever needs what it sees: it itself, layers over its embeddings, the check
whether it has seen such slices before.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from models.common.config import SequenceConfig, StudyConfig
from models.common.errors import InputError
from models.common.options import EngineName, TestTimeAugmentation
from models.inference.asked_runs import Fold, Study
from models.inference.engines import Engine, Seen
from models.inference.onnx_files import REPAIR, graph_files
from models.training.fingerprint import Fingerprint, distances, sums
from models.training.study_places import places
from models.training.symmetries import GROUPS

_LARGEST = float(np.finfo(np.float16).max)


class Said(NamedTuple):
    """What a fold says of the readable slices of a study."""

    fold: Fold
    probability: np.ndarray  # (views, slices, 6), not calibrated
    strangeness: float | None  # how far what it sees is from its validation, of what was the most there


class Ensemble:
    """The networks of some folds on a device; `tta` are the views of networks of images.

    Layers over embeddings have the views that they were trained with. What it does raises InputError if weights or the
    store are damaged.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        device: str,
        tta: TestTimeAugmentation,
        engine: EngineName = "auto",
        threads: int | None = None,
    ) -> None:
        self.folds, self.tta = list(folds), tta
        self.engine: Engine = choose_engine(folds, engine, device, threads)

    def ask(self, study: Study) -> list[Said]:
        """What each fold says of a study."""
        seen: dict[tuple[Path, str], Seen] = {}
        return [self._ask(fold, study, seen) for fold in self.folds]

    def heat(self, study: Study) -> np.ndarray | None:
        """Where the first network that looks at images looks for any hemorrhage, (slices, size, size) of its store.

        None where the engine cannot tell.
        """
        eye = self.folds[0].eyes[0]
        heat = self.engine.heat(eye, study)
        if heat is None:
            return None
        margin = (eye.config.image_size - eye.config.input_size) // 2  # what a network that crops has not seen
        beyond = eye.config.image_size - eye.config.input_size - margin
        return np.pad(heat, ((0, 0), (margin, beyond), (margin, beyond)))

    def _ask(self, fold: Fold, study: Study, seen: dict[tuple[Path, str], Seen]) -> Said:
        config = fold.record.config
        views = config.views if isinstance(config, SequenceConfig) else self.tta
        for eye in fold.eyes:
            if (eye.folder, views) not in seen:
                seen[eye.folder, views] = self.engine.see(eye, study, GROUPS[views])
        own = [seen[eye.folder, views] for eye in fold.eyes]
        place = places(study.slices)
        if isinstance(config, SequenceConfig):
            parts = [part.embedding.mean(axis=0) for part in own] + [part.logits.mean(axis=0) for part in own]
            described = np.concatenate([_stored(part) for part in parts], axis=1)
            upright, turned = (self.engine.carry(fold, described[::way], place[::way])[::way] for way in (1, -1))
            probability = expit(np.stack([upright, turned]))
        elif isinstance(config, StudyConfig):
            described = np.concatenate(own[0], axis=2)
            probability = expit(np.stack([self.engine.carry(fold, view, place) for view in described]))
        else:
            probability = expit(own[0].logits)
        strangeness = _strangeness(fold.eyes[0].fingerprint, own[0].embedding[0])  # the view as it is comes first
        return Said(fold, probability, strangeness)


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
        raise InputError(f"{by_onnx[0]} has no ONNX network{missing}; make it, where torch is, with: {REPAIR}")
    from models.inference.onnx_engine import OnnxEngine

    return OnnxEngine(device, threads)


def _stored(values: np.ndarray) -> np.ndarray:
    """Values of any shape as the layers have learnt from them: stored as float16."""
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)


def _strangeness(known: Fingerprint | None, seen: np.ndarray) -> float | None:
    """How far a study is from what a network saw in its validation, of embeddings (slices, width)."""
    if known is None or known.familiar is None:
        return None
    familiar = known.familiar
    return float(distances(sums(seen), familiar.mean, familiar.covariance).mean() / familiar.distance[2])
