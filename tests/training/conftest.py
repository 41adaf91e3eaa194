"""What the tests of training share: a network that takes no time."""

import pytest
from torch import nn

from models.common.labels import LABELS
from models.training.networks import ARCHITECTURES


def build_tiny(_: int) -> nn.Module:
    """A convolution, with the norm and the dropout that a state of training is more than weights for."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, len(LABELS)),
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network "small" is a tiny one, where all of a run is gone through and what it learns does not matter."""
    monkeypatch.setitem(ARCHITECTURES, "small", ARCHITECTURES["small"]._replace(build=build_tiny))
