"""Laws of an interrupted run: whatever ends it, the same command goes on to the same bytes, and one process trains."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from forked import Forked, parent
from once import HANG
from written import FOLD_FILES, contents, trained

from models.common.errors import InputError
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.train_small import CONFIG
from models.training.checkpoint_files import Checkpoint, read_checkpoint, write_checkpoint
from models.training.run import train

REPOSITORY = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
Moment = Callable[[Path], bool]  # of a run's folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The cache of ten studies: 12 steps and 8 batches of validation an epoch."""
    folder = tmp_path_factory.mktemp("resume")
    write_phantom(folder / "data", studies=10, test_studies=1, image_size=64, seed=0, jobs=1)
    prepare(PrepareOptions(data=folder / "data", work=folder, image_size=(64,), folds=3, jobs=1))
    return folder / "cache"


@pytest.fixture(scope="module")
def undisturbed(cache, tmp_path_factory) -> dict[str, bytes]:
    """What a run writes that is left alone, a program that Python starts; all others are forked."""
    work = working_folder(tmp_path_factory.mktemp("undisturbed"), cache)
    subprocess.run([sys.executable, *command(work)], env=ENVIRONMENT, check=True)
    return trained(fold(work))


@pytest.fixture
def work(tmp_path, cache) -> Path:
    return working_folder(tmp_path, cache)


def working_folder(folder: Path, cache: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cache").symlink_to(cache)
    return folder


def fold(work: Path) -> Path:
    return Work(work).run(CONFIG.name, 0)


def command(work: Path, *flags: object, script: str = "train_small.py") -> list[str]:
    own = ["--work", work, "--device", "cpu", "--epochs", 3, "--checkpoint-steps", 3]
    words = [REPOSITORY / "models" / script, *own, *flags]
    return [str(word) for word in words]


def start(work: Path, *flags: object, script: str = "train_small.py") -> Forked:
    return parent().start(command(work, *flags, script=script))


def finish(work: Path, *flags: object, script: str = "train_small.py") -> str:
    process = start(work, *flags, script=script)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0, output
    return output


def kill_when(
    work: Path, moment: Moment, *flags: object, number: int = signal.SIGKILL, script: str = "train_small.py"
) -> tuple[int, str]:
    """Signal the process alone (its loaders stay, as after a kill for memory) at a moment; its code and its output."""
    process = start(work, *flags, script=script)
    end = time.monotonic() + HANG
    while process.poll() is None and not moment(fold(work)) and time.monotonic() < end:
        time.sleep(0.0005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG)
    return process.returncode, output


def last_place(folder: Path) -> tuple[int, int]:
    """Epoch and step of the newest checkpoint, from 0."""
    for path in sorted(folder.glob("checkpoint_*.json"), reverse=True):
        try:
            state = json.loads(path.read_text())["state"]
            return state["epoch"], state["step"]
        except FileNotFoundError:  # replaced by the next one just now
            continue
    return (-1, 0)


def after(epoch: int, step: int) -> Moment:
    return lambda folder: last_place(folder) >= (epoch, step)


def in_a_write(pattern: str, epoch: int = 0) -> Moment:
    return lambda folder: last_place(folder)[0] >= epoch and any(True for _ in folder.glob(pattern))


MOMENTS = {
    "mid-epoch": after(0, 3),
    "while a checkpoint is written": in_a_write(".checkpoint_*", epoch=1),
    "in validation": after(1, 12),
    "while the results are written": in_a_write(".[mvh]*"),
}


def require_same_after_kills(work: Path, moments: list[Moment], undisturbed: dict[str, bytes]) -> None:
    """Kill a run at one moment after the other, damage its last checkpoint, and let it end."""
    places = []
    for moment in moments:
        code, output = kill_when(work, moment)
        assert code == -signal.SIGKILL, output
        places.append(last_place(fold(work)))
    assert places == sorted(places)
    last = sorted(fold(work).glob("checkpoint_*.json"))[-1].with_suffix(".safetensors")
    last.write_bytes(damage(last.read_bytes(), random.Random(1)))
    assert re.search(r"warning: .*checkpoint_\d+.safetensors .* is damaged", finish(work))
    assert trained(fold(work)) == undisturbed
    assert set(undisturbed) == FOLD_FILES


# Everything that draws or keeps something of its own from step to step.
RECIPE = (
    *("--ema", 0.8, "--schedule", "cosine", "--mixup", 0.4, "--cutmix", 1, "--label-smoothing", 0.02),
    *("--augment", "strong", "--balanced", 20, "--positives", 2, "--layer-decay", 0.9, "--head-lr", 0.01),
)


def test_a_run_with_an_average_and_all_of_the_recipe_that_is_killed_ends_with_the_same_bytes(work, cache, tmp_path):
    other = working_folder(tmp_path / "other", cache)
    finish(other, *RECIPE)
    for moment in (after(0, 3), in_a_write(".checkpoint_*", epoch=1), after(2, 3)):
        code, output = kill_when(work, moment, *RECIPE)
        assert code == -signal.SIGKILL, output
    assert "going on in epoch 3" in finish(work, *RECIPE)
    assert trained(fold(work)) == trained(fold(other))


def test_a_run_that_is_killed_ends_with_the_same_bytes(work, undisturbed):
    require_same_after_kills(work, [MOMENTS["while a checkpoint is written"]], undisturbed)


def test_a_run_of_lite0_that_is_killed_ends_with_the_same_bytes(cache, tmp_path):
    """From its packaged weights, with the look of each sample drawn anew."""
    flags = ["--network", "efficientnet-lite0", "--pretrained", "--augment", "randomised"]
    flags += ["--optimizer", "adam", "--tta", "none"]
    left, killed = (working_folder(tmp_path / name, cache) for name in ("left", "killed"))
    finish(left, *flags)
    code, output = kill_when(killed, after(1, 3), *flags)
    assert code == -signal.SIGKILL, output
    finish(killed, *flags)
    assert trained(fold(killed)) == trained(fold(left))


def test_a_run_of_whole_studies_that_is_killed_ends_with_the_same_bytes(cache, tmp_path):
    """Its dropout, its stretches and its three losses go on where they were."""
    script = "train_study.py"
    flags = ["--name", CONFIG.name, "--network", "small", "--no-pretrained", "--start", "None", "--image-size", 64]
    flags += ["--batch-statistics", "--batch-size", 1, "--logits-dropout", 0.2, "--slices-at-once", 7]
    left, killed = (working_folder(tmp_path / name, cache) for name in ("left", "killed"))
    finish(left, *flags, script=script)
    code, output = kill_when(killed, after(1, 3), *flags, script=script)
    assert code == -signal.SIGKILL, output
    assert "going on in epoch" in finish(killed, *flags, script=script)
    assert trained(fold(killed)) == trained(fold(left))


@pytest.mark.torture
def test_a_run_that_is_killed_in_each_of_its_stages_ends_with_the_same_bytes(work, undisturbed):
    require_same_after_kills(work, list(MOMENTS.values()), undisturbed)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.torture, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM")],
)
def test_a_signal_saves_and_names_the_command_that_goes_on(work, undisturbed, number):
    """With loaders, all of them signalled, as a terminal and Slurm do it."""
    flags = ("--workers", 1, "--checkpoint-steps", 1000)
    process = start(work, *flags)
    until(lambda: loaders_of(process), process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 128 + number, output
    assert re.search(r"stopped by SIG\w+, all steps are saved; go on with: python.*train_small.py --work", output)
    assert "Traceback" not in output
    assert (0, 0) < last_place(fold(work)) < (1, 0)
    assert "going on in epoch" in finish(work, *flags)
    assert trained(fold(work)) == undisturbed


def loaders_of(process: Forked) -> list[psutil.Process]:
    """The loader processes of a run, which have a name of torch's; once there is one, the run saves before it ends."""
    found = psutil.process_iter(["ppid", "name"])
    return [one for one in found if (one.info["ppid"], one.info["name"]) == (process.pid, "pt_data_worker")]


def until(condition: Callable[[], bool], process: Forked) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.torture
def test_twenty_kills_at_random_moments_change_no_byte(cache, undisturbed, tmp_path):
    kills, number = 0, 0
    while kills < 20:
        number += 1
        rng = random.Random(number)
        work, workers = tmp_path / str(number), rng.choice([0, 1, 2])
        work.mkdir()
        working_folder(work, cache)
        for _ in range(4):
            moment = waited(after(rng.randrange(3), rng.randrange(12)), rng.uniform(0, 0.2))
            code, output = kill_when(work, moment, "--workers", workers)
            if code == 0:
                break
            assert code == -signal.SIGKILL, output
            kills += 1
            print(f"killed at {last_place(fold(work))} with {workers} loaders")
        finish(work, "--workers", workers)
        assert trained(fold(work)) == undisturbed


def waited(moment: Moment, seconds: float) -> Moment:
    return lambda folder: moment(folder) and not time.sleep(seconds)


@pytest.mark.torture
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_loaders_changes_no_byte_of_a_run(work, undisturbed, workers):
    finish(work, "--workers", workers)
    assert trained(fold(work)) == undisturbed


# ---- damage ----


@pytest.fixture
def two_checkpoints(tmp_path) -> Path:
    for value in range(3):
        write_checkpoint(tmp_path, CONFIG, Checkpoint({"weights": torch.full((500,), float(value))}, {"step": value}))
    return tmp_path


def value_of(folder: Path) -> float | None:
    found = read_checkpoint(folder, CONFIG)
    return None if found is None else float(found.tensors["weights"][0])


def test_the_last_two_checkpoints_are_kept_and_the_last_one_is_read(two_checkpoints):
    assert {path.stem for path in two_checkpoints.iterdir()} == {"checkpoint_000002", "checkpoint_000003"}
    assert value_of(two_checkpoints) == 2


def damage(data: bytes, rng: random.Random) -> bytes:
    kind, place = rng.randrange(3), rng.randrange(len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return bytes(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def require_fallback(folder: Path, count: int, capsys) -> None:
    rng = random.Random(0)
    whole = contents(folder)
    for number in range(count):
        name = f"checkpoint_000003.{rng.choice(['json', 'safetensors'])}"
        (folder / name).write_bytes(damage(whole[name], rng))
        value = value_of(folder)
        if value == 2:  # white space between the words of the JSON is no content
            assert json.loads((folder / name).read_text()) == json.loads(whole[name])
        else:
            assert value == 1, f"{number}: {name}"
            assert "is damaged; going on from the checkpoint before" in capsys.readouterr().out
        for name, data in whole.items():
            (folder / name).write_bytes(data)


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(two_checkpoints, capsys):
    require_fallback(two_checkpoints, 20, capsys)


@pytest.mark.torture
def test_two_hundred_damaged_checkpoints_all_fall_back(two_checkpoints, capsys):
    require_fallback(two_checkpoints, 200, capsys)


def test_another_configuration_is_refused_by_the_name_of_the_field(two_checkpoints):
    with pytest.raises(InputError, match=r"was begun with max_lr 0.003 \(now 0.1\); delete it, or write this run else"):
        read_checkpoint(two_checkpoints, replace(CONFIG, max_lr=0.1))


# ---- one process a fold ----


def require_one_trains(work: Path, count: int) -> None:
    processes = [start(work, "--epochs", 1) for _ in range(count)]
    outputs = [process.communicate(timeout=HANG)[0] for process in processes]
    codes = [process.returncode for process in processes]
    trained = [process.pid for process, text in zip(processes, outputs, strict=True) if "slices to train on" in text]
    assert len(trained) == 1, outputs
    for code, text in zip(codes, outputs, strict=True):
        refused = f"another training (process {trained[0]} on " in text and code == 1
        assert refused or "is finished" in text or "weighted log loss" in text, text
    assert set(contents(fold(work))) == FOLD_FILES


@pytest.mark.torture
def test_of_twenty_processes_on_a_fold_one_trains_and_the_others_leave(work):
    require_one_trains(work, 20)


def test_a_second_process_is_refused_without_waiting_and_is_let_in_after_a_kill(work):
    """Even while the loaders of the one that was killed still live."""
    process = start(work, "--workers", 2, "--epochs", 50)
    options = TrainOptions(replace(CONFIG, epochs=50), machine=Machine(work=work, device="cpu"))
    try:
        until(lambda: last_place(fold(work)) > (-1, 0), process)
        before = time.process_time()
        with pytest.raises(InputError, match=rf"another training \(process {process.pid} on .*\) works in .*fold0"):
            train(options)
        assert process.poll() is None
        assert time.process_time() - before < 2  # of CPU time: another's load does not count
    finally:
        process.kill()
    process.communicate(timeout=HANG)
    with pytest.raises(InputError, match="was begun with epochs 50"):
        train(replace(options, config=replace(options.config, epochs=1)))
