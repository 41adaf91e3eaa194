"""The callback that saves a run while it goes on, and puts it back where it was."""

import time
from uuid import uuid4

import torch
from fastai.callback.core import Callback

from models.common.errors import InputError
from models.common.options import TrainOptions
from models.training.averaging import Average
from models.training.callbacks import LAST, History
from models.training.checkpoint_files import Checkpoint, write_checkpoint
from models.training.processes import Processes
from models.training.run_record import changed_sources
from models.training.stopping import ALARM, Interrupted, Stop


class Checkpoints(Callback):
    """Write a checkpoint at an interval and when the run is told to stop; put one back where a run goes on.

    What lies between two steps is saved: the weights, their average, the optimizer, the scaler of fp16, the place in
    the epoch and in the schedule, torch's random numbers, the running loss, the history and the best weights. (Loaders
    and augmentation need no state, they follow from seed, epoch and slice; the random numbers of other processes than
    the main one follow from seed, process, epoch and step: see OwnRandomNumbers. Nothing else uses random numbers.)
    """

    order = LAST

    def __init__(
        self, options: TrainOptions, processes: Processes, history: History, stop: Stop, sources: dict[str, str]
    ) -> None:
        super().__init__()
        self.options, self.config, self.processes = options, options.config, processes
        self.history, self.stop, self.sources = history, stop, sources
        self.average: Average | None = None
        self.epoch_index, self.step_index = 0, 0  # of the step that comes next
        self.random: dict[str, torch.Tensor] = {}
        self.state: dict | None = None  # what is still to be put back
        self.saved, self.steps_since = time.monotonic(), 0
        self.began = time.monotonic()  # the step, or the validation, that goes on
        self.due = False  # for a checkpoint
        self.agreed: int | None = None  # the signal for which all processes stop after this step
        self.identity = uuid4().hex  # for those who watch it

    def steps_made(self, steps_an_epoch: int) -> int:
        """How many steps lie before the one that comes next."""
        return self.epoch_index * steps_an_epoch + self.step_index

    # ---- when ----

    def before_train(self) -> None:
        batches = self.dls.train.batch_sampler
        batches.epoch, batches.start = self.epoch, self.step_index
        if self.state is not None:
            self._put_back_place(self.state)
            self.state = None
        self.random = random_states(self.learn.device)
        self.began = time.monotonic()

    def after_batch(self) -> None:
        if self.training:
            self.stop.measured("step", time.monotonic() - self.began)
            self.step_index += 1
            self.steps_since += 1
            self.random = random_states(self.learn.device)
            # All processes save and stop after the same step: one that went on would wait for the others for ever. So
            # a signal that comes to one while they agree waits for the next step.
            wanted = self.processes.largest(self.stop.number or int(self.has_waited()))
            if wanted > 1:
                self.stop.number = self.agreed = wanted
            self.due = bool(wanted)
        # In validation `random` stays as it was before: the validation is done again, batch-norm statistics included.
        self.save_if_due()
        if self.training:
            self.began = time.monotonic()

    def after_train(self) -> None:
        self.dls.train.batch_sampler.start = 0
        if self.processes.largest(int(not self.stop.allows(1))):  # a validation that is cut short is lost
            self.stop.number = self.agreed = ALARM
            self.save_if_due()
        self.began = time.monotonic()

    def after_validate(self) -> None:
        self.stop.measured("validation", time.monotonic() - self.began)

    def after_epoch(self) -> None:
        if self.epoch < self.epoch_index:
            return
        self.epoch_index, self.step_index = self.epoch + 1, 0
        self.random = random_states(self.learn.device)
        # Once the last epoch is saved, the rest can be stopped at any moment.
        self.save_if_due(must=self.epoch_index == self.config.epochs)

    def save_if_due(self, must: bool = False) -> None:
        """Save at the interval, when it `must`, and when told to stop; raises Interrupted then."""
        told = self.agreed if self.training else self.stop.number
        if must or (self.training and self.due) or told is not None:
            self.save()
        if told is not None:
            if self.training:
                self.processes.largest(0)  # wait: torchrun kills the main one, which saves, once another has ended
            raise Interrupted(told)

    def has_waited(self) -> bool:
        """Whether as many steps or minutes have gone since a checkpoint as there are to be between two."""
        if steps := self.options.checkpoint_steps:
            return self.steps_since >= steps
        return time.monotonic() - self.saved >= 60 * self.options.checkpoint_minutes

    # ---- what ----

    def save(self) -> None:
        """Write what `capture` gives, in the main process.

        Raises InputError if the disk is full, or a loss that has not been read is not finite.
        """
        began = time.monotonic()
        self.learn.look()
        if self.processes.is_main:
            write_checkpoint(self.options.folder, self.config, self.capture())
        self.saved, self.steps_since, self.due = time.monotonic(), 0, False
        self.stop.measured("checkpoint", self.saved - began)

    def capture(self) -> Checkpoint:
        """All that lies between the last step and the next one."""
        network, optimizer = self.learn.network.state_dict(), self.opt.opt.state_dict()
        tensors = {f"network.{name}": value for name, value in network.items()}
        tensors |= {f"best.{name}": value for name, value in self.history.best_weights.items()}
        tensors |= {f"random.{name}": value for name, value in self.random.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.averaged.state_dict().items()}
        for number, values in optimizer["state"].items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
        smooth = self.recorder.smooth_loss
        state = {
            "stage": self.options.machine.stage,
            "sources": self.sources,
            "processes": self.processes.count,
            "epoch": self.epoch_index,
            "step": self.step_index,
            "schedule": [float(self.pct_train), int(self.train_iter)],
            "gradient_norm": self.learn.gradient_norm,
            "learning_rate": float(self.opt.hypers[-1]["lr"]),  # the history shows it even if no step is left
            "smooth_loss": [smooth.val, smooth.count],
            "parts": self.learn.parts,
            "scaler": self.learn.scaler.state_dict(),
            "identity": self.identity,
            "history": self.history.rows,
            "best_epoch": self.history.best_epoch,
            "averaged": self.average and self.average.steps,
        }
        return Checkpoint(tensors, state)

    def put_back(self, checkpoint: Checkpoint) -> None:
        """Put weights, optimizer and history back now, and the place in the epoch when fastai gets there.

        Raises InputError if folds, slices, labels, or what the run builds on, are others than when it was begun.
        """
        tensors, self.state = checkpoint
        if different := changed_sources(self.state.get("sources", {}), self.sources):
            raise InputError(
                f"{self.options.folder} was begun with another {' and '.join(different)} than there is now; bring that "
                "back, or delete the folder to begin anew"
            )

        count, before = self.processes.count, self.state.get("processes", self.processes.count)
        if count != before:
            print(f"{self.options.folder}: processes: {before} until now, {count} from here on, so other bits follow")

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.learn.network.load_state_dict(part("network."))
        if self.average is not None:
            self.average.averaged.load_state_dict(part("average."))
            self.average.steps = self.state["averaged"]
        optimizer = self.opt.opt
        moments = {n: moments_of(p, part(f"optimizer.{n}.")) for n, p in enumerate(parameters_of(optimizer))}
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        self.learn.parts = self.state["parts"]
        if self.state["scaler"]:  # nothing, where the run was on a device that needs none
            self.learn.scaler.load_state_dict(self.state["scaler"])
        self.identity = self.state.get("identity", self.identity)
        self.history.rows, self.history.best_epoch = self.state["history"], self.state["best_epoch"]
        self.history.best_weights = part("best.")
        self.epoch_index, self.step_index = self.state["epoch"], self.state["step"]
        self.random = part("random.")

    def _put_back_place(self, state: dict) -> None:
        smooth = self.recorder.smooth_loss
        smooth.val, smooth.count = state["smooth_loss"]
        position, self.learn.train_iter = state["schedule"]
        if self.step_index:  # fastai has just set it for the start of an epoch
            self.learn.pct_train = position
        self.opt.set_hyper("lr", state["learning_rate"])
        self.learn.gradient_norm = state.get("gradient_norm", self.learn.gradient_norm)
        if self.processes.is_main:  # whose they are
            set_random_states(self.random, self.learn.device)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """The parameters of all groups; their places in this list are their names in a checkpoint."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def moments_of(parameter: torch.nn.Parameter, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What an optimizer has of a parameter, any shape: the step, and moments of its shape in its memory layout.

    Kernels round otherwise where the layouts differ.
    """
    return {
        name: torch.empty_like(parameter).copy_(value)
        if value.ndim or (parameter.ndim == 0 and name != "step")
        else value
        for name, value in values.items()
    }


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random numbers, of the CPU and of a CUDA device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back what `random_states` gave; a run may go on with another kind of device than it was begun with."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
