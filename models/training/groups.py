"""The parameters of a network in groups that learn alike: by weight decay, and by rate from the stem to the head."""

import re
from typing import Any, NamedTuple

from torch import nn

from models.common.config import RunConfig, TrainConfig
from models.training.networks import HemorrhageNetwork
from models.training.timm_networks import own_pools


class Group(NamedTuple):
    """Parameters that learn alike."""

    parameters: list[nn.Parameter]
    weight_decay: float
    rate: float
    """by which the rate of the schedule is multiplied"""


def parameter_groups(config: RunConfig, network: nn.Module) -> list[Group]:
    """Groups of all parameters that are learnt, those with the highest rate last; in each rate those decayed first."""
    learnt = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    of_name = rates(config, network)
    groups = []
    for rate in sorted({of_name[name] for name, _ in learnt}):
        alike = [parameter for name, parameter in learnt if of_name[name] == rate]
        if config.decay_norms_and_biases:
            groups.append(Group(alike, config.weight_decay, rate))
            continue
        groups.append(Group([p for p in alike if p.ndim > 1], config.weight_decay, rate))
        groups.append(Group([p for p in alike if p.ndim <= 1], 0.0, rate))  # norms and biases, as timm tells them
    return groups


def rates(config: RunConfig, network: nn.Module) -> dict[str, float]:
    """By which the rate of each parameter is multiplied, by its name.

    What a network begins with at random is new, and has head_lr; a block of the backbone has layer_decay of what the
    one above it has (Clark et al. 2020, arXiv:2003.10555; Bao et al. 2021, arXiv:2106.08254).
    """
    names = [name for name, _ in network.named_parameters()]
    if not isinstance(config, TrainConfig) or (config.head_lr is None and config.layer_decay == 1):
        return dict.fromkeys(names, 1.0)
    new = 1.0 if config.head_lr is None else config.head_lr / config.max_lr
    of_name = dict.fromkeys(names, new)
    for prefix, module in network.named_modules():
        if isinstance(module, HemorrhageNetwork):
            layers = layers_of(module.backbone)
            pools = tuple(f"{name}." for name, _ in own_pools(module.backbone))
            layers = {name: layer for name, layer in layers.items() if not name.startswith(pools or "\0")}
            above = max(layers.values(), default=0) + 1
            of_name |= {
                ".".join(filter(None, (prefix, "backbone", name))): config.layer_decay ** (above - layer)
                for name, layer in layers.items()
            }
    return of_name


def layers_of(backbone: Any) -> dict[str, int]:
    """How many blocks lie below that of each parameter, by its name: as timm tells, else by what its names count."""
    names = [name for name, _ in backbone.named_parameters()]
    if hasattr(backbone, "group_matcher"):
        from timm.models import group_parameters

        layers: Any = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
        return layers
    blocks = [re.sub(r"^(\D*\d+|[^.]*).*", r"\1", name) for name in names]  # up to the first number
    order = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    return {name: order[block] for name, block in zip(names, blocks, strict=True)}
