"""timm's networks: any of them by its name, from the weights that its hub publishes or a local copy of them.

timm is imported where it is used: it takes seconds, which the other networks do without.
"""

import re
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import softmax

from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file
from models.training.weights import read_weights

FAMILY = "timm/"  # before the names that timm gives its networks
_PUBLISHED = "model.safetensors"  # as timm's hub, and a folder that is laid out like it, call the weights
_POWER = 3.0  # with which the generalised mean begins (Radenovic et al. 2018, arXiv:1711.02512)


def build_timm(config: TrainConfig) -> Any:
    """The network of a configuration without its last layer, with random weights.

    Raises InputError for a name that timm does not know, and for an input that its network cannot take.
    """
    network = _create(config)
    adapt(network, config)
    return network


def adapt(network: Any, config: TrainConfig) -> None:
    """Give a network of timm the pooling of a configuration, and checkpoints of its activations if they are asked for.

    Raises InputError for a network that has no pool over a map of features, or no way to compute activations anew.
    """
    if config.pooling != "avg":
        _set_pool(network, config)
    if config.checkpointing:
        try:
            checkpoint_activations(network)
        except AssertionError as error:  # timm's
            repair = "leave --checkpointing out; --accumulate makes the memory less, too"
            raise InputError(f"timm cannot compute activations of {config.network} anew; {repair}") from error


def normalisation(config: TrainConfig) -> tuple[float, float]:
    """Mean and standard deviation with which a network's inputs, grey values 0 ... 1, are normalised.

    Those of its published weights, the mean over colours. Raises InputError for a name that timm does not know.
    """
    published = _published(config)
    return sum(published.mean) / len(published.mean), sum(published.std) / len(published.std)


def published_file(config: TrainConfig) -> Path:
    """The local copy of the weights that timm's hub publishes, downloaded if it is not there, checked by its name.

    Raises InputError if there are none, the download fails, or the file is another one than its name says.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    hub = _published(config).hf_hub_id
    ways_out = "name a local copy with --start FILE, or start from random weights with --no-pretrained"
    if not hub:
        raise InputError(f"timm publishes no weights of {config.network}; {ways_out}")
    try:
        path = Path(hf_hub_download(hub, _PUBLISHED))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot download {_PUBLISHED} of {hub} from timm's hub ({reason}); {ways_out}") from error
    require_named_hash(path)
    return path


def require_named_hash(path: Path) -> None:
    """Raise InputError if a file is named after another sha256 than it has.

    The hub's cache names a file by its sha256; timm puts the first digits of it before the ending.
    """
    name = path.resolve().name
    named = re.fullmatch(r"([0-9a-f]{64})|.*-([0-9a-f]{8,64})\.\w+", name)
    if named and not hash_file(path).startswith(named[1] or named[2]):
        raise InputError(f"{path} is not the file that its name {name} tells of; delete it, and get it anew")


def load_timm(network: nn.Module, config: TrainConfig, path: Path) -> None:
    """Load weights as timm saves them, with the first convolution and positions adapted to the network's input.

    The published last layer is left out. Raises InputError if they are of another network, or not safetensors.
    """
    require_named_hash(path)
    tensors = read_weights(path)
    pool = {f"{name}.{part}" for name, module in own_pools(network) for part in module.state_dict()}
    needed = set(network.state_dict()) - pool
    repair = f"it is no file of {config.network}; name another one with --start"
    if lacking := needed - set(tensors):
        raise InputError(f"{path} lacks {len(lacking)} of {len(needed)} tensors, first {min(lacking)}; {repair}")
    try:
        loaded = _create(config, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit ({' '.join(str(error).split())[:200]}); {repair}") from error
    network.load_state_dict(loaded.state_dict(), strict=not pool)


def checkpoint_activations(network: Any) -> None:
    """Keep the activations between blocks alone in training; the others are computed anew for the backward pass.

    Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) as timm does it, but that batch norm takes its running
    statistics of a batch once: what runs after the forward pass is its repetition. (A forward pass that is itself a
    repetition ends as soon as torch has what it wants, by an exception.)
    """
    network.set_grad_checkpointing(True)
    network.momenta = [norm.momentum for norm in _batch_norms(network)]  # not of the norms: others may take their place
    network.register_forward_pre_hook(_let_statistics_move)
    network.register_forward_hook(_hold_statistics, always_call=True)


def _let_statistics_move(network: Any, _: Any) -> None:
    if torch.is_grad_enabled():
        for norm, momentum in zip(_batch_norms(network), network.momenta, strict=True):
            norm.momentum = momentum


def _hold_statistics(network: nn.Module, *_: Any) -> None:
    if torch.is_grad_enabled():
        for norm in _batch_norms(network):
            norm.momentum = 0.0


def _batch_norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]


class Pool(nn.Module):
    """A map of features -> one number each, in the place of a pool of timm's; with one place that is what it gives."""

    def __init__(self, features_last: bool, flat: bool) -> None:
        """Of maps (slices, height, width, features), or of (slices, features, height, width)."""
        super().__init__()
        self.features_last, self.flat = features_last, flat

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """A map of either layout -> (slices, features), or not `flat` with two more axes of length 1 in their place."""
        places = features.flatten(1, 2).transpose(1, 2) if self.features_last else features.flatten(2)
        pooled = self.pool(places)  # (slices, features)
        if self.flat:
            return pooled
        return pooled[:, None, None, :] if self.features_last else pooled[:, :, None, None]

    def pool(self, places: torch.Tensor) -> torch.Tensor:
        """Features at places (slices, features, places) -> (slices, features)."""
        raise NotImplementedError


class GeneralisedMean(Pool):
    """The mean of powers of features above 0, whose exponent is learnt: between the mean, at 1, and the largest."""

    def __init__(self, features: int, features_last: bool, flat: bool) -> None:
        super().__init__(features_last, flat)
        self.power = nn.Parameter(torch.tensor(_POWER))

    def pool(self, places: torch.Tensor) -> torch.Tensor:
        """As Pool's (slices, features, places) -> (slices, features); in float32, whose powers do not overflow."""
        with torch.autocast(places.device.type, enabled=False):
            return places.float().clamp(min=1e-6).pow(self.power).mean(dim=2).pow(1 / self.power)


class AttentionMean(Pool):
    """The mean of features, weighted by how much a linear layer makes of each place; it begins as the plain mean."""

    def __init__(self, features: int, features_last: bool, flat: bool) -> None:
        super().__init__(features_last, flat)
        self.score = nn.Linear(features, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def pool(self, places: torch.Tensor) -> torch.Tensor:
        """As Pool's (slices, features, places) -> (slices, features)."""
        weight = softmax(self.score(places.transpose(1, 2)).float(), dim=1)  # (slices, places, 1)
        return (places @ weight.to(places.dtype)).squeeze(2)


_POOLS = {"gem": GeneralisedMean, "attention": AttentionMean}


def _set_pool(network: Any, config: TrainConfig) -> None:
    from timm.layers import SelectAdaptivePool2d

    pools = [(name, module) for name, module in network.named_modules() if isinstance(module, SelectAdaptivePool2d)]
    if len(pools) != 1:
        raise InputError(
            f"--pooling {config.pooling} needs a network that ends in one pool over a map of features; "
            f"{config.network} has {len(pools)}: take --pooling avg, what it was made with"
        )
    ((name, pool),) = pools
    pooled = pool(torch.empty(1, 2, 3, 5)).shape  # of two features at 3 x 5 places, or of five at 2 x 3
    flat, features_last = len(pooled) == 2, pooled[-1] == 5
    network.set_submodule(name, _POOLS[config.pooling](network.num_features, features_last, flat))


def own_pools(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The pools that `adapt` has put into a network, by their names."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, Pool)]


def _published(config: TrainConfig) -> Any:
    """timm's description of the weights that it publishes of a network. Raises InputError for an unknown name."""
    timm = _timm()
    name = config.network.removeprefix(FAMILY)
    known = re.fullmatch(r"\w+(\.\w+)?", name) and timm.is_model(name)
    published = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True) if known else []
    if known and ("." not in name or name in published):
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    nearest = published or get_close_matches(name, timm.list_models(), n=3, cutoff=0.3) or ["resnet50"]
    raise InputError(f"timm has no network {name!r}; name one like {', '.join(FAMILY + one for one in nearest)}")


def _create(config: TrainConfig, **keywords: Any) -> Any:
    size = {"img_size": config.input_size} if _published(config).fixed_input_size else {}
    rate = {} if config.drop_path is None else {"drop_path_rate": config.drop_path}
    try:
        return _timm().create_model(
            config.network.removeprefix(FAMILY),
            num_classes=0,
            in_chans=len(config.channels),
            **size,
            **rate,
            **keywords,
        )
    except (AssertionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        fields = f"{config.input_size} px, --drop-path {config.drop_path}"
        raise InputError(f"timm cannot build {config.network} with {fields} ({reason}); take others") from error


def _timm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit.script, about which a user can do nothing
        import timm
    return timm
