"""Laws of the recurrent layers: studies do not touch each other, and up and down are a matter of the view."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from models.common.config import SequenceConfig, StudyConfig
from models.train_b0_recurrent import CONFIG as STUDY
from models.train_sequence import CONFIG
from models.training import recurrent
from models.training.attention import AttentionLayers
from models.training.recurrent import (
    POSITIONS,
    RecurrentLayers,
    both_ways,
    build_sequence_network,
    build_study_network,
    positions,
    with_differences,
)

WIDTH = 10
every_cell = pytest.mark.parametrize("cell", ["gru", "lstm", "transformer"])


def layers(networks: int = 1, **changes) -> RecurrentLayers:
    """Recurrent layers that say something: those of a new network say nothing."""
    torch.manual_seed(0)
    config: SequenceConfig = replace(CONFIG, hidden=16, runs=tuple(f"r{number}" for number in range(networks)))
    network = build_sequence_network(replace(config, **changes), WIDTH).eval()
    nn.init.normal_(network.leave.weight)
    return network


def studies(*lengths: int, networks: int = 1, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """What networks see in the slices of studies of so many slices, and their places."""
    random = torch.Generator().manual_seed(seed)
    seen = torch.randn(sum(lengths), WIDTH + 6 * networks, generator=random)
    place = torch.empty(sum(lengths), 3)
    place[:, 0] = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    gaps = [0.5 + 6 * torch.rand(length, generator=random) for length in lengths]
    place[:, 1] = torch.cat([gap.cumsum(0) - 40 for gap in gaps])
    place[:, 2] = torch.cat([30 * torch.rand(1, generator=random).expand(length) for length in lengths])
    return seen, place


def turned(values: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Each study upside down, in its place in the batch."""
    return torch.cat([study.flip(0) for study in values.split(lengths)])


def mirrored(place: torch.Tensor) -> torch.Tensor:
    return place * torch.tensor([1.0, -1.0, 1.0])


LENGTHS = (1, 7, 400, 2, 33, 1)


@every_cell
@torch.no_grad()
def test_studies_of_a_batch_do_not_influence_each_other(cell):
    network = layers(cell=cell, layers=2)
    seen, place = studies(*LENGTHS)
    alone = [network(*study) for study in zip(seen.split(LENGTHS), place.split(LENGTHS), strict=True)]
    torch.testing.assert_close(network(seen, place), torch.cat(alone), rtol=0, atol=1e-5)


@every_cell
@torch.no_grad()
def test_the_order_of_the_studies_in_a_batch_changes_nothing(cell):
    network = layers(cell=cell)
    seen, place = studies(*LENGTHS)
    order = [3, 2, 5, 0, 4, 1]
    other = network(*(torch.cat([values.split(LENGTHS)[study] for study in order]) for values in (seen, place)))
    expected = torch.cat([network(seen, place).split(LENGTHS)[study] for study in order])
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-5)


@every_cell
@torch.no_grad()
def test_all_slices_of_a_study_are_seen_from_each(cell):
    network = layers(cell=cell)
    seen, place = studies(9)
    before = network(seen, place)
    seen[4] = -seen[4]
    assert ((network(seen, place) - before).abs().amax(dim=1) > 1e-6).all()


@pytest.mark.parametrize("networks", [1, 3])
@every_cell
def test_a_new_network_gives_the_mean_of_the_logits_and_can_learn(networks, cell):
    network = build_sequence_network(replace(CONFIG, cell=cell, runs=("a", "b", "c")[:networks]), WIDTH)
    seen, place = studies(5, 3, networks=networks)
    logits = network(seen, place)
    by_network = [seen[:, WIDTH + 6 * number : WIDTH + 6 * number + 6] for number in range(networks)]
    torch.testing.assert_close(logits, torch.stack(by_network).mean(dim=0))
    logits.sum().backward()
    assert network.leave.weight.grad.abs().max() > 0


@every_cell
@torch.no_grad()
def test_both_ways_does_not_know_up_from_down_though_the_network_does(cell):
    network = layers(cell=cell)
    seen, place = studies(*LENGTHS)
    upside_down = seen.flip(0), mirrored(place.flip(0))
    assert torch.equal(both_ways(network, *upside_down).flip(0), both_ways(network, seen, place))
    assert (network(*upside_down).flip(0) - network(seen, place)).abs().max() > 0.01
    each = turned(seen, LENGTHS), mirrored(turned(place, LENGTHS))
    back = turned(both_ways(network, *each), LENGTHS)
    torch.testing.assert_close(back, both_ways(network, seen, place), rtol=0, atol=1e-5)


@every_cell
@torch.no_grad()
def test_where_the_scanner_has_its_zero_changes_nothing(cell):
    network = layers(cell=cell)
    seen, place = studies(*LENGTHS)
    shifted = place + torch.tensor([0.0, 512.25, 0.0])
    torch.testing.assert_close(network(seen, shifted), network(seen, place), rtol=0, atol=1e-4)
    stretched = place * torch.tensor([1.0, 2.0, 1.0])
    assert (network(seen, stretched) - network(seen, place)).abs().max() > 1e-3


def test_differences_are_those_to_the_neighbours_in_the_study():
    values, _ = studies(*LENGTHS)
    rows = []
    for study in values.split(LENGTHS):
        for index, value in enumerate(study):
            before = value - study[index - 1] if index > 0 else torch.zeros_like(value)
            after = value - study[index + 1] if index < len(study) - 1 else torch.zeros_like(value)
            rows.append(torch.cat([value, before, after]))
    torch.testing.assert_close(with_differences(values, list(LENGTHS)), torch.stack(rows))


def test_positions_are_the_distances_to_both_ends_and_neighbours_and_the_tilt():
    _, place = studies(*LENGTHS)
    place[20:, 1] += 50 * (place[20:, 0] == 2)  # a gap of more than four usual ones counts as four
    rows = []
    for study in place.split(LENGTHS):
        z = study[:, 1].tolist()
        for index in range(len(z)):
            ends = [(z[index] - z[0]) / 100, (z[-1] - z[index]) / 100]
            below = min((z[index] - z[index - 1]) / 5, 4) if index > 0 else 0
            above = min((z[index + 1] - z[index]) / 5, 4) if index < len(z) - 1 else 0
            rows.append([*ends, below, above, float(study[index, 2]) / 20])
    found = positions(place, list(LENGTHS))
    assert found.shape == (len(place), POSITIONS)
    torch.testing.assert_close(found, torch.tensor(rows), rtol=1e-4, atol=1e-4)
    assert found[:, 2:4].max() == 4


def test_logits_that_are_left_out_are_those_of_whole_slices_and_in_training_alone():
    network = build_sequence_network(replace(CONFIG, hidden=16, logits_dropout=0.4), WIDTH)
    seen, place = studies(300, 200)
    logits = seen[:, WIDTH:]
    kept = network(seen, place) == logits  # a new network says nothing of its own
    assert torch.equal(kept.all(dim=1), kept.any(dim=1))
    assert 0.5 < kept.float().mean() < 0.7
    assert (network(seen, place)[~kept.all(dim=1)] != 0).sum() < (~kept).sum()  # others in each step
    assert torch.equal(network.eval()(seen, place), logits)
    nn.init.normal_(network.train().leave.weight)
    network.dropout.p = 0.0
    hidden = seen.clone()
    hidden[:, WIDTH:] = 0
    network.logits_dropout = 0.999999999
    torch.testing.assert_close(network(seen, place), network.eval()(hidden, place))  # nor are they described


# ---- a transformer ----


def attention(**changes) -> AttentionLayers:
    torch.manual_seed(0)
    config: SequenceConfig = replace(CONFIG, cell="transformer", hidden=16, layers=2)
    return AttentionLayers(replace(config, **changes)).eval()


@torch.no_grad()
def test_to_a_transformer_no_slice_has_a_number():
    entered, z, order = torch.randn(33, 16), 5 * torch.arange(33.0), torch.randperm(33)
    expected = attention()(entered, z, [33])[order]
    torch.testing.assert_close(attention()(entered[order], z[order], [33]), expected)


def test_attention_falls_with_the_distance_in_mm_by_the_reach_of_each_head():
    z = torch.tensor([[0.0, 5.0, 30.0], [7.0, 4.5, 0.0]])
    added = attention().farness(z, [3, 2]).unflatten(0, (2, 4))
    reaches = torch.tensor([5.0, 20.0, 80.0, 320.0])
    torch.testing.assert_close(added[0, :, 0], -z[0] / reaches.unsqueeze(1))
    torch.testing.assert_close(added[1, :, 0, :2], torch.tensor([0.0, -2.5]) / reaches.unsqueeze(1))
    assert (added[1, :, :, 2] == -torch.inf).all()  # the second study has two slices
    assert added[0].isfinite().all()


@torch.no_grad()
def test_a_slice_is_changed_less_by_one_that_lies_farther_away():
    entered, near = torch.randn(3, 16), torch.tensor([0.0, 5.0, 150.0])
    other = entered + torch.tensor([[0.0], [0.0], [1.0]]) * torch.randn(16)
    changes = []
    for z in (near, torch.tensor([0.0, 5.0, 10.0])):
        one, another = (attention(layers=1)(values, z, [3])[0] for values in (entered, other))
        changes.append(float((one - another).norm()))
    assert changes[0] < 0.9 * changes[1]


def test_what_a_transformer_says_is_the_same_with_and_without_gradients():
    """torch takes another way without them."""
    network, batch = layers(cell="transformer", layers=2), studies(*LENGTHS)
    with torch.no_grad():
        expected = network(*batch)
    torch.testing.assert_close(network(*batch), expected, rtol=0, atol=1e-5)


# ---- together with a network of slices ----


def study_network(**changes) -> nn.Module:
    torch.manual_seed(0)
    config: StudyConfig = replace(STUDY, network="small", image_size=32, hidden=16, pretrained=False, dropout=0.0)
    network = build_study_network(replace(config, **changes))
    nn.init.normal_(network.studies.leave.weight)
    return network


def images(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    grey = torch.randint(0, 256, (sum(lengths), 3, 32, 32), generator=torch.Generator().manual_seed(2))
    return grey.to(torch.uint8), studies(*lengths)[1]


def without_checkpoint(function, *inputs, **_):
    return function(*inputs)


def learn_once(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(1)  # of the dropout
    network.train()(*batch).square().mean().backward()


@pytest.mark.parametrize("at_once", [7, 100])
def test_activations_that_are_computed_again_change_neither_gradients_nor_statistics(monkeypatch, at_once):
    again = study_network(slices_at_once=at_once)
    kept, batch = copy.deepcopy(again), images(4, 2, 1)
    learn_once(again, batch)
    with monkeypatch.context() as patch:
        patch.setattr(recurrent, "checkpoint", without_checkpoint)
        learn_once(kept, batch)
    for (name, one), other in zip(again.named_parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(again.named_buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    momenta = {module.momentum for module in again.modules() if isinstance(module, _NormBase)}
    assert momenta == {0.1}  # as they were


def test_within_what_is_computed_again_a_network_may_compute_its_own_activations_again():
    """Batch norm takes the statistics of a batch once, however often it is passed."""
    changes = {"network": "timm/test_efficientnet", "batch_statistics": True, "slices_at_once": 4}
    twice, once = (study_network(checkpointing=own, **changes) for own in (True, False))
    for network in (twice, once):
        learn_once(network, images(4, 2, 1))
    running = {name: value for name, value in once.named_buffers() if "running" in name}
    for name, value in twice.named_buffers():
        torch.testing.assert_close(value, running.get(name, value), msg=name)
    for (name, one), other in zip(twice.named_parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_activations_are_computed_again_a_few_slices_at_a_time():
    network, sizes = study_network(slices_at_once=3), []
    network.slices.backbone[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    learn_once(network, images(4, 2, 1))
    assert sizes[:3] == [3, 2, 2]
    assert sorted(sizes[3:]) == [2, 2, 3]


def test_batch_norm_that_processes_share_can_be_computed_again():
    """torch's asserts that it counts the batches; of one process it is the usual one."""
    shared, usual, batch = study_network(slices_at_once=3), study_network(slices_at_once=3), images(4, 2, 1)
    nn.SyncBatchNorm.convert_sync_batchnorm(shared)
    for network in (shared, usual):
        learn_once(network, batch)
    for (name, one), other in zip(shared.named_buffers(), usual.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    counts = {int(value) for name, value in shared.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {3}
    for (name, one), other in zip(shared.named_parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.parametrize("most", [4, 9])
def test_a_process_makes_as_many_passes_as_the_one_with_the_most_slices(monkeypatch, most):
    """Even more than it has slices; but in a validation, in which nobody waits for another, it makes its own."""
    few, batch, sizes = study_network(slices_at_once=3), images(4, 2, 1), []
    few.slices.backbone[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    monkeypatch.setattr(recurrent, "largest_of_all", lambda passes: max(passes, most))
    logits = few.train()(*batch)
    assert logits.shape == (7, 6)
    logits.sum().backward()
    assert len(sizes) == 2 * most
    assert max(sizes[:most]) - min(sizes[:most]) <= 1
    assert min(sizes) > 0
    sizes.clear()
    with torch.no_grad():
        few.eval()(*batch)
    assert len(sizes) == 3


@torch.no_grad()
def test_predictions_do_not_depend_on_how_many_slices_go_through_at_once():
    batch = images(4, 2, 1)
    expected = study_network(slices_at_once=100).eval()(*batch)
    for at_once in (1, 3, 7):
        found = study_network(slices_at_once=at_once).eval()(*batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_studies_of_images_do_not_influence_each_other_in_predictions():
    network, batch = study_network().eval(), images(4, 2, 1)
    alone = [network(*study) for study in zip(*(values.split([4, 2, 1]) for values in batch), strict=True)]
    torch.testing.assert_close(network(*batch), torch.cat(alone), rtol=0, atol=1e-4)


def test_a_gradient_reaches_every_weight():
    network = study_network()
    for norm in (module for module in network.modules() if isinstance(module, _NormBase)):
        nn.init.ones_(norm.weight)  # fastai's residual blocks begin with nothing
    learn_once(network, images(4, 3))
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []
