"""Laws of the planner: measured before published, every line says which, and an epoch takes what it says."""

import contextlib
import io
import json
import re
import time
from dataclasses import replace
from functools import partial
from importlib import import_module

import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import defaults

from models import plan as script
from models import (
    train_b0_224,
    train_b0_recurrent,
    train_b2,
    train_b5,
    train_b5_pseudo,
    train_session,
    train_session_sequence,
    train_small,
    train_study,
)
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import write_text
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.preprocessing.tables import split_fold
from models.training import timing
from models.training.anchors import ANCHORS, anchors_of
from models.training.checkpoint_files import Checkpoint, delete_checkpoints, write_checkpoint
from models.training.networks import ARCHITECTURES, HemorrhageNetwork, build_network
from models.training.planning import (
    CHALLENGE,
    FORWARD,
    MARGIN,
    MOST_EPOCHS,
    WIDTHS,
    Line,
    Slices,
    Speed,
    epoch_seconds,
    epochs_within,
    is_card,
    measured_speed,
    plan,
    plan_of_prepare,
    published_speed,
    seconds_after_preparing,
    slices_of_epoch,
)
from models.training.run import train
from models.training.run_record import save_config
from models.training.timing import Pace, measured_here

B2 = train_b2.CONFIG
ROW = {
    "network": "efficientnet-b2",
    "size": 512,
    "batch": 56,
    "precision": "bf16",
    "compile": False,
    "both": 600.0,
    "d4": 200.0,
    "peak_gib": 14.0,
    "d4_peak_gib": 3.0,
}
RESULTS = {
    "card": "NVIDIA H100 80GB HBM3",
    "date": "2026-01-02T03:04:05",
    "commit": "0123456789",
    "quick": False,
    "rows": [ROW],
}
SPEED = Speed(train=100.0, predict=1000.0, d4=50.0, memory=7.0, d4_memory=2.0, source="told")
PREPARE = Line("prepare.py", 1.0, 2.0, None, "told")


@pytest.mark.parametrize(
    ("asked", "name", "meant"),
    [
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("rtx3090", "RTX 3090", True),
        ("a100", "NVIDIA H100 80GB HBM3", False),
        ("", "RTX 3090", False),
        ("h100", "", False),
        ("rtx 3090", "NVIDIA GeForce RTX 3090 Ti", True),
        ("A100-SXM4", "NVIDIA A100-SXM4-80GB", True),
        ("a10", "NVIDIA A100-SXM4-80GB", False),
        ("a10", "NVIDIA A10", True),
        ("h20", "NVIDIA H200", False),
        ("h200", "NVIDIA GH200 480GB", False),
        ("l4", "NVIDIA L40S", False),
        ("-", "RTX 3090", False),
    ],
)
def test_a_card_is_known_by_whole_words_of_its_name(asked, name, meant):
    assert is_card(asked, name) is meant


def test_what_was_measured_is_taken_as_it_is():
    speed = measured_speed(RESULTS, B2, "h100")
    assert speed[:5] == (600, 1600, 200, 14, 3)
    told = "measured, benchmarks/gpu.json: NVIDIA H100 80GB HBM3 in bf16, 2026-01-02, commit 0123456"
    assert speed.source == told


def test_at_another_size_it_is_scaled_by_pixels_and_memory_by_the_batch_too():
    speed = measured_speed(RESULTS, replace(B2, image_size=256, batch_size=28), "h100")
    assert speed[:5] == (2400, 6400, 800, 14 / 8, 3 / 4)
    assert speed.source.endswith(", scaled by pixels from 512")


@pytest.mark.parametrize(
    "results",
    [
        RESULTS | {"card": None},
        RESULTS | {"card": "NVIDIA A100"},
        RESULTS | {"quick": True},  # a rehearsal on small pictures
        RESULTS | {"rows": [ROW | {"network": "efficientnet-b0"}]},
        RESULTS | {"rows": [ROW | {"both": None}]},
        RESULTS | {"rows": [ROW | {"d4": None}]},
    ],
)
def test_what_was_not_measured_is_not_known(results):
    assert measured_speed(results, B2, "h100") is None


def test_the_nearest_size_and_the_row_that_is_not_compiled_are_taken():
    rows = [ROW | {"compile": True, "both": 900.0}, ROW, ROW | {"size": 256, "both": 5000.0}]
    assert measured_speed(RESULTS | {"rows": rows}, B2, "h100").train == 600


def test_what_is_published_of_the_card_comes_before_that_of_another_one():
    own = published_speed(train_b0_224.CONFIG, "rtx3090", load=1e9)
    assert own.train == 1752
    assert own.source == "published: RTX 3090, 1,752/s at 224 px, scaled by pixels"
    other = published_speed(train_b0_224.CONFIG, "h100", load=1e9)
    assert other.train == 2489
    assert other.source == "published: A100 (no figure of h100), 2,489/s at 224 px, scaled by pixels"
    assert published_speed(train_b5.CONFIG, "a100", load=1e9).train == pytest.approx(114 * (456 / 512) ** 2)
    assert published_speed(train_small.CONFIG, "h100", load=1e9) is None


def test_a_card_without_a_figure_is_scaled_by_the_bandwidth_of_its_memory_where_that_is_known():
    speed = published_speed(train_session.CONFIG, "t4", load=1e9)
    assert speed.train == pytest.approx(1301 / 3)
    assert speed.source == (
        "published: V100 (no figure of t4), 1,301/s at 224 px, scaled by pixels and by the bandwidth of its memory "
        "(300 of 900 GB/s)"
    )
    assert published_speed(train_session.CONFIG, "v100", load=1e9).train == 1301
    assert published_speed(B2, "t4", load=1e9).source.startswith("published: RTX 3090 (no figure of t4)")


def test_a_part_of_preparing_takes_its_part_of_disk_and_time():
    whole, part = (plan_of_prepare(512, CHALLENGE, 1.0, 4, "told", parts) for parts in (1, 4))
    assert (part.disk, part.seconds) == pytest.approx((whole.disk / 4, whole.seconds / 4))
    assert part.step == "prepare.py --image-size 512 --part 1/4"


def planned(config: TrainConfig, **changes: object) -> list[Line]:
    """The plan of a session of Kaggle's, by published figures."""
    speed = script.speed_of(train_session.CONFIG, script.PlanOptions("session", "t4"))
    prepare = plan_of_prepare(224, CHALLENGE, script.measured_milliseconds("prepare_vs_fastai")[0], 4, "")
    over = train_session_sequence.CONFIG
    words = {"gpus": 2, "sequence_epochs": over.epochs, "views": over.views, "side_by_side": True}
    return plan(config, CHALLENGE, speed, prepare, **(words | changes))


def test_five_folds_fit_a_session_and_its_disks(capsys):
    script.main(script.PlanOptions("session", "t4", gpus=2, cores=4, side_by_side=True))
    assert "embeddings, flip, 5 folds" in capsys.readouterr().out
    counted = [line for line in planned(train_session.CONFIG) if not line.is_part]
    assert [line.step for line in counted if "fold" in line.step] == [
        *("train, 5 epochs, 5 folds", "infer, D4, 5 folds", "embeddings, flip, 5 folds"),
        "train_sequence.py, 8 epochs, 5 folds",
    ]
    assert sum(line.seconds for line in counted) / 3600 < 10
    assert sum(line.disk or 0 for line in counted) < 50  # of scratch: cache and embeddings


@pytest.mark.parametrize(
    ("folds", "gpus", "rounds"), [(5, 1, 5), (5, 2, 3), (5, 4, 2), (5, 5, 1), (5, 8, 1), (1, 2, 1), (4, 2, 2)]
)
def test_folds_side_by_side_take_as_many_rounds_as_the_cards_need(folds, gpus, rounds):
    alone = {line.step: line for line in plan(B2, CHALLENGE, SPEED, PREPARE, 1, 8)}
    lines = plan(B2, CHALLENGE, SPEED, PREPARE, gpus, 8, folds=folds, side_by_side=True)
    of_all = {line.step.rpartition(", ")[0]: line for line in lines if re.search(r", \d folds?$", line.step)}
    assert list(of_all) == ["train, 7 epochs", "infer, D4", "embeddings, D4", "train_sequence.py, 8 epochs"]
    for step, line in of_all.items():
        fold = alone[f"{step}, a fold"]
        on_gpu = line.source.startswith("told")
        assert line.seconds == pytest.approx((rounds if on_gpu else folds) * fold.seconds)
        assert line.disk == (fold.disk and folds * fold.disk)
        assert not on_gpu or line.source == (f"told, a fold on each of {gpus} GPUs" if gpus > 1 else "told")


def test_epochs_are_as_many_as_the_hours_hold_with_all_else_and_a_margin():
    config = train_session.CONFIG
    counts = [epochs_within(hours / 4, config, planned) for hours in range(100)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, MOST_EPOCHS)  # too few hours for one go on in the next session
    assert set(counts) == set(range(1, MOST_EPOCHS + 1))
    for epochs in range(2, MOST_EPOCHS + 1):
        hours = seconds_after_preparing(planned(replace(config, epochs=epochs))) / 3600 / (1 - MARGIN)
        assert epochs_within(hours * 1.001, config, planned) == epochs
        assert epochs_within(hours * 0.999, config, planned) == epochs - 1
    for hours in (8, 10):  # one fold in the hours of five, and on one card the hours of two
        assert epochs_within(hours, config, partial(planned, folds=1)) == MOST_EPOCHS
        assert epochs_within(hours, config, partial(planned, gpus=1)) < epochs_within(hours, config, planned)


def test_what_comes_after_preparing_is_all_that_is_no_part_of_another_line():
    lines = plan(B2, CHALLENGE, SPEED, PREPARE, 1, 8)
    steps = {line.step: line.seconds for line in lines}
    names = ("train, 7 epochs", "infer, D4", "embeddings, D4", "train_sequence.py, 8 epochs")
    counted = [*(steps[f"{name}, 5 folds"] for name in names), steps["blend of 12 runs"]]
    assert seconds_after_preparing(lines) == pytest.approx(sum(counted))


def session_options(**words: object) -> script.PlanOptions:
    return script.PlanOptions("session", "t4", gpus=2, side_by_side=True, cores=4, **words)


@pytest.mark.parametrize(
    ("hours", "folds", "line"),
    [
        (10, None, "session: 5 epochs, what 10.0 hours hold: 8.9 with all that comes after, and a tenth kept back"),
        (2, 2, "session: 1 epoch, what 2.0 hours hold: 1.6 with all that comes after, and a tenth kept back"),
        (
            *(4, None),
            "session: 1 epoch, what 4.0 hours hold: not even that: it takes 4.5 with all that comes after, and goes on "
            "in another session",
        ),
    ],
)
def test_the_epochs_of_so_many_hours_are_told_and_planned_for(hours, folds, line, tmp_path, capsys):
    script.main(session_options(hours=hours, folds=folds, work=tmp_path))
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == line
    count = line.split(",")[0].removeprefix("session: ")
    assert f"batch 48, {count}; " in told[0]
    assert any(each.startswith(f"train, {count}, ") for each in told)


def test_the_hours_of_a_cache_are_planned_outside_of_a_checkout_too(prepared, tmp_path, monkeypatch, capsys):
    """As in a notebook of Kaggle's, where there is nothing but the package."""
    monkeypatch.setattr(script, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(timing, "measured_here", lambda _: SPEED)
    script.main(script.PlanOptions("session", measure=True, own=True, hours=1, work=prepared.root))
    told = capsys.readouterr().out
    assert re.search(
        r"^prepare\.py --image-size 224 +- +- +-   done: these are the slices of cache/$", told, re.MULTILINE
    )
    assert re.search(r"^session: 10 epochs, what 1\.0 hours hold: ", told, re.MULTILINE)


def test_a_run_that_was_begun_keeps_its_epochs_in_every_later_session(tmp_path, capsys):
    """Begun here, or in an earlier session, until it is finished there; and nothing is measured for it."""
    config = replace(train_session.CONFIG, epochs=2)
    works = [Work(tmp_path / name) for name in ("now", "last", "before")]
    fold, options = works[2].run("session", 3), session_options(hours=10, work=works[0].root)
    options = replace(options, measure=True, work_from=tuple(work.root for work in works[1:]))
    fold.mkdir(parents=True)
    works[1].run("session", 0).mkdir(parents=True)  # killed before its first checkpoint
    write_checkpoint(fold, config, Checkpoint({"weight": torch.zeros(1)}, {}))
    script.main(options)
    assert capsys.readouterr().out == f"session: 2 epochs, with which {fold} was begun\n"
    own = works[0].run("session", 1)
    own.mkdir(parents=True)
    write_checkpoint(own, replace(config, epochs=1), Checkpoint({"weight": torch.zeros(1)}, {}))
    (own / "checkpoint_000002.json").write_text("{")  # damaged: the one before tells
    script.main(options)
    assert capsys.readouterr().out == f"session: 1 epoch, with which {own} was begun\n"
    delete_checkpoints(own)
    write_text(own / "model.safetensors", "weights")
    save_config(own, replace(config, epochs=7), 1, {})
    script.main(options)
    assert capsys.readouterr().out == f"session: 7 epochs, with which {own} was begun\n"


def test_no_network_is_faster_than_its_loader():
    speed = published_speed(train_b0_224.CONFIG, "a100", load=500.0)
    assert speed[:2] == (500, 500)
    assert "the loader gives 500/s" in speed.source


def test_several_cards_share_the_cores_that_load(monkeypatch, capsys):
    """Of b0_224 eight A100 would train 19,912 slices/s, which four cores do not load."""
    options = script.PlanOptions("b0_224", "a100", gpus=8, cores=4)
    alone = script.speed_of(train_b0_224.CONFIG, replace(options, gpus=1))
    shared = script.speed_of(train_b0_224.CONFIG, options)
    assert alone.train == 2489
    assert shared.train < 2489
    assert "but the loader gives" in shared.source
    assert script.speed_of(train_b0_224.CONFIG, replace(options, cores=8 * 4)).train == 2489


def test_studies_compute_their_activations_twice_and_take_a_memory_of_their_own():
    study = replace(train_study.CONFIG, network=B2.network, image_size=B2.image_size)
    one, other = (measured_speed(RESULTS, config, "h100") for config in (B2, study))
    assert other.train == pytest.approx(one.train / (1 + FORWARD))
    assert (one.memory is None, other.memory) == (False, None)
    assert other.d4 == one.d4
    one, other = (published_speed(config, "rtx3090", load=1e9) for config in (B2, study))
    assert other.train == pytest.approx(one.train / (1 + FORWARD))


@pytest.mark.parametrize("name", ["gpus", "cores", "parts", "folds"])
def test_of_what_there_is_one_at_least_none_is_refused(name):
    with pytest.raises(InputError, match=f"--{name} 0: there is one at least"):
        script.main(script.PlanOptions("b2", "h100", **{name: 0}))


def test_every_anchor_has_a_network_and_a_source():
    assert {anchor.network for anchor in ANCHORS} <= set(ARCHITECTURES) | {
        name for name in WIDTHS if name[:4] == "timm"
    }
    assert all(anchor.source for anchor in ANCHORS)
    assert [anchor.card for anchor in anchors_of("efficientnet-b0")] == ["A100", "RTX 3090", "V100"]
    assert ANCHORS[0].scaled(448) == 2489 / 4


@pytest.mark.parametrize("name", WIDTHS)
def test_the_widths_are_those_of_the_networks(name):
    import_module("pretrainedmodels")  # makes parts of its networks when it is imported
    with torch.device("meta"):
        network = build_network(replace(B2, network=name))
    assert set(ARCHITECTURES) < set(WIDTHS)
    assert isinstance(network, HemorrhageNetwork)
    assert WIDTHS[name] == network.width


def test_the_embeddings_of_a_network_of_timm_that_is_no_preset_have_a_size_that_is_not_known():
    for network, disk in (("timm/resnet50", None), ("timm/maxvit_tiny_tf_512.in1k", 518 * 2 * 874_035 / 1e9)):
        lines = {line.step: line for line in plan(replace(B2, network=network), CHALLENGE, SPEED, PREPARE, 1, 8)}
        assert lines["embeddings, D4, a fold"].disk == disk


def test_slices_of_an_epoch_are_those_that_a_fold_trains_on():
    slices = Slices(train=1000, test=100, studies=40, low_information=0.1)
    assert slices_of_epoch(B2, slices) == 800
    assert slices_of_epoch(train_b5.CONFIG, slices) == pytest.approx(720)
    assert slices_of_epoch(train_b5_pseudo.CONFIG, slices) == pytest.approx(810)
    assert slices_of_epoch(train_b0_recurrent.CONFIG, slices) == 32 * 24  # the longest stretch, of studies of 25
    assert epoch_seconds(B2, slices, SPEED) == 8 + 0.2


def test_the_challenge_is_that_of_the_pages():
    assert CHALLENGE.train + CHALLENGE.test == 874_035


def test_a_plan_adds_up_and_every_line_says_by_what():
    slices = Slices(train=1000, test=100, studies=40, low_information=0.1)
    lines = {line.step: line for line in plan(B2, slices, SPEED, PREPARE, 1, 8)}
    assert next(iter(lines)) == "prepare.py"
    assert lines["train, an epoch of a fold"].seconds == 8.2
    assert lines["train, 7 epochs, a fold"].seconds == pytest.approx(7 * 8.2 + 4)
    assert lines["train, 7 epochs, 5 folds"].seconds == pytest.approx(5 * (7 * 8.2 + 4))
    assert lines["infer, D4, a fold"][1:] == (None, 2, 2, "told", True)
    assert lines["embeddings, D4, 5 folds"].disk == pytest.approx(5 * 1100 * (1408 + 6) * 2 / 1e9)
    assert lines["embeddings, D4, a fold"].seconds == 22
    assert lines["train, 7 epochs, a fold"].memory == 7
    assert all(line.source for line in lines.values())


def test_several_gpus_share_the_time_and_it_is_said():
    one, four = (plan(B2, CHALLENGE, SPEED, PREPARE, gpus, 8) for gpus in (1, 4))
    for alone, shared in zip(one, four, strict=True):
        if alone.source == "told" and alone is not one[0]:
            assert shared.seconds == pytest.approx(alone.seconds / 4)
            assert shared.source == "told, shared by 4 GPUs"
        else:
            assert shared == alone


def test_no_more_cards_share_a_training_than_its_batch_has_studies():
    """Of eight two train on two studies a step, and all eight predict."""
    two, eight = (
        {line.step: line for line in plan(train_study.CONFIG, CHALLENGE, SPEED, PREPARE, n, 8)} for n in (2, 8)
    )
    for step in ("train, an epoch of a fold", "train, 3 epochs, a fold", "train, 3 epochs, 5 folds"):
        assert eight[step].seconds == two[step].seconds
        assert (two[step].source, eight[step].source) == ("told, shared by 2 GPUs", "told, shared by 2 of 8 GPUs")
    predicted = eight["infer, D4, 5 folds"]
    assert (predicted.seconds, predicted.source) == (two["infer, D4, 5 folds"].seconds / 4, "told, shared by 8 GPUs")
    beside = plan(train_study.CONFIG, CHALLENGE, SPEED, PREPARE, 8, 8, side_by_side=True)
    assert beside[2].seconds == 2 * two["train, 3 epochs, a fold"].seconds


# ---- the script ----


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """The folder of the results, with those that are committed but for gpu.json."""
    (tmp_path / "results.json").write_bytes((script.BENCHMARKS / "results.json").read_bytes())
    monkeypatch.setattr(script, "BENCHMARKS", tmp_path)
    return tmp_path


def test_measured_speeds_are_planned_by_where_they_are_and_published_ones_where_not(benchmarks, capsys):
    script.main(script.PlanOptions("b2", "h100"))
    assert "published: RTX 3090 (no figure of h100)" in capsys.readouterr().out
    (benchmarks / "gpu.json").write_text(json.dumps(RESULTS))
    script.main(script.PlanOptions("b2", "h100"))
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("b2: efficientnet-b2 at 512 px, batch 56, 7 epochs; 752,803 slices")
    assert "171.8 GB" in lines[2]
    assert all("measured" in line for line in lines[2:])
    assert sum("NVIDIA H100" in line and "GiB" in line for line in lines) == 7


def test_sizes_are_the_presets_or_those_that_are_asked_for():
    options = script.PlanOptions("resnext101", "a100", image_size=256, batch_size=8)
    config = script.preset(options)
    assert (config.image_size, config.crop_size, config.batch_size) == (256, 205, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            script.PlanOptions("sequence", "h100"),
            r"no preset 'sequence' that looks at images; name one of b0, b0_224, ",
        ),
        (script.PlanOptions("b2"), r"name a card with --gpu, like h100, or measure this machine with --measure"),
        (script.PlanOptions("small", "h100"), r"nothing is published of small; measure it .* with --measure"),
    ],
)
def test_what_cannot_be_planned_is_one_line(options, message):
    with pytest.raises(InputError, match=message):
        script.main(options)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (99.4, "99 s"), (100, "2 min"), (5999, "100 min"), (7200, "2 h")]
)
def test_a_time_is_told_in_the_unit_of_its_size(seconds, text):
    assert script.duration(seconds) == text


# ---- measured here ----


def test_without_a_store_noise_is_measured_and_it_is_said(tmp_path, benchmarks, capsys, monkeypatch):
    monkeypatch.setattr(timing, "measured_here", partial(measured_here, pace=Pace(batches=2, seconds=0)))
    options = script.PlanOptions("small", measure=True, image_size=32, batch_size=4, work=tmp_path, device="cpu")
    script.main(options)
    assert capsys.readouterr().out.count("measured here: this machine's cpu, noise, without a loader") == 7
    assert list(tmp_path.iterdir()) == [benchmarks / "results.json"]


def test_studies_cannot_be_made_of_noise(tmp_path):
    machine = Machine(work=tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"no slices at 256 px to measure on; store some"):
        measured_here(TrainOptions(train_b0_recurrent.CONFIG, machine=machine))


class Epochs(Callback):
    """The CPU seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.took: list[float] = []

    def before_epoch(self) -> None:
        self.began = time.process_time()

    def after_epoch(self) -> None:
        self.took.append(time.process_time() - self.began)


def test_an_epoch_of_the_demos_network_takes_what_is_planned(prepared, monkeypatch):
    """Within 20 %, of the CPU's time, which other work on the machine changes little; the best of three tries."""
    machine, slices = Machine(work=prepared.root, device="cpu"), script.own_slices(prepared)
    train_slices, valid_slices = split_fold(prepared, 0, skip_low_information=False)
    errors = []
    for attempt in range(3):
        options = TrainOptions(replace(train_small.CONFIG, name=f"planned{attempt}", epochs=1), machine=machine)
        speed = measured_here(options, Pace(seconds=0.3, clock=time.process_time))
        epochs = Epochs()
        monkeypatch.setattr(defaults, "callbacks", [*defaults.callbacks, epochs])
        with contextlib.redirect_stdout(io.StringIO()):
            train(options)
        monkeypatch.undo()
        assert speed.source == "measured here: this machine's cpu, slices of the cache"
        # The folds of so few patients differ in size: those of fold 0, of two parts of all slices.
        share = len(train_slices) / speed.train + len(valid_slices) / speed.predict
        assert epoch_seconds(options.config, slices, speed) == pytest.approx(share, rel=0.2)
        errors.append(abs(share / epochs.took[0] - 1))
        if errors[-1] < 0.2:
            return
    pytest.fail(f"the estimates were wrong by {errors}")
