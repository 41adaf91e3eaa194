"""What is promised of training is held by tests: each promise is broken here, and a test turns red."""

from typing import NamedTuple

import pytest
from mutants import break_promise, copy_project, run_tests


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
    copy_project(tmp_path)
    tests = f"tests/training/{mutant.tests}"
    sound = run_tests(tmp_path, tests)
    assert sound.returncode == 0, sound.stdout[-3000:]
    break_promise(tmp_path / mutant.file, mutant.line, mutant.broken)
    broken = run_tests(tmp_path, tests)
    assert broken.returncode == 1, broken.stdout[-3000:]
