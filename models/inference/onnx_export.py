"""Trained folds -> graphs of ONNX, a folder a fold as in runs/, which predict.py takes where there is no torch."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from torch.onnx.errors import OnnxExporterError

from models.common.config import SequenceConfig, StudyConfig, TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file, replacing, require_writable, write_json
from models.common.folders import RELEASE
from models.common.labels import LABELS
from models.inference.asked_runs import Eye, Fold, called, find_folds
from models.inference.onnx_check import Checked, check, gather
from models.inference.onnx_engine import count_planes
from models.inference.onnx_files import LAYERS, NOTES, OPSET, SLICES
from models.inference.onnx_graphs import LayersGraph, SlicesGraph, feature_weights
from models.inference.release import is_release, read_release
from models.inference.torch_engine import TorchEngine
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.training.fingerprint import FILE as FINGERPRINT
from models.training.run_record import RunRecord

Numbers = Literal["float32", "float16", "int8"]
_EXAMPLE = 7  # slices of a study; others may have any number
# The lowest torch that writes all networks of this project: older ones know no largest value of a map, as the small
# network takes it, and write recurrent layers for as many slices as the example has.
WRITES_ALL = "2.13"


class Part(NamedTuple):
    """What is one folder: a fold, or a network that it builds on."""

    name: str
    folder: Path
    record: RunRecord


class Exported(NamedTuple):
    """What has been written of a fold that speaks."""

    fold: Fold
    folder: Path
    bytes: int
    checked: Checked


def export(
    weights: Sequence[Path], output: Path, numbers: Numbers, work: Path | None, most: int, threads: int = 1
) -> list[Exported]:
    """Write the folds that are named, and what they build on, and hold them against torch.

    On `most` slices of a working folder, whose runs are named as there, or of made-up ones. A release stays one: how
    its runs are joined, calibration and thresholds go with it. Raises InputError for what is no finished network, a
    folder that cannot be written to or holds something else, and a graph in float32 that says something else than
    torch.
    """
    folds, engine = find_folds(weights, work), TorchEngine("cpu", threads)
    require_writable(output)
    for part in _parts(folds):
        require_free(output / part.name)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as name:
        made = Path(name)
        for part, graphs in _graphs(folds, engine):
            write_part(part, graphs, made / part.name, numbers)
        exported = [one for fold in folds for one in find_folds([made / fold.name])]
        checks = [
            check(fold, ours, engine, gather(fold, work, most, made), exact=numbers == "float32")
            for fold, ours in zip(folds, exported, strict=True)
        ]
        for part in _parts(folds):
            _note(made / part.name, part, numbers, [one for one in checks if one.name == part.name])
            _move(made / part.name, output / part.name)
    if is_release(weights[0]):
        write_release(weights[0], output, [part.name for part in _parts(folds)])
    places = [output / fold.name for fold in folds]
    sizes = [sum(file.stat().st_size for file in place.glob("*.onnx")) for place in places]
    return [Exported(*one) for one in zip(folds, places, sizes, checks, strict=True)]


def require_free(place: Path) -> None:
    """Raise InputError if a folder holds anything but an export, which is made anew."""
    if place.exists() and not (place / NOTES).is_file():
        raise InputError(f"{place} is there, and was not exported: it is left alone; choose another with --output")


def write_release(release: Path, output: Path, parts: Sequence[str]) -> None:
    """Write release.json beside graphs: that of a release, with the sha256 of their files in place of its own.

    And what all runs of a blend together said of their validation, where that is noted.
    """
    told = {name: value for name, value in read_release(release).told.items() if name != "sha256"}
    files = sorted(path for part in parts for path in (output / part).iterdir())
    if (release / FINGERPRINT).is_file():
        shutil.copy(release / FINGERPRINT, output / FINGERPRINT)
        files.append(output / FINGERPRINT)
    hashes = {path.relative_to(output).as_posix(): hash_file(path) for path in files}
    write_json(output / RELEASE, told | {"sha256_of": hashes})


def write_part(part: Part, graphs: dict[str, onnx.ModelProto], folder: Path, numbers: Numbers) -> None:
    """Write the graphs of a part, and what is read beside them. Raises InputError if that cannot be done."""
    for name, graph in graphs.items():
        with replacing(folder / name) as temporary:
            if numbers == "int8":
                # Whole numbers without a sign: onnxruntime has no convolution of signed ones on a CPU.
                kept = precise_nodes(graph)
                quantize_dynamic(graph, temporary, weight_type=QuantType.QUInt8, nodes_to_exclude=kept)
            else:
                onnx.save(half_weights(graph) if numbers == "float16" else graph, temporary)
    for name in ("config.json", FINGERPRINT):
        if (part.folder / name).is_file():
            shutil.copy(part.folder / name, folder / name)
    _note(folder, part, numbers, [])


def to_onnx(
    graph: nn.Module, inputs: dict[str, torch.Tensor], outputs: Sequence[str], of: Path | str = "this network"
) -> onnx.ModelProto:
    """A module in evaluation, whose inputs and outputs all begin with the slices, any number of them.

    Raises InputError, which tells what it is `of`, where this torch cannot write it so.
    """
    slices = torch.export.Dim("slices")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what torch says of its own exporter
        try:
            program = torch.onnx.export(
                graph.eval(),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes={name: {0: slices} for name in inputs},
                verbose=False,
            )
        except OnnxExporterError as error:
            raise InputError(_not_written(of)) from error
    assert program is not None  # as it is where dynamo exports
    written = without_origin(program.model_proto)
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in written.graph.input):
        raise InputError(_not_written(of))
    return written


def _not_written(of: Path | str) -> str:
    enough = torch.__version__ >= WRITES_ALL
    repair = "predict with torch, --engine torch" if enough else f"export it with torch {WRITES_ALL} or newer"
    return f"torch {torch.__version__} cannot write {of} as ONNX; {repair}"


def without_origin(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same without the lines of code that each node comes from, which name folders of this machine."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    inner = bare.graph
    for part in (bare, inner, *inner.node, *inner.value_info, *inner.initializer, *inner.input, *inner.output):
        part.doc_string = ""
        del part.metadata_props[:]
    return bare


def half_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same with weights that are stored as float16: half the size. It computes in float32, as CPUs do fastest."""
    halved = onnx.ModelProto()
    halved.CopyFrom(graph)
    casts = []
    for tensor in halved.graph.initializer:
        values = numpy_helper.to_array(tensor)
        is_vector = values.size == max(values.shape, default=1)  # a bias, or the table of a window: few, and exact
        if tensor.data_type != TensorProto.FLOAT or is_vector:
            continue
        name = tensor.name
        limit = float(np.finfo(np.float16).max)
        tensor.CopyFrom(numpy_helper.from_array(np.clip(values, -limit, limit).astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def precise_nodes(graph: onnx.ModelProto) -> list[str]:
    """The first convolution and those of single channels: few weights, which one scale for all of them destroys."""
    shapes = {tensor.name: tensor.dims for tensor in graph.graph.initializer}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    single = [node.name for node in convolutions if shapes.get(node.input[1], [0, 0])[1] == 1]
    return [node.name for node in convolutions[:1]] + single


def _graphs(folds: Sequence[Fold], engine: TorchEngine) -> Iterator[tuple[Part, dict[str, onnx.ModelProto]]]:
    """The graphs of each part of some folds. Raises InputError as `to_onnx`."""
    for part in _parts(folds):
        config, graphs = part.record.config, {}
        if isinstance(config, TrainConfig):
            eye = next(eye for fold in folds for eye in fold.eyes if eye.folder.resolve() == part.folder.resolve())
            graphs[SLICES] = _slices_graph(eye, config, engine)
        if isinstance(config, SequenceConfig | StudyConfig):
            fold = next(fold for fold in folds if fold.folder.resolve() == part.folder.resolve())
            graphs[LAYERS] = _layers_graph(fold, engine)
        yield part, graphs


def _slices_graph(eye: Eye, config: TrainConfig, engine: TorchEngine) -> onnx.ModelProto:
    network, size = engine.eye(eye), config.input_size
    low, high = HOUNSFIELD_RANGE
    torch.manual_seed(0)
    images = torch.randint(low, high, (2, count_planes(config), size, size)).to(torch.int16)
    plain = SlicesGraph(network, config)
    weigh = feature_weights(network, plain.images(images))
    outputs = ["embedding", "logits", *(["heat"] if weigh is not None else [])]
    return to_onnx(SlicesGraph(network, config, weigh), {"hounsfield": images}, outputs, eye.folder)


def _layers_graph(fold: Fold, engine: TorchEngine) -> onnx.ModelProto:
    width = sum(engine.eye(eye).width for eye in fold.eyes)
    seen = torch.zeros(_EXAMPLE, width + len(fold.eyes) * len(LABELS))
    place = torch.stack([torch.zeros(_EXAMPLE), 5.0 * torch.arange(_EXAMPLE), torch.zeros(_EXAMPLE)], dim=1)
    return to_onnx(LayersGraph(engine.layers(fold, width)), {"seen": seen, "place": place}, ["logits"], fold.folder)


def _parts(folds: Sequence[Fold]) -> list[Part]:
    """Each folder once. Raises InputError if two of them would have one name."""
    parts = {part.folder.resolve(): part for fold in folds for part in (*fold.eyes, fold)}
    named = {folder: Part(called(part.folder), part.folder, part.record) for folder, part in parts.items()}
    if len({part.name for part in named.values()}) < len(named):
        raise InputError("two of these runs have one name; export them apart, each with its own --output")
    return list(named.values())


def _note(folder: Path, part: Part, numbers: Numbers, checks: list[Checked]) -> None:
    """Write onnx.json, last of the files of a part, whether it has been checked or not."""
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    notes: dict[str, Any] = {
        "opset": OPSET,
        "numbers": numbers,
        "weights_sha256": part.record.weights_sha256,
        "sha256_of": {file.name: hash_file(file) for file in sorted(folder.glob("*.onnx"))},
        "checked": [one.told() for one in checks],
        "versions": {package: version(package) for package in packages},
    }
    write_json(folder / NOTES, notes)


def _move(made: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.rmtree(place)
    made.rename(place)
