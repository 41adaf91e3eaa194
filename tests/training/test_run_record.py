import json

import pytest
import torch

from models.common.channels import Channel
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.preprocessing.windows import BRAIN
from models.training.networks import build_network
from models.training.run_record import differences, read_run, save_config
from models.training.weights import load_trained, save_weights

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


def test_config_json_tells_what_the_run_depends_on(run):
    values = json.loads((run[0] / "config.json").read_text())
    assert {"torch", "fastai", "albumentations"} <= set(values["versions"])
    assert values["torch_threads"] == torch.get_num_threads()
    assert len(values["weights_sha256"]) == 64


def test_differences_name_the_field_and_both_values():
    other = TrainConfig.from_json({**CONFIG.to_json(), "max_lr": 0.5, "epochs": 3})
    assert differences(CONFIG, other) == ["max_lr 0.5 (now 0.001)", "epochs 3 (now 1)"]
