"""What happens around fastai's steps and epochs: the history, the best weights, checkpoints, batch norm."""

import time
from itertools import islice

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner, Metric
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from models.config import TrainOptions
from models.labels import LABELS, METRIC_WEIGHTS
from models.training.evaluation import to_device
from models.training.processes import Processes
from models.training.resume import Checkpoint, write_checkpoint
from models.training.stopping import Interrupted, Stop

# fastai calls in this order: 50 its Recorder, 60 the schedule, 70 the skipping of epochs.
AFTER_RECORDER, LAST = 60, 90


class LabelLosses(Metric):
    """fastai's validation loss from the log loss of each label, over the slices of all processes."""

    name = "loss"

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.reset()

    def reset(self) -> None:
        self.total = torch.zeros(len(LABELS) + 1)  # of each label, and the number of slices
        self.by_label: np.ndarray | None = None  # (6,)

    def accumulate(self, learn: Learner) -> None:
        losses = binary_cross_entropy_with_logits(learn.pred.float(), learn.yb[0].float(), reduction="none")
        self.total[:-1] += losses.sum(dim=0).cpu()
        self.total[-1] += len(losses)

    @property
    def value(self) -> float:
        if self.by_label is None:
            *sums, count = self.processes.sum(self.total).tolist()
            self.by_label = np.array(sums) / count
        return float(np.average(self.by_label, weights=METRIC_WEIGHTS))


class History(Callback):
    """The row of each epoch, and the weights of the one with the lowest weighted log loss, in memory."""

    order = AFTER_RECORDER

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.best_epoch: int | None = None  # from 1
        self.best_weights: dict[str, torch.Tensor] = {}

    def after_epoch(self) -> None:
        if self.epoch < len(self.rows):
            return  # one that fastai skips on its way to where the run was left
        train_loss, valid_loss = self.recorder.final_record
        row = {"epoch": self.epoch + 1, "train_loss": train_loss, "valid_loss": valid_loss}
        row |= {
            f"log_loss_{label}": float(loss) for label, loss in zip(LABELS, self.recorder.loss.by_label, strict=True)
        }
        best = min((row["valid_loss"] for row in self.rows if row["valid_loss"] == row["valid_loss"]), default=None)
        self.rows.append({**row, "learning_rate": float(self.opt.hypers[-1]["lr"])})
        if valid_loss == valid_loss and (best is None or valid_loss < best):  # not where it is no number
            self.best_epoch = self.epoch + 1
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}


class Checkpoints(Callback):
    """Write a checkpoint at an interval and when the run is told to stop; put one back where a run goes on.

    What lies between two steps is saved: the weights, the optimizer, the scaler of fp16, the place in the epoch and
    in the schedule, torch's random numbers, the running loss, the history and the best weights. (Loaders and
    augmentation need no state, they follow from seed, epoch and slice; nothing else uses random numbers.)
    """

    order = LAST

    def __init__(self, options: TrainOptions, processes: Processes, history: History, stop: Stop) -> None:
        super().__init__()
        self.options, self.config, self.processes = options, options.config, processes
        self.history, self.stop = history, stop
        self.epoch_index, self.step_index = 0, 0  # of the step that comes next
        self.random: dict[str, torch.Tensor] = {}
        self.state: dict | None = None  # what is still to be put back
        self.saved, self.steps_since = time.monotonic(), 0

    # ---- when ----

    def before_train(self) -> None:
        batches = self.dls.train.batch_sampler
        batches.epoch, batches.start = self.epoch, self.step_index
        if self.state is not None:
            self._put_back_place()
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
        steps = self.options.checkpoint_steps
        waited = time.monotonic() - self.saved >= 60 * self.options.checkpoint_minutes
        due = self.training and (self.steps_since >= steps if steps else waited)
        if must or due or self.stop.number is not None:
            self.save()
        if self.stop.number is not None:
            raise Interrupted(self.stop.number)

    # ---- what ----

    def save(self) -> None:
        if self.processes.is_main:
            write_checkpoint(self.options.folder, self.config, self.capture())
        self.saved, self.steps_since = time.monotonic(), 0

    def capture(self) -> Checkpoint:
        network, optimizer = self.model.state_dict(), self.opt.opt
        tensors = {f"network.{name}": value for name, value in network.items()}
        tensors |= {f"best.{name}": value for name, value in self.history.best_weights.items()}
        tensors |= {f"random.{name}": value for name, value in self.random.items()}
        for number, parameter in enumerate(parameters_of(optimizer)):
            tensors |= {f"optimizer.{number}.{name}": value for name, value in optimizer.state[parameter].items()}
        smooth = self.recorder.smooth_loss
        state = {
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
        """Put weights, optimizer and history back now, and the place in the epoch when fastai gets there."""
        tensors, self.state = checkpoint

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

    def _put_back_place(self) -> None:
        smooth = self.recorder.smooth_loss
        smooth.val, smooth.count = torch.tensor(self.state["smooth_loss"][0]), self.state["smooth_loss"][1]
        position, self.learn.train_iter = self.state["schedule"]
        if self.step_index:  # fastai has just set it for the start of an epoch
            self.learn.pct_train = position
        self.opt.set_hyper("lr", self.state["learning_rate"])
        if self.processes.is_main:  # whose they are
            set_random_states(self.random, self.learn.device)
        self.state = None


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random numbers, of the CPU and of a CUDA device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


class ChannelsLast(Callback):
    """Give batches the memory format of the network: convolutions are faster with it, on CPUs too."""

    def before_batch(self) -> None:
        self.learn.xb = tuple(to_device(grey, self.learn.device) for grey in self.xb)


class RecomputeBatchNorm(Callback):
    """Before each validation, replace the running batch-norm statistics by their mean over some training batches.

    EfficientNet's running mean moves by 1 % a step: in a short run it lags so far behind the weights that a network
    with a good training loss can validate worse than the prior.
    """

    def __init__(self, loader: DataLoader, batches: int, device: torch.device) -> None:
        super().__init__()
        self.loader, self.batches, self.device = loader, batches, device

    def before_validate(self) -> None:
        update_bn(islice(self.loader, self.batches), self.model, self.device)
        self.model.eval()


class ShareStatistics(Callback):
    """Before each validation, give all processes the batch-norm statistics of the main one, whose weights are kept."""

    order = LAST

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def before_validate(self) -> None:
        self.processes.share_statistics(self.model)
