"""The files of a fold as ONNX, beside its config.json, and what is noted of them in onnx.json.

slices.onnx    a network that looks at slices       (onnx_graphs.py tells what goes in and comes out)
layers.onnx    layers over what such networks see
onnx.json      their hashes, of which weights they are, and how far they are from torch; written last
"""

from pathlib import Path
from typing import Any

from models.common.errors import InputError
from models.common.files import damaged, hash_file, read_json
from models.common.repair import command_of
from models.training.run_record import RunRecord

NOTES = "onnx.json"
SLICES, LAYERS = "slices.onnx", "layers.onnx"
OPSET = 18
REPAIR = command_of("export_onnx", "RUN", "--output", "onnx")


def graph_files(folder: Path) -> dict[str, str]:
    """The graphs of a fold and their sha256; none where there are none. Raises InputError if onnx.json is damaged."""
    if not (folder / NOTES).is_file():
        return {}
    return read_json(folder / NOTES, REPAIR)["sha256_of"]


def read_graph(folder: Path, name: str, record: RunRecord) -> bytes:
    """A graph of a fold. Raises InputError if it is not the one that was written, or of other weights."""
    file, due = folder / name, graph_files(folder).get(name)
    if due is None or not file.is_file() or hash_file(file) != due:
        raise damaged(file, REPAIR)
    notes: dict[str, Any] = read_json(folder / NOTES, REPAIR)
    if notes["weights_sha256"] != record.weights_sha256:
        raise InputError(f"{file} is of other weights than {folder / 'config.json'}; make it anew with: {REPAIR}")
    return file.read_bytes()
