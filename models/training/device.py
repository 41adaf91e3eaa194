"""The device that a run computes on, the one that was asked for and nobody else's default, and the cores beside it."""

import os
import re
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
    """The device with its number, made torch's current one and set up for batches of one size.

    Raises InputError for a card that this torch has no kernels for.
    """
    if device.type != "cuda":
        return device
    device = torch.device("cuda", device.index or 0)
    require_kernels(device)
    torch.cuda.set_device(device)  # where what has no device of its own goes, pinned memory for one
    torch.backends.cudnn.benchmark = True  # the fastest kernels for a shape are looked for once
    torch.set_float32_matmul_precision("high")  # TF32 where a product is of fp32
    return device


def require_kernels(device: torch.device) -> None:
    """Raise InputError for a card that torch was not built for: torch itself warns, and fails at the first step.

    Kernels of a compute capability run on cards of the same first number and no lower second one; those that are kept
    as PTX on all cards of that capability or a higher one (CUDA programming guide, binary and PTX compatibility).
    """
    built = [match.groups() for name in torch.cuda.get_arch_list() if (match := re.match(r"(sm|compute)_(\d+)", name))]
    capabilities = [(kind, divmod(int(number), 10)) for kind, number in built]
    if not capabilities:  # of another maker's cards
        return
    own = torch.cuda.get_device_capability(device)
    if any(it <= own and (kind == "compute" or it[0] == own[0]) for kind, it in capabilities):
        return
    lowest, highest = (".".join(map(str, pick(it for _, it in capabilities))) for pick in (min, max))
    raise InputError(
        f"{torch.cuda.get_device_name(device)} has compute capability {own[0]}.{own[1]}, and torch {torch.__version__} "
        f"was built for {lowest} to {highest}: it cannot compute there; take another card (on Kaggle T4 x2), "
        "--device cpu, or an older torch"
    )


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
