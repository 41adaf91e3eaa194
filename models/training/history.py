"""The picture of a run's history."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.paths import replacing


def write_history_picture(path: Path, history: pd.DataFrame, best_epoch: int, prior: float) -> None:
    """Draw the losses of a history's epochs beside the prior's, and below them the learning rate, as a PNG."""
    figure = Figure(figsize=(7, 6), layout="constrained")  # not pyplot's: no window, nothing to close
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    losses.plot(history["epoch"], history["train_loss"], "o-", label="training, running mean")
    losses.plot(history["epoch"], history["valid_loss"], "o-", label="validation")
    losses.axhline(prior, color="grey", linestyle="--", label="the prior's")
    losses.axvline(best_epoch, color="grey", linestyle=":", label="kept epoch")
    losses.set_ylabel("weighted log loss")
    losses.legend()
    rate.plot(history["epoch"], history["learning_rate"], "o-", color="black")
    rate.set_ylabel("learning rate,\nend of epoch")
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
