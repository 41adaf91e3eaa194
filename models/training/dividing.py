"""A batch in parts, where the memory of a device is too small for it as a whole."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.common.errors import InputError
from models.common.progress import say
from models.training.memory import is_out_of_memory
from models.training.studies import split_studies

TOO_LARGE = "out of memory with one slice or study at a time; take a smaller network or fewer pixels"


def indivisible(images: torch.Tensor, place: torch.Tensor | None = None) -> list[int]:
    """How many slices of a batch must stay together: one, or those of a study where places (slices, 3) are told."""
    return [1] * len(images) if place is None else split_studies(place)


def in_parts(count: int, inputs: Sequence[torch.Tensor], *others: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Inputs of a batch and other tensors, all (slices, ...), in so many parts or as many as can be divided."""
    units = indivisible(*inputs)
    sizes = [sum(part) for part in np.array_split(units, min(count, len(units)))]
    return list(zip(*(tensor.split(sizes) for tensor in (*inputs, *others)), strict=True))


def as_divided(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], parts: int
) -> tuple[torch.Tensor, int]:
    """What a function gives of a batch (slices, ...), and the number of parts: twice as many until the memory suffices.

    For what needs no gradients. Raises InputError if it is too small for one slice or study.
    """
    while True:
        try:
            return torch.cat([function(*part) for part in in_parts(parts, inputs)]), parts
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if parts >= len(indivisible(*inputs)):
                raise InputError(TOO_LARGE) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        parts *= 2
        say(f"out of memory with {len(inputs[0])} slices: from here on such a batch is predicted in {parts} parts")
