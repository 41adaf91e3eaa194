"""Memory that runs out: by which errors it is known, and how much was needed."""

import re

import torch

# torch's allocator has an error of its own; what cuDNN, cuBLAS and the CPU's allocator raise is known by its text.
_OUT_OF_MEMORY = re.compile(r"out of memory|_ALLOC_FAILED|can't allocate memory", re.IGNORECASE)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the device was too small."""
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def peak_memory(device: torch.device) -> float:
    """The most that torch has had of a CUDA device since the last call, GiB; NaN on other devices."""
    if device.type != "cuda":
        return float("nan")
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return peak
