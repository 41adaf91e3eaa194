"""What happens around fastai's steps and epochs: the validation loss, the history, the best weights, batch norm."""

from itertools import islice

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner, Metric
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from models.common.labels import LABELS, METRIC_WEIGHTS
from models.training.evaluation import to_device
from models.training.processes import Processes

# fastai calls in this order: 50 its Recorder, 60 the schedule, 70 the skipping of epochs.
FIRST, AFTER_RECORDER, LAST = -90, 60, 90


class LabelLosses(Metric):
    """fastai's validation loss from the log loss of each label, over the slices of all processes."""

    name = "loss"

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.reset()

    def reset(self) -> None:
        self.total = torch.zeros(len(LABELS) + 1, dtype=torch.float64)  # of each label, and the number of slices
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


class ChannelsLast(Callback):
    """Give batches the memory format of the network: convolutions are faster with it, on CPUs too."""

    def before_batch(self) -> None:
        self.learn.xb = tuple(to_device(part, self.learn.device) for part in self.xb)


class RecomputeBatchNorm(Callback):
    """Before each validation, replace the running batch-norm statistics by their mean over some training batches.

    EfficientNet's running mean moves by 1 % a step: in a short run it lags so far behind the weights that a network
    with a good training loss can validate worse than the prior.
    """

    def __init__(self, loader: DataLoader, batches: int, processes: Processes) -> None:
        super().__init__()
        self.loader, self.batches, self.processes = loader, batches, processes

    def before_validate(self) -> None:
        # torch's function gives a network one thing a batch, whatever the batch holds.
        some = self.processes.in_step(islice(self.loader, self.batches))
        lists = (([to_device(part, self.processes.device) for part in inputs],) for *inputs, _ in some)
        update_bn(lists, TakesList(self.model))
        self.model.eval()


class TakesList(nn.Module):
    """A network whose inputs stand in a list; gives what the network gives, logits (slices, 6)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return self.network(*inputs)


class OwnRandomNumbers(Callback):
    """Give the processes beside the main one random numbers of their own, for a dropout of their own.

    They follow from seed, process, epoch and step, so that a run which goes on needs no state of them. Those of the
    main process are a single one's: they go on from step to step, and stand in the checkpoint.
    """

    order = FIRST

    def __init__(self, processes: Processes, seed: int) -> None:
        super().__init__()
        self.processes, self.seed = processes, seed

    def before_batch(self) -> None:
        if self.training:
            self.draw_from(self.iter)

    def before_validate(self) -> None:
        self.draw_from(self.n_iter)  # the statistics of batch norm may be computed anew

    def draw_from(self, step: int) -> None:
        """Let torch draw the numbers of a step of this epoch."""
        if not self.processes.is_main:
            origin = np.random.SeedSequence((self.seed, self.processes.rank, self.epoch, step))
            torch.manual_seed(int(origin.generate_state(1, np.uint64)[0]))


class ShareStatistics(Callback):
    """Before each validation, give all processes the batch-norm statistics of the main one, whose weights are kept."""

    order = LAST

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def before_validate(self) -> None:
        self.processes.share_statistics(self.model)
