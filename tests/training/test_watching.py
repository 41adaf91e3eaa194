"""What a person can watch: TensorBoard's events, Weights & Biases, the pictures, the search for a learning rate."""

import json
import re
import shutil
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
from models.common.files import read_json, write_json
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.preprocessing.origin import SYNTHETIC
from models.train_small import CONFIG
from models.training import history as pictures
from models.training import watching
from models.training.loss import WeightedLogLoss
from models.training.run import train
from models.training.steps import StepLearner

pytestmark = pytest.mark.usefixtures("tiny")


def options_for(few, name: str, optimizer: str = "radam", **values) -> TrainOptions:
    machine = Machine(work=few.root, device="cpu")
    config = replace(CONFIG, name=name, epochs=2, optimizer=optimizer)
    return TrainOptions(config, fold=1, machine=machine, tta="none", **values)


@pytest.mark.parametrize("optimizer", ["radam", "adam"])
def test_tensorboard_has_a_value_at_each_look_and_a_validation_an_epoch(few, optimizer, monkeypatch):
    monkeypatch.setattr(StepLearner, "look_every", 4)
    options = options_for(few, f"watched_{optimizer}", optimizer)
    train(options)
    events = EventAccumulator(str(few.runs / options.config.name / "tensorboard" / "fold1"))
    events.Reload()
    losses, validations = events.Scalars("train_loss"), events.Scalars("valid_loss")
    steps = losses[-1].step // 2  # of an epoch
    looks = [*range(4, steps, 4), steps]
    assert [event.step for event in losses] == [*looks, *(steps + look for look in looks)]
    assert {"learning_rate", "gradient_norm", "loss_scale", "auc_any", "slices_per_s"} < set(events.Tags()["scalars"])
    history = pd.read_csv(options.folder / "history.csv")
    assert [event.value for event in validations] == pytest.approx(list(history["valid_loss"]))
    assert losses[-1].value == pytest.approx(history["train_loss"].iloc[-1])
    picture = cv2.imread(str(options.folder / "history.png"))
    assert picture.std() > 10


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_picture_of_a_history_shows_an_epoch_as_chosen_only_where_one_was(few, monkeypatch, ema):
    drawn = []
    monkeypatch.setattr(pictures, "_write", lambda _, figure: drawn.append(figure))
    options = options_for(few, f"chosen_{ema}")
    train(replace(options, config=replace(options.config, ema=ema)))
    legend = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert ("kept epoch, chosen by it" in legend) == (not ema)


def test_what_has_learnt_from_drawings_says_so_wherever_it_is_watched(few, tmp_path, monkeypatch, capsys):
    titles, told = [], {}
    monkeypatch.setattr(pictures, "_write", lambda _, figure: titles.append(figure.get_suptitle()))
    for name in ("drawn", "people"):
        work = Work(tmp_path / name)
        shutil.copytree(few.cache, work.cache)
        write_json(work.prepared, read_json(few.prepared, "") | {"synthetic": name == "drawn"})
        options = options_for(work, "small")
        train(options)
        train(replace(options, find_lr=True))
        events = EventAccumulator(str(work.runs / "small" / "tensorboard" / "fold1"))
        events.Reload()
        told_of = [
            event.tensor_proto.string_val[0] for tag in events.Tags()["tensors"] for event in events.Tensors(tag)
        ]
        noted = json.loads((options.folder / "config.json").read_text())["ran"]["synthetic"]
        told[name] = titles[-2:], [text.decode() for text in told_of], noted, SYNTHETIC in capsys.readouterr().out
    assert told == {"drawn": ([SYNTHETIC] * 2, [SYNTHETIC], True, True), "people": (["", ""], [], False, False)}


def test_without_tensorboard_a_run_is_the_same(few, monkeypatch):
    monkeypatch.setattr(watching, "find_spec", lambda _: None)
    options = options_for(few, "unwatched")
    train(options)
    assert not (few.runs / "unwatched" / "tensorboard").exists()
    assert (options.folder / "history.csv").is_file()


class FakeWandb(ModuleType):
    """What `watchers` asks of the package; it keeps what is logged, by the identity of the run."""

    class Error(Exception):
        """The package's own."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict] = []
        self.logged: list[tuple[str, int, dict]] = []
        self.open = 0

    @contextmanager
    def init(self, **values) -> Iterator[SimpleNamespace]:
        self.started.append(values)
        self.open += 1
        yield SimpleNamespace(log=lambda numbers, step: self.logged.append((values["id"], step, numbers)))
        self.open -= 1


@pytest.fixture
def wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(watching, "find_spec", lambda name: name == "wandb")
    return fake


def test_weights_and_biases_gets_the_configuration_and_the_losses(few, wandb):
    options = options_for(few, "logged", "adam", wandb=True)
    train(options)
    (started,) = wandb.started
    assert started["config"] == options.config.to_json() | {"synthetic": True}
    assert started["name"] == "logged_fold1"
    assert wandb.open == 0  # the run is closed
    validations = [numbers["valid_loss"] for _, _, numbers in wandb.logged if "valid_loss" in numbers]
    assert validations == pytest.approx(list(pd.read_csv(options.folder / "history.csv")["valid_loss"]))
    assert any("train_loss" in numbers for _, _, numbers in wandb.logged)


def test_weights_and_biases_goes_on_in_the_run_that_was_begun(few, wandb, monkeypatch):
    """Stopped after its first epoch, with a checkpoint: the same identity, and each epoch is told once."""
    options = replace(options_for(few, "gone_on", wandb=True), checkpoint_steps=1)
    tell = watching.Numbers.after_epoch

    def stop(self) -> None:
        tell(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.Numbers, "after_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(options)
    monkeypatch.setattr(watching.Numbers, "after_epoch", tell)
    train(options)
    assert len({values["id"] for values in wandb.started}) == 1
    assert [values["resume"] for values in wandb.started] == ["allow", "allow"]
    epochs = [numbers["epoch"] for _, _, numbers in wandb.logged if "epoch" in numbers]
    assert epochs[-1] == 2
    assert [step for _, step, _ in wandb.logged] == sorted(step for _, step, _ in wandb.logged)


def test_weights_and_biases_without_a_login_is_one_line(few, wandb, monkeypatch):
    def refuse(**_) -> None:
        raise FakeWandb.Error("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(InputError, match=r"^Weights & Biases does not take .*\(No API key configured.\); log in .*$"):
        train(options_for(few, "not_logged_in", wandb=True))


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


def test_rates_that_differ_from_layer_to_layer_are_not_looked_for(few):
    options = options_for(few, "rates", find_lr=True)
    for fields in ({"head_lr": 0.01}, {"layer_decay": 0.8}):
        with pytest.raises(InputError, match="--find-lr tries one rate for all layers; leave --head-lr"):
            train(replace(options, config=replace(options.config, **fields)))


def test_a_loss_that_is_finite_at_no_rate_is_one_line(few, monkeypatch):
    forward = WeightedLogLoss.forward
    monkeypatch.setattr(WeightedLogLoss, "forward", lambda *parts: forward(*parts) * float("nan"))
    with pytest.raises(InputError, match="the loss is finite at too few rates to choose one; try --precision fp32"):
        train(options_for(few, "rates", find_lr=True))
