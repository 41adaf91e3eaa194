"""ImageNet weights: the files that packages publish or carry, checked before they are read."""

import re
from pathlib import Path
from urllib.error import URLError

import torch

from models.common.errors import InputError
from models.common.files import hash_file


def imagenet_file(network: str, url: str) -> Path:
    """The local copy of a published weight file, downloaded into torch.hub's folder if it is not there.

    Raises InputError when the download fails.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=published_hash(url))
        except (URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            raise InputError(
                f"cannot download the ImageNet weights of {network} from {url} to {path.parent} ({reason}); "
                "name a local copy with --start FILE, or start from random weights with --no-pretrained"
            ) from error
    return path


def read_public_weights(path: Path, url: str) -> dict[str, torch.Tensor]:
    """Read a published .pth file: tensors only, and only if its sha256 is the one in the address.

    The one place of the project that opens a pickle; `weights_only` keeps it from running code. Raises InputError for
    another file.
    """
    sha256 = hash_file(path)
    if not sha256.startswith(published_hash(url)):
        raise InputError(
            f"{path} is not the published file (its sha256 starts with {sha256[:8]}); get it anew from "
            f"{url.partition('#')[0]}, or give weights as .safetensors"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, zip's and unpickling errors
        raise InputError(f"{path} holds more than tensors; give weights as .safetensors") from error


def published_hash(url: str) -> str:
    """The sha256 of a file, or the first digits of it, in hex.

    It stands behind the address as pip writes it, or before the ending of the file name, where torch.hub puts it.
    Raises ValueError for an address without it.
    """
    found = re.search(r"(?:#sha256=([0-9a-f]{64})|-([0-9a-f]{8,})\.pth)$", url)
    if found is None:
        raise ValueError(f"{url} names no sha256, by which its file could be checked")
    return found[1] or found[2]


def adapt_first_convolution(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Weights (out, 3, height, width) for an input of `channels` channels: (out, channels, height, width).

    The three input planes are repeated in turn and scaled by 3 / channels, so that equal channels give the same
    response as before (the way of timm's adapt_input_conv).
    """
    if channels == weight.shape[1]:
        return weight
    repeats = -(-channels // weight.shape[1])
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (weight.shape[1] / channels)
