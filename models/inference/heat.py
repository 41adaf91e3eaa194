"""Where a network of slices looked: which places of its features speak for a label, as a map over the image.

Gradient times feature, place by place (HiResCAM; Draelos and Carin 2020, arXiv:2011.08891), at the last features with
LEAST x LEAST places and more. Were they the last of all, which are averaged and then weighted, it would be the map of
the label's logit itself (class activation mapping; Zhou et al., CVPR 2016), but for what speaks against the label.
"""

from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import interpolate

from models.training.d4 import mean_probability
from models.training.symmetries import D4

LEAST = 28  # places a side, each some 8 mm of a head: a bleed has several; fewer tell less (docs/results.md)


class Features(NamedTuple):
    """What a part of a network makes of images."""

    part: nn.Module
    values: torch.Tensor  # (slices, width, side, side), (slices, side, side, width) or tokens (slices, n, width)


def heat_maps(network: nn.Module, images: torch.Tensor, label: int, least: int = LEAST) -> torch.Tensor:
    """Heat of a label over images (slices, channels, size, size), float32 (slices, size, size), 0 and more.

    Of the last features with `least` places a side or more of which the logit depends at one of them: where a
    transformer is asked by one token alone, those are what its last block is given. A network none of whose blocks has
    so many places is asked for the most that they have.
    """
    network.eval()
    with torch.no_grad():
        seen, _ = features_with_places(network, images)
    for part in reversed(_with_places_enough(seen, least)):
        features, logits = _with_gradient(network, images, part)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(logits[:, label].sum(), features, allow_unused=True)
        if gradient is not None and in_places(gradient).any():
            heat = in_places(gradient * features.detach()).sum(dim=1, keepdim=True).relu().float()
            return interpolate(heat, size=images.shape[-2:], mode="bilinear")[:, 0]
    return torch.zeros(len(images), *images.shape[-2:], device=images.device)


@torch.inference_mode()
def view_probabilities(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities of images (slices, channels, size, size) under each of the eight symmetries, (8, slices, 6)."""
    network.eval()
    return torch.stack([mean_probability(network, images, group=(symmetry,)) for symmetry in D4])


def features_with_places(network: nn.Module, images: torch.Tensor) -> tuple[list[Features], torch.Tensor]:
    """Features that still have places, and what comes out of the network, (slices, n).

    They are what its blocks give, one after the other, and at last what has been made of the last block's. Where blocks
    follow one another, all that comes out has gone through each of them; of a network of parallel branches it is one.
    """
    blocks = set(_blocks(network))
    seen: list[Features] = []
    last: list[Features] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.shape[0] == images.shape[0] and _has_places(output):
            last[:] = [Features(module, output)]  # a window of a slice is none: there are more of them
            if module in blocks:
                seen.append(last[0])

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        given = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [*seen, *last], given


def _with_places_enough(seen: list[Features], least: int) -> list[nn.Module]:
    """The parts whose features have `least` places a side or more; if none has, those that have the most."""
    sides = [in_places(features.values).shape[-1] for features in seen]
    enough = min(least, max(sides, default=least))
    return [features.part for features, side in zip(seen, sides, strict=True) if side >= enough]


def _with_gradient(network: nn.Module, images: torch.Tensor, part: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a part gives, and what comes out; gradients are known from the one to the other, nothing before is kept."""
    given: list[torch.Tensor] = []

    def begin(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(True)
        given[:] = [output.requires_grad_()]
        return output.clone()  # which may be changed in place

    hook = part.register_forward_hook(begin)
    try:
        with torch.no_grad():
            logits = network(images)
    finally:
        hook.remove()
    return given[0], logits


def in_places(features: torch.Tensor) -> torch.Tensor:
    """Features (slices, width, side, side), (slices, side, side, width) or tokens, by their rows and columns.

    Returns (slices, width, side, side). What stands before the tokens of the places, a class token, is left out.
    """
    if features.ndim == 3:
        side = isqrt(features.shape[1])
        return features[:, -side * side :].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return features if features.shape[2] == features.shape[3] else features.permute(0, 3, 1, 2)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The members of the outermost rows of a network; within them are branches, through which not all goes."""
    members = list(module.children())
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return members
    return [block for member in members for block in _blocks(member)]


def _has_places(features: torch.Tensor) -> bool:
    """Whether features have more than one place, in a square; a single number for each token is a weight."""
    if features.ndim == 3:
        return features.shape[1] >= 4 and features.shape[2] > 1
    return features.ndim == 4 and features.shape[2] in (features.shape[1], features.shape[3]) and features.shape[2] > 1
