"""Where a network of slices looked: which places of its last features speak for a label, as a map over the image.

Grad-CAM (Selvaraju et al., ICCV 2017). Where features are averaged and then weighted, as in EfficientNet, it is the map
of the label's logit itself (class activation mapping; Zhou et al., CVPR 2016), but for what speaks against the label.
"""

from math import isqrt
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from models.training.d4 import mean_probability
from models.training.symmetries import D4


def heat_maps(network: nn.Module, images: torch.Tensor, label: int) -> torch.Tensor:
    """Heat of a label over images (slices, channels, size, size), float32 (slices, size, size), 0 and more.

    Of the last features of which the logit depends at more than one place: where a transformer is asked by one token
    alone, those are what its last block is given.
    """
    network.eval()
    with torch.enable_grad():
        seen, logits = features_with_places(network, images)
        width, speaks = width_of(network), logits[:, label].sum()
        for features in reversed(seen):
            (gradient,) = torch.autograd.grad(speaks, features, retain_graph=True, allow_unused=True)
            if gradient is not None and (due := in_places(gradient, width)).any():
                break
        else:
            return torch.zeros(len(images), *images.shape[-2:], device=images.device)
    weights = due.mean(dim=(2, 3), keepdim=True)  # (slices, features, 1, 1)
    heat = (weights * in_places(features, width)).sum(dim=1, keepdim=True).relu().detach().float()
    return interpolate(heat, size=images.shape[-2:], mode="bilinear")[:, 0]


@torch.inference_mode()
def view_probabilities(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities of images (slices, channels, size, size) under each of the eight symmetries, (8, slices, 6)."""
    network.eval()
    return torch.stack([mean_probability(network, images, group=(symmetry,)) for symmetry in D4])


def features_with_places(network: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The last features that still have places, as the network lays them out (`in_places`), and what comes out.

    That is (slices, n). Of a network of timm they are all those that are as wide as what comes out of it, in their
    order; of another one the last map alone.
    """
    wide: list[torch.Tensor] = []
    last: list[torch.Tensor] = []
    width = width_of(network)

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        if width is not None and _is_wide(output, width) and output.shape[0] == images.shape[0]:  # no window of a slice
            wide.append(output)
        elif output.ndim == 4 and output.shape[-1] > 1:
            last[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        given = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return wide or last, given


def in_places(features: torch.Tensor, width: int | None) -> torch.Tensor:
    """Features (slices, width, rows, columns), (slices, rows, columns, width) or tokens, by their rows and columns.

    Returns (slices, width, rows, columns). What stands before the tokens of the places, a class token, is left out.
    """
    if features.ndim == 3:
        side = isqrt(features.shape[1])
        return features[:, -side * side :].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return features.permute(0, 3, 1, 2) if features.shape[1] != width and features.shape[3] == width else features


def width_of(network: nn.Module) -> int | None:
    """How many features a network of timm has, which alone lays them out otherwise than width first."""
    widths = (module.num_features for module in network.modules() if hasattr(module, "forward_features"))
    return next((width for width in widths if isinstance(width, int)), None)


def _is_wide(features: torch.Tensor, width: int) -> bool:
    """Whether features are as wide, and have more than one place."""
    if features.ndim == 3:
        return features.shape[2] == width and features.shape[1] >= 4
    if features.ndim != 4 or width not in (features.shape[1], features.shape[3]):
        return False
    return in_places(features, width).shape[-1] > 1
