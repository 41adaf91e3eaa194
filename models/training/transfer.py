"""Networks and batches on their way to the device."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

Batch = tuple[torch.Tensor, ...]


def network_to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """A network on the device, in the memory format in which convolutions are fastest."""
    # pyrefly: ignore[no-matching-overload]  # torch's types do not know its keyword memory_format
    return network.to(device, memory_format=torch.channels_last)


def to_device(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A part of a batch, of any shape, on the device; images in the memory format of the network."""
    images = part.ndim == 4
    return part.to(device, non_blocking=True, memory_format=torch.channels_last if images else torch.preserve_format)


def batch_to_device(batch: Iterable[torch.Tensor], device: torch.device) -> Batch:
    """What a network looks at, (slices, ...), and the targets, (slices, 6), on the device.

    What stands between them, the places (slices, 3), stays where it is: the lengths of studies are read from it, for
    which a GPU would have to be waited for.
    """
    seen, *places, target = batch
    return to_device(seen, device), *places, to_device(target, device)


def on_device(batches: Iterable[Iterable[torch.Tensor]], device: torch.device) -> Iterator[Batch]:
    """The batches of a loader, (slices, ...) each part, on the device.

    On CUDA they are copied beside the computing: the CPU, which does not wait for a step, asks for the next copy
    while the GPU still works on this batch.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch_to_device(batch, device)
        return
    copies, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            copied = batch_to_device(batch, device)
        computing.wait_stream(copies)  # the GPU waits, not the CPU
        for part in copied:
            if part.device.type == "cuda":
                part.record_stream(computing)  # its memory is free when the network has done with it, not before
        yield copied
