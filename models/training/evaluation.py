"""A network over a loader -> probabilities, in the loader's order."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from models.common.labels import LABELS
from models.training.loading import explained
from models.training.processes import Processes

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}

View = Callable[..., torch.Tensor]


def single_view(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """Probabilities of a batch as it is, (slices, 6)."""
    return network(*inputs).float().sigmoid()


def predict(network: nn.Module, loader: DataLoader, processes: Processes, precision: str, title: str) -> np.ndarray:
    """Probabilities of all slices of a loader, float32 (slices, 6); of several processes each predicts a stretch.

    Raises InputError as `predict_batches`.
    """
    with processes.as_one():
        own = list(predict_batches(network, loader, processes, precision, title))
    shares = processes.gather(np.concatenate(own) if own else np.empty((0, len(LABELS)), np.float32))
    return np.concatenate(shares)


@torch.inference_mode()
def predict_batches(
    network: nn.Module,
    loader: DataLoader,
    processes: Processes,
    precision: str,
    title: str,
    view: View = single_view,
) -> Iterator[np.ndarray]:
    """What `view` gives for each batch of a loader; probabilities, float32 (slices, 6), if nothing else is asked.

    Raises InputError for what fails in the loader.
    """
    device = processes.device
    network = network_to_device(network, device).eval()
    with explained(loader):
        for *inputs, _ in tqdm(loader, desc=title, dynamic_ncols=True, disable=not processes.is_main):
            with autocast(device, precision):
                result = view(network, *(to_device(part, device) for part in inputs))
            yield result.cpu().numpy()


def autocast(device: torch.device, precision: str) -> torch.autocast | nullcontext:
    """Mixed precision where the device has it: on CUDA."""
    if device.type == "cuda" and precision in AUTOCAST:
        return torch.autocast("cuda", AUTOCAST[precision])
    return nullcontext()


def network_to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """A network on the device, in the memory format in which convolutions are fastest."""
    # pyrefly: ignore[no-matching-overload]  # torch's types do not know its keyword memory_format
    return network.to(device, memory_format=torch.channels_last)


def to_device(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A part of a batch, of any shape, on the device; images in the memory format of the network."""
    images = part.ndim == 4
    return part.to(device, non_blocking=True, memory_format=torch.channels_last if images else torch.preserve_format)
