"""What a graph of ONNX holds of a network, as torch modules that torch.onnx can export.

SlicesGraph   hounsfield, int16 (slices, planes, size, size): the centre of each slice as the network sees it, and of
              its neighbours, a plane each, in the order in which the channels name them
              -> embedding (slices, width), logits (slices, 6) and, of most networks, heat (slices, rows, columns)
LayersGraph   seen (slices, width + 6 networks), place (slices, 3): number of the study, z in mm, tilt in degrees; of
              one study, in anatomical order
              -> logits (slices, 6)

Within are the windows, which channel shows which neighbour, the normalisation, and the network. Outside are, for every
engine alike, what makes slices of a series (its order, the resizing to the image size, the crop of the centre), views
under other symmetries, each a run of the same graph, and calibration.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from models.common.config import TrainConfig
from models.common.labels import ANY, LABELS
from models.inference.heat import features_with_places, in_places
from models.inference.onnx_engine import plane_of
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.windows import apply_window
from models.training.attention import AttentionLayers
from models.training.networks import HemorrhageNetwork
from models.training.recurrent import RecurrentLayers, describe_place, with_steps

_LOWEST, _HIGHEST = HOUNSFIELD_RANGE
LEAST = 7  # places a side, as at 224 px: the 4 x 4 that features have at 128 px tell of no bleed (docs/results.md)
_EQUAL = 1e-4  # of the largest weight: two ways to weigh features are one


class SlicesGraph(nn.Module):
    """A network that looks at slices, from Hounsfield units on.

    A window is a table of what each Hounsfield unit becomes: so grey values are rounded as everywhere else, on every
    processor and in every precision. `weigh` tells what the heat is made of, if it is to be made.
    """

    def __init__(self, network: HemorrhageNetwork, config: TrainConfig, weigh: "FeatureWeights | None" = None) -> None:
        super().__init__()
        self.network, self.planes, self.weigh = network, plane_of(config), weigh
        units = np.arange(_LOWEST, _HIGHEST + 1, dtype=np.int16)[None]
        for number, channel in enumerate(config.channels):
            grey = torch.from_numpy(apply_window(units, channel.window)[0])
            self.register_buffer(f"window_{number}", (grey.float() / 255 - network.mean) / network.std)

    def forward(self, hounsfield: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """int16 (slices, planes, size, size) -> embedding (slices, width), logits (slices, 6), heat if it is made."""
        backbone, images = self.network.backbone, self.images(hounsfield)
        if self.weigh is None:
            seen = backbone(images)
            return seen, self.network.head(seen)
        features, seen = features_with_places(backbone, images)
        return seen, self.network.head(seen), self.weigh(features[-1].values)

    def images(self, hounsfield: torch.Tensor) -> torch.Tensor:
        """int16 (slices, planes, size, size) -> what the backbone is given, (slices, channels, size, size)."""
        rows = hounsfield.long().clamp(_LOWEST, _HIGHEST) - _LOWEST
        tables = [self.get_buffer(f"window_{number}") for number in range(len(self.planes))]
        shown = [rows[:, plane] for plane in self.planes]
        # Not table[rows]: of that ONNX makes a GatherND, which takes twice as long as a Gather.
        channels = [table.index_select(0, row.flatten()).view_as(row) for table, row in zip(tables, shown, strict=True)]
        return torch.stack(channels, dim=1)


class FeatureWeights(nn.Module):
    """The heat of any hemorrhage, where it needs no gradient: features (slices, channels, rows, columns) -> their sum.

    It is Grad-CAM of the last features (Selvaraju et al., ICCV 2017), coarser than that of heat.py. Where they are
    averaged over the slice, and then weighted, the gradient of the logit is the same at all places; behind a ReLU it is
    at those alone where a feature is above 0 (`behind_relu`). `weights` are (channels,).
    """

    def __init__(self, weights: torch.Tensor, behind_relu: bool) -> None:
        super().__init__()
        self.register_buffer("weights", weights[None, :, None, None])
        self.behind_relu = behind_relu

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (slices, channels, rows, columns) -> heat (slices, rows, columns)."""
        return (self.weights.to(features.dtype) * self._share(features) * features).sum(dim=1).relu()

    def _share(self, features: torch.Tensor) -> torch.Tensor | float:
        return (features > 0).float().mean(dim=(2, 3), keepdim=True) if self.behind_relu else 1.0


def feature_weights(network: HemorrhageNetwork, images: torch.Tensor) -> FeatureWeights | None:
    """How a network weighs its last features, seen on images (slices, channels, size, size), normalised.

    None where they have too few places, where that depends on the slice, as it does where features are pooled with
    weights that are learnt, and where they are laid out otherwise, as transformers do.
    """
    with torch.enable_grad():
        all_features, seen = features_with_places(network.backbone, images)
        features = all_features[-1].values
        if in_places(features) is not features or features.shape[-1] < LEAST:
            return None
        (gradient,) = torch.autograd.grad(network.head(seen)[:, ANY].sum(), features)
    due, features = gradient.mean(dim=(2, 3)), features.detach()  # (slices, channels)
    share = (features > 0).float().mean(dim=(2, 3))
    for behind_relu, of_each in ((False, torch.ones_like(share)), (True, share)):
        weights = due.sum(dim=0) / of_each.sum(dim=0).clamp(min=1e-12)
        if (weights * of_each - due).abs().max() <= _EQUAL * due.abs().max():
            return FeatureWeights(weights, behind_relu)
    return None


class LayersGraph(nn.Module):
    """Layers over what networks see in the slices of one study."""

    def __init__(self, layers: RecurrentLayers) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, seen: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """`seen` (slices, width + 6 networks), `place` (slices, 3) -> logits (slices, 6)."""
        layers = self.layers
        logits = seen[:, -layers.networks * len(LABELS) :].unflatten(1, (layers.networks, -1)).mean(dim=1)
        values, z, tilt = layers.normalise(seen), place[:, 1:2], place[:, 2:]
        ends = torch.cat([z - z[:1], z - z[-1:]], dim=1).abs()
        where = describe_place(ends, _steps(z), tilt)
        entered = torch.relu(layers.enter(torch.cat([with_steps(values, _steps(values)), where], dim=1)))
        return logits + layers.leave(self._carry(entered, z))

    def _carry(self, entered: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """As `RecurrentLayers.carry`, of one study: (slices, hidden) -> (slices, what the cells say)."""
        cells = self.layers.cells
        if isinstance(cells, AttentionLayers):
            farness = -(z.T - z).abs() / cells.reach.view(-1, 1, 1)
            return cells.layers(entered[None], mask=farness, is_causal=False)[0]
        return cells(entered[None])[0][0]


def _steps(values: torch.Tensor) -> torch.Tensor:
    """As `models.training.recurrent.steps`, of one study: (slices, n) -> (slices + 1, n)."""
    return pad(values.diff(dim=0), (0, 0, 1, 1))
