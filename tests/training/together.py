"""What test_processes.py gives to torchrun: the training script of a network without batch norm and dropout.

Batch norm sees a process's share of a batch, and each process draws a dropout of its own: only without them is one
process equal to two. Each process notes the samples that it trains on in samples_<rank>.csv of the working folder.
It fails if threads that connect it with others are still there when it is done: they may abort the end of Python.
Where CUT_AFTER is set, the budget of the second process is over after so many steps; the main one, which alone saves,
takes its time for it.
"""

import itertools
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import nn

import models.training.checkpoint_callback
import models.training.kinds
import models.training.run
from models.common.options import InferOptions, Machine
from models.inference.predict import infer
from models.train_small import CONFIG
from models.training.dataset import SliceDataset
from models.training.networks import ARCHITECTURES, Architecture
from models.training.stopping import Stop, same_command


def plain(_: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 6)
    )


class NotedDataset(SliceDataset):
    def draw(self, key, grey):
        with Path(os.environ["RSNA_WORK"], f"samples_{os.environ.get('RANK', '0')}.csv").open("a") as file:
            print(*key, self.series_ids[key[1]], self.chunks[key[1]], sep=",", file=file)
        super().draw(key, grey)


TOGETHER = replace(CONFIG, name="together", network="plain", epochs=2, batch_size=15, accumulate=2)


def cut_short(steps: int) -> None:
    """Let the budget of the second process be over after so many steps, and a checkpoint of the first take a second."""
    count, measured, write = itertools.count(1), Stop.measured, models.training.checkpoint_callback.write_checkpoint

    def ends(stop: Stop, what: str, seconds: float) -> None:
        measured(stop, what, seconds)
        if what == "step" and next(count) == steps:
            stop.end = time.monotonic()
            stop.set_alarm()

    def slow(*words: object) -> None:
        time.sleep(1)
        write(*words)

    if os.environ["RANK"] == "1":
        Stop.measured = ends
    models.training.checkpoint_callback.write_checkpoint = slow


def connected() -> bool:
    """Whether this process has threads that connect it with others."""
    threads = []
    for file in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            threads.append(file.read_text())
    return any("gloo" in name for name in threads)


def main() -> None:
    """Train or infer, by the words of the command line, in the working folder of the environment."""
    ARCHITECTURES["plain"] = Architecture(plain, None)
    if sys.argv[1] == "infer":
        infer(InferOptions("together", machine=Machine(device="cpu")))
    else:
        models.training.kinds.SliceDataset = NotedDataset
        if "CUT_AFTER" in os.environ:
            cut_short(int(os.environ["CUT_AFTER"]))
        models.training.run.main(TOGETHER)
        Path(os.environ["RSNA_WORK"], f"command_{os.environ.get('RANK', '0')}.txt").write_text(same_command())


if __name__ == "__main__":
    main()
    end = time.monotonic() + 60
    while connected() and time.monotonic() < end:  # a thread that has ended may still be listed
        time.sleep(0.1)
    assert not connected()
