"""Write trained networks as ONNX, which predict.py takes where torch is not installed.

    python models/export_onnx.py runs/b2 --output onnx
    python models/predict.py scan.zip --weights onnx/b2    # pip install .[onnx] is enough for this

Needs a finished run, of one fold or of several; without a name it is the default network. Writes for each fold
onnx/<run>/fold<k>/: slices.onnx (a network of slices), layers.onnx (layers over the slices of a study), onnx.json, and
beside them config.json and fingerprint.json as they are. What goes in is Hounsfield units: docs/onnx.md. Each graph is
run by onnxruntime beside torch, on the run's validation where --work holds its slices: one in float32 that is more than
1e-4 away is not written; what float16 and int8 lose is told.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from models.common.cli import command
from models.common.errors import InputError
from models.common.folders import WorkFolder, default_work


@dataclass(frozen=True)
class ExportOptions:
    """The command line of this script."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """folders of finished runs or folds, or names of runs/; none: the default network"""
    output: Path = Path("onnx")
    """the folder to write to"""
    numbers: Literal["float32", "float16", "int8"] = "float32"
    """float16: weights are stored as halves, and computed with as float32; int8: onnxruntime's dynamic quantisation"""
    slices: int = 200
    """how many to compare on, in whole studies"""
    work: WorkFolder = field(default_factory=default_work)


def export(options: ExportOptions) -> None:
    """Write the graphs, and say how far they are from torch.

    Raises InputError for what is no finished network, or differs from torch, and if the folder cannot be written to.
    """
    if options.slices < 1:
        raise InputError(f"--slices {options.slices} must be at least 1")
    from models.inference import default
    from models.inference.onnx_export import export as carry_out  # with torch and onnx: seconds

    runs = options.runs or default.default_runs()
    for one in carry_out(runs, options.output, options.numbers, options.work, options.slices):
        checked = one.checked
        print(
            f"{one.folder}: {one.bytes / 1e6:.1f} MB, {options.numbers}; largest difference of a probability "
            f"from torch {checked.difference:.1e}, on {checked.slices} slices of {checked.of}"
        )
        if checked.losses is not None:
            print("weighted log loss {:.5f}, of torch {:.5f}".format(*checked.losses))


if __name__ == "__main__":
    command(export, ExportOptions)
