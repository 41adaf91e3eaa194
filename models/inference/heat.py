"""Where a network of slices looked: which places of its last features speak for a label, as a map over the image.

Grad-CAM (Selvaraju et al., ICCV 2017). Where features are averaged and then weighted, as in EfficientNet, it is the map
of the label's logit itself (class activation mapping; Zhou et al., CVPR 2016), but for what speaks against the label.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from models.training.d4 import mean_probability
from models.training.symmetries import D4


def heat_maps(network: nn.Module, images: torch.Tensor, label: int) -> torch.Tensor:
    """Heat of a label over images (slices, channels, size, size), float32 (slices, size, size), 0 and more."""
    network.eval()
    with torch.enable_grad():
        features, logits = last_features(network, images)
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (slices, features, 1, 1)
    heat = (weights * features).sum(dim=1, keepdim=True).relu().detach().float()
    return interpolate(heat, size=images.shape[-2:], mode="bilinear")[:, 0]


@torch.inference_mode()
def view_probabilities(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities of images (slices, channels, size, size) under each of the eight symmetries, (8, slices, 6)."""
    network.eval()
    return torch.stack([mean_probability(network, images, group=(symmetry,)) for symmetry in D4])


def last_features(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last features (slices, features, height, width) that still have places, and what comes out, (slices, n)."""
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            seen[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        given = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0], given
