"""A network over a loader -> probabilities, in the loader's order."""

import os
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from models.training.loading import explained

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}

Predictor = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def single_view(network: nn.Module, grey: torch.Tensor) -> torch.Tensor:
    """Probabilities of a batch as it is, (slices, 6)."""
    return network(grey).float().sigmoid()


@torch.inference_mode()
def predict(
    network: nn.Module,
    loader: DataLoader,
    device: torch.device,
    precision: str,
    title: str,
    view: Predictor = single_view,
) -> np.ndarray:
    """Probabilities of all slices of a loader, float32 (slices, 6); `view` says how a batch is looked at."""
    network = network.to(device, memory_format=torch.channels_last).eval()
    batches = []
    with explained(loader):
        for grey, _ in tqdm(loader, desc=title, dynamic_ncols=True):
            with autocast(device, precision):
                batches.append(view(network, to_device(grey, device)).cpu())
    return torch.cat(batches).numpy()


def autocast(device: torch.device, precision: str) -> torch.autocast | nullcontext:
    """Mixed precision where the device has it: on CUDA."""
    if device.type == "cuda" and precision in AUTOCAST:
        return torch.autocast("cuda", AUTOCAST[precision])
    return nullcontext()


def to_device(grey: torch.Tensor, device: torch.device) -> torch.Tensor:
    return grey.to(device, non_blocking=True, memory_format=torch.channels_last)


def count_workers(workers: int, device: torch.device) -> int:
    """Loader processes for a `Machine.workers` of -1: none on a CPU, else one a core, at most 8."""
    if workers >= 0:
        return workers
    return 0 if device.type == "cpu" else min(os.cpu_count() or 1, 8)


def choose_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device, else Apple's, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
