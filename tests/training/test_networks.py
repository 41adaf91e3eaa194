import hashlib

import pytest
import torch
from safetensors.torch import save_file

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.preprocessing.windows import BRAIN
from models.training.networks import ARCHITECTURES, build_network, load_initial_weights
from models.training.pretrained import adapt_first_convolution, imagenet_file, read_public_weights


def config(network, channels=3, image_size=64, **changes):
    values = {"name": "test", "optimizer": "radam", "max_lr": 1e-3, "epochs": 1, "batch_size": 2, "pretrained": False}
    channel_list = tuple(Channel(0, BRAIN) for _ in range(channels))
    return TrainConfig(network=network, channels=channel_list, image_size=image_size, **values | changes)


def grey(channels, size, slices=2):
    return torch.randint(0, 256, (slices, channels, size, size), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("network", "size", "parameters"),
    [
        ("small", 64, 308_902),
        ("efficientnet-b0", 224, 4_015_234),
        ("efficientnet-b0", 512, 4_015_234),
        ("efficientnet-b2", 512, 7_709_448),
        ("efficientnet-b5", 512, 28_353_078),
        ("resnext101_32x4d", 410, 42_140_998),
    ],
)
def test_preset_network_gives_six_logits_at_its_declared_size(network, size, parameters):
    built = build_network(config(network, image_size=size)).eval()
    with torch.inference_mode():
        logits = built(grey(3, size))
    assert logits.shape == (2, 6)
    assert torch.isfinite(logits).all()
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_first_convolution_takes_any_number_of_channels(network):
    for channels in (1, 5):
        built = build_network(config(network, channels)).eval()
        with torch.inference_mode():
            assert built(grey(channels, 64)).shape == (2, 6)


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_state_dict_of_one_network_loads_into_another(network, tmp_path):
    first, second = (build_network(config(network)).eval() for _ in range(2))
    file = tmp_path / "weights.safetensors"
    save_file(first.state_dict(), file)
    load_initial_weights(second, config(network), file)
    x = grey(3, 64)
    with torch.inference_mode():
        torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)


def publish(folder, network, monkeypatch):
    """Write a file like the published one, of random weights, and let the package's address carry its hash."""
    built = ARCHITECTURES[network].build(64)
    state = {name.removeprefix("network."): value for name, value in built.state_dict().items()}
    plain = folder / "plain.pth"
    torch.save(state, plain)
    name = f"{network}-{hashlib.sha256(plain.read_bytes()).hexdigest()[:8]}.pth"
    file = plain.rename(folder / name)
    architecture = ARCHITECTURES[network]._replace(imagenet=lambda: f"https://example.invalid/{name}")
    monkeypatch.setitem(ARCHITECTURES, network, architecture)
    return file, state


@pytest.mark.parametrize("network", ["efficientnet-b0", "resnext101_32x4d", "resnet50", "densenet121"])
@pytest.mark.parametrize("channels", [3, 4])
def test_published_weights_load_but_for_the_head(network, channels, tmp_path, monkeypatch):
    file, state = publish(tmp_path, network, monkeypatch)
    built = build_network(config(network, channels))
    load_initial_weights(built, config(network, channels), file)
    ours = {
        name.removeprefix("backbone.").removeprefix("network."): value for name, value in built.state_dict().items()
    }
    heads = ("_fc", "last_linear")
    stem = next(name for name, value in state.items() if value.ndim == 4)
    for name, value in state.items():
        if name == stem:
            torch.testing.assert_close(ours[name], adapt_first_convolution(value, channels))
        elif not name.startswith(heads):
            torch.testing.assert_close(ours[name], value, rtol=0, atol=0)


def test_published_weights_are_found_in_torchs_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    publish(folder, "efficientnet-b0", monkeypatch)
    built = build_network(config("efficientnet-b0"))
    before = built.state_dict()["backbone._conv_stem.weight"].clone()
    load_initial_weights(built, config("efficientnet-b0", pretrained=True))
    assert not torch.equal(before, built.state_dict()["backbone._conv_stem.weight"])


def test_a_download_that_fails_names_the_address_and_two_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = "http://127.0.0.1:9/efficientnet-b0-355c32eb.pth"  # the discard port: nothing answers
    with pytest.raises(InputError, match=r"efficientnet-b0.*127\.0\.0\.1:9.*--start FILE.*--no-pretrained"):
        imagenet_file("efficientnet-b0", url)
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


def test_a_file_that_is_not_the_published_one_is_not_opened(tmp_path, monkeypatch):
    file, _ = publish(tmp_path, "efficientnet-b0", monkeypatch)
    file.write_bytes(file.read_bytes() + b" ")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(InputError, match="not the published"):
        read_public_weights(file, ARCHITECTURES["efficientnet-b0"].imagenet())


def test_published_pickle_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    plain = tmp_path / "plain"
    torch.save({"x": Payload()}, plain)
    file = plain.rename(tmp_path / f"evil-{hashlib.sha256(plain.read_bytes()).hexdigest()[:8]}.pth")
    with pytest.raises(InputError, match="holds more than tensors"):
        read_public_weights(file, f"https://example.invalid/{file.name}")
    assert not (tmp_path / "ran").exists()


def test_equal_channels_respond_as_before_the_first_convolution_was_adapted():
    weight = torch.randn(8, 3, 3, 3)
    plane = torch.randn(1, 1, 9, 9)
    expected = torch.nn.functional.conv2d(plane.expand(1, 3, 9, 9), weight)
    for channels in (1, 3, 6):
        adapted = adapt_first_convolution(weight, channels)
        response = torch.nn.functional.conv2d(plane.expand(1, channels, 9, 9), adapted)
        assert adapted.shape[1] == channels
        if channels % 3 == 0:
            torch.testing.assert_close(response, expected, rtol=1e-4, atol=1e-4)


def test_initial_weights_that_cannot_be_had():
    with pytest.raises(InputError, match=r"small has no ImageNet weights.*--no-pretrained"):
        load_initial_weights(build_network(config("small")), config("small", pretrained=True))


def test_weights_of_another_network_do_not_fit(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file(build_network(config("efficientnet-b0")).state_dict(), file)
    with pytest.raises(InputError, match=r"other.safetensors does not fit"):
        load_initial_weights(build_network(config("small")), config("small"), file)


def test_unknown_network_is_named_beside_the_known_ones():
    with pytest.raises(InputError, match=r"no network 'vgg'; there are small"):
        build_network(config("vgg"))
