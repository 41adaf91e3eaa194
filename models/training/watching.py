"""A run as it goes on, for those who watch it: TensorBoard, and Weights & Biases when asked for.

Both get the same numbers, by step: those of the steps at which the learner has looked, and those of each epoch.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from fastai.callback.core import Callback

from models.common.errors import InputError
from models.common.options import TrainOptions
from models.preprocessing.origin import is_synthetic, synthetic_title
from models.training.callbacks import LAST
from models.training.processes import Processes

PROJECT = "rsna-intracranial-hemorrhage"

Write = Callable[[dict[str, float], int], None]  # numbers by name, and the step


@contextmanager
def watchers(options: TrainOptions, processes: Processes, identity: str, step: int) -> Generator[list[Callback]]:
    """fastai's callbacks for what is installed and asked for, of a run that goes on after so many steps.

    `identity` is the run's for ever: Weights & Biases goes on in the one that it has begun. Raises InputError if what
    is asked for is missing.
    """
    with ExitStack() as stack:
        writes: list[Write] = []
        if processes.is_main and find_spec("tensorboard"):
            writes.append(_tensorboard(options, step, stack))
        if processes.is_main and options.wandb:
            writes.append(_wandb(options, identity, stack))
        yield [Numbers(writes)] if writes else []


class Numbers(Callback):
    """What is told while a run goes on."""

    order = LAST

    def __init__(self, writes: list[Write]) -> None:
        super().__init__()
        self.writes = writes

    def before_fit(self) -> None:
        """Note which epochs have been told before."""
        self.told = len(self.history.rows)

    def after_batch(self) -> None:
        """Tell of the steps at which the learner has looked at what they have left."""
        if self.training and self.looked:
            self.tell(
                {
                    "train_loss": self.smooth_loss,
                    "learning_rate": self.opt.hypers[-1]["lr"],
                    "gradient_norm": self.gradient_norm,
                    "loss_scale": self.scaler.get_scale(),
                }
            )

    def after_epoch(self) -> None:
        """Tell what the history has of an epoch that has been trained now."""
        if self.epoch < self.told:
            return
        names = ("train_loss", "learning_rate", "gradient_norm", "loss_scale")
        row = self.history.rows[self.epoch]
        self.tell({name: value for name, value in row.items() if name not in names})

    def tell(self, numbers: dict[str, float]) -> None:
        """Tell numbers of the step that has been made last."""
        for write in self.writes:
            write(numbers, self.train_iter)


def _tensorboard(options: TrainOptions, step: int, stack: ExitStack) -> Write:
    from torch.utils.tensorboard import SummaryWriter

    folder = options.folder
    events = folder.parent / "tensorboard" / folder.name  # for: tensorboard --logdir runs
    # What a killed run has told of steps that are made again is not shown twice.
    writer = stack.enter_context(SummaryWriter(str(events), purge_step=step + 1 if step else None))
    if (title := synthetic_title(options.machine.working_folder)) is not None:
        writer.add_text("data", title)

    def write(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return write


def _wandb(options: TrainOptions, identity: str, stack: ExitStack) -> Write:
    if not find_spec("wandb"):
        raise InputError("--wandb needs the package wandb: pip install wandb")
    import wandb

    name = f"{options.config.name}_fold{options.fold}"
    words = {"project": PROJECT, "name": name, "id": identity, "resume": "allow", "dir": options.machine.work}
    told = options.config.to_json() | {"synthetic": is_synthetic(options.machine.working_folder)}
    try:
        run = stack.enter_context(wandb.init(**words, config=told))
    except wandb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"Weights & Biases does not take the run ({reason}); log in with: wandb login, or set WANDB_MODE=offline"
        ) from error
    return lambda numbers, step: run.log(numbers, step=step)
