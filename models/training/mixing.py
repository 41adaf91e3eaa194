"""Mixup and CutMix: the slices of a batch mixed with others of it, and their labels with theirs, on the device."""

import math
from collections.abc import Callable

import torch

from models.common.config import RunConfig, TrainConfig

Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def mixing(config: RunConfig) -> Mix | None:
    """What a configuration does to images (slices, channels, size, size) and targets, (slices, 6) or (slices, 2, 6).

    None where it does nothing. Its chance is torch's, on the CPU.
    """
    if not isinstance(config, TrainConfig) or not (config.mixup or config.cutmix):
        return None

    def mix(images: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cuts = config.cutmix > 0 and (config.mixup == 0 or torch.rand(()).item() < 0.5)
        share = draw_share(config.cutmix if cuts else config.mixup)
        return cut_in(images, target, share) if cuts else blend(images, target, share)

    return mix


def draw_share(a: float) -> float:
    """How much stays of a slice, from Beta(a, a)."""
    return float(torch.distributions.Beta(a, a).sample())


def blend(images: torch.Tensor, target: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """So much of each image (slices, ...) and the rest of the one before it (Zhang et al. 2018, arXiv:1710.09412).

    The batch is shuffled, so that the one before is any. Targets are (slices, 6), or (slices, 2, 6) with weights.
    """
    own = images.float()
    return own.lerp(own.roll(1, 0), 1 - share), mixed_target(target, share)


def cut_in(images: torch.Tensor, target: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with a rectangle of the image before, of 1 - share of (slices, channels, height, width).

    It is anywhere, and may be cut off by the edge; the targets have the share that is left (Yun et al. 2019,
    arXiv:1905.04899).
    """
    height, width = images.shape[-2:]
    side = math.sqrt(1 - share) / 2
    middle = torch.rand(2).tolist()
    (top, bottom), (left, right) = (
        (max(round((at - side) * length), 0), min(round((at + side) * length), length))
        for at, length in zip(middle, (height, width), strict=True)
    )
    mixed = images.clone(memory_format=torch.preserve_format)
    mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    return mixed, mixed_target(target, 1 - (bottom - top) * (right - left) / (height * width))


def mixed_target(target: torch.Tensor, share: float) -> torch.Tensor:
    """Targets (slices, 6), or (slices, 2, 6) with weights, whose loss is the mean of both slices' losses."""
    if target.ndim == 2:
        return target.lerp(target.roll(1, 0), 1 - share)
    label, weight = target.unbind(dim=1)
    parts = weight * share, weight.roll(1, 0) * (1 - share)
    whole = parts[0] + parts[1]
    labels = (parts[0] * label + parts[1] * label.roll(1, 0)) / whole.clamp(min=torch.finfo(whole.dtype).tiny)
    return torch.stack([labels, whole], dim=1)
