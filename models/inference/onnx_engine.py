"""onnxruntime on a CPU, as the engine that networks are carried out by where there is no torch (engines.py)."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from models.common.config import TrainConfig
from models.common.errors import InputError
from models.inference.asked_runs import Eye, Fold, Study
from models.inference.engines import Seen, at_once
from models.inference.onnx_files import LAYERS, SLICES, read_graph
from models.training.planes import Planes
from models.training.run_record import RunRecord
from models.training.symmetries import Symmetry

_QUIET = 3  # errors alone are logged


class OnnxEngine:
    """On a CPU. `threads` are those of each network; none: as OMP_NUM_THREADS says, or one a core.

    Raises InputError for another device.
    """

    name = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        if device not in ("auto", "cpu"):
            raise InputError(f"--device {device} needs torch; onnxruntime is for the CPU here: take auto or cpu")
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        self._options.log_severity_level = _QUIET
        self._sessions: dict[tuple[Path, str], onnxruntime.InferenceSession] = {}

    def see(self, eye: Eye, study: Study, group: Sequence[Symmetry]) -> Seen:
        """As `Engine.see`: embeddings (views, slices, width) and logits (views, slices, 6)."""
        session = self._session(eye.folder, SLICES, eye.record)
        parts: list[list[Seen]] = [[] for _ in group]
        for images in _images(eye, study):
            for symmetry, views in zip(group, parts, strict=True):
                views.append(Seen(*_run(session, Seen._fields, hounsfield=symmetry.apply(images))))
        whole = [Seen(*(np.concatenate(values) for values in zip(*views, strict=True))) for views in parts]
        return Seen(*(np.stack(values) for values in zip(*whole, strict=True)))

    def carry(self, fold: Fold, seen: np.ndarray, place: np.ndarray) -> np.ndarray:
        """As `Engine.carry`: `seen` (slices, width + 6 networks), `place` (slices, 3) -> logits (slices, 6)."""
        (logits,) = _run(self._session(fold.folder, LAYERS, fold.record), ["logits"], seen=seen, place=place)
        return logits

    def heat(self, eye: Eye, study: Study) -> np.ndarray | None:
        """As `Engine.heat`: (slices, size, size); None where that would need a gradient (onnx_graphs.py)."""
        session, size = self._session(eye.folder, SLICES, eye.record), eye.config.input_size
        if "heat" not in [output.name for output in session.get_outputs()]:
            return None
        coarse = np.concatenate([_run(session, ["heat"], hounsfield=images)[0] for images in _images(eye, study)])
        return np.stack([cv2.resize(heat, (size, size), interpolation=cv2.INTER_LINEAR) for heat in coarse])

    def _session(self, folder: Path, name: str, record: RunRecord) -> onnxruntime.InferenceSession:
        if (folder, name) not in self._sessions:
            graph = read_graph(folder, name, record)
            self._sessions[folder, name] = onnxruntime.InferenceSession(
                graph, self._options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[folder, name]


def _run(session: onnxruntime.InferenceSession, outputs: Sequence[str], **inputs: np.ndarray) -> list[np.ndarray]:
    given = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    return [np.asarray(output) for output in session.run(list(outputs), given)]


def _images(eye: Eye, study: Study) -> list[np.ndarray]:
    """What a network is shown of a study, int16 (slices, planes, size, size) at a time."""
    planes, config = Planes(study.slices, study.work, eye.config), eye.config
    some, shown = at_once(config.input_size), [plane_of(config).index(number) for number in range(count_planes(config))]
    parts = []
    for first in range(0, len(planes), some):
        samples = [planes.read(row) for row in range(first, min(first + some, len(planes)))]
        images = [np.stack([slices[sources[channel]] for channel in shown]) for slices, sources in samples]
        parts.append(centre(np.stack(images), config.input_size))
    return parts


def plane_of(config: TrainConfig) -> list[int]:
    """The number of the slice that each channel shows: windows of one slice share it."""
    offsets = [(channel.offset, channel.unit) for channel in config.channels]
    distinct = list(dict.fromkeys(offsets))
    return [distinct.index(offset) for offset in offsets]


def count_planes(config: TrainConfig) -> int:
    """How many slices a network is shown at once: the slice, and its neighbours."""
    return max(plane_of(config)) + 1


def centre(images: np.ndarray, side: int) -> np.ndarray:
    """The centre of images (..., size, size), (..., side, side)."""
    first = (images.shape[-1] - side) // 2
    return images[..., first : first + side, first : first + side]
