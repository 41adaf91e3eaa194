"""Laws of a run's configuration: its notation, its checks, its file and its command line."""

import dataclasses
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.common.channels import Channel, Window
from models.common.cli import command
from models.common.config import FinetuneConfig, NewerError, SequenceConfig, TrainConfig
from models.common.errors import InputError
from models.common.labels import ANY, LABELS, METRIC_WEIGHTS

CONFIG = TrainConfig(
    name="example",
    network="small",
    image_size=64,
    channels=(Channel(0, Window(40, 80)), Channel(-1, Window(600, 2800))),
    optimizer="radam",
    max_lr=1e-3,
    epochs=2,
    batch_size=8,
)


def changed(**values) -> TrainConfig:
    return dataclasses.replace(CONFIG, **values)


def run_command(monkeypatch, *arguments: str, function=None) -> list[TrainConfig]:
    """Parse the arguments on top of CONFIG; returns what the command was called with."""
    calls: list[TrainConfig] = []
    monkeypatch.setattr(sys, "argv", ["train_example.py", *arguments])
    command(function or calls.append, CONFIG)
    return calls


def test_any_is_the_last_label_and_counts_twice():
    assert LABELS[ANY] == "any"
    assert [weight for label, weight in zip(LABELS, METRIC_WEIGHTS, strict=True) if label == "any"] == [2.0]
    assert sum(METRIC_WEIGHTS) == len(LABELS) + 1


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"crop_size": 32, "skip_low_information": True},
        {"start": "runs/b5/fold0/model.safetensors", "pretrained": False},
        {"channels": (Channel(3, Window(-600, 1500.5)),), "max_lr": 1.25e-5},
        {"channels": (Channel(-2.5, Window(40, 80), "mm"), Channel(0, Window(40, 80)))},
        {"seed": 2**31, "precision": "bf16", "augment": "none"},
        {"augment": "light", "window_jitter": 0.05},
        {"augment": "randomised"},
    ],
)
def test_a_configuration_comes_back_from_json_as_it_was(values):
    config = changed(**values)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


FIELDS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("field", [name for name, default in FIELDS.items() if default is not dataclasses.MISSING])
def test_a_field_that_an_older_version_did_not_have_is_the_default(field):
    values = CONFIG.to_json()
    del values[field]
    assert TrainConfig.from_json(values) == changed(**{field: FIELDS[field]})


@pytest.mark.parametrize("field", [name for name, default in FIELDS.items() if default is dataclasses.MISSING])
def test_a_field_without_a_default_that_lacks_in_json_is_named(field):
    values = CONFIG.to_json()
    del values[field]
    with pytest.raises(InputError, match=repr(field)):
        TrainConfig.from_json(values)


def test_a_field_that_json_has_too_much_is_of_a_newer_version_and_named():
    with pytest.raises(NewerError, match="'epoch'"):
        TrainConfig.from_json({**CONFIG.to_json(), "epoch": 3})


def older(config: TrainConfig, **values) -> dict:
    """As commit 032d62a wrote it."""
    return {name: value for name, value in config.to_json().items() if name != "start"} | values


def test_weights_of_older_versions_are_what_it_starts_from():
    assert TrainConfig.from_json(older(CONFIG, weights=None)) == CONFIG
    assert TrainConfig.from_json(older(CONFIG, weights="some/b5.safetensors")) == changed(start="some/b5.safetensors")
    finetuned = FinetuneConfig(**vars(CONFIG) | {"start": "b5", "pseudolabels": "pseudo"})
    assert FinetuneConfig.from_json(older(finetuned, weights=None, start="b5")) == finetuned


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("40/80", Channel(0, Window(40, 80))),
        ("40/80@-1", Channel(-1, Window(40, 80))),
        ("40/80@+2", Channel(2, Window(40, 80))),
        ("-600/1500", Channel(0, Window(-600, 1500))),
        ("32.5/7.5", Channel(0, Window(32.5, 7.5))),
        ("40/80@-5mm", Channel(-5, Window(40, 80), "mm")),
        ("40/80@+2.5mm", Channel(2.5, Window(40, 80), "mm")),
        ("40/80@0mm", Channel(0, Window(40, 80), "mm")),
    ],
)
def test_a_channel_is_written_center_width_offset(text, channel):
    assert Channel.parse(text) == channel


tenths = st.integers(1, 40_000).map(lambda tenth: tenth / 10)


signed_tenths = st.one_of(tenths, tenths.map(lambda value: -value), st.just(0.0))
in_slices = st.tuples(st.integers(-60, 60), st.just("slices"))
in_mm = st.tuples(st.floats(-1e6, 1e6), st.just("mm"))


@given(st.one_of(in_slices, in_mm), signed_tenths, tenths)
def test_a_channel_reads_what_it_writes(place, center, width):
    offset, unit = place
    channel = Channel(offset, Window(center, width), unit)
    assert Channel.parse(str(channel)) == channel


@given(st.integers(-60, 60), signed_tenths, tenths)
def test_offsets_in_slices_are_written_as_they_always_were(offset, center, width):
    expected = f"{center:g}/{width:g}" + (f"@{offset}" if offset else "")
    assert str(Channel(offset, Window(center, width))) == expected


WRONG_CHANNELS = ["", "40", "40/", "/80", "40/80@", "40/80@x", "40/80@1.5", "40/-80", "40 80", "40/80 ", "a/b"]
WRONG_MILLIMETRES = ["40/80@mm", "40/80mm", "40/80@5 mm", "40/80@5cm", "40/80@.5mm", "40/80@5.mm", "40/80@1e1mm"]


@pytest.mark.parametrize("text", [*WRONG_CHANNELS, *WRONG_MILLIMETRES, "./80", "1.2.3/80", "40/."])
def test_what_is_no_channel_is_named_in_the_error(text):
    with pytest.raises(InputError, match="center/width") as caught:
        Channel.parse(text)
    assert repr(text) in str(caught.value)


def test_an_offset_that_is_no_whole_slice_is_told_of_millimetres():
    with pytest.raises(InputError, match=r"'40/80@1.5'.*40/80@-1 \(whole slices\) or 40/80@-5mm"):
        Channel.parse("40/80@1.5")


@given(st.text(alphabet="0123456789.-+/@m ", max_size=14))
def test_any_text_is_a_channel_or_an_input_error(text):
    try:
        channel = Channel.parse(text)
    except InputError:
        return
    assert math.isfinite(channel.window.center)
    assert channel.window.width >= 0
    assert Channel.parse(str(channel)) == channel


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(field, value) for field in ("image_size", "max_lr", "epochs", "batch_size") for value in (0, -1)],
        *[(field, -1) for field in ("weight_decay", "batchnorm_batches", "seed")],
        ("max_lr", math.nan),
        *[("window_jitter", value) for value in (-0.1, 1.0, math.nan)],
        ("channels", ()),
        ("channels", (Channel(0, Window(40, 80)), Channel(0, Window(40, 0)))),
        *[("channels", (Channel(offset, Window(40, 80)),)) for offset in (0.5, math.inf, math.nan)],
        *[("channels", (Channel(offset, Window(40, 80), "mm"),)) for offset in (math.inf, math.nan)],
        ("channels", (Channel(5, Window(40, 80), "cm"),)),
        ("crop_size", 0),
        ("crop_size", 65),
        *[("start", value) for value in ("", "example")],
        *[("name", value) for value in ("", "a/b", "a b", ".", "..", "/root")],
    ],
)
def test_a_value_that_cannot_be_meant_names_its_flag(field, value):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')}"):
        changed(**{field: value})


def test_what_is_finetuned_has_to_start_from_something():
    with pytest.raises(InputError, match="--start"):
        FinetuneConfig(**vars(CONFIG) | {"pseudolabels": "pseudo"})


def test_a_window_jitter_that_nothing_would_use_is_refused():
    with pytest.raises(InputError, match="--window-jitter"):
        changed(window_jitter=0.1, augment="none")


def test_the_network_sees_the_crop_or_else_the_whole_slice():
    assert CONFIG.input_size == 64
    assert changed(crop_size=48).input_size == 48


def test_without_flags_the_command_gets_what_the_script_declares(monkeypatch):
    assert run_command(monkeypatch) == [CONFIG]


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--no-pretrained"], {"pretrained": False}),
        (["--max-lr", "3e-5"], {"max_lr": 3e-5}),
        (["--channels", "40/80", "40/80@-1"], {"channels": (Channel(0, Window(40, 80)), Channel(-1, Window(40, 80)))}),
        (["--channels", "40/80@-5mm"], {"channels": (Channel(-5, Window(40, 80), "mm"),)}),
        (["--crop-size", "48", "--image-size", "96"], {"crop_size": 48, "image_size": 96}),
        (["--start", "b5.safetensors"], {"start": "b5.safetensors"}),
    ],
)
def test_a_flag_changes_its_field_and_no_other(monkeypatch, arguments, values):
    assert run_command(monkeypatch, *arguments) == [changed(**values)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epoch", "3"], "--epoch"),
        (["--optimizer", "sgd"], "--optimizer"),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "0"], "--epochs"),
        (["--channels", "40-80"], "--channels"),
    ],
)
def test_a_wrong_flag_or_value_ends_the_command_with_2(monkeypatch, capsys, arguments, named):
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, *arguments)
    assert caught.value.code == 2
    assert named in capsys.readouterr().err


def test_an_input_error_is_one_line_without_a_traceback(monkeypatch):
    def refuse(config):
        raise InputError("no folder here; make one")

    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, function=refuse)
    assert caught.value.code == "error: no folder here; make one"  # Python prints it and exits with 1


def test_a_defect_keeps_its_traceback(monkeypatch):
    def fail(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(monkeypatch, function=fail)


SEQUENCE = SequenceConfig(name="layers", runs=("b2",), optimizer="adam", max_lr=1e-3, epochs=1, batch_size=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cell": "transformer", "hidden": 126}, r"hidden must be a multiple of --heads 4, not 126; repair --hidden"),
        ({"heads": 0}, r"heads must be above 0"),
        ({"logits_dropout": 1.0}, r"logits_dropout must be at least 0 and below 1, not 1.0"),
        ({"views": "none", "views_apart": True}, r"views_apart needs --views flip or d4, not True; repair"),
        ({"cell": "mamba"}, r"cell must be one of gru, lstm, transformer, not 'mamba'"),
    ],
)
def test_layers_over_a_study_that_cannot_be_are_refused(values, message):
    assert dataclasses.replace(SEQUENCE, hidden=126, views_apart=True)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SEQUENCE, **values)
