"""What is promised of training is held by tests: each promise is broken here, and a test turns red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


class Mutant(NamedTuple):
    """A line of the project, what it is turned into, and the tests that must see it."""

    file: str
    line: str
    broken: str
    tests: str


MUTANTS = {
    "no mixed precision": Mutant(
        "models/training/precision.py",
        "return torch.autocast(device.type, _TYPES[usable]) if usable in _TYPES else nullcontext()",
        "return nullcontext()",
        "test_precision.py",
    ),
    "clipped before it is unscaled": Mutant(
        "models/training/steps.py", "self.scaler.unscale_(self.opt.opt)", "pass", "test_precision.py"
    ),
    "overflow is stepped through": Mutant("radam.py", "if overflow.item():", "if False:", "test_precision.py"),
    "parts are not scaled": Mutant(
        "models/training/steps.py",
        "self.scaler.scale(loss * self.processes.count).backward()",
        "(loss * self.processes.count).backward()",
        "test_precision.py",
    ),
    "processes keep batch statistics of their own": Mutant(
        "models/training/callbacks.py", "self.processes.share_statistics(self.model)", "pass", "test_ranks.py"
    ),
    "the last epoch is kept": Mutant(
        "models/training/learner.py", "network.load_state_dict(history.best_weights)", "pass", "test_trying.py"
    ),
    "a loss is read each step": Mutant("models/training/steps.py", "LOOK = 20", "LOOK = 1", "test_waiting.py"),
    "fastai chooses the device": Mutant(
        "models/training/loading.py",
        "def to(self, device: torch.device) -> None:",
        "def brought_to(self, device: torch.device) -> None:",
        "test_device.py",
    ),
}


@pytest.mark.torture
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_broken_promise_turns_a_test_red(tmp_path, mutant):
    for name in ("models", "tests"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("radam.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    run_tests(tmp_path, mutant.tests, expected=0)
    file = tmp_path / mutant.file
    text = file.read_text()
    assert text.count(mutant.line) == 1
    file.write_text(text.replace(mutant.line, mutant.broken))
    run_tests(tmp_path, mutant.tests, expected=1)


def run_tests(folder: Path, tests: str, expected: int) -> None:
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", f"tests/training/{tests}"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout[-3000:]
