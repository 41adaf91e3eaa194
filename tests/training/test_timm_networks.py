"""timm's networks: five families are built, adapted to their input, and loaded offline, unchanged and safely."""

import hashlib
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import mse_loss

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.options import Machine, TrainOptions
from models.inference.predict import InferOptions, infer
from models.preprocessing.windows import BRAIN
from models.training import lite0
from models.training.kinds import kind_of
from models.training.networks import build_network, hub_weights, load_initial_weights
from models.training.pretrained import read_public_weights
from models.training.processes import share_norms
from models.training.run import train
from models.training.run_record import read_run
from models.training.timm_networks import AttentionMean, GeneralisedMean, require_named_hash
from models.training.weights import read_weights

FAMILIES = {  # a small one of each, and its parameters with three channels
    "resnet10t": 4_922_896,
    "convnext_atto": 3_374_880,
    "mobilenetv3_small_050": 1_567_616,
    "maxvit_rmlp_pico_rw_256": 7_001_232,
    "vit_tiny_patch16_224": 5_488_512,
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def config(network, channels=3, image_size=64, **changes):
    values = {"name": "test", "optimizer": "adam", "max_lr": 1e-3, "epochs": 1, "batch_size": 4, "pretrained": False}
    of_channels = tuple(Channel(0, BRAIN) for _ in range(channels))
    return TrainConfig(network=f"timm/{network}", channels=of_channels, image_size=image_size, **values | changes)


def grey(channels=3, size=64, slices=2):
    return torch.randint(
        0, 256, (slices, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def published(folder, name, plain="model.safetensors"):
    """Weights as timm's hub has them, of 1000 classes and three channels, at the size of the hub."""
    file = folder / plain
    save_file(timm.create_model(name).state_dict(), file)
    return file


def outputs(network, images):
    with torch.inference_mode():
        return network.eval()(images)


@pytest.mark.parametrize(
    "changed",
    [
        {"network": "small"},
        {"network": "efficientnet-b0"},
        {"network": "efficientnet-lite0"},
        {"network": "timm/test_efficientnet"},
        {"network": "timm/resnet10t"},
        {"network": "timm/maxvit_rmlp_pico_rw_256", "checkpointing": True},
    ],
    ids=lambda changed: changed["network"],
)
def test_norms_that_processes_share_compute_what_each_its_own_does(changed):
    """As on two GPUs: torch's own conversion loses the activations that timm's norms apply."""
    torch.manual_seed(0)
    own = build_network(replace(config("resnet10t"), **changed)).eval()
    shared = deepcopy(own)
    share_norms(shared)
    images = grey()
    torch.testing.assert_close(shared(images), own(images))
    assert list(shared.state_dict()) == list(own.state_dict())
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in shared.modules())


@every_family
def test_a_network_gives_six_logits_of_any_number_of_channels(name):
    for channels in (3, 9):
        built = build_network(config(name, channels))
        assert outputs(built, grey(channels)).shape == (2, 6)
        with torch.inference_mode():
            assert built.embed(grey(channels)).shape == (2, built.width)
    stem = next(module for module in built.modules() if isinstance(module, torch.nn.Conv2d))
    assert stem.in_channels == 9


@every_family
def test_weights_of_the_hub_are_timms_own_at_the_networks_size(name, tmp_path):
    """But for the last layer; the oracle is timm, which reads the same file by itself."""
    file = published(tmp_path, name)
    for channels in (3, 9):
        asked = config(name, channels)
        ours = build_network(asked)
        before = ours.head.weight.clone()
        load_initial_weights(ours, asked, file)
        torch.testing.assert_close(ours.head.weight, before, rtol=0, atol=0)
        size = {"img_size": 64} if timm.get_pretrained_cfg(name).fixed_input_size else {}
        theirs = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(file), "custom_load": False},
            num_classes=0,
            in_chans=channels,
            **size,
        )
        normalised = (grey(channels).float() / 255 - ours.mean) / ours.std
        with torch.inference_mode():
            torch.testing.assert_close(ours.eval().embed(grey(channels)), theirs.eval()(normalised), rtol=0, atol=0)


def test_inputs_are_normalised_as_the_published_weights_want_it():
    assert build_network(config("vit_tiny_patch16_224")).mean == 0.5
    assert build_network(config("resnet10t")).std == pytest.approx((0.229 + 0.224 + 0.225) / 3)


def test_lite0_is_the_same_through_both_packages(tmp_path):
    tensors = read_public_weights(lite0.packaged_weights(), lite0.PUBLISHED)
    named = {
        lite0.name_in_timm(name)
        if not name.startswith("_fc.")
        else name.replace("_fc", "classifier"): value.contiguous()
        for name, value in tensors.items()
    }
    save_file(named, tmp_path / "model.safetensors")
    own = replace(config("tf_efficientnet_lite0"), network="efficientnet-lite0", pretrained=True)
    first, second = build_network(own), build_network(config("tf_efficientnet_lite0"))
    load_initial_weights(first, own)
    load_initial_weights(second, config("tf_efficientnet_lite0"), tmp_path / "model.safetensors")
    second.mean, second.std = first.mean, first.std  # timm's of this network are the rounded ones
    with torch.inference_mode():
        torch.testing.assert_close(first.eval().embed(grey()), second.eval().embed(grey()), rtol=0, atol=0)


# ---- weights ----


@every_family
def test_a_state_dict_of_ours_loads_with_its_head(name, tmp_path):
    first, second = (build_network(config(name)) for _ in range(2))
    save_file(first.state_dict(), tmp_path / "x.safetensors")
    load_initial_weights(second, config(name), tmp_path / "x.safetensors")
    torch.testing.assert_close(outputs(first, grey()), outputs(second, grey()), rtol=0, atol=0)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """timm's hub without a network: its cache, in which published files can be put."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(name):
        repository = tmp_path / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
        snapshot = repository / "snapshots" / "0" / "model.safetensors"
        for folder in (repository / "blobs", repository / "refs", snapshot.parent):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text("0")
        file = published(repository / "blobs", name)
        file = file.rename(file.with_name(hashlib.sha256(file.read_bytes()).hexdigest()))
        snapshot.symlink_to(file)
        return file

    return put


@every_family
def test_weights_that_the_hub_has_sent_before_need_no_network_and_are_noted(name, hub):
    asked = config(name, pretrained=True)
    with pytest.raises(InputError, match=r"cannot download.*timm/.*--start FILE.*--no-pretrained"):
        hub_weights(asked)
    file = hub(name)
    assert hub_weights(asked) == {f"timm/{name}": file.name}
    assert hub_weights(replace(asked, pretrained=False)) == hub_weights(replace(asked, start="other")) == {}
    built = build_network(asked)
    load_initial_weights(built, asked)
    sent = read_weights(file)
    assert any(torch.equal(value, sent[key]) for key, value in built.backbone.state_dict().items() if value.ndim > 1)


def test_a_file_that_is_not_what_its_name_says_is_refused(hub):
    file = hub("resnet10t")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    asked = config("resnet10t", pretrained=True)
    for refuse in (lambda: hub_weights(asked), lambda: load_initial_weights(build_network(asked), asked)):
        with pytest.raises(InputError, match=r"is not the file that its name [0-9a-f]{64} tells of"):
            refuse()


def test_a_planted_wrong_hash_in_a_name_is_refused(tmp_path):
    file = published(tmp_path, "resnet10t", "resnet10t-0123abcd.safetensors")
    asked = config("resnet10t")
    with pytest.raises(InputError, match="is not the file that its name"):
        load_initial_weights(build_network(asked), asked, file)
    right = file.rename(tmp_path / f"resnet10t-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.safetensors")
    load_initial_weights(build_network(asked), asked, right)
    require_named_hash(published(tmp_path, "resnet10t"))


def test_a_folder_of_timms_layout_is_a_start(tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet10t"}))
    asked = config("resnet10t", start=str(folder))
    kind = kind_of(asked, tmp_path / "runs/test/fold0")
    with pytest.raises(InputError, match=r"no weights at .*model\.safetensors"):
        kind.load_start(build_network(asked))
    file = published(folder, "resnet10t")
    for start in (folder, file):
        built = build_network(asked)
        kind_of(replace(asked, start=str(start)), tmp_path / "runs/test/fold0").load_start(built)
        sent = read_weights(file)["layer4.0.conv1.weight"]
        torch.testing.assert_close(built.backbone.state_dict()["layer4.0.conv1.weight"], sent, rtol=0, atol=0)


def test_what_could_run_code_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    asked = config("resnet10t")
    torch.save({}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"may run code .*\.safetensors with --start"):
        load_initial_weights(build_network(asked), asked, tmp_path / "x.pth")
    (tmp_path / "x.pth").rename(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_initial_weights(build_network(asked), asked, tmp_path / "x.safetensors")


def test_weights_of_another_network_are_refused(tmp_path):
    file = published(tmp_path, "resnet10t")
    with pytest.raises(InputError, match=r"lacks \d+ of \d+ tensors, first .* no file of timm/convnext_atto"):
        load_initial_weights(build_network(config("convnext_atto")), config("convnext_atto"), file)
    with pytest.raises(InputError, match=r"lacks|does not fit"):
        load_initial_weights(build_network(config("resnet18")), config("resnet18"), file)


@pytest.mark.parametrize("name", ["resnet", "resnet50.none", "hf-hub:someone/net", "../resnet10t", "local-dir:/tmp"])
def test_a_name_that_timm_does_not_know_is_told_beside_some_that_it_does(name):
    with pytest.raises(InputError, match=r"timm has no network '.*'; name one like timm/\w+"):
        build_network(config(name))


def test_a_field_that_a_network_does_not_have_is_one_line():
    with pytest.raises(InputError, match=r"timm cannot build timm/vgg11 with 64 px, --drop-path 0.1 .*; take others"):
        build_network(config("vgg11", drop_path=0.1))


# ---- fields ----


@every_family
def test_drop_path_is_the_networks_own_chance(name):
    """With it, what a network gives in training differs from step to step; without, and in eval mode, it does not."""
    for rate in (0.0, 0.5):
        torch.manual_seed(0)
        built = build_network(config(name, drop_path=rate)).train()
        for module in built.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
                torch.nn.init.ones_(module.weight)  # scales that begin at zero hide a block
            elif isinstance(module, torch.nn.Dropout):  # MaxViT's, of relative positions
                module.eval()
        images = grey(slices=4)
        with torch.no_grad():
            first, second = (built.embed(images) for _ in range(2))
        has_blocks = any(type(module).__name__ == "DropPath" for module in built.modules())
        assert torch.equal(first, second) == (rate == 0.0 or not has_blocks)
        assert has_blocks == (rate > 0)


def test_lite0_takes_the_fields_and_keeps_its_own_drop_path_without():
    def rates(**changes):
        built = build_network(replace(config("x"), network="efficientnet-lite0", **changes))
        return [module.drop_prob for module in built.modules() if type(module).__name__ == "DropPath"]

    assert rates() == pytest.approx([2 * rate for rate in rates(drop_path=0.1)])
    assert max(rates()) > 0.15
    assert set(rates(drop_path=0.0)) == {0.0}


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050", "maxvit_rmlp_pico_rw_256"])
@pytest.mark.parametrize("pooling", ["gem", "attention"])
def test_pooling_is_learnt_and_the_rest_is_published(name, pooling, tmp_path):
    asked = config(name, pooling=pooling)
    built = build_network(asked)
    load_initial_weights(built, asked, published(tmp_path, name))
    plain = build_network(config(name))
    load_initial_weights(plain, config(name), tmp_path / "model.safetensors")
    (pool,) = (module for module in built.modules() if isinstance(module, GeneralisedMean | AttentionMean))
    if pooling == "attention":
        with torch.inference_mode():
            expected = plain.eval().embed(grey())
            torch.testing.assert_close(built.eval().embed(grey()), expected, rtol=1e-4, atol=1e-5)
    else:
        torch.nn.init.ones_(pool.power)
    built.train()(grey(slices=4)).square().sum().backward()
    # Of a bias, which moves the scores of all places alike, the gradient is rounding, or nothing.
    learnt = [parameter for name, parameter in pool.named_parameters() if not name.endswith("bias")]
    assert learnt
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learnt)


def test_a_generalised_mean_is_between_the_mean_and_the_largest():
    places = torch.rand(2, 3, 4, 5)
    pool = GeneralisedMean(3, features_last=False, flat=True)
    mean, largest, power = places.mean((2, 3)), places.amax((2, 3)), pool(places)
    assert ((power > mean) & (power < largest)).all()
    torch.nn.init.ones_(pool.power)
    torch.testing.assert_close(pool(places), mean)
    last = GeneralisedMean(3, features_last=True, flat=False)
    torch.testing.assert_close(last(places.permute(0, 2, 3, 1)), power[:, None, None, :])


def test_a_swin_whose_features_stand_last_is_pooled_over_its_places():
    built = build_network(config("swin_tiny_patch4_window7_224", image_size=224, pooling="gem"))
    (pool,) = (module for module in built.modules() if isinstance(module, GeneralisedMean))
    assert (pool.features_last, pool.flat) == (True, True)
    assert outputs(built, grey(size=224, slices=1)).shape == (1, 6)


def test_the_last_layer_is_not_given_a_share_in_training():
    built = build_network(config("resnet10t", head_dropout=0.5))
    embedding = torch.ones(1, built.width)
    assert not torch.equal(built.train().head(embedding), built.head(embedding))
    assert torch.equal(built.eval().head(embedding), built.head(embedding))
    assert set(build_network(config("resnet10t")).state_dict()) == set(built.state_dict())


@every_family
def test_checkpointing_changes_neither_gradients_nor_statistics(name):
    def trained(checkpointing):
        torch.manual_seed(0)
        built = build_network(config(name, checkpointing=checkpointing)).train()
        built.load_state_dict(start)
        for _ in range(2):
            mse_loss(built(grey(slices=4)), torch.zeros(4, 6)).backward()
        gradients = {key: value.grad for key, value in built.named_parameters()}
        return gradients, {key: value for key, value in built.named_buffers() if "running" in key}

    start = build_network(config(name)).state_dict()
    for plain, again in zip(trained(False), trained(True), strict=True):
        assert set(plain) == set(again)
        for key, value in plain.items():
            torch.testing.assert_close(again[key], value, rtol=1e-4, atol=1e-6)


def test_a_network_whose_activations_timm_keeps_is_refused_with_what_to_leave_out():
    with pytest.raises(InputError, match=r"timm/vgg11 anew; leave --checkpointing out; --accumulate"):
        build_network(config("vgg11", image_size=32, checkpointing=True))


def test_checkpointing_keeps_fewer_activations():
    def kept(checkpointing):
        built = build_network(config("convnext_atto", checkpointing=checkpointing)).train()
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            built(grey(slices=4))
        return sum(sizes)

    assert kept(True) < kept(False) / 2


@pytest.mark.parametrize("changes", [{"pooling": "gem"}, {"drop_path": 0.1}, {"checkpointing": True}])
@pytest.mark.parametrize("network", ["small", "efficientnet-b0", "resnet50"])
def test_other_networks_refuse_the_fields_of_timms(network, changes):
    with pytest.raises(InputError, match="is for networks of timm"):
        build_network(replace(config("x"), network=network, **changes))


def test_a_network_without_a_map_refuses_another_pooling():
    with pytest.raises(InputError, match=r"--pooling gem needs a network that ends in one pool .* has 0"):
        build_network(config("vit_tiny_patch16_224", pooling="gem"))


def test_a_fold_is_trained_notes_its_weights_and_predicts(few, hub):
    file = hub("resnet10t")
    fields = {"pooling": "gem", "drop_path": 0.1, "checkpointing": True, "head_dropout": 0.2}
    asked = config("resnet10t", 9, name="timm_resnet", pretrained=True, batch_size=16, **fields)
    machine = Machine(work=few.root, device="cpu", workers=0)
    train(TrainOptions(asked, machine=machine, tta="none"))
    assert read_run(few.run(asked.name, 0)).sources["timm/resnet10t"] == file.name
    file.unlink()  # it is needed until it is trained, no longer
    train(TrainOptions(asked, machine=machine, tta="none"))
    infer(InferOptions(asked.name, machine=machine, tta="none"))
    assert (few.run(asked.name, 0) / "test.parquet").is_file()


def test_timm_is_imported_where_it_is_used_alone():
    code = (
        "import sys; from models.training import kinds, learner, networks; from models.train_small import CONFIG; "
        "networks.build_network(CONFIG); assert not {'timm', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
