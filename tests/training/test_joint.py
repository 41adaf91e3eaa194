"""Laws of what is learnt of a study at once: three losses, each the challenge's, and a memory that has a bound."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models import train_b0_recurrent, train_sequence, train_small, train_study
from models.common.config import StudyConfig
from models.preprocessing.geometry import USUAL_GAP
from models.preprocessing.tables import split_fold
from models.training.attention import ClassAttention
from models.training.dataset import StudyDataset
from models.training.joint import JointLogits, JointLoss, loss_of, of_study
from models.training.loading import make_loader
from models.training.loss import WeightedLogLoss
from models.training.recurrent import StudyNetwork, build_sequence_network, build_study_network, norms
from models.training.studies import split_studies

LENGTHS = [4, 1, 7]
STUDY: StudyConfig = replace(
    train_study.CONFIG, network="small", image_size=32, hidden=16, dropout=0.0, study_weight=0.5, slices_at_once=5
)


def drawn(seed: int = 0) -> tuple[JointLogits, torch.Tensor]:
    """What a network says of the slices of three studies, and what is true."""
    random = torch.Generator().manual_seed(seed)
    together, alone = torch.randn(2, sum(LENGTHS), 6, generator=random)
    study = torch.randn(len(LENGTHS), 6, generator=random).repeat_interleave(torch.tensor(LENGTHS), dim=0)
    target = (torch.rand(sum(LENGTHS), 6, generator=random) < 0.3).float()
    return JointLogits(together, LENGTHS, alone, study), target


def images(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    grey = torch.randint(0, 256, (sum(lengths), 3, 32, 32), generator=torch.Generator().manual_seed(2))
    study = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    z = USUAL_GAP * torch.cat([torch.arange(length) for length in lengths])
    return grey.to(torch.uint8), torch.stack([study.float(), z, torch.zeros(sum(lengths))], dim=1)


def study_network(**changes) -> StudyNetwork:
    torch.manual_seed(0)
    network = build_study_network(replace(STUDY, **changes))
    for norm in norms(network):  # fastai's residual blocks begin with nothing
        nn.init.ones_(norm.weight)
    for dropout in (module for module in network.modules() if isinstance(module, nn.Dropout)):
        dropout.p = 0.0  # the small network has some of its own
    nn.init.normal_(network.studies.leave.weight)
    return network


def test_the_labels_of_a_study_are_what_any_of_its_slices_shows():
    target = torch.zeros(sum(LENGTHS), 6)
    target[1, 2] = target[11, 0] = target[5, 5] = 1
    expected = torch.zeros(3, 6)
    expected[0, 2] = expected[2, 0] = expected[2, 5] = 1
    assert torch.equal(of_study(target, LENGTHS), expected.repeat_interleave(torch.tensor(LENGTHS), dim=0))


def test_a_study_is_doubted_as_its_slices_are():
    """Of what it shows by the slice that is surest to, of what it does not by the one that is least sure not to."""
    target = torch.stack([torch.zeros(sum(LENGTHS), 6), torch.ones(sum(LENGTHS), 6)], dim=1)
    target[1, :, 2], target[2, :, 2] = torch.tensor([1, 0.1]), torch.tensor([1, 0.3])
    target[4, :, 5] = torch.tensor([1, 0.0])
    target[9, 1, 0] = 0.2
    of_slices = of_study(target, LENGTHS)
    joined = of_slices[torch.tensor([0, 4, 5])]  # the first of each study
    assert torch.equal(of_slices, joined.repeat_interleave(torch.tensor(LENGTHS), dim=0))
    label, weight = torch.zeros(3, 6), torch.ones(3, 6)
    label[0, 2] = label[1, 5] = 1
    weight[0, 2], weight[1, 5], weight[2, 0] = 0.3, 0.0, 0.2
    torch.testing.assert_close(joined, torch.stack([label, weight], dim=1))


def test_the_joint_loss_is_the_weighted_mean_of_the_three():
    said, target = drawn()
    plain = WeightedLogLoss()
    three = [plain(said.together, target), plain(said.alone, target), plain(said.study, of_study(target, LENGTHS))]
    expected = (2 * three[0] + three[1] + 0.5 * three[2]) / 3.5
    torch.testing.assert_close(JointLoss(together=2, alone=1, study=0.5)(said, target), expected)
    without = JointLoss(together=2, alone=1, study=0)(said._replace(study=None), target)
    torch.testing.assert_close(without, (2 * three[0] + three[1]) / 3)
    assert torch.equal(JointLoss(2, 1, 0.5)(said.together, target), three[0])  # of a validation: the challenge's


def test_the_joint_loss_of_a_batch_is_the_sum_over_its_parts_by_their_slices():
    (said, target), loss = drawn(), JointLoss(2, 1, 0.5)
    parts = [JointLogits(said.together[:5], [4, 1], said.alone[:5], said.study[:5])]
    parts.append(JointLogits(said.together[5:], [7], said.alone[5:], said.study[5:]))
    shares = [loss(part, right) * len(right) / 12 for part, right in zip(parts, target.split([5, 7]), strict=True)]
    torch.testing.assert_close(sum(shares), loss(said, target))


def test_runs_of_old_learn_what_they_learnt():
    assert type(loss_of(train_small.CONFIG)) is WeightedLogLoss
    for config in (train_sequence.CONFIG, train_b0_recurrent.CONFIG):
        assert loss_of(config).shares == [1, 0, 0]
    assert loss_of(train_study.CONFIG).shares == [2 / 3, 1 / 3, 0]
    old = replace(train_b0_recurrent.CONFIG, network="small", image_size=32, pretrained=False)
    assert isinstance(build_study_network(old).train()(*images(2, 3)), torch.Tensor)
    assert not [name for name in build_study_network(old).state_dict() if name.startswith("studies.study.")]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, (True, True)),
        ({"slice_weight": 0.0}, (False, True)),
        ({"study_weight": 0.0}, (True, False)),
        ({"slice_weight": 0.0, "study_weight": 0.0}, None),
    ],
)
def test_in_training_a_network_says_what_it_is_to_learn_and_in_validation_its_prediction(changes, told):
    network, batch = study_network(**changes), images(*LENGTHS)
    said, prediction = network.train()(*batch), network.eval()(*batch)
    assert isinstance(prediction, torch.Tensor)
    if told is None:
        torch.testing.assert_close(said, prediction)
        return
    assert (said.alone is not None, said.study is not None) == told
    assert said.lengths == LENGTHS == split_studies(batch[1])
    torch.testing.assert_close(said.together, prediction)
    if told[0]:
        torch.testing.assert_close(said.alone, network.slices(batch[0]))


def test_layers_over_embeddings_learn_of_whole_studies_too():
    config = replace(train_sequence.CONFIG, cell="transformer", hidden=16, study_weight=0.5)
    network, (_, place) = build_sequence_network(config, 10), images(*LENGTHS)
    said = network.train()(torch.randn(12, 16), place)
    assert said.alone is None
    assert said.study.shape == (12, 6)
    assert loss_of(config).shares == [1 / 1.5, 0, 0.5 / 1.5]


def test_without_batch_statistics_those_of_the_start_stay_and_are_used():
    network, batch = study_network(), images(*LENGTHS)
    for norm in norms(network):
        nn.init.normal_(norm.running_mean, std=0.1)
    before = {name: value.clone() for name, value in network.named_buffers()}
    expected = network.eval()(*batch)
    assert network.slices.embed(batch[0]).std(dim=0).max() > 0.01
    torch.testing.assert_close(network.train()(*batch).together, expected)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    own = study_network(batch_statistics=True).train()
    own(*batch)
    assert not torch.equal(norms(own)[0].running_mean, norms(network)[0].running_mean)


def test_the_joint_loss_reaches_every_weight():
    """Several processes wait for the gradient of each."""
    network, (_, target) = study_network().train(), drawn()
    loss_of(STUDY)(network(*images(*LENGTHS)), target).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


@torch.no_grad()
def test_what_is_said_of_a_study_is_said_by_its_slices_in_any_order_and_by_no_others():
    torch.manual_seed(0)
    attention, flat = ClassAttention(8), torch.randn(12, 8)
    said = attention(flat, LENGTHS)
    for logits, alone in zip(said.split(LENGTHS), flat.split(LENGTHS), strict=True):
        torch.testing.assert_close(attention(alone[torch.randperm(len(alone))], [len(alone)]), logits)
        assert (logits == logits[0]).all()
    twice = attention(flat.repeat_interleave(2, dim=0), [2 * length for length in LENGTHS])[::2]
    torch.testing.assert_close(twice, said)  # it is a mean of the slices
    changed = flat.clone()
    changed[11] += 1
    assert torch.equal(attention(changed, LENGTHS)[:5], said[:5])
    assert (attention(changed, LENGTHS)[5:] != said[5:]).all()


def test_a_loader_shows_of_so_many_mm_one_slice(few):
    slices, _ = split_fold(few, 0, skip_low_information=False)
    config = replace(STUDY, image_size=64, spacing=20, shortest=1.0, reverse=False, study_slices=100)
    dataset = StudyDataset(slices, few, config, "none")
    for grey, place, _ in make_loader(dataset, 1, 0, shuffle_seed=0):
        z = dataset.places[dataset.places[:, 0] == place[0, 0], 1]
        extent = float(z.max() - z.min())
        assert extent / 20 - 1 <= len(grey) <= extent / 20 + 2
        assert len(grey) < 0.8 * len(z)


# ---- memory ----


def kept_bytes(network: StudyNetwork, batch: tuple[torch.Tensor, torch.Tensor]) -> int:
    """What a forward pass keeps for the backward pass, beside the weights and the images themselves."""
    own, kept = {value.untyped_storage().data_ptr() for value in network.parameters()}, {}
    own.add(batch[0].untyped_storage().data_ptr())

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        said = network(*batch)
        assert said is not None
        return sum(kept.values())


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_of_four_hundred_slices_the_activations_of_those_at_once_are_kept_and_no_others(cell):
    """Of the others what the layers are told and what these keep, which is a hundredth of their activations."""
    network, sizes = study_network(cell=cell, image_size=32).train(), []
    network.slices.backbone[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    of_image = kept_bytes_of_one_image(network)
    kept = {length: kept_bytes(network, images(length)) for length in (40, 400)}
    assert max(sizes) <= STUDY.slices_at_once
    assert (kept[400] - kept[40]) / 360 < of_image / 10
    sizes.clear()
    with torch.no_grad():
        network.eval()(*images(400))
    assert max(sizes) <= STUDY.slices_at_once


def kept_bytes_of_one_image(network: StudyNetwork) -> float:
    """What the network of slices keeps of one, where nothing is computed again."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: (sizes.append(kept.nbytes), kept)[1], lambda kept: kept):
        network.slices.embed(images(2)[0])
    return sum(sizes) / 2
