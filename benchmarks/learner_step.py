"""CPU milliseconds that a training step of an empty network takes, in this project's learner and in fastai's.

    python benchmarks/learner_step.py

What is left is what Python does around a step: on a GPU it must be done before the step before has ended. Both have the
one-cycle schedule, the recorder and a bar; a network of one number and a batch of two pixels, on one thread. The two
take turns. Needs no data.
"""

import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import torch
from comparison import Row, row, take_turns
from fastai.callback.progress import ProgressCallback  # noqa: F401 (fastai's learner has it)
from fastai.callback.schedule import ParamScheduler, fit_one_cycle  # noqa: F401 (it adds a method to Learner)
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from torch import nn

from models.common.labels import LABELS
from models.train_small import CONFIG
from models.training.learner import make_learner, one_cycle
from models.training.loading import make_loader
from models.training.loss import WeightedLogLoss
from models.training.networks import HemorrhageNetwork
from models.training.processes import Processes
from models.training.timing import OneBatch
from radam import RAdam

CPU = torch.device("cpu")
STEPS, ROUNDS = 500, 7


def main() -> None:
    """Print the milliseconds of a step in both learners."""
    for name, milliseconds in measure().items():
        print(f"{name:10}{milliseconds:8.3f} ms of CPU time a step")


def rows(_: Path | None = None) -> list[Row]:
    """The row of this benchmark."""
    milliseconds = measure()
    return [row("learner_step_vs_fastai", milliseconds["ours"], milliseconds["fastai"], "ms a step")]


def measure() -> dict[str, float]:
    """CPU milliseconds a step in each learner."""
    torch.set_num_threads(1)
    ways = {"ours": partial(seconds, our_learner), "fastai": partial(seconds, fastais_learner)}
    return {name: 1000 * median for name, median in take_turns(ways, ROUNDS, warm_up=1).items()}


def seconds(fit: Callable[[], None]) -> float:
    """CPU seconds a step of an epoch."""
    began = time.process_time()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        fit()
    return (time.process_time() - began) / STEPS


def our_learner() -> None:
    """An epoch in the learner that trains this project's runs."""
    config = replace(CONFIG, epochs=1, batch_size=2)
    learner = make_learner(network(), batches(STEPS), batches(1), config, Processes(CPU), [])
    learner.fit(1, cbs=[ParamScheduler(one_cycle(learner))])


def fastais_learner() -> None:
    """An epoch in fastai's learner with its defaults."""
    learner = Learner(
        DataLoaders(batches(STEPS), batches(1), device=CPU),
        network(),
        loss_func=WeightedLogLoss(),
        opt_func=partial(OptimWrapper, opt=RAdam),
    )
    learner.fit_one_cycle(1, CONFIG.max_lr)


def network() -> HemorrhageNetwork:
    """One that looks at a pixel."""
    return HemorrhageNetwork(FirstPixel(), 1)


class FirstPixel(nn.Module):
    """Images (slices, 1, height, width) -> their first pixel, (slices, 1)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :1]


class Pixels:
    """A sample, again and again: an image (1, 2, 2) and labels (6,)."""

    def __len__(self) -> int:
        return 2 * STEPS

    def __getitem__(self, index: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros((1, 2, 2), dtype=torch.uint8), torch.zeros(len(LABELS))


def batches(steps: int) -> OneBatch:
    """The same batch of two so many times."""
    return OneBatch(make_loader(Pixels(), 2, workers=0, shuffle_seed=0), CPU, steps)


if __name__ == "__main__":
    main()
