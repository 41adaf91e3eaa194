"""The weights of a run on disk: safetensors, whose opening never runs code, checked against the run's record."""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from models.common.errors import InputError
from models.common.files import hash_file, replacing
from models.training.run_record import RunRecord

# How older versions called tensors -> their names now. The last layer once stood in the backbone.
_NEW_NAMES = ((r"backbone\.(?:_fc|network\.last_linear|7)\.", "head."),)


def save_weights(folder: Path, network: nn.Module) -> None:
    """Write model.safetensors of a run. Raises InputError if it cannot be written."""
    write_tensors(folder / "model.safetensors", network.state_dict())


def write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a .safetensors file, flushed to the disk. Raises InputError if it cannot be written."""
    with replacing(file) as temporary:
        # Not save_file: it writes to a temporary file of its own beside this one, which a killed process leaves there.
        temporary.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def load_trained(folder: Path, record: RunRecord, network: nn.Module) -> None:
    """Load the weights of a finished run. Raises InputError if they are not the ones that its record names."""
    file = folder / "model.safetensors"
    if not file.is_file() or hash_file(file) != record.weights_sha256:
        raise InputError(f"{file} is missing, or its sha256 is not the one in config.json; train that fold anew")
    try:
        network.load_state_dict(with_new_names(read_weights(file), network))
    except RuntimeError as error:
        raise InputError(f"{file} is of another version of this project; train that fold anew") from error


def with_new_names(tensors: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a network of an older version, as they are called now; any shapes, which stay."""
    known = network.state_dict()
    for pattern, new in _NEW_NAMES:
        tensors = {
            name if name in known else re.sub(f"^{pattern}", new, name): value for name, value in tensors.items()
        }
    return tensors


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file. Raises InputError if it is not one."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} is not a whole safetensors file ({error}); name another one") from error
