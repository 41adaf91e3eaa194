"""One study of the phantom of benchmarks/context.py, slice by slice: what each network says, and what is true.

    python benchmarks/context.py --work scratch
    python benchmarks/context_picture.py --work scratch     # draws docs/context.png

Draws the probability of `any`, out-of-fold, of the single-slice network, of its smoothed predictions and of the
recurrent layers. Of all studies with blood in some slices and not in others it is the one with the median gain of the
recurrent layers over the single slice.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from context import ROWS
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.cli import command
from models.inference.runs import finished_folds, join_folds, read_fold
from models.labels import LABELS
from models.paths import Work, WorkFolder, default_work, replacing
from models.preprocessing.store import Series
from models.preprocessing.windows import BRAIN, apply_window
from models.train_small import CONFIG as SMALL
from models.training.dataset import read_slices
from models.training.loss import log_losses

RUNS = {"single": ("C0", "o:"), "smoothing": ("C1", "s--"), "recurrent": ("C2", "D-")}  # colour, marker and line


@dataclass(frozen=True)
class PictureOptions:
    work: WorkFolder = field(default_factory=default_work)
    seed: int = 0
    """of the networks"""
    output: Path = Path(__file__).parent.parent / "docs" / "context.png"


def main(options: PictureOptions) -> None:
    work = Work(options.work)
    predictions = {name: read_out_of_fold(work, name, options.seed) for name in RUNS}
    study = typical_study(read_slices(work, "train"), predictions)
    with replacing(options.output) as temporary:
        draw(work, study, predictions).savefig(temporary, dpi=110)
    print(f"{options.output}: {len(study)} slices, {int(study['any'].sum())} with blood")


def read_out_of_fold(work: Work, row: str, seed: int) -> pd.DataFrame:
    run = f"single_{seed}_smoothed" if row == "smoothing" else f"{row}_{seed}"
    return join_folds(run, [read_fold(work, run, fold, "valid") for fold in finished_folds(work, run)])


def typical_study(slices: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The slices of the study with the median gain of `recurrent` over `single`, of those that are partly bled into."""
    share = slices.groupby("study_id")["any"].transform("mean")
    partly = slices[share.between(0.2, 0.8)].set_index("image_id")
    losses = {
        name: partly.groupby("study_id").apply(lambda study, name=name: mean_loss(study, predictions[name]))
        for name in ("single", "recurrent")
    }
    gain = (losses["single"] - losses["recurrent"]).sort_values(kind="stable")
    chosen = gain.index[len(gain) // 2]
    return slices[slices["study_id"] == chosen].reset_index(drop=True)


def mean_loss(study: pd.DataFrame, predictions: pd.DataFrame) -> float:
    labels = list(LABELS)
    return log_losses(study[labels].to_numpy(), predictions.loc[study.index].to_numpy())[labels.index("any")]


def draw(work: Work, study: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> Figure:
    """The slices in the brain window, from the base to the vertex, and below each what was said of it."""
    count = len(study)
    figure = Figure(figsize=(0.95 * count, 4.6))
    grid = figure.add_gridspec(2, count, height_ratios=(1, 3), left=0.06, right=0.99, top=0.9, bottom=0.11, wspace=0.04)
    series = Series(work.series(SMALL.image_size, study["series_id"].iloc[0]))
    for place, (chunk, bled) in enumerate(zip(study["chunk"], study["any"], strict=True)):
        axis = figure.add_subplot(grid[0, place])
        axis.imshow(apply_window(series.read(chunk), BRAIN), cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        axis.set(xticks=[], yticks=[])
        axis.set_title("blood" if bled else "", fontsize=9, color="C3")
    draw_probabilities(figure.add_subplot(grid[1, :]), study, predictions)
    figure.suptitle("One phantom study: the probability of any hemorrhage, slice by slice, out-of-fold", fontsize=11)
    return figure


def draw_probabilities(axis: Axes, study: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> None:
    places = np.arange(len(study))
    bled = study["any"].to_numpy() == 1
    axis.bar(places[bled], 1, width=1, color="C3", alpha=0.15, label="truth: blood")
    for name, (color, style) in RUNS.items():
        values = predictions[name].loc[study["image_id"], "any"]
        axis.plot(places, values, style, color=color, markersize=4, label=ROWS[name])
    axis.set(xlim=(-0.5, len(study) - 0.5), ylim=(0, 1), xlabel="slice, from the base of the head to its vertex")
    axis.set(ylabel="probability of any", xticks=places, xticklabels=places + 1)
    axis.legend(fontsize=8, loc="best", framealpha=0.9)


if __name__ == "__main__":
    command(main, PictureOptions)
