"""Laws of the loader's processes: a signal to the whole group, whenever it comes, is the main process's to obey."""

import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from models.training import loading
from models.training.loading import make_loader
from models.training.stopping import SIGNALS, stop_signals

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class HeldSignals(Dataset):
    """How many signals wait in the process that reads."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, _: tuple[int, int]) -> int:
        return len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_before_a_loader_is_ready_does_not_end_it(monkeypatch, number):
    """A terminal and Slurm signal the whole group, and a loader gets it as soon as it can."""
    start_worker = loading._start_worker

    def signalled(worker: int) -> None:
        os.kill(os.getpid(), number)
        start_worker(worker)

    monkeypatch.setattr(loading, "_start_worker", signalled)
    with stop_signals() as stop:
        assert torch.cat(list(make_loader(HeldSignals(), batch_size=4, workers=1))).tolist() == [0] * 12
    assert stop.number is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_while_loaders_start_reaches_the_main_process_afterwards(monkeypatch, number):
    start_worker, main = loading._start_worker, os.getpid()
    monkeypatch.setattr(loading, "_start_worker", lambda worker: (os.kill(main, number), start_worker(worker)))
    with stop_signals() as stop, stop.after_saving():
        assert len(list(make_loader(HeldSignals(), batch_size=4, workers=1))) == 3
    assert stop.number == number


@pytest.mark.parametrize("workers", [0, 1])
def test_the_start_of_loaders_leaves_the_signals_of_the_main_process_as_they_were(workers):
    list(make_loader(HeldSignals(), batch_size=4, workers=workers))
    assert HeldSignals()[0, 0] == 0
