"""A run as it goes on, for those who watch it: TensorBoard, and Weights & Biases when asked for."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec

from fastai.callback.core import Callback

from models.common.errors import InputError
from models.common.options import TrainOptions
from models.training.processes import Processes

PROJECT = "rsna-intracranial-hemorrhage"


@contextmanager
def watchers(options: TrainOptions, processes: Processes) -> Generator[list[Callback]]:
    """fastai's callbacks for what is installed and asked for. Raises InputError if what is asked for is missing."""
    callbacks = []
    if processes.is_main and find_spec("tensorboard"):
        from models.training.events import Events

        folder = options.folder
        events = folder.parent / "tensorboard" / folder.name  # for: tensorboard --logdir runs
        callbacks.append(Events(events, trace_model=False, log_preds=False))
    if not (options.wandb and processes.is_main):
        yield callbacks
        return
    if not find_spec("wandb"):
        raise InputError("--wandb needs the package wandb: pip install wandb")
    import wandb
    from fastai.callback.wandb import WandbCallback

    name = f"{options.config.name}_fold{options.fold}"
    with wandb.init(project=PROJECT, name=name, config=options.config.to_json(), dir=options.machine.work):
        yield [*callbacks, WandbCallback(log_preds=False)]
