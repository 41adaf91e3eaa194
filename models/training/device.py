"""The device that a run computes on, the one that was asked for and nobody else's default, and the cores beside it."""

import os
from pathlib import Path

import joblib
import torch

from models.common.errors import InputError

_GPUS = Path("/proc/driver/nvidia/gpus")  # all of the machine: CUDA_VISIBLE_DEVICES hides some of them from torch
_KNOWN = "take auto, cpu, cuda, cuda:1 or mps"


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first CUDA device, else Apple's, else the CPU.

    Raises InputError for one that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name} is no device; {_KNOWN}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name} is not one that this project knows; {_KNOWN}")
    if device.type == "cuda" and (device.index or 0) >= (cards := torch.cuda.device_count()):
        raise InputError(f"--device {name} is not there, torch {torch.__version__} sees {cards} CUDA devices; {_KNOWN}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device mps is not there; {_KNOWN}")
    return device


def use_device(device: torch.device) -> torch.device:
    """The device with its number, made torch's current one and set up for batches of one size."""
    if device.type != "cuda":
        return device
    device = torch.device("cuda", device.index or 0)
    torch.cuda.set_device(device)  # where what has no device of its own goes, pinned memory for one
    torch.backends.cudnn.benchmark = True  # the fastest kernels for a shape are looked for once
    torch.set_float32_matmul_precision("high")  # TF32 where a product is of fp32
    return device


def count_workers(workers: int, device: torch.device) -> int:
    """Loader processes for a `Machine.workers` of -1: none on a CPU, else one a core, at most 8 a device.

    The cores are those that this process may use (by affinity, and by what a container is allowed), shared with the
    others that torchrun has started; and not more than the machine has for each of its GPUs, so that folds that are
    trained side by side, a command a GPU, leave one another theirs.
    """
    if workers >= 0:
        return workers
    if device.type == "cpu":
        return 0
    usable = joblib.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share = (os.cpu_count() or 1) // max(1, torch.cuda.device_count(), len(list(_GPUS.glob("*"))))
    return max(1, min(usable, share, 8))
