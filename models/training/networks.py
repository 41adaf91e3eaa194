"""The networks: EfficientNets, the pretrainedmodels family, timm's, and a small one for CPUs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import url_map
from fastai.layers import AdaptiveConcatPool2d, ConvLayer, Flatten, ResBlock
from torch import nn
from torch.nn.functional import dropout, relu

from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file
from models.common.labels import LABELS
from models.training import lite0, timm_networks
from models.training.pretrained import adapt_first_convolution, imagenet_file, read_public_weights
from models.training.weights import read_weights, with_new_names

# Grey levels of a window in all channels alike: the mean over colours of ImageNet's statistics.
MEAN, STD = 0.449, 0.226


class Architecture(NamedTuple):
    """How a network is built, and where its ImageNet weights are."""

    build: Callable[[int], nn.Module]  # input size in pixels -> a network of three channels
    imagenet: Callable[[], str] | None  # the address at which its weights are published, with their hash
    carried: Callable[[], Path] | None = None  # their file in a package that is installed; none: they are downloaded
    # a tensor's name in that file -> in the network, None where it has no such tensor; none: the same
    new_name: Callable[[str], str | None] | None = None
    mean: float = MEAN  # with which inputs are normalised
    std: float = STD


class Head(nn.Linear):
    """The last layer, which in training is not given a share of its inputs."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, len(LABELS))
        self.share = dropout

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Embeddings (slices, width) -> logits (slices, 6)."""
        return super().forward(dropout(input, self.share, self.training) if self.share else input)


class HemorrhageNetwork(nn.Module):
    """uint8 grey values (slices, channels, height, width) -> logits of the six labels (slices, 6)."""

    def __init__(
        self, backbone: nn.Module, width: int, mean: float = MEAN, std: float = STD, head_dropout: float = 0.0
    ) -> None:
        """`backbone` gives the `width` numbers of a slice's embedding, pooled over the slice.

        It is given grey values 0 ... 1 less `mean`, in units of `std`.
        """
        super().__init__()
        self.backbone, self.width, self.mean, self.std = backbone, width, mean, std
        self.head = Head(width, head_dropout)

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(grey))

    def embed(self, grey: torch.Tensor) -> torch.Tensor:
        """What the last layer sees of each slice, (slices, width)."""
        # Normalised here, on the device: on the host it would cost more than the decoding of the slice.
        return self.backbone((grey.float() / 255 - self.mean) / self.std)


class Cadene(nn.Module):
    """A network of pretrainedmodels with a pool that takes any input size (its own takes 7 x 7 features only).

    Normalised images (slices, channels, height, width) -> what the last linear layer makes of them, (slices, 1000).
    """

    def __init__(self, name: str) -> None:
        import pretrainedmodels  # seconds, of torchvision and torch._dynamo, which the other networks do without

        super().__init__()
        self.network = getattr(pretrainedmodels, name)(num_classes=1000, pretrained=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = relu(self.network.features(x))  # DenseNet's features end before their ReLU; the others' after it
        return self.network.last_linear(features.mean(dim=(2, 3)))


def build_network(config: TrainConfig) -> HemorrhageNetwork:
    """The network of a configuration, with random weights.

    Raises InputError for a name that neither ARCHITECTURES nor timm has, and for fields that are not for it.
    """
    if config.network.startswith(timm_networks.FAMILY):
        backbone, normalised = timm_networks.build_timm(config), timm_networks.normalisation(config)
        return HemorrhageNetwork(backbone, backbone.head_hidden_size, *normalised, config.head_dropout)
    architecture = _architecture(config)
    backbone = architecture.build(config.input_size)
    _set_channels(backbone, len(config.channels))
    width = _cut_last_linear(backbone)
    if config.network in OF_TIMM:
        lite0.set_drop_path(backbone, config.drop_path)
        timm_networks.adapt(backbone, config)
    else:
        _refuse_fields_of_timm(config)
    return HemorrhageNetwork(backbone, width, architecture.mean, architecture.std, config.head_dropout)


def _refuse_fields_of_timm(config: TrainConfig) -> None:
    for name, before in {"pooling": "avg", "drop_path": None, "checkpointing": False}.items():
        if getattr(config, name) != before:
            raise InputError(f"--{name.replace('_', '-')} is for networks of timm, like timm/resnet50; leave it out")


def load_initial_weights(network: HemorrhageNetwork, config: TrainConfig, file: Path | None = None) -> None:
    """Give a new network the weights of a file; without one ImageNet's, or none, as its configuration says.

    Raises InputError if they cannot be had or do not fit.
    """
    of_timm = config.network.startswith(timm_networks.FAMILY)
    if file is not None and file.suffix == ".safetensors" and not (of_timm and _is_public(file)):
        _load(network, with_new_names(read_weights(file), network), file, head=True)
    elif of_timm and file is not None and file.suffix != ".safetensors":
        raise InputError(f"{file} may run code when it is opened; name weights as .safetensors with --start")
    elif of_timm and (file is not None or config.pretrained):
        timm_networks.load_timm(network.backbone, config, file or timm_networks.published_file(config))
    elif file is not None or (config.pretrained and not of_timm):
        architecture = _architecture(config)
        if architecture.imagenet is None:
            raise InputError(f"{config.network} has no ImageNet weights; start it with --no-pretrained")
        url = architecture.imagenet()
        path = file or (architecture.carried() if architecture.carried else imagenet_file(config.network, url))
        _load(network, _rename(network, architecture, read_public_weights(path, url)), path, head=False)


def hub_weights(config: TrainConfig) -> dict[str, str]:
    """The sha256 of the weights of timm's hub that a network starts from, by its name; none where it does not.

    Those of the other networks stand in their addresses. Raises InputError if they cannot be had.
    """
    if config.start is not None or not config.pretrained or not config.network.startswith(timm_networks.FAMILY):
        return {}
    return {config.network: hash_file(timm_networks.published_file(config))}


def _is_public(file: Path) -> bool:
    return not any(name.startswith("backbone.") for name in read_weights(file))


def _architecture(config: TrainConfig) -> Architecture:
    if config.network not in ARCHITECTURES:
        raise InputError(f"no network {config.network!r}; there are {', '.join(ARCHITECTURES)}, timm/<name>")
    return ARCHITECTURES[config.network]


def _load(network: HemorrhageNetwork, state: dict[str, torch.Tensor], path: Path, head: bool) -> None:
    """Load a state dict whose first convolution may have three channels; without `head` the last layer stays random."""
    state = dict(state)
    name, _ = _first_convolution(network.backbone)
    stem = f"backbone.{name}"
    expected = network.state_dict()
    if not head:
        own = ("head.", *(f"backbone.{name}." for name, _ in timm_networks.own_pools(network.backbone)))
        state.update({name: value for name, value in expected.items() if name.startswith(own)})
    if f"{stem}.weight" in state:
        state[f"{stem}.weight"] = adapt_first_convolution(state[f"{stem}.weight"], expected[f"{stem}.weight"].shape[1])
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not fit this network ({reason}); name another file with --start") from error


def _rename(
    network: HemorrhageNetwork, architecture: Architecture, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Names of a published file -> names of our network; the published last layer, of 1000 classes, is dropped."""
    prefix = "backbone."
    if isinstance(network.backbone, Cadene):
        from pretrainedmodels.models.torchvision_models import update_state_dict

        prefix, state = "backbone.network.", update_state_dict(state)
    heads = ("fc.", "_fc.", "classifier.", "last_linear.")
    new_name = architecture.new_name or str
    renamed = ((new_name(name), value) for name, value in state.items() if not name.startswith(heads))
    return {prefix + name: value for name, value in renamed if name is not None}


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _set_channels(network: nn.Module, channels: int) -> None:
    _, convolution = _first_convolution(network)
    if convolution.in_channels != channels:
        convolution.in_channels = channels
        convolution.weight = nn.Parameter(adapt_first_convolution(convolution.weight.detach(), channels))


def _cut_last_linear(network: nn.Module) -> int:
    """Take away the last linear layer; returns how many numbers it was given."""
    name, last = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    network.set_submodule(name, nn.Identity())
    return last.in_features


def _small(_: int) -> nn.Module:
    """A residual network of 0.3 million parameters for 64 px, of fastai's layers: it learns in CPU minutes."""
    return nn.Sequential(
        ConvLayer(3, 32, stride=2),
        ResBlock(1, 32, 32),
        ResBlock(1, 32, 64, stride=2),
        ResBlock(1, 64, 128, stride=2),
        AdaptiveConcatPool2d(1),
        Flatten(),
        nn.Dropout(0.4),
        nn.Linear(256, len(LABELS)),
    )


def _efficientnet(name: str) -> Architecture:
    def build(input_size: int) -> nn.Module:
        network = EfficientNet.from_name(name, image_size=input_size)  # the size sets its "same" padding
        network.set_swish(memory_efficient=False)  # torch's SiLU saves no more for the backward pass, and is fused
        return network

    return Architecture(build, lambda: url_map[name])


def _lite0(build: Callable[[int], nn.Module], new_name: Callable[[str], str | None]) -> Architecture:
    return Architecture(build, lambda: lite0.PUBLISHED, lite0.packaged_weights, new_name, lite0.MEAN, lite0.STD)


def _cadene(name: str) -> Architecture:
    def published() -> str:
        import pretrainedmodels

        return pretrainedmodels.pretrained_settings[name]["imagenet"]["url"]

    return Architecture(lambda _: Cadene(name), published)


ARCHITECTURES = {
    "small": Architecture(_small, None),
    **{name: _efficientnet(name) for name in ("efficientnet-b0", "efficientnet-b2", "efficientnet-b5")},
    # of timm; made for CPUs: no squeeze-and-excitation, and ReLU6
    "efficientnet-lite0": _lite0(lite0.build_lite0, lite0.name_in_timm),
    "efficientnet-lite0-trunk": _lite0(lite0.build_lite0_trunk, lite0.name_in_trunk),
    # the original's ResNeXt, and three that it also tried
    **{name: _cadene(name) for name in ("resnext101_32x4d", "resnet50", "se_resnext50_32x4d", "densenet121")},
}
OF_TIMM = ("efficientnet-lite0", "efficientnet-lite0-trunk")  # of timm, too, their weights come from elsewhere
