"""Laws of several processes with batch norm: they are one, make as many passes as each other, and end together."""

import json
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import Forked, parent
from once import HANG
from ranks import OF_SLICES, SLICES, Training, train

from models.training.batches import ShuffledBatches
from models.training.weights import read_weights


def row_read(rank: int, step: int) -> int:
    """A row that one of two processes reads in the second epoch."""
    batches = ShuffledBatches(SLICES, Training.batch_size, OF_SLICES.seed, rank, count=2)
    batches.epoch = 1
    return list(batches)[step][0][1]


ROW = row_read(rank=1, step=1)


def start(training: Training, count: int) -> list[Forked]:
    """So many processes that are told what torchrun tells its own."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    told |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    words = training.words()
    return [parent().start(words, {**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]


def ended(training: Training, count: int) -> tuple[list[int | None], str]:
    """The codes with which processes have ended, and what they have said."""
    processes = start(training, count)
    output = "".join(process.communicate(timeout=HANG)[0] for process in processes)
    return [process.returncode for process in processes], output


def trained(training: Training, count: int) -> list[dict[str, torch.Tensor]]:
    """The weights of each process."""
    codes, output = ended(training, count)
    assert codes == [0] * count, output
    return [read_weights(Path(training.folder, f"{rank}.safetensors")) for rank in range(count)]


def place_in(folder: Path) -> tuple[int, int]:
    """Epoch and step, from 0, with which the only checkpoint in a folder goes on."""
    (path,) = folder.rglob("checkpoint_*.json")
    state = json.loads(path.read_text())["state"]
    return state["epoch"], state["step"]


def require_close(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    for name, value in some.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: name + text)


def require_same(weights: list[dict[str, torch.Tensor]]) -> None:
    first, *others = weights
    for other in others:
        assert [name for name, value in first.items() if not torch.equal(other[name], value)] == []


def test_processes_whose_batch_norms_are_their_own_end_with_the_statistics_of_the_main_one(tmp_path):
    training = Training(str(tmp_path), own_norms=True)
    require_same(trained(training, 2))


@pytest.mark.parametrize("studies", [False, True], ids=["slices", "studies"])
def test_two_three_and_five_processes_with_batch_norm_are_one(tmp_path, studies):
    training = Training("", studies=studies, batch_size=5 if studies else 15, batchnorm_batches=2)
    one = train(replace(training, folder=str(tmp_path / "one")))
    for count in (2, 3, 5):
        folder = tmp_path / str(count)
        folder.mkdir()
        several = trained(replace(training, folder=str(folder)), count)
        require_same(several)
        require_close(one, several[0])


def test_processes_that_learn_of_slices_and_studies_at_once_are_one(tmp_path):
    training = Training("", studies=True, joint=True, batch_size=5, slices_at_once=100)
    one = train(replace(training, folder=str(tmp_path / "one")))
    several = trained(replace(training, folder=str(tmp_path)), 2)
    require_same(several)
    require_close(one, several[0])


UNEVEN = {
    "shares of two and of three slices, in up to ten parts": (Training("", batch_size=12, accumulate=10), 5),
    "studies of one slice to nine": (
        Training("", studies=True, batch_size=5, slices_at_once=3, batchnorm_batches=2),
        3,
    ),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_processes_make_as_many_passes_as_each_other_however_uneven_their_shares(tmp_path, name):
    """Those of one that made more would wait for the batch statistics of the others for ever."""
    training, count = UNEVEN[name]
    require_same(trained(replace(training, folder=str(tmp_path)), count))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Training:
    """A training of two processes, each with a dropout of its own, that has ended."""
    training = Training(str(tmp_path_factory.mktemp("undisturbed")), dropout=0.5, batchnorm_batches=2)
    require_same(trained(training, 2))
    return training


@pytest.mark.parametrize("step", [1, 2], ids=["in the middle of an epoch", "in its validation"])
def test_two_processes_that_are_stopped_go_on_to_the_same_bits(undisturbed, tmp_path, step):
    """Though only one of them is told, in the second epoch."""
    training = replace(undisturbed, folder=str(tmp_path), told=row_read(1, step))
    codes, output = ended(training, 2)
    assert codes == [128 + signal.SIGTERM] * 2, output
    assert place_in(tmp_path) == (1, step + 1)
    weights = trained(replace(training, told=None), 2)
    require_same([*weights, read_weights(Path(undisturbed.folder, "0.safetensors"))])


def test_a_run_goes_on_with_another_number_of_processes_and_says_so(undisturbed, tmp_path):
    training = replace(undisturbed, folder=str(tmp_path), told=ROW)
    ended(training, 2)
    codes, output = ended(replace(training, told=None), 3)
    assert codes == [0] * 3, output
    assert output.count("processes: 2 until now, 3 from here on, so other bits follow") == 1
    require_same([read_weights(tmp_path / f"{rank}.safetensors") for rank in range(3)])


def test_what_one_process_cannot_read_ends_all_and_is_said_once_and_no_step_is_lost(undisturbed, tmp_path):
    training = replace(undisturbed, folder=str(tmp_path), damaged=ROW)
    codes, output = ended(training, 2)
    assert codes == [1, 1], output
    assert output.count(f"error: slice {ROW} is damaged; mend it") == output.count("error") == 1, output
    assert place_in(tmp_path) == (1, 1)
    weights = trained(replace(training, damaged=None), 2)
    require_same([*weights, read_weights(Path(undisturbed.folder, "0.safetensors"))])


def test_a_process_that_dies_ends_the_others_in_one_line(undisturbed, tmp_path):
    codes, output = ended(replace(undisturbed, folder=str(tmp_path), deadly=ROW), 2)
    assert sorted(codes) == [-signal.SIGKILL, 1], output
    assert "Traceback" not in output


def test_processes_that_do_not_share_a_folder_are_refused(undisturbed, tmp_path):
    """On several machines the working folder must be on a disk of all: one would begin anew while the other goes on."""
    training = replace(undisturbed, folder=str(tmp_path), own_folders=True)
    ended(replace(training, told=ROW), 2)
    codes, output = ended(training, 2)
    assert codes == [1, 1], output
    assert output.count("not all processes see the checkpoints in ") == output.count("error") == 1
