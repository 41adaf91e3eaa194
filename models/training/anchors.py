"""Published speeds of training, to stand beside measured ones, and in place of those that nobody has measured."""

from typing import NamedTuple

_TIMM = "timm, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv"  # AMP, channels-last
_NVIDIA = "NVIDIA, DeepLearningExamples/PyTorch/Classification/ConvNets"  # AMP


class Anchor(NamedTuple):
    """Images a second of one card that trains a network in mixed precision."""

    network: str
    """as models/training/networks.py names it"""
    image_size: int
    """side of the images that the network sees, pixels"""
    card: str
    rate: float
    """images/s"""
    source: str

    def scaled(self, image_size: int) -> float:
        """The rate at another size: as many pixels a second, which convolutions cost."""
        return self.rate * (self.image_size / image_size) ** 2


ANCHORS = (  # the fastest card first
    Anchor("efficientnet-b0", 224, "A100", 2489, f"{_NVIDIA}/efficientnet"),
    Anchor("resnext101_32x4d", 224, "A100", 1211, f"{_NVIDIA}/resnext101-32x4d"),
    Anchor("efficientnet-b0", 224, "RTX 3090", 1752, _TIMM),
    Anchor("efficientnet-b0", 224, "V100", 1301, f"{_NVIDIA}/efficientnet"),  # of 16 GB
    Anchor("efficientnet-b2", 256, "RTX 3090", 979, _TIMM),
    Anchor("efficientnet-b5", 456, "RTX 3090", 114, _TIMM),
    Anchor("resnext101_32x4d", 224, "RTX 3090", 609, _TIMM),
    Anchor("timm/convnext_tiny.fb_in22k_ft_in1k_384", 384, "RTX 3090", 282, _TIMM),
    Anchor("timm/tf_efficientnetv2_s.in21k_ft_in1k", 300, "RTX 3090", 489, _TIMM),
)


# GB/s of the memory of cards, by NVIDIA's data sheets: what networks like these wait for in mixed precision.
BANDWIDTH = {"T4": 300, "V100": 900}


def anchors_of(network: str) -> list[Anchor]:
    """What is published of a network, of the fastest card first."""
    return [anchor for anchor in ANCHORS if anchor.network == network]
