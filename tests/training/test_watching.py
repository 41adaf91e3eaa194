"""What a person can watch: TensorBoard's events, Weights & Biases, the pictures, the search for a learning rate."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import cv2
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.common.errors import InputError
from models.common.options import Machine, TrainOptions
from models.train_small import CONFIG
from models.training import watching
from models.training.run import train


def options_for(few, name: str, optimizer: str = "radam", **values) -> TrainOptions:
    machine = Machine(work=few.root, device="cpu")
    return TrainOptions(replace(CONFIG, name=name, epochs=2, optimizer=optimizer), fold=1, machine=machine, **values)


@pytest.mark.parametrize("optimizer", ["radam", "adam"])
def test_tensorboard_has_a_value_a_step_and_a_validation_an_epoch(few, optimizer):
    options = options_for(few, f"watched_{optimizer}", optimizer)
    train(options)
    events = EventAccumulator(str(few.runs / options.config.name / "tensorboard" / "fold1"))
    events.Reload()
    losses, validations = events.Scalars("train_loss"), events.Scalars("valid_loss")
    assert [event.step for event in losses] == list(range(1, len(losses) + 1))
    history = pd.read_csv(options.folder / "history.csv")
    assert [event.value for event in validations] == pytest.approx(list(history["valid_loss"]))
    assert losses[-1].value == pytest.approx(history["train_loss"].iloc[-1])
    picture = cv2.imread(str(options.folder / "history.png"))
    assert picture.std() > 10


def test_without_tensorboard_a_run_is_the_same(few, monkeypatch):
    monkeypatch.setattr(watching, "find_spec", lambda _: None)
    options = options_for(few, "unwatched")
    train(options)
    assert not (few.runs / "unwatched" / "tensorboard").exists()
    assert (options.folder / "history.csv").is_file()


class FakeWandb(ModuleType):
    """What fastai's callback and `watchers` ask of the package; it keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run, self.config, self.logged, self.started = None, {}, [], {}

    @contextmanager
    def init(self, **values) -> Iterator[None]:
        self.started, self.run = values, SimpleNamespace(step=0, summary={})
        yield
        self.run = None

    def log(self, values: dict, step: int | None = None) -> None:
        self.logged.append(values)


def test_weights_and_biases_gets_the_configuration_and_the_losses(few, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "fastai.callback.wandb", raising=False)
    monkeypatch.setattr(watching, "find_spec", lambda name: name == "wandb")
    options = options_for(few, "logged", "adam", wandb=True)
    train(options)
    assert fake.started["config"] == options.config.to_json()
    assert fake.started["name"] == "logged_fold1"
    assert fake.run is None  # the run is closed
    validations = [values["valid_loss"] for values in fake.logged if "valid_loss" in values]
    assert validations == pytest.approx(list(pd.read_csv(options.folder / "history.csv")["valid_loss"]))
    assert any("train_loss" in values for values in fake.logged)


def test_weights_and_biases_that_is_not_installed_is_one_line(few, monkeypatch):
    monkeypatch.setattr(watching, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="--wandb needs the package wandb: pip install wandb"):
        train(options_for(few, "asked", wandb=True))


def test_the_learning_rate_finder_suggests_a_rate_and_trains_nothing(few, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = options_for(few, "rates", find_lr=True)
    train(replace(options, config=replace(options.config, batch_size=4)))
    (suggestion,) = re.findall(r"suggests --max-lr (\S+)", capsys.readouterr().out)
    assert 1e-6 < float(suggestion) < 1
    assert cv2.imread(str(options.folder.with_name("fold1_learning_rate.png"))).std() > 5
    assert not options.folder.exists()
    assert list(tmp_path.iterdir()) == []  # fastai makes folders where it stands
