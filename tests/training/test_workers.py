"""Laws of how many loader processes there are: as many as there are cores for them, of which others have theirs."""

import os
import subprocess
import sys

import joblib
import pytest
import torch

from models.training import device
from models.training.device import count_workers

CUDA = torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """What makes a machine of so many cores and GPUs, of which this process may use some."""

    def make(cores: int, gpus: int, usable: int | None = None, visible: int | None = None, started: int = 1) -> None:
        for number in range(gpus):
            (tmp_path / f"0000:{number:02}:00.0").mkdir()
        monkeypatch.setattr(device, "_GPUS", tmp_path)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(joblib, "cpu_count", lambda: usable or cores)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus if visible is None else visible)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(started))

    return make


@pytest.mark.parametrize(
    ("of", "workers"),
    [
        ({"cores": 16, "gpus": 1}, 8),
        ({"cores": 6, "gpus": 1}, 6),
        ({"cores": 1, "gpus": 1}, 1),
        ({"cores": 16, "gpus": 5}, 3),  # folds side by side
        ({"cores": 16, "gpus": 5, "visible": 1}, 3),  # with CUDA_VISIBLE_DEVICES
        ({"cores": 16, "gpus": 4, "started": 4}, 4),  # torchrun
        ({"cores": 16, "gpus": 1, "started": 4}, 4),
        ({"cores": 64, "gpus": 8, "usable": 6}, 6),  # Slurm, with a GPU and six cores
        ({"cores": 2, "gpus": 8}, 1),
    ],
    ids=str,
)
def test_each_process_has_its_share_of_the_cores(machine, of, workers):
    machine(**of)
    assert count_workers(-1, CUDA) == workers


def test_what_is_asked_for_is_had_and_a_network_on_the_cpu_keeps_the_cores(machine):
    machine(cores=2, gpus=8)
    assert [count_workers(number, CUDA) for number in (0, 5, 20)] == [0, 5, 20]
    assert [count_workers(number, torch.device("cpu")) for number in (-1, 3)] == [0, 3]


def test_cores_that_this_process_may_not_use_are_not_counted():
    lines = "import torch; from models.training.device import count_workers as count"
    lines += "; print(count(-1, torch.device('cuda')))"
    one = min(os.sched_getaffinity(0))
    pinned = f"import os; os.sched_setaffinity(0, [{one}]); {lines}"
    done = subprocess.run([sys.executable, "-c", pinned], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
