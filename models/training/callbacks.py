"""What happens around fastai's steps and epochs: the validation loss, the history, the best weights, batch norm."""

import time
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner, Metric
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from models.common.labels import ANY, LABELS, METRIC_WEIGHTS
from models.common.progress import progress_bar, say
from models.training.dividing import in_parts
from models.training.memory import peak_gib, reset_peak
from models.training.processes import Processes
from models.training.scoring import WEIGHTED, auc
from models.training.transfer import on_device

# fastai calls in this order: 50 its Recorder, 60 the schedule, 70 the skipping of epochs.
FIRST, AFTER_RECORDER, LAST = -90, 60, 90


MEASURED = ("train_seconds", "slices_per_s", "gpu_memory_gib")  # columns of a history that differ from run to run


class Validation(Metric):
    """fastai's validation loss, of the slices of all processes; their logits stay on the device till the end."""

    name = "loss"

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.reset()

    def reset(self) -> None:
        """Forget the slices of the epoch before."""
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # logits and targets of batches, (slices, 6)
        self.scores: pd.Series | None = None

    def accumulate(self, learn: Learner) -> None:
        """Note the logits of a batch."""
        self.seen.append((learn.pred.detach().float(), learn.yb[0]))

    @property
    def value(self) -> float:
        """The weighted log loss; `scores` then holds it, the log loss of each label and the AUC of `any`."""
        if self.scores is None:
            seen = self.seen or [(torch.empty(0, len(LABELS)),) * 2]  # of more processes than batches
            own = [torch.cat(parts).cpu() for parts in zip(*seen, strict=True)]
            logits, target = (torch.cat(parts) for parts in zip(*self.processes.gather(own), strict=True))
            # Of the logits, not of probabilities: a loss that is not finite must not be clipped to one that is.
            losses = binary_cross_entropy_with_logits(logits.double(), target.double(), reduction="none").mean(dim=0)
            self.scores = pd.Series(
                {f"log loss {label}": float(loss) for label, loss in zip(LABELS, losses, strict=True)}
            )
            self.scores[WEIGHTED] = np.average(losses, weights=METRIC_WEIGHTS)
            self.scores["AUC any"] = auc(target[:, ANY].numpy(), logits[:, ANY].nan_to_num().numpy())
        return float(self.scores[WEIGHTED])


class History(Callback):
    """The row of each epoch, told when it ends, and in memory the weights of the one with the lowest loss.

    Or of the `last` one: an average, of which none is chosen.
    """

    order = AFTER_RECORDER

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.rows: list[dict[str, float]] = []
        self.best_epoch: int | None = None  # from 1
        self.best_weights: dict[str, torch.Tensor] = {}

    def before_train(self) -> None:
        """Start the clock."""
        reset_peak(self.learn.device)
        self.began = time.monotonic()

    def after_train(self) -> None:
        """Stop it: what the steps of this epoch have cost, from where it was begun or gone on."""
        seconds = time.monotonic() - self.began
        batches = self.dl.batch_sampler
        slices = sum(map(batches.size, range(batches.start, self.n_iter)))  # of studies a batch has some or many
        self.cost = dict(
            zip(MEASURED, (seconds, slices / seconds, peak_gib(self.learn.device) or float("nan")), strict=True)
        )

    def after_epoch(self) -> None:
        """Add the row of the epoch, and keep its weights if they are the best."""
        if self.epoch < len(self.rows):
            return  # one that fastai skips on its way to where the run was left
        train_loss, valid_loss = self.recorder.final_record
        scores = self.recorder.loss.scores
        best = min((row["valid_loss"] for row in self.rows if row["valid_loss"] == row["valid_loss"]), default=None)
        row = {
            "epoch": self.epoch + 1,
            "train_loss": train_loss,
            "valid_loss": valid_loss,
            **{f"log_loss_{label}": scores[f"log loss {label}"] for label in LABELS},
            "auc_any": scores["AUC any"],
            "learning_rate": float(self.opt.hypers[-1]["lr"]),
            "gradient_norm": self.gradient_norm,
            "loss_scale": float(self.scaler.get_scale()),
            **self.cost,
        }
        self.rows.append(row)
        say(
            f"epoch {row['epoch']} of {self.n_epoch}: training {train_loss:.4f}, validation {valid_loss:.4f}, "
            f"AUC any {row['auc_any']:.3f}, {row['slices_per_s']:.0f} slices/s"
        )
        if valid_loss == valid_loss and (self.last or best is None or valid_loss < best):  # not where it is no number
            self.best_epoch = self.epoch + 1
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}


class Bar(Callback):
    """A bar over the steps and validations of all epochs, with the time left."""

    order = LAST + 1  # it shows what the others have put back

    def before_fit(self) -> None:
        """Show the bar."""
        self.running = progress_bar("training", self.n_epoch * sum(map(len, self.dls.loaders)))

    def before_epoch(self) -> None:
        """Name the epoch."""
        self.running.set_description(f"epoch {self.epoch + 1} of {self.n_epoch}", refresh=False)

    def before_train(self) -> None:
        """Count what lies before where the epoch begins."""
        done = self.epoch * sum(map(len, self.dls.loaders)) + self.dl.batch_sampler.start
        self.running.initial += done - self.running.n  # no time is told by what was not done now
        self.running.n = done

    def after_batch(self) -> None:
        """Count a step or a batch of the validation."""
        if self.looked:
            self.running.set_postfix_str(f"loss {self.smooth_loss:.4f}", refresh=False)
        self.running.update()

    def after_fit(self) -> None:
        """Take the bar away."""
        self.running.close()


class RecomputeBatchNorm(Callback):
    """Before each validation, replace the running batch-norm statistics by their mean over some training batches.

    EfficientNet's running mean moves by 1 % a step: in a short run it lags so far behind the weights that a network
    with a good training loss can validate worse than the prior. A batch goes through in the parts of a training step:
    as a whole it may be too large for the memory.
    """

    def __init__(self, loader: DataLoader, batches: int, processes: Processes) -> None:
        super().__init__()
        self.loader, self.batches, self.processes = loader, batches, processes

    def before_validate(self) -> None:
        # torch's function gives a network one thing a batch, whatever the batch holds.
        some = self.processes.in_step(islice(self.loader, self.batches))
        batches: Any = self.loader.batch_sampler
        parts = min(self.learn.parts, batches.smallest)  # as many in each process
        whole = on_device(some, self.processes.device)
        lists = ((list(part),) for *inputs, _ in whole for part in in_parts(parts, inputs))
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
