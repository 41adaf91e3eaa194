"""fastai's learner for a configuration, and the two things that are done with it: training, and a search for a rate."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import ParamScheduler, SchedCos, lr_find  # noqa: F401 (it adds a method to Learner)
from fastai.data.core import DataLoaders
from fastai.optimizer import OptimWrapper
from torch import nn
from torch.utils.data import DataLoader

from models.common.config import RunConfig
from models.common.errors import InputError
from models.common.options import TrainOptions
from models.preprocessing.origin import synthetic_title
from models.training.averaging import Average
from models.training.callbacks import Bar, History, OwnRandomNumbers, RecomputeBatchNorm, ShareStatistics, Validation
from models.training.checkpoint_callback import Checkpoints
from models.training.checkpoint_files import Checkpoint, read_checkpoint
from models.training.compiling import compile_backbone, compile_explained
from models.training.groups import parameter_groups, rates
from models.training.history import write_rate_picture
from models.training.joint import loss_of
from models.training.loading import explained
from models.training.processes import EndedElsewhere, Processes
from models.training.ran import what_ran
from models.training.steps import StepLearner
from models.training.stopping import Interrupted, Stop
from models.training.transfer import network_to_device
from models.training.watching import watchers
from radam import RAdam

Schedules = dict[str, Callable[[float], Any]]  # of hyperparameters, by the share of the training that is done

_RISE = 0.25  # of the training, in which the learning rate rises


def fit(
    network: nn.Module,
    train: DataLoader,
    valid: DataLoader,
    options: TrainOptions,
    processes: Processes,
    stop: Stop,
    sources: dict[str, str],
) -> tuple[History, dict]:
    """Train in place with fastai's one-cycle, from the last checkpoint of the fold if there is one.

    The network ends with its best epoch's weights, or the last state of their average. Returns the history, whose
    losses are the weighted log loss, and `what_ran`.
    `sources` are the sha256 of what the run builds on beside the cache, by name: raises InputError if the checkpoint
    was made on others, if a loss is not finite, or if the memory is too small.
    """
    config, folder = options.config, options.folder
    history = History(last=config.ema > 0)
    checkpoints = Checkpoints(options, processes, history, stop, sources)
    callbacks = [history, checkpoints, ShareStatistics(processes)]
    if config.batchnorm_batches:
        callbacks.append(RecomputeBatchNorm(train, config.batchnorm_batches, processes))
    learner = make_learner(network, train, valid, config, processes, callbacks)
    if config.ema:
        checkpoints.average = Average(learner.network, config.ema)
        learner.add_cb(checkpoints.average)
    found = processes.main_first(lambda: read_checkpoint(folder, config, options.machine.stage))
    require_one_place(folder, found, processes)
    if found:
        with processes.as_one():
            checkpoints.put_back(found)
        print(f"{folder}: going on in epoch {checkpoints.epoch_index + 1}, after step {checkpoints.step_index}")
    if options.compile:  # by now it is known in how many parts a batch goes through the network
        compile_backbone(network, learner)
    if checkpoints.epoch_index < config.epochs:
        with ExitStack() as watched:
            with processes.as_one():
                steps_made = checkpoints.steps_made(len(train))
                watching = watched.enter_context(watchers(options, processes, checkpoints.identity, steps_made))
            _fit_from(checkpoints, learner, train, valid, watching)
        if told := processes.largest(stop.number or 0):  # while the last checkpoint was written
            raise Interrupted(told)
    with processes.as_one():
        if history.best_epoch is None:
            raise InputError(f"the loss was not finite after any epoch; lower --max-lr {config.max_lr:g}")
    network.load_state_dict(history.best_weights)
    return history, what_ran(learner, history, options, processes)


def require_one_place(folder: Path, found: Checkpoint | None, processes: Processes) -> None:
    """Raise InputError if processes would go on in different places, for want of a folder that all of them see."""
    places = processes.gather(found and (found.state["epoch"], found.state["step"]))
    with processes.as_one():
        if len(set(places)) > 1:
            raise InputError(
                f"not all processes see the checkpoints in {folder}; name with --work a folder that all machines share"
            )


def _fit_from(
    checkpoints: Checkpoints, learner: StepLearner, train: DataLoader, valid: DataLoader, watching: list[Callback]
) -> None:
    callbacks = [*watching, ParamScheduler(schedule(learner))]
    try:
        with explained(train, valid), compile_explained(), checkpoints.stop.after_saving():
            learner.fit(learner.config.epochs, cbs=callbacks, start_epoch=checkpoints.epoch_index)
    except (InputError, EndedElsewhere):
        if learner.whole:  # a loader has failed, the steps that were made are good
            checkpoints.save()
        raise


def find_learning_rate(network: nn.Module, train: DataLoader, options: TrainOptions, processes: Processes) -> None:
    """Run fastai's learning-rate finder (Smith 2015, arXiv:1506.01186); print its suggestion and plot the losses.

    Raises InputError for what fails in the loader, for rates that differ by layer, and too few finite losses.
    """
    if len(set(rates(options.config, network).values())) > 1:
        raise InputError("--find-lr tries one rate for all layers; leave --head-lr and --layer-decay out")
    with tempfile.TemporaryDirectory() as scratch, explained(train):
        learner = make_learner(network, train, train, options.config, processes, [], RateFinder)
        learner.path = Path(scratch)  # where fastai makes a folder
        try:
            suggestion = learner.lr_find(show_plot=False)
        except IndexError as error:  # fastai leaves out all from the first NaN on
            raise InputError("the loss is finite at too few rates to choose one; try --precision fp32") from error
    if processes.is_main:
        folder = options.folder
        picture = folder.with_name(f"{folder.name}_learning_rate.png")
        losses = pd.DataFrame({"rate": learner.recorder.lrs, "loss": [float(loss) for loss in learner.recorder.losses]})
        title = synthetic_title(options.machine.working_folder)
        write_rate_picture(picture, losses, suggestion.valley, title)
        print(f"{picture}: the longest valley of the loss suggests --max-lr {suggestion.valley:.2g}")


class RateFinder(StepLearner):
    """A learner whose network is thrown away: nothing is saved to be put back, and a loss out of bounds is the end."""

    look_every = 1

    def save(self, *_, **__) -> None:
        """fastai would pickle the network."""

    def look(self) -> None:
        """End where a loss is not finite."""
        try:
            super().look()
        except (InputError, EndedElsewhere):
            raise CancelFitException from None


def make_learner(
    network: nn.Module,
    train: DataLoader,
    valid: DataLoader,
    config: RunConfig,
    processes: Processes,
    callbacks: list,
    kind: type[StepLearner] = StepLearner,
) -> StepLearner:
    """A learner with the loss and the optimizer of a configuration."""
    network = network_to_device(network, processes.device)
    groups = parameter_groups(config, network)
    learner = kind(
        DataLoaders(train, valid, device=processes.device),
        network,
        lr=config.max_lr,
        loss_func=loss_of(config).to(processes.device),
        opt_func=optimizer(config, processes.device),
        splitter=lambda _: [group.parameters for group in groups],
        wd=[group.weight_decay for group in groups],
        cbs=[OwnRandomNumbers(processes, config.seed), *callbacks, *([Bar()] if processes.is_main else [])],
        config=config,
        processes=processes,
    )
    learner.rates = [group.rate for group in groups]
    learner.create_opt()
    learner.recorder.loss = Validation(processes)
    return learner


def schedule(learner: StepLearner) -> Schedules:
    """That of the configuration, its rate multiplied by that of each group of parameters where they differ."""
    schedules = {"one-cycle": one_cycle, "cosine": cosine}[learner.config.schedule](learner)
    if set(learner.rates) == {1.0}:
        return schedules
    rate = schedules["lr"]
    return schedules | {"lr": lambda done: [rate(done) * of_group for of_group in learner.rates]}


def cosine(learner: StepLearner) -> Schedules:
    """From a hundredth of the peak in a line up to it, then along a cosine down to nothing (arXiv:1608.03983)."""
    peak, rise = learner.config.max_lr, learner.config.warm_up
    fall = SchedCos(peak, 0.0)
    return {"lr": lambda done: peak * (0.01 + 0.99 * done / rise) if done < rise else fall((done - rise) / (1 - rise))}


def one_cycle(learner: StepLearner) -> Schedules:
    """fastai's one-cycle schedule, by the share of the training that is done (Smith 2018, arXiv:1803.09820).

    The numbers are those of fastai's `fit_one_cycle`; its `combined_cos` reads tensors, twice a step.
    """
    peak = learner.config.max_lr
    rise, fall = SchedCos(peak / 25, peak), SchedCos(peak, peak / 1e5)
    lower, higher = SchedCos(0.95, 0.85), SchedCos(0.85, 0.95)
    return {"lr": _in_turn(rise, fall), "mom": _in_turn(lower, higher)}


def _in_turn(first: Callable[[float], float], then: Callable[[float], float]) -> Callable[[float], float]:
    return lambda done: first(done / _RISE) if done < _RISE else then((done - _RISE) / (1 - _RISE))


def optimizer(config: RunConfig, device: torch.device) -> Callable:
    """The optimizer as fastai wants it. Weight decay is decoupled in both, as it was in the original's fastai."""
    adam = partial(torch.optim.AdamW, fused=device.type == "cuda")
    return partial(OptimWrapper, opt={"radam": RAdam, "adam": adam}[config.optimizer])
