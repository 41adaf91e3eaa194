"""One training step: a batch in parts, mixed precision, clipping, and what is done when a step fails."""

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from fastai.learner import Learner
from torch import nn

from models.common.config import RunConfig
from models.common.errors import InputError
from models.training.evaluation import autocast
from models.training.processes import Processes
from models.training.studies import split_studies


class StepLearner(Learner):
    """fastai's Learner, with a training step that takes its batch in parts and starts anywhere in an epoch.

    The gradients of the parts, and of the shares of several processes, add up to that of the mean loss over the whole
    batch, so schedule, history and checkpoints count the same steps however it is divided. Batch norm sees a part at a
    time. A batch that is too large for the memory is divided further. Raises InputError where it cannot be, and for a
    loss that is not finite.
    """

    def __init__(self, *arguments, config: RunConfig, processes: Processes, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self.config, self.processes, self.device = config, processes, processes.device
        self.parallel = processes.together(self.model)
        self.parts = config.accumulate
        self.whole = True  # between two steps: what a checkpoint would hold is consistent
        fp16 = self.device.type == "cuda" and config.precision == "fp16"  # bf16 has the range of fp32
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)

    def gather_args(self) -> dict:
        """What fastai's callback sends to Weights & Biases beside the configuration: nothing."""
        return {}

    def all_batches(self) -> None:
        self.n_iter = len(self.dl)
        start = self.dl.batch_sampler.start
        if self.training:
            for number, batch in enumerate(self.processes.in_step(self.dl), start):
                self.one_batch(number, batch)
            return
        with self.processes.as_one():  # in a validation, each has a number of batches of its own
            for number, batch in enumerate(self.dl, start):
                self.one_batch(number, batch)

    def one_batch(self, i: int, b: tuple) -> None:
        self.whole = not self.training
        super().one_batch(i, b)
        self.whole = True

    def _do_one_batch(self) -> None:
        if not self.training:
            with autocast(self.device, self.config.precision):
                return super()._do_one_batch()
        while not self._add_gradients():
            self._halve()
        self._update()

    def _add_gradients(self) -> bool:
        """The forward and backward pass of the batch; False if it was too large for the memory."""
        units, slices = indivisible(*self.xb), self.dl.batch_sampler.size(self.iter)
        # As many passes in each process, whatever its share: in each they wait for each other.
        sizes = [sum(part) for part in np.array_split(units, min(self.parts, self.dl.batch_sampler.smallest))]
        parts = list(zip(*(tensor.split(sizes) for tensor in (*self.xb, *self.yb)), strict=True))
        losses = []
        try:
            for number, (*inputs, target) in enumerate(parts, start=1):
                with self._without_averaging(unless=number == len(parts)):
                    with autocast(self.device, self.config.precision):
                        self.pred = self.parallel(*inputs)
                        loss = self.loss_func(self.pred, target) * (len(target) / slices)
                    # Processes take the mean of their gradients, but it is the sum that is wanted.
                    self.scaler.scale(loss * self.processes.count).backward()
                losses.append(loss.detach())
        except torch.OutOfMemoryError:
            return False
        self.loss = self.processes.sum(torch.stack(losses).sum())
        return True

    def _without_averaging(self, unless: bool) -> AbstractContextManager:
        """Processes exchange their gradients once a batch, with those of its last part."""
        if unless or not isinstance(self.parallel, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _halve(self) -> None:
        batch = self.dl.batch_sampler.smallest
        if self.parts >= batch:
            raise InputError("out of memory with one slice or study at a time; take a smaller network or fewer pixels")
        if self.processes.count > 1:  # they are not in step any more
            raise InputError(f"out of memory; start it anew with --accumulate {2 * self.parts}")
        self.parts = min(2 * self.parts, batch)
        self.pred = None
        self.opt.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = math.ceil(batch / self.parts)
        print(f"out of memory: from here on a batch of {batch} goes through the network {size} at a time")

    def _update(self) -> None:
        if not torch.isfinite(self.loss):  # in all processes: it is the sum of theirs
            with self.processes.as_one():
                raise InputError(self._explain_loss())
        if self.config.clip_gradient is not None:
            self.scaler.unscale_(self.opt.opt)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_gradient)
        self.scaler.step(self.opt.opt)  # leaves the step out where half precision has overflowed
        self.scaler.update()
        self.opt.zero_grad()

    def _explain_loss(self) -> str:
        rows = self.dl.batch_sampler.rows()[self.iter]
        return (
            f"the loss is not finite in epoch {self.epoch + 1}, step {self.iter + 1}, the batch of slices "
            f"{', '.join(str(self.dl.dataset.image_ids[row]) for row in rows)}; lower --max-lr {self.config.max_lr:g}"
        )


def indivisible(images: torch.Tensor, place: torch.Tensor | None = None) -> list[int]:
    """How many slices of a batch must stay together: one, or those of a study where places (slices, 3) are told."""
    return [1] * len(images) if place is None else split_studies(place)
