"""The pictures of a run: its history, and the losses of the learning rates that were tried."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.common.colours import BLACK, BLUE, GREY, LABEL_COLOURS, LABEL_DASHES, ORANGE
from models.common.files import replacing
from models.common.labels import LABELS


def write_history_picture(
    path: Path, history: pd.DataFrame, best_epoch: int | None, prior: float, title: str | None = None
) -> None:
    """Draw a history's losses beside the prior's, the log loss of each label, and the learning rate, as a PNG.

    `best_epoch` is the one whose weights are kept; None where none was chosen.
    """
    figure = _figure(7, 9, title)
    losses, labels, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    losses.plot(history["epoch"], history["train_loss"], "s--", color=ORANGE, label="training, running mean")
    losses.plot(history["epoch"], history["valid_loss"], "o-", color=BLUE, label="validation")
    losses.axhline(prior, color=GREY, linestyle="--", label="the prior's, validation")
    if best_epoch is not None:
        losses.axvline(best_epoch, color=GREY, linestyle=":", label="kept epoch, chosen by it")
    losses.set_ylabel("weighted log loss")
    losses.legend()
    for label, colour, dash in zip(LABELS, LABEL_COLOURS, LABEL_DASHES, strict=True):
        look = {"color": colour, "linestyle": dash, "marker": "o", "markersize": 4}
        labels.plot(history["epoch"], history[f"log_loss_{label}"], label=label, **look)
    labels.set_ylabel("log loss, validation")
    labels.legend(ncols=2)
    rate.plot(history["epoch"], history["learning_rate"], "o-", color=BLACK)
    rate.set_ylabel("learning rate,\nend of epoch")
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    _write(path, figure)


def write_rate_picture(path: Path, losses: pd.DataFrame, suggestion: float, title: str | None = None) -> None:
    """Draw the `loss` at each `rate` that was tried, and the one that is suggested, as a PNG."""
    figure = _figure(7, 4, title)
    axes = figure.subplots()
    axes.plot(losses["rate"], losses["loss"], color=BLUE)
    axes.axvline(suggestion, color=GREY, linestyle=":", label=f"suggested: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="weighted log loss, running mean")
    axes.legend()
    _write(path, figure)


def _figure(width: float, height: float, title: str | None) -> Figure:
    """An empty one, in inches, under its title; not pyplot's: no window, nothing to close."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title is not None:
        figure.suptitle(title, fontsize=10)
    return figure


def _write(path: Path, figure: Figure) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
