"""Laws of test-time augmentation: the symmetries of the square are a group, and a prediction is the mean over it."""

import itertools

import pytest
import torch
import ttach
from torch import nn

from models.training import d4
from models.training.d4 import mean_probability
from models.training.symmetries import D4, GROUPS, IDENTITY, Symmetry

IMAGE = torch.arange(9.0).reshape(1, 1, 3, 3)  # no symmetry maps it to itself
every_symmetry = pytest.mark.parametrize("symmetry", D4, ids=str)


@pytest.fixture
def network() -> nn.Module:
    """Three channels in, six logits out; sees which way an image is turned."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6)]
    return nn.Sequential(*layers).eval()


@pytest.fixture
def images(network) -> torch.Tensor:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    network(images)  # LazyLinear takes its size from the first batch
    return images


def test_d4_has_eight_different_symmetries():
    assert len(D4) == 8
    for one, other in itertools.combinations(D4, 2):
        assert not torch.equal(one.apply(IMAGE), other.apply(IMAGE))


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_two_symmetries_of_a_group_after_one_another_are_a_third_of_it(group):
    results = [symmetry.apply(IMAGE) for symmetry in group]
    for first, second in itertools.product(group, repeat=2):
        both = second.apply(first.apply(IMAGE))
        assert sum(torch.equal(both, result) for result in results) == 1


@every_symmetry
def test_the_inverse_undoes_a_symmetry(symmetry):
    assert symmetry.inverse in D4
    assert torch.equal(symmetry.inverse.apply(symmetry.apply(IMAGE)), IMAGE)
    assert torch.equal(symmetry.apply(symmetry.inverse.apply(IMAGE)), IMAGE)


@every_symmetry
def test_a_symmetry_moves_pixels_and_changes_none(symmetry, images):
    turned = symmetry.apply(images)
    assert turned.shape == images.shape
    assert torch.equal(turned.flatten(2).sort().values, images.flatten(2).sort().values)


def test_mirror_and_turn_are_what_their_names_say():
    assert torch.equal(Symmetry(mirror=True, quarter_turns=0).apply(IMAGE)[0, 0, 0], torch.tensor([2.0, 1, 0]))
    assert torch.equal(Symmetry(mirror=False, quarter_turns=1).apply(IMAGE)[0, 0, 0], torch.tensor([2.0, 5, 8]))


def test_the_groups_are_one_two_and_eight_symmetries_with_the_identity():
    assert {name: len(group) for name, group in GROUPS.items()} == {"none": 1, "flip": 2, "d4": 8}
    assert all(IDENTITY in group for group in GROUPS.values())
    assert torch.equal(IDENTITY.apply(IMAGE), IMAGE)


@torch.no_grad()
def test_without_symmetries_it_is_the_networks_own_probability(network, images):
    assert torch.equal(mean_probability(network, images, group=GROUPS["none"]), network(images).sigmoid())


@pytest.mark.parametrize("name", ["flip", "d4"])
@torch.no_grad()
def test_the_mean_does_not_change_when_the_input_is_turned_or_mirrored(network, images, name):
    mean = mean_probability(network, images, group=GROUPS[name])
    for symmetry in GROUPS[name]:
        turned = symmetry.apply(images)
        torch.testing.assert_close(mean_probability(network, turned, group=GROUPS[name]), mean, rtol=0, atol=1e-6)
        if symmetry != IDENTITY:
            assert not torch.allclose(network(turned), network(images), atol=1e-3)


@torch.no_grad()
def test_the_mean_over_d4_is_ttachs(network, images):
    oracle = ttach.ClassificationTTAWrapper(nn.Sequential(network, nn.Sigmoid()), ttach.aliases.d4_transform())
    torch.testing.assert_close(mean_probability(network, images, group=D4), oracle(images), rtol=0, atol=1e-6)


@torch.no_grad()
def test_probabilities_of_half_precision_logits_are_averaged_in_float32(images):
    def half(batch):
        return batch.mean(dim=(2, 3)).repeat(1, 2).half()

    mean = mean_probability(half, images, group=D4)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, half(images).float().sigmoid(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("slices", [1, 3, 5, 20, 40])
def test_views_of_few_images_go_through_a_gpu_together_and_give_the_same(slices, monkeypatch):
    monkeypatch.setattr(d4, "TOGETHER_ON", ("cpu",))
    network, sizes = network_with_a_direction(), []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    images = torch.randn(slices, 3, 8, 8, generator=torch.Generator().manual_seed(slices))
    mean = mean_probability(network, images, group=D4)
    views = -(-8 // max(1, 32 // slices))
    assert len(sizes) == views
    assert max(sizes) <= max(32, slices)
    expected = torch.stack([network(symmetry.apply(images)).sigmoid() for symmetry in D4]).mean(dim=0)
    torch.testing.assert_close(mean, expected)


def network_with_a_direction() -> torch.nn.Module:
    """One that sees each symmetry of an image as another image."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 6))
