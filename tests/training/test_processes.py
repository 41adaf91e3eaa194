"""Laws of several processes: they do what one does, each its share, and one of them writes."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import together
import torch
from forked import Forked, parent
from once import HANG
from written import contents, trained

from models.common.errors import InputError
from models.common.folders import Work
from models.common.prediction_files import read_predictions
from models.common.session import UNFINISHED
from models.training import kinds
from models.training.batches import OrderedBatches, ShuffledBatches
from models.training.callbacks import MEASURED
from models.training.networks import ARCHITECTURES
from models.training.processes import EndedElsewhere, started_processes
from models.training.stopping import same_command
from models.training.weights import read_weights

SCRIPT = Path(__file__).with_name("together.py")
REPOSITORY = SCRIPT.parent.parent.parent
TORCHRUN = ("-m", "torch.distributed.run")
STANDALONE = ("--standalone", "--nproc-per-node", "2")
TRAIN = ("--device", "cpu")


@pytest.mark.parametrize(("batch_size", "count"), [(12, 2), (15, 2), (7, 3), (8, 8)])
def test_processes_divide_every_shuffled_batch(batch_size, count):
    whole = ShuffledBatches(100, batch_size, seed=1)
    shares = [ShuffledBatches(100, batch_size, 1, rank, count) for rank in range(count)]
    whole.epoch = 3
    for share in shares:
        share.epoch = 3
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch) == sorted(key for part in parts for key in part)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert {share.smallest for share in shares} == {min(map(len, parts))}


@pytest.mark.parametrize(("length", "count"), [(100, 2), (101, 3), (3, 8)])
def test_processes_divide_what_is_in_order_into_stretches(length, count):
    rows = [row for rank in range(count) for batch in OrderedBatches(length, 16, rank, count) for _, row in batch]
    assert rows == list(range(length))


def test_an_epoch_that_starts_in_its_middle_goes_on_with_the_same_batches():
    batches = ShuffledBatches(100, 12, seed=0)
    whole = list(batches)
    batches.start = 5
    assert list(batches) == whole[5:]
    assert len(batches) == len(whole) == 8


def working_folder(folder: Path, cache: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cache").symlink_to(cache)
    return folder


def start(work: Path, launcher: tuple[str, ...], *words: str) -> subprocess.Popen:
    """The processes of one torchrun, whose words stand in `launcher`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "RSNA_WORK": str(work)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *TORCHRUN, *launcher, str(SCRIPT), *words], env=environment, **pipes)


def on_two_machines() -> tuple[str, ...]:
    """The words for torchrun on each of two machines, one process on each; both machines are this one."""
    return (
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "together"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"),
    )


def free_port() -> str:
    with socket.create_server(("localhost", 0)) as free:
        return str(free.getsockname()[1])


def start_two(work: Path, *words: str, script: Path = SCRIPT, **more: str) -> list[Forked]:
    """Two processes that are told what torchrun tells its own, and more."""
    told = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        parent().start(
            [str(script), *words], {**told, **more, "RANK": rank, "LOCAL_RANK": rank, "RSNA_WORK": str(work)}
        )
        for rank in ("0", "1")
    ]


def finish(process: subprocess.Popen | Forked) -> str:
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def both(few, tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """The folder of a run of one process and of one of two, with what the two have said."""
    one, two = (working_folder(tmp_path_factory.mktemp(name), few.cache) for name in ("one", "two"))
    for words in (TRAIN, ("infer",)):
        run_here(one, *words)
    launcher = on_two_machines()
    output = "".join(map(finish, [start(two, launcher, *TRAIN) for _ in range(2)]))
    for process in start_two(two, "infer"):
        finish(process)
    return {"one": (one, ""), "two": (two, output)}


def run_here(work: Path, *words: str) -> None:
    """One process, which is this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSNA_WORK", str(work))
        patch.setattr(sys, "argv", [str(SCRIPT), *words])
        patch.setattr(kinds, "SliceDataset", kinds.SliceDataset)  # to be put back, as what follows
        patch.setitem(ARCHITECTURES, "plain", None)
        together.main()


def folder(work: Path) -> Path:
    return Work(work).run("together", 0)


def test_two_processes_see_the_samples_of_one(both):
    def samples(work):
        return [pd.read_csv(path, header=None) for path in sorted(work.glob("samples_*.csv"))]

    (one,), two = samples(both["one"][0]), samples(both["two"][0])
    assert len(two) == 2
    # The first of them alone looks at the validation once more, for the fingerprint.
    assert abs(len(two[0]) - len(two[1])) <= len(one) / 4
    columns = list(one.columns)
    pd.testing.assert_frame_equal(
        pd.concat(two).sort_values(columns, ignore_index=True), one.sort_values(columns, ignore_index=True)
    )


def test_two_processes_end_with_the_weights_history_and_predictions_of_one(both):
    one, two = (folder(work) for work, _ in both.values())
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    weights = [read_weights(run / "model.safetensors") for run in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)
    histories = [pd.read_csv(run / "history.csv").drop(columns=list(MEASURED)) for run in (one, two)]
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)
    for file in ("valid.parquet", "test.parquet"):
        tables = [read_predictions(run / file, "") for run in (one, two)]
        assert list(tables[0].index) == list(tables[1].index)
        np.testing.assert_allclose(tables[1], tables[0], atol=1e-5)


def test_only_the_main_process_speaks(both):
    lines = [line for line in both["two"][1].splitlines() if "slices to train on" in line]
    assert len(lines) == 1
    assert "on 2 x cpu" in lines[0]


def test_the_command_that_goes_on_is_the_one_that_has_started_it(both):
    """On two machines each has its own, with all that torchrun was told."""
    commands = [path.read_text() for path in sorted(both["two"][0].glob("command_*.txt"))]
    assert len(commands) == 2
    assert commands[0] == commands[1]
    command, others = commands[0].split("  # ")
    python, *words = shlex.split(command)
    assert python == Path(sys.executable).name
    assert [*words[:2], *words[-3:]] == [*TORCHRUN, str(SCRIPT), *TRAIN]
    assert words[2:6] == ["--nnodes", "2", "--nproc-per-node", "1"]
    assert others == "and on the other machine, as before"


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        (
            "/env/bin/python /env/bin/torchrun --nproc-per-node gpu models/a.py --fold 1",
            "torchrun --nproc-per-node gpu ",
        ),
        (
            "/env/bin/python /env/bin/accelerate launch --multi_gpu models/a.py --fold 1",
            "accelerate launch --multi_gpu ",
        ),
        ("slurmstepd: [1.0]", "torchrun --nproc-per-node 4 "),
    ],
)
def test_the_command_of_any_launcher_is_named_and_torchruns_where_there_is_none(monkeypatch, launcher, command):
    process = SimpleNamespace(cmdline=launcher.split)
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(parent=lambda: process))
    monkeypatch.setattr(sys, "argv", ["models/a.py", "--fold", "1"])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert same_command() == f"{command}models/a.py --fold 1"


@pytest.mark.parametrize("rank", [0, 1])
def test_more_processes_than_gpus_are_refused_once(monkeypatch, rank):
    for name, value in {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8", "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    expected = (
        pytest.raises(EndedElsewhere) if rank else pytest.raises(InputError, match="torchrun with --nproc-per-node 2")
    )
    with expected, started_processes("cuda"):
        pass


WAITS = """
import time
from datetime import timedelta
from torch.distributed import distributed_c10d
from models.training.processes import started_processes
distributed_c10d.default_pg_timeout = timedelta(seconds=2)  # half an hour
with started_processes("cpu") as processes, processes.as_one():
    time.sleep(4 * processes.rank)
"""


def test_a_process_that_is_done_waits_for_the_others_as_long_as_they_need(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    for process in start_two(tmp_path, script=script):
        finish(process)


def test_an_error_before_the_training_is_said_once(few, tmp_path):
    processes = start_two(working_folder(tmp_path / "work", few.cache), *TRAIN, "--fold", "9")
    output = "".join(process.communicate(timeout=HANG)[0] for process in processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert output.count("error: no fold 9: ") == 1, output


def test_a_budget_that_is_over_in_one_process_saves_for_all_and_another_session_goes_on_to_the_same_bytes(
    few, tmp_path
):
    whole, first = (working_folder(tmp_path / name, few.cache) for name in ("whole", "first"))
    second = tmp_path / "second"
    for process in start_two(whole, *TRAIN):
        finish(process)
    processes = start_two(first, *TRAIN, "--budget-hours", "1", CUT_AFTER="3")
    end = time.monotonic() + HANG
    while all(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(0.1)
    for process in processes:  # torchrun looks as often, and does so when one has ended with an error
        process.send_signal(signal.SIGTERM)
    output = "".join(process.communicate(timeout=HANG)[0] for process in processes)
    codes = {process.returncode for process in processes}
    assert UNFINISHED in codes <= {UNFINISHED, 128 + signal.SIGTERM, -signal.SIGTERM}, (
        output
    )  # the last: at its very end
    told = re.findall(r"stopped by (the end of --budget-hours|SIGTERM), all steps are saved; go on with: ", output)
    assert len(told) == 1, output
    assert len(list(folder(first).glob("checkpoint_*.json"))) == 1
    before = contents(first)
    output = "".join(finish(process) for process in start_two(second, *TRAIN, "--work-from", str(first)))
    assert len(re.findall(r"going on in epoch 1, after step [34]", output)) == 1, output
    assert contents(first) == before
    assert trained(folder(second)) == trained(folder(whole))


@pytest.mark.torture
def test_two_processes_that_are_stopped_go_on(few, tmp_path):
    """SIGTERM to the launcher, which passes it on: they stop after the same step and say how to go on."""
    words = (*TRAIN, "--epochs", "4", "--checkpoint-steps", "5")
    work = working_folder(tmp_path / "work", few.cache)
    process = start(work, STANDALONE, *words)
    end = time.monotonic() + HANG
    while not list(folder(work).glob("checkpoint_*.json")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode != 0
    (command,) = re.findall("all steps are saved; go on with: (.*)", output)
    assert shlex.split(command)[1:] == [*TORCHRUN, *STANDALONE, str(SCRIPT), *words]
    assert "going on in epoch" in finish(start(work, STANDALONE, *words))
