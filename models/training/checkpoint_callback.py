"""The callback that saves a run while it goes on, and puts it back where it was."""

import time

import torch
from fastai.callback.core import Callback

from models.common.errors import InputError
from models.common.options import TrainOptions
from models.training.callbacks import LAST, History
from models.training.checkpoint_files import Checkpoint, write_checkpoint
from models.training.processes import Processes
from models.training.run_record import changed_sources
from models.training.stopping import Interrupted, Stop


class Checkpoints(Callback):
    """Write a checkpoint at an interval and when the run is told to stop; put one back where a run goes on.

    What lies between two steps is saved: the weights, the optimizer, the scaler of fp16, the place in the epoch and
    in the schedule, torch's random numbers, the running loss, the history and the best weights. (Loaders and
    augmentation need no state, they follow from seed, epoch and slice; nothing else uses random numbers.)
    """

    order = LAST

    def __init__(
        self, options: TrainOptions, processes: Processes, history: History, stop: Stop, sources: dict[str, str]
    ) -> None:
        super().__init__()
        self.options, self.config, self.processes = options, options.config, processes
        self.history, self.stop, self.sources = history, stop, sources
        self.epoch_index, self.step_index = 0, 0  # of the step that comes next
        self.random: dict[str, torch.Tensor] = {}
        self.state: dict | None = None  # what is still to be put back
        self.saved, self.steps_since = time.monotonic(), 0

    # ---- when ----

    def before_train(self) -> None:
        batches = self.dls.train.batch_sampler
        batches.epoch, batches.start = self.epoch, self.step_index
        if self.state is not None:
            self._put_back_place(self.state)
            self.state = None
        self.random = random_states(self.learn.device)

    def after_batch(self) -> None:
        if self.training:
            self.step_index += 1
            self.steps_since += 1
            self.random = random_states(self.learn.device)
            # All processes stop after the same step: one that went on would wait for the others for ever.
            if number := self.processes.largest(self.stop.number or 0):
                self.stop.number = number
        # In validation `random` stays as it was before: the validation is done again, batch-norm statistics included.
        self.save_if_due()

    def after_train(self) -> None:
        self.dls.train.batch_sampler.start = 0

    def after_epoch(self) -> None:
        if self.epoch < self.epoch_index:
            return
        self.epoch_index, self.step_index = self.epoch + 1, 0
        self.random = random_states(self.learn.device)
        # Once the last epoch is saved, the rest can be stopped at any moment.
        self.save_if_due(must=self.epoch_index == self.config.epochs)

    def save_if_due(self, must: bool = False) -> None:
        """Save at the interval, when it `must`, and when told to stop; raises Interrupted then."""
        steps = self.options.checkpoint_steps
        waited = time.monotonic() - self.saved >= 60 * self.options.checkpoint_minutes
        due = self.training and (self.steps_since >= steps if steps else waited)
        if must or due or self.stop.number is not None:
            self.save()
        if self.stop.number is not None:
            raise Interrupted(self.stop.number)

    # ---- what ----

    def save(self) -> None:
        """Write what `capture` gives, in the main process. Raises InputError if the disk is full."""
        if self.processes.is_main:
            write_checkpoint(self.options.folder, self.config, self.capture())
        self.saved, self.steps_since = time.monotonic(), 0

    def capture(self) -> Checkpoint:
        """All that lies between the last step and the next one."""
        network, optimizer = self.model.state_dict(), self.opt.opt
        tensors = {f"network.{name}": value for name, value in network.items()}
        tensors |= {f"best.{name}": value for name, value in self.history.best_weights.items()}
        tensors |= {f"random.{name}": value for name, value in self.random.items()}
        for number, parameter in enumerate(parameters_of(optimizer)):
            tensors |= {f"optimizer.{number}.{name}": value for name, value in optimizer.state[parameter].items()}
        smooth = self.recorder.smooth_loss
        state = {
            "stage": self.options.machine.stage,
            "sources": self.sources,
            "epoch": self.epoch_index,
            "step": self.step_index,
            "schedule": [float(self.pct_train), int(self.train_iter)],
            "learning_rate": float(self.opt.hypers[-1]["lr"]),  # the history shows it even if no step is left
            "smooth_loss": [float(smooth.val), smooth.count],
            "parts": self.learn.parts,
            "scaler": self.learn.scaler.state_dict(),
            "history": self.history.rows,
            "best_epoch": self.history.best_epoch,
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

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("network."))
        for number, parameter in enumerate(parameters_of(self.opt.opt)):
            # Into the memory layout of the parameter: kernels round otherwise where the layouts differ.
            self.opt.opt.state[parameter] = {
                name: torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                for name, value in part(f"optimizer.{number}.").items()
            }
        self.learn.parts = self.state["parts"]
        self.learn.scaler.load_state_dict(self.state["scaler"])
        self.history.rows, self.history.best_epoch = self.state["history"], self.state["best_epoch"]
        self.history.best_weights = part("best.")
        self.epoch_index, self.step_index = self.state["epoch"], self.state["step"]
        self.random = part("random.")

    def _put_back_place(self, state: dict) -> None:
        smooth = self.recorder.smooth_loss
        smooth.val, smooth.count = torch.tensor(state["smooth_loss"][0]), state["smooth_loss"][1]
        position, self.learn.train_iter = state["schedule"]
        if self.step_index:  # fastai has just set it for the start of an epoch
            self.learn.pct_train = position
        self.opt.set_hyper("lr", state["learning_rate"])
        if self.processes.is_main:  # whose they are
            set_random_states(self.random, self.learn.device)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """The parameters of all groups; their places in this list are their names in a checkpoint."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


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
