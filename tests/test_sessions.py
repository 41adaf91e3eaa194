"""Laws of sessions: they end in time, saved; and however often the work is cut, its bytes are those of one session."""

import itertools
import json
import math
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from forked import Forked, parent
from once import HANG
from written import contents, trained

from models.common.errors import InputError
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.common.session import UNFINISHED, OutOfTime, Session, within
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import split_fold
from models.train_small import CONFIG
from models.training import checkpoint_callback
from models.training.checkpoint_files import largest_on_disk
from models.training.fold import require_room_for_checkpoints
from models.training.networks import build_network
from models.training.run import train
from models.training.stopping import ALARM, Interrupted, Stop

MODELS = Path(__file__).parent.parent / "models"
TINY = ("--device", "cpu", "--workers", 0)
STEPS = (
    ("prepare.py", "--image-size", 32, "--folds", 2, "--jobs", 1),
    ("train_small.py", *TINY, "--image-size", 32, "--epochs", 3, "--batch-size", 8, "--checkpoint-steps", 3),
    ("infer_small.py", *TINY),
    ("train_sequence.py", *TINY, "--runs", "small", "--views", "flip", "--epochs", 3, "--batch-size", 2),
    ("infer_sequence.py", *TINY),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sessions") / "data"
    write_phantom(folder, studies=8, test_studies=2, image_size=32, seed=0, jobs=1)
    return folder


@pytest.fixture(scope="module")
def one(data, tmp_path_factory) -> tuple[Path, list[float]]:
    """The working folder of a single session, and how long each of its steps has taken."""
    work, seconds = tmp_path_factory.mktemp("one"), []
    for step in STEPS:
        began = time.monotonic()
        code, output = finish(start(step, work, data))
        assert code == 0, output
        seconds.append(time.monotonic() - began)
    return work, seconds


def start(step: tuple[object, ...], work: Path, data: Path, *flags: object) -> Forked:
    script, *words = step
    of_data = ("--data", data) if script == "prepare.py" else ()
    return parent().start([str(word) for word in (MODELS / script, *words, *of_data, "--work", work, *flags)])


def finish(process: Forked) -> tuple[int | None, str]:
    output, _ = process.communicate(timeout=HANG)
    return process.returncode, output


def results(work: Path) -> dict[str, object]:
    """All that a person keeps: the cache, and the files of each fold."""
    kept = {name: data for name, data in contents(work / "cache").items() if not Path(name).name.startswith(".")}
    return kept | {str(fold.relative_to(work)): trained(fold) for fold in sorted(work.glob("runs/*/fold*"))}


def test_five_sessions_that_are_killed_between_and_within_their_steps_write_the_bytes_of_one(data, one, tmp_path):
    undisturbed, seconds = one
    rng, earlier, reached = random.Random(22), [], []
    cuts = [(0, rng.random()), (1, rng.random()), (1, 1.0), (3, rng.random()), (math.inf, 0)]
    for number, (last, share) in enumerate(cuts):
        work = tmp_path / str(number)
        before = [contents(folder) for folder in earlier]
        words = ("--work-from", *reversed(earlier)) if earlier else ()
        for place, step in enumerate(STEPS):
            if place > last:
                break
            process = start(step, work, data, *words)
            if place == last and share < 1:
                time.sleep(share * seconds[place])
                process.send_signal(signal.SIGKILL)
            code, output = finish(process)
            assert code in (0, -signal.SIGKILL), output
            if code:
                break
        reached.append(place)
        assert [contents(folder) for folder in earlier] == before  # nothing is written there
        earlier.append(work)
    assert reached[-1] == len(STEPS) - 1
    assert results(earlier[-1]) == results(undisturbed)


def test_a_training_ends_before_its_budget_does_and_another_session_goes_on_to_the_same_bytes(data, one, tmp_path):
    undisturbed, seconds = one
    step, cached = STEPS[1], undisturbed_cache(undisturbed, tmp_path)
    hours = 0.6 * seconds[1] / 3600
    for number in range(9):  # a machine that other work leaves or takes is faster or slower than it was
        cut, after = tmp_path / f"cut{number}", tmp_path / "after"
        code, output = finish(start(step, cut, data, "--budget-hours", hours, "--work-from", cached))
        assert code in (0, UNFINISHED), output
        assert "Traceback" not in output
        if code == UNFINISHED and list(cut.glob("runs/small/fold0/checkpoint_*.json")):
            break
        hours *= 1.4 if code == UNFINISHED else 0.6
    assert "stopped by the end of --budget-hours, all steps are saved; go on with: python" in output
    code, output = finish(start(step, after, data, "--work-from", cut))
    assert code == 0, output
    assert "going on in epoch" in output
    expected = trained(Work(undisturbed).run("small", 0))
    expected.pop("test.parquet")  # a step that is not taken here
    assert trained(Work(after).run("small", 0)) == expected


def undisturbed_cache(work: Path, folder: Path) -> Path:
    """A working folder with the cache of another one, and nothing else."""
    (folder / "cached").mkdir()
    (folder / "cached" / "cache").symlink_to(work / "cache")
    return folder / "cached"


def test_preparing_ends_at_its_budget_with_a_code_of_its_own_and_goes_on(data, one, tmp_path):
    step = (*STEPS[0], "--budget-hours", 1e-5)
    code, output = finish(start(step, tmp_path, data))
    assert code == UNFINISHED, output
    assert "stopped at the end of --budget-hours; the same command goes on where it was" in output.splitlines()
    assert "Traceback" not in output
    assert finish(start(STEPS[0], tmp_path, data))[0] == 0
    expected = {name: file for name, file in results(one[0]).items() if "/" not in name or name.startswith("slices")}
    assert expected.items() <= results(tmp_path).items()


def test_work_that_is_out_of_time_is_told_until_it_hears_and_tidies_up_in_peace(monkeypatch):
    dropped, tidied = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))

    class Deaf:
        def __del__(self):
            signal.raise_signal(ALARM)  # Python drops what is raised here

    def work() -> None:
        Deaf()
        assert dropped == [OutOfTime]
        assert signal.getitimer(signal.ITIMER_REAL)[1] > 0, "it is told once"
        try:
            signal.raise_signal(ALARM)
        finally:
            signal.raise_signal(ALARM)
            tidied.append(True)

    with pytest.raises(OutOfTime), within(1.0):
        work()
    assert tidied


def test_an_alarm_leaves_time_for_the_longest_step_and_checkpoint(monkeypatch):
    alarms = []
    monkeypatch.setattr(signal, "setitimer", lambda kind, seconds: alarms.append((kind, seconds)))
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    stop = Stop(1.0)
    for what, seconds in (("step", 2.0), ("checkpoint", 30.0), ("step", 1.0), ("step", 5.0)):
        stop.measured(what, seconds)
    assert alarms == [(signal.ITIMER_REAL, left) for left in (3598.0, 3568.0, 3565.0)]


def interrupts(stop: Stop, number: int) -> bool:
    """Whether a signal does not wait for what is being saved."""
    try:
        stop.notice(number, None)
    except Interrupted as interrupted:
        return interrupted.number == number
    return False


@pytest.mark.parametrize("first", [signal.SIGINT, ALARM])
def test_an_alarm_does_not_disturb_what_a_signal_has_stopped(first):
    stop = Stop(1.0)
    with stop.after_saving():
        assert not interrupts(stop, first)
        assert not interrupts(stop, ALARM)  # set anew, because that checkpoint took longer than those before
        assert stop.number == first
    assert not interrupts(stop, ALARM)


def test_the_second_signal_of_a_person_is_obeyed_at_once_an_alarm_before_them_does_not_count():
    stop = Stop(1.0)
    with stop.after_saving():
        assert not interrupts(stop, ALARM)
        assert not interrupts(stop, signal.SIGTERM)
        assert interrupts(stop, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, ALARM])
def test_what_has_nothing_to_save_stops_at_once(number):
    stop = Stop(1.0)
    assert interrupts(stop, number)
    assert not interrupts(stop, ALARM)  # while it says so


@pytest.mark.parametrize(("left", "allowed"), [(131, True), (129, False)])
def test_a_validation_is_begun_only_where_the_longest_so_far_would_end_in_time(left, allowed, monkeypatch):
    monkeypatch.setattr(signal, "setitimer", lambda *_: None)
    now = itertools.repeat(0.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    stop = Stop(left / 3600)
    assert stop.allows(8)  # nobody knows how long one takes
    stop.measured("validation", 12.5)
    stop.measured("checkpoint", 30.0)
    assert stop.allows(8) is allowed


def test_a_budget_that_ends_before_a_validation_saves_before_it(data, one, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Stop, "allows", lambda stop, _: stop.number is not None)
    config = replace(CONFIG, image_size=32, epochs=1, batch_size=8)
    work = undisturbed_cache(one[0], tmp_path)
    options = TrainOptions(config, tta="none", machine=Machine(work=work, device="cpu"))
    with pytest.raises(SystemExit) as ended:
        train(options)
    assert ended.value.code == UNFINISHED
    monkeypatch.undo()
    train(options)
    steps = capsys.readouterr().out
    assert "going on in epoch 1, after step " in steps
    assert "epoch 1 of 1" in steps


def test_a_signal_while_the_last_checkpoint_is_written_ends_the_run_before_its_predictions(
    one, tmp_path, monkeypatch, capsys
):
    real = checkpoint_callback.write_checkpoint

    def write(folder, config, checkpoint):
        real(folder, config, checkpoint)
        if checkpoint.state["epoch"] == config.epochs:
            signal.raise_signal(signal.SIGTERM)

    config = replace(CONFIG, image_size=32, epochs=1, batch_size=8)
    options = TrainOptions(config, tta="none", machine=Machine(undisturbed_cache(one[0], tmp_path), device="cpu"))
    monkeypatch.setattr(checkpoint_callback, "write_checkpoint", write)
    with pytest.raises(SystemExit) as ended:
        train(options)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "all steps are saved" in capsys.readouterr().out
    monkeypatch.undo()
    train(options)
    assert "epoch 1 of 1: training" not in capsys.readouterr().out, "it is trained again"
    assert (options.folder / "valid.parquet").is_file()


def test_the_speed_of_an_epoch_that_is_gone_on_with_is_that_of_its_own_steps(one, tmp_path, monkeypatch):
    asked = itertools.count(1)

    def has_waited(_: checkpoint_callback.Checkpoints) -> bool:
        if next(asked) == 3:
            signal.raise_signal(signal.SIGTERM)  # heard of after the next step
        return False

    config = replace(CONFIG, image_size=32, epochs=1, batch_size=8)
    options = TrainOptions(config, tta="none", machine=Machine(undisturbed_cache(one[0], tmp_path), device="cpu"))
    monkeypatch.setattr(checkpoint_callback.Checkpoints, "has_waited", has_waited)
    with pytest.raises(SystemExit):
        train(options)
    slices = json.loads(next(options.folder.glob("checkpoint_*.json")).read_text())["state"]["step"] * 8
    assert slices == 4 * 8
    train(options)
    (row,) = pd.read_csv(options.folder / "history.csv").to_dict("records")
    whole = len(split_fold(options.machine.working_folder, 0, skip_low_information=False)[0]) // 8 * 8
    assert row["slices_per_s"] * row["train_seconds"] == pytest.approx(whole - slices, rel=1e-2)


@pytest.mark.parametrize("gigabytes", [1e6])
def test_what_would_take_disk_that_is_to_stay_free_is_refused_before_it_begins(gigabytes, data, one, tmp_path):
    session = Session(keep_free_gb=gigabytes)
    told = r"of which 1,000,000 GB are to stay so: make room, (or )?choose another folder with --work"
    with pytest.raises(InputError, match=rf"the store will take about 0.0\d GB more of .*; \d+ GB are free, {told}"):
        prepare(PrepareOptions(data, tmp_path, image_size=(32,), folds=2, jobs=1, session=session))
    work = undisturbed_cache(one[0], tmp_path)
    config = replace(CONFIG, image_size=32, batch_size=8)
    with pytest.raises(InputError, match=rf"fold0: checkpoints will take about 0.0\d GB more of .* free, {told}"):
        train(TrainOptions(config, machine=Machine(work, device="cpu", session=session)))


def test_checkpoints_that_a_run_goes_on_from_need_no_room_anew(tmp_path, monkeypatch):
    network = build_network(CONFIG)
    needed = largest_on_disk(tensor.nbytes for tensor in network.state_dict().values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed / 2))
    options = TrainOptions(CONFIG, machine=Machine(work=tmp_path, device="cpu"))
    options.folder.mkdir(parents=True)
    with pytest.raises(InputError, match="make room"):
        require_room_for_checkpoints(options, network)
    with (options.folder / "checkpoint_3.safetensors").open("wb") as file:
        file.truncate(needed // 2 + 1)
    require_room_for_checkpoints(options, network)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"budget_hours": 0}, "budget_hours must be above 0, not 0; repair --budget-hours"),
        ({"keep_free_gb": -1}, "keep_free_gb must not be negative, not -1; repair --keep-free-gb"),
    ],
)
def test_what_no_session_has_is_refused(session, message):
    with pytest.raises(InputError, match=message):
        Session(**session)
