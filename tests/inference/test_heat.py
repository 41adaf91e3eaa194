"""Laws of heat maps: places are where they are, however a network lays out its features."""

import pytest
import timm
import torch
from torch import nn

from models.inference import heat
from models.inference.heat import heat_maps, in_places

WIDTH = 5


class Laid(nn.Module):
    """Features of patches of 8 pixels, their mean, six logits; laid out with the width first, last, or as tokens."""

    num_features = WIDTH

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout, self.see, self.same = layout, nn.Conv2d(3, WIDTH, 8, stride=8), nn.Identity()
        self.head = nn.Linear(WIDTH, 6)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        features = self.see(images)
        if self.layout == "width first":
            return self.same(features)
        if self.layout == "width last":
            return self.same(features.permute(0, 2, 3, 1))
        tokens = features.flatten(2).transpose(1, 2)
        return self.same(torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.forward_features(images)
        if self.layout == "tokens":
            return self.head(features[:, 1:].mean(dim=1))
        return self.head(features.mean(dim=(2, 3) if self.layout == "width first" else (1, 2)))


@pytest.mark.parametrize("layout", ["width last", "tokens"])
def test_heat_is_the_same_however_features_are_laid_out(layout):
    torch.manual_seed(0)
    known, other = Laid("width first"), Laid(layout)
    other.load_state_dict(known.state_dict())
    images = torch.rand(2, 3, 64, 64)
    heat = heat_maps(known, images, 2)
    assert heat.max() > 0
    assert torch.allclose(heat_maps(other, images, 2), heat, atol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_networks_of_all_kinds_have_heat_in_places(name):
    torch.manual_seed(0)
    size = {} if name == "convnext_atto" else {"img_size": 128}
    network = timm.create_model(name, num_classes=6, **size)
    heat = heat_maps(network, torch.rand(2, 3, 128, 128), 1)
    assert heat.shape == (2, 128, 128)
    assert (heat.amax(dim=(1, 2)) > 0).all()
    assert (heat.std(dim=(1, 2)) > 0).all()  # the class token, which such a network is asked by, has no places


def test_places_of_tokens_are_read_row_by_row():
    tokens = torch.arange(10.0).view(1, 10, 1)
    assert in_places(tokens)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


class Stages(nn.Module):
    """Blocks that halve the places, each with a branch beside it; then the mean, and six logits."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Branched(3, 4), Branched(4, 5), Branched(5, 6))
        self.head = nn.Linear(6, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(images).mean(dim=(2, 3)))


class Branched(nn.Module):
    """A convolution of stride 2, and a shortcut beside it, whose parts alone are not what the next block is given."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(before, before, 1), nn.Conv2d(before, width, 2, stride=2))
        self.shortcut = nn.Conv2d(before, width, 2, stride=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.shortcut(features) + self.main(features).relu()


@pytest.mark.parametrize(("least", "blocks"), [(1, 3), (8, 3), (9, 2), (16, 2), (17, 1), (33, 1)])
def test_heat_is_gradient_times_what_the_last_block_with_places_enough_gives(least, blocks):
    torch.manual_seed(0)
    network, images = Stages(), torch.rand(2, 3, 64, 64)
    features = network.blocks[:blocks](images).detach().requires_grad_()
    logit = network.head(network.blocks[blocks:](features).mean(dim=(2, 3)))[:, 4].sum()
    (gradient,) = torch.autograd.grad(logit, features)
    due = (gradient * features).sum(dim=1, keepdim=True).relu()
    due = nn.functional.interpolate(due, size=(64, 64), mode="bilinear")[:, 0]
    assert due.max() > 0
    torch.testing.assert_close(heat_maps(network, images, 4, least), due)


def test_heat_has_places_smaller_than_a_bleed_if_nothing_else_is_said():
    torch.manual_seed(0)
    network, images = Stages(), torch.rand(1, 3, 64, 64)
    assert torch.equal(heat_maps(network, images, 0), heat_maps(network, images, 0, 28))
    assert heat.LEAST == 28


def test_the_weights_of_a_pool_are_no_features():
    class Pooled(Laid):
        def __init__(self) -> None:
            super().__init__("width first")
            self.score = nn.Linear(WIDTH, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            places = self.forward_features(images).flatten(2).transpose(1, 2)
            return self.head((places * self.score(places).softmax(dim=1)).sum(dim=1))

    seen, _ = heat.features_with_places(Pooled(), torch.rand(2, 3, 64, 64))
    assert [tuple(features.values.shape) for features in seen] == [(2, WIDTH, 8, 8)]


def test_nothing_before_the_features_is_kept_for_a_gradient():
    network, seen = Stages(), []
    for number, block in enumerate(network.blocks):
        block.register_forward_hook(lambda _, inputs, output, number=number: seen.append((number, inputs[0].grad_fn)))
    heat_maps(network, torch.rand(1, 3, 64, 64), 0, least=16)
    asked = seen[len(network.blocks) :]  # at first it is only looked at
    assert [number for number, function in asked if function is not None] == [2]
    assert torch.is_grad_enabled()  # as before


class Changing(nn.Module):
    """A block that changes what it is given in place, if it is to."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.relu, self.see = nn.ReLU(in_place), nn.Conv2d(4, 4, 2, stride=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.see(self.relu(features))


def test_features_that_the_next_block_changes_in_place_are_those_that_came_out():
    torch.manual_seed(0)
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)]
    plain, changing = (nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), Changing(each), *ends) for each in (False, True))
    changing.load_state_dict(plain.state_dict())
    ends[2].weight.data = torch.rand(6, 4)
    images = torch.rand(2, 3, 64, 64)
    due = heat_maps(plain, images, 1)
    assert due.max() > 0
    assert torch.equal(heat_maps(changing, images, 1), due)


def test_heat_needs_no_gradients_of_who_asks_for_it():
    torch.manual_seed(0)
    network, images = Stages(), torch.rand(1, 3, 64, 64)
    due = heat_maps(network, images, 0)
    with torch.no_grad():
        assert torch.equal(heat_maps(network, images, 0), due)
        assert not torch.is_grad_enabled()


def test_what_heads_of_attention_give_is_no_map():
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch16_siglip_224", num_classes=6, img_size=64, depth=2)
    seen, _ = heat.features_with_places(network, torch.rand(1, 3, 64, 64))
    assert {tuple(features.values.shape[:2]) for features in seen} == {(1, 16)}  # tokens, not their 12 heads
