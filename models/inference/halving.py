"""Finished runs -> copies that travel, their weights as float16: half the bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch

from models.common.files import hash_file, write_text
from models.training.fingerprint import FILE
from models.training.run_record import PATIENTS
from models.training.weights import read_weights, write_tensors

SMALL = 10_000  # numbers
BESIDE = (PATIENTS, FILE)  # files of a run that inference reads; not every run has the latter
_LARGEST_HALF = torch.finfo(torch.float16).max


def halve(run: Path, folder: Path) -> None:
    """Copy a finished run, its weights as float16; whoever loads them into a network computes with float32 again.

    Its record names the weights as they are now, and is written last. Raises InputError if it is not finished, or its
    copy cannot be written.
    """
    copy_run(run, folder, as_half, BESIDE)


def copy_run(
    run: Path,
    folder: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    beside: tuple[str, ...],
    tell: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Copy a finished run, each tensor (of any shape) of its weights changed, with some of the files beside them.

    `tell` gives what is told of it in its record, which names the weights as they are now. Raises as `halve`.
    """
    record = json.loads((run / "config.json").read_text())
    tensors = read_weights(run / "model.safetensors")
    write_tensors(folder / "model.safetensors", {name: change(value) for name, value in tensors.items()})
    for name in beside:
        if (run / name).is_file():
            copyfile(run / name, folder / name)
    now = {"weights_sha256": hash_file(folder / "model.safetensors"), "float32_sha256": record["weights_sha256"]}
    write_text(folder / "config.json", json.dumps(tell(record) | now, indent=2))


def as_half(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of any shape as float16; as it is if it counts something, is small, or too large in its numbers.

    Small ones are those of norms, of the first stages and of depthwise convolutions: in a slice's embedding they make
    three quarters of the error of rounding, and in the file a twentieth of the bytes.
    """
    if not tensor.is_floating_point() or tensor.numel() <= SMALL or tensor.abs().max() > _LARGEST_HALF:
        return tensor
    return tensor.half()


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """The same tensor, of any shape."""
    return tensor
