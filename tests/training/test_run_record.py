import json
import re
from dataclasses import replace

import pytest
import torch

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.preprocessing.windows import BRAIN
from models.training.networks import build_network, load_initial_weights
from models.training.run_record import differences, read_run, save_config
from models.training.weights import load_trained, save_weights, write_tensors

CONFIG = TrainConfig(
    name="test",
    network="small",
    image_size=32,
    channels=(Channel(0, BRAIN),),
    optimizer="radam",
    max_lr=1e-3,
    epochs=1,
    batch_size=2,
    pretrained=False,
)


@pytest.fixture
def run(tmp_path):
    network = build_network(CONFIG)
    save_weights(tmp_path, network)
    save_config(tmp_path, CONFIG, 0, {"weighted_log_loss": 0.1})
    return tmp_path, network


def test_a_run_is_read_back_as_it_was_written(run):
    folder, network = run
    record = read_run(folder)
    assert record.config == CONFIG
    assert record.results == {"weighted_log_loss": 0.1}
    other = build_network(CONFIG)
    load_trained(folder, record, other)
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_a_folder_without_config_is_no_finished_run(run):
    folder, _ = run
    (folder / "config.json").unlink()
    assert read_run(folder) is None


def test_changed_weights_are_refused(run):
    folder, network = run
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    for position in range(0, len(data), len(data) // 50):
        flipped = data.copy()
        flipped[position] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(InputError, match=r"model.safetensors is missing, or its sha256"):
            load_trained(folder, read_run(folder), network)


@pytest.mark.parametrize("damage", ["{", "{}", '{"config": {}, "weights_sha256": "", "results": {}}'])
def test_damaged_config_is_refused(run, damage):
    folder, _ = run
    (folder / "config.json").write_text(damage)
    with pytest.raises(InputError, match=r"config.json cannot be read"):
        read_run(folder)


def rewritten(folder, **values):
    """config.json with other values."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"config": CONFIG.to_json() | {"mosaic": 0.2}}, "the field 'mosaic'"),
        ({"kind": "VolumeConfig"}, "the kind 'VolumeConfig'"),
    ],
)
@pytest.mark.parametrize(("version", "wrote"), [("9.8", "version 9.8"), ("", "a newer version")])
def test_what_a_newer_version_has_written_is_named_with_that_version_and_not_to_be_deleted(
    run, values, named, version, wrote
):
    rewritten(run[0], **values, project=version)
    message = (
        rf"config.json has {named}, which this version of the project \(\S+\) does not know; {wrote} wrote it: use"
    )
    with pytest.raises(InputError, match=message) as caught:
        read_run(run[0])
    assert "delete" not in str(caught.value)


def test_a_run_that_an_older_version_has_trained_is_what_it_was(run):
    """One that lacked a field, called another otherwise, and did not note what it does now."""
    folder, _ = run
    values = {name: value for name, value in CONFIG.to_json().items() if name not in ("window_jitter", "start")}
    rewritten(folder, config=values | {"weights": None})
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("project", "kind")}))
    assert read_run(folder).config == CONFIG
    assert read_run(folder).sources == {}


@pytest.mark.parametrize(
    ("network", "last"), [("small", "7"), ("efficientnet-b0", "_fc"), ("resnet50", "network.last_linear")]
)
def test_weights_whose_names_were_others_load(tmp_path, network, last):
    """The last layer once stood in the backbone: commit 3d653fc and before."""
    config = replace(CONFIG, network=network)
    first, second = build_network(config), build_network(config)
    old = {re.sub("^head", f"backbone.{last}", name): value for name, value in first.state_dict().items()}
    write_tensors(tmp_path / "model.safetensors", old)
    save_config(tmp_path, config, 0, {})
    load_trained(tmp_path, read_run(tmp_path), second)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    load_initial_weights(third := build_network(config), config, tmp_path / "model.safetensors")
    assert torch.equal(third.head.weight, first.head.weight)


def test_config_json_tells_what_the_run_depends_on(run):
    values = json.loads((run[0] / "config.json").read_text())
    assert {"torch", "fastai", "albumentations"} <= set(values["versions"])
    assert values["torch_threads"] == torch.get_num_threads()
    assert len(values["weights_sha256"]) == 64


def test_differences_name_the_field_and_both_values():
    other = TrainConfig.from_json({**CONFIG.to_json(), "max_lr": 0.5, "epochs": 3})
    assert differences(CONFIG, other) == ["max_lr 0.5 (now 0.001)", "epochs 3 (now 1)"]


def test_into_how_many_parts_a_batch_is_divided_is_no_difference():
    assert differences(CONFIG, replace(CONFIG, accumulate=2)) == []
    assert differences(CONFIG, replace(CONFIG, batch_size=4)) == ["batch_size 4 (now 2)"]
