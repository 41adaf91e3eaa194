"""Mixed precision: which one a device computes in, and what it needs."""

from contextlib import nullcontext

import torch

from models.common.config import Precision

MIXED = ("cuda",)  # kinds of devices that half precision makes faster; the others compute in fp32
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def usable_precision(precision: Precision, device: torch.device) -> Precision:
    """What a device computes in when asked for a precision: "fp16", "bf16" or "fp32".

    "auto" is bf16, which has the range of fp32, where the card has it in hardware, and fp16 where not.
    """
    if device.type not in MIXED:
        return "fp32"
    if precision == "auto":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return precision


def autocast(device: torch.device, usable: Precision) -> torch.autocast | nullcontext:
    """What surrounds a forward pass in a `usable_precision`."""
    return torch.autocast(device.type, _TYPES[usable]) if usable in _TYPES else nullcontext()


def gradient_scaler(device: torch.device, usable: Precision) -> torch.amp.GradScaler:
    """What keeps small gradients of fp16 above 0, and leaves out steps whose gradients overflow; idle otherwise."""
    return torch.amp.GradScaler(device.type, enabled=usable == "fp16")
