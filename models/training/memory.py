"""Memory that runs out: by which errors it is known, and how much was needed."""

import re

import torch

# torch's allocator has an error of its own; what cuDNN, cuBLAS and the CPU's allocator raise is known by its text.
# The last is what torch says when none of cuDNN's ways to convolve has found memory to try it.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|_ALLOC(ATION)?_FAILED|can't allocate memory|unable to find an engine to execute", re.IGNORECASE
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the device was too small."""
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def peak_gib(device: torch.device) -> float | None:
    """The most memory of a CUDA device that was in use, GiB; None on others."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def reset_peak(device: torch.device) -> None:
    """Begin anew with `peak_gib`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
