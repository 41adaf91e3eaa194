"""fastai's learner with a training step of its own, in which the CPU never waits for the device.

Of fastai: the Learner's loop over epochs and batches, its callbacks and their events, Recorder, schedule and finder.
Not its way of a batch to the device (a copy that blocks), of a loss to the CPU (each step), its bar (a text each step),
nor its search for callbacks (each event asks all of them).

What a step leaves on the device, its loss and where fp16 has overflowed, is read every LOOK steps.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, NamedTuple

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.torch_core import defaults
from torch import nn

from models.common.config import RunConfig
from models.common.errors import InputError
from models.training.dividing import TOO_LARGE, as_divided, in_parts
from models.training.memory import is_out_of_memory
from models.training.mixing import mixing
from models.training.precision import autocast, gradient_scaler, usable_precision
from models.training.processes import Processes
from models.training.transfer import on_device

LOOK = 20  # steps: rare enough to cost nothing, often enough for a bar


class StepLearner(Learner):
    """fastai's Learner, with a training step that takes its batch in parts and starts anywhere in an epoch.

    The gradients of the parts, and of the shares of several processes, add up to that of the mean loss over the whole
    batch, so schedule, history and checkpoints count the same steps however it is divided. Batch norm sees a part at a
    time. A batch that is too large for the memory is divided further. Raises InputError where it cannot be, and for a
    loss that is not finite, at the latest LOOK steps after it.
    """

    look_every: ClassVar[int] = LOOK

    def __init__(self, *arguments, config: RunConfig, processes: Processes, **keywords) -> None:
        self.listeners: dict[str, list[Callback]] = {}
        super().__init__(*arguments, default_cbs=False, **keywords)
        self.add_cbs([kind for kind in defaults.callbacks if kind is not ProgressCallback])
        self.recorder.smooth_loss = RunningLoss(beta=0.98)
        self.logger = lambda _: None  # the history tells of epochs
        self.config, self.processes, self.device = config, processes, processes.device
        self.network = self.model  # that is trained; what is validated may be its average
        self.mix = mixing(config)
        self.rates = [1.0]  # by which that of the schedule is multiplied, of each group of parameters
        self.parallel = processes.together(self.model)
        self.parts = config.accumulate
        self.valid_parts = 1  # of a batch of the validation, which takes less memory
        self.whole = True  # between two steps: what a checkpoint would hold is consistent
        self.precision = usable_precision(config.precision, self.device)
        self.scaler = gradient_scaler(self.device, self.precision)
        self.graphs = False  # whether it is compiled to CUDA graphs
        self.unread: list[Step] = []
        self.looked = False  # in this step: what has been read is of this step, too
        self.gradient_norm = float("nan")  # at the last look

    # ---- fastai's, without what each step would wait for ----

    def __call__(self, event_name: str) -> None:
        """Call the callbacks that listen to an event, in their order."""
        if event_name not in self.listeners:
            self.listeners[event_name] = list(self.ordered_cbs(event_name))
        for callback in self.listeners[event_name]:
            callback(event_name)

    def add_cb(self, cb: Callback) -> "StepLearner":
        """Add a callback."""
        self.listeners.clear()
        return super().add_cb(cb)

    def remove_cb(self, cb: Callback) -> "StepLearner":
        """Take a callback away."""
        self.listeners.clear()
        return super().remove_cb(cb)

    def all_batches(self) -> None:
        """Go through the batches of an epoch, from where it is to begin."""
        self.n_iter = len(self.dl)
        if self.training:
            batches = on_device(self.processes.in_step(self.dl), self.device)
            for number, batch in enumerate(batches, start=self.dl.batch_sampler.start):
                self.one_batch(number, batch)
            self.look()
            return
        with self.processes.as_one():  # in a validation, each has a number of batches of its own
            for number, batch in enumerate(on_device(self.dl, self.device)):
                self.one_batch(number, batch)

    def _set_device(self, b: tuple) -> tuple:
        return b  # it is there

    def one_batch(self, i: int, b: tuple) -> None:
        """Make a step, or validate a batch."""
        self.whole, self.looked = not self.training, False
        super().one_batch(i, b)
        self.whole = True

    def _do_one_batch(self) -> None:
        if not self.training:
            return self._validate()
        if self.mix is not None:
            self.xb, self.yb = ((part,) for part in self.mix(*self.xb, *self.yb))
        while (error := self._add_gradients()) is not None:
            self._halve(error)
        self._update()

    def _validate(self) -> None:
        with autocast(self.device, self.precision):
            self.pred, self.valid_parts = as_divided(self.model, self.xb, self.valid_parts)
            self("after_pred")
            self.loss_grad = self.loss_func(self.pred, *self.yb)
        self.loss = self.loss_grad.clone()
        self("after_loss")

    # ---- the step ----

    def _add_gradients(self) -> RuntimeError | None:
        """The forward and backward pass of the batch; what is raised if it was too large for the memory."""
        slices, losses = self.dl.batch_sampler.size(self.iter), []
        # As many passes in each process, whatever its share: in each they wait for each other.
        parts = in_parts(min(self.parts, self.dl.batch_sampler.smallest), self.xb, *self.yb)
        try:
            for number, (*inputs, target) in enumerate(parts, start=1):
                with self._without_averaging(unless=number == len(parts)):
                    with autocast(self.device, self.precision):
                        self.pred = self.parallel(*inputs)
                        loss = self.loss_func(self.pred, target) * (len(target) / slices)
                    # Processes take the mean of their gradients, but it is the sum that is wanted.
                    self.scaler.scale(loss * self.processes.count).backward()
                losses.append(loss.detach())
        except RuntimeError as error:
            if is_out_of_memory(error):
                return error.with_traceback(None)  # which holds the memory
            raise
        self.loss = torch.stack(losses).sum()
        return None

    def _without_averaging(self, unless: bool) -> AbstractContextManager:
        """Processes exchange their gradients once a batch, with those of its last part."""
        if unless or not isinstance(self.parallel, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _halve(self, error: RuntimeError) -> None:
        batch = self.dl.batch_sampler.smallest
        if self.parts >= batch:
            raise InputError(TOO_LARGE) from error
        if self.processes.count > 1 or self.graphs:  # they are not in step any more; graphs are of one part
            raise InputError(f"out of memory; start it anew with --accumulate {2 * self.parts}") from error
        self.parts = min(2 * self.parts, batch)
        self.pred = None
        self.opt.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = math.ceil(batch / self.parts)
        print(f"out of memory: from here on a batch of {batch} goes through the network {size} at a time")

    def _update(self) -> None:
        looks = self.iter == self.n_iter - 1 or (self.iter + 1) % self.look_every == 0
        norm = self._clip(measured=looks)
        self.scaler.step(self.opt.opt)  # leaves the step out where half precision has overflowed
        self.scaler.update()
        self.opt.zero_grad()
        self.unread.append(Step(self.iter, self.loss))
        if looks:
            self.look()
            self.gradient_norm = float(norm)

    def _clip(self, measured: bool) -> torch.Tensor | float:
        """Bound the norm of the gradient, as the configuration asks for; what it was, if that is `measured`."""
        bound = self.config.clip_gradient
        if bound is None and not measured:
            return float("nan")
        self.scaler.unscale_(self.opt.opt)
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
        if bound is not None:
            nn.utils.clip_grads_with_norm_(parameters, bound, norm)
        return norm

    # ---- what it leaves ----

    def look(self) -> None:
        """Read the losses of the steps since the last look: the one place where the CPU waits for the device.

        Raises InputError for one that is not finite.
        """
        if not self.unread:
            return
        steps, self.unread = self.unread, []
        losses = self.processes.sum(torch.stack([step.loss for step in steps])).tolist()
        for step, loss in zip(steps, losses, strict=True):
            if not math.isfinite(loss):
                self.whole = False  # the weights have followed it
                with self.processes.as_one():  # all have read the sum of all
                    raise InputError(self._explain_loss(step.number))
            self.recorder.smooth_loss.add(loss)
        self.looked = True

    def _explain_loss(self, number: int) -> str:
        rows = self.dl.batch_sampler.rows()[number]
        return (
            f"the loss is not finite in epoch {self.epoch + 1}, step {number + 1}, the batch of slices "
            f"{', '.join(str(self.dl.dataset.image_ids[row]) for row in rows)}; lower --max-lr {self.config.max_lr:g}"
        )


class Step(NamedTuple):
    """A step whose loss has not been read."""

    number: int
    loss: torch.Tensor  # scalar, on the device


class RunningLoss:
    """The mean over the losses of steps, each counting `beta` times as much as the one after it; fastai's Metric."""

    name = "loss"

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.reset()

    def reset(self) -> None:
        """Forget all losses."""
        self.count, self.val = 0, 0.0

    def accumulate(self, learn: Learner) -> None:
        """fastai's, each step; losses are added when they are read."""

    def add(self, loss: float) -> None:
        """Count the loss of the next step."""
        self.count += 1
        self.val = self.beta * self.val + (1 - self.beta) * loss

    @property
    def value(self) -> float:
        """The mean; NaN before the first loss."""
        return self.val / (1 - self.beta**self.count) if self.count else float("nan")
