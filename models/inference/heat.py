"""Where a network of slices looked: which places of its features speak for a label, as a map over the image.

Gradient times feature, place by place (HiResCAM; Draelos and Carin 2020, arXiv:2011.08891), at the last features with
LEAST x LEAST places and more. Where they are averaged and then weighted, as in EfficientNet, it is the map of the
label's logit itself (class activation mapping; Zhou et al., CVPR 2016), but for what speaks against the label.
"""

from math import isqrt
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from models.training.d4 import mean_probability
from models.training.symmetries import D4

LEAST = 28  # places a side: each is then some 8 mm of a head, and a bleed has several (docs/results.md has others)


def heat_maps(network: nn.Module, images: torch.Tensor, label: int, least: int = LEAST) -> torch.Tensor:
    """Heat of a label over images (slices, channels, size, size), float32 (slices, size, size), 0 and more.

    Of the last features with `least` places a side or more of which the logit depends at one of them: where a
    transformer is asked by one token alone, those are what its last block is given. A network that has so many places
    nowhere is asked for the most that it has.
    """
    network.eval()
    with torch.enable_grad():
        seen, logits = features_with_places(network, images)
        speaks = logits[:, label].sum()
        for features in reversed(with_places_enough(seen, least)):
            (gradient,) = torch.autograd.grad(speaks, features, retain_graph=True, allow_unused=True)
            if gradient is not None and in_places(gradient).any():
                break
        else:
            return torch.zeros(len(images), *images.shape[-2:], device=images.device)
    heat = in_places(gradient * features).sum(dim=1, keepdim=True).relu().detach().float()
    return interpolate(heat, size=images.shape[-2:], mode="bilinear")[:, 0]


@torch.inference_mode()
def view_probabilities(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities of images (slices, channels, size, size) under each of the eight symmetries, (8, slices, 6)."""
    network.eval()
    return torch.stack([mean_probability(network, images, group=(symmetry,)) for symmetry in D4])


def features_with_places(network: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features that still have places, as the network lays them out (`in_places`), and what comes out, (slices, n).

    They are what its blocks give, one after the other, and at last what has been made of the last block's: all that
    comes out has gone through each of them.
    """
    blocks = set(_blocks(network))
    seen: list[torch.Tensor] = []
    last: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.shape[0] == images.shape[0] and _has_places(output):
            last[:] = [output]  # a window of a slice is none: there are more of them
            if module in blocks:
                seen.append(output)

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        given = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [*seen, *last], given


def with_places_enough(seen: list[torch.Tensor], least: int) -> list[torch.Tensor]:
    """Those features of some that have `least` places a side or more; if none has, those that have the most.

    All as the network lays them out: (slices, width, side, side), (slices, side, side, width) or tokens.
    """
    sides = [in_places(features).shape[-1] for features in seen]
    enough = min(least, max(sides, default=least))
    return [features for features, side in zip(seen, sides, strict=True) if side >= enough]


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
    """Whether features have more than one place; a single number for each token is a weight."""
    if features.ndim == 3:
        return features.shape[1] >= 4 and features.shape[2] > 1
    return features.ndim == 4 and in_places(features).shape[-1] > 1
