"""One study of the phantom of benchmarks/context.py, slice by slice: what each network says, and what is true.

    python benchmarks/context.py --work scratch
    python benchmarks/context_picture.py --work scratch     # draws docs/context.png

Draws the probability of `any`, out-of-fold, of the single-slice network, of its smoothed predictions, of the recurrent
layers and of the network of whole studies. Above it stand some slices, each with its number, and with a line around its
blood where it has any. Of all studies with blood in some slices and not in others it is the one with the median gain of
the recurrent layers over the single slice.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from context import ROWS
from experiment import read_out_of_fold
from heat import IS_BLOOD, draw_blood, read_parameters
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.common.cli import command
from models.common.colours import BLUE, GREEN, ORANGE, PINK, VERMILION
from models.common.files import replacing
from models.common.folders import Work, WorkFolder, default_work
from models.common.labels import LABELS
from models.phantom.dicom import identify
from models.preprocessing.store import Series
from models.preprocessing.tables import read_slices
from models.preprocessing.windows import SUBDURAL, apply_window
from models.train_small import CONFIG as SMALL
from models.training.metric import log_losses

SHOWN = 10  # slices as pictures, in the window in which blood is not as white as bone
RUNS = {  # colour, marker and line
    "single": (BLUE, "o:"),
    "smoothing": (ORANGE, "s--"),
    "recurrent": (GREEN, "D-"),
    "study": (PINK, "^-."),
}
STUDIES = 10_000  # of a phantom at most


@dataclass(frozen=True)
class PictureOptions:
    """The command line of this benchmark."""

    work: WorkFolder = field(default_factory=default_work)
    seed: int = 0
    """of the networks"""
    output: Path = Path(__file__).parent.parent / "docs" / "context.png"


def main(options: PictureOptions) -> None:
    """Draw the picture of a typical study."""
    read_parameters(options.work / "data")  # of this version, which draws the lines around blood
    work = Work(options.work)
    predictions = {name: read_out_of_fold(work, run_name(name, options.seed)) for name in RUNS}
    study = typical_study(read_slices(work, "train"), predictions)
    with replacing(options.output) as temporary:
        draw(work, study, predictions).savefig(temporary, dpi=140)
    print(f"{options.output}: {len(study)} slices, {int(study['any'].sum())} with blood")


def run_name(row: str, seed: int) -> str:
    """The run in which benchmarks/context.py has trained a row for a seed."""
    return f"single_{seed}_smoothed" if row == "smoothing" else f"{row}_{seed}"


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
    """Log loss of `any`, the mean over the slices of a study."""
    labels = list(LABELS)
    return log_losses(study[labels].to_numpy(), predictions.loc[study.index].to_numpy())[labels.index("any")]


def draw(work: Work, study: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> Figure:
    """What was said of each slice, from the base to the vertex, and above it some of them in the brain window."""
    figure = Figure(figsize=(11, 5))
    axis = figure.add_axes((0.06, 0.11, 0.93, 0.56))
    draw_probabilities(axis, study, predictions)
    series = Series(work.series(SMALL.image_size, study["series_id"].iloc[0]))
    blood = find_blood(study)
    step = step_between_pictures(study)
    for place in range(step // 2, len(study), step):
        tile = axis.inset_axes((place - step / 2, 1.03, step, 0.36), transform=axis.transData)
        grey = apply_window(series.read(int(study["chunk"].iloc[place])), SUBDURAL)
        tile.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        inside = blood[study["image_id"].iloc[place]]
        if study["any"].iloc[place] == 1:
            tile.contour(inside, levels=[IS_BLOOD], colors=VERMILION, linewidths=1.2)
        tile.set_title(f"slice {place + 1}", fontsize=8, pad=2)
        tile.set_axis_off()
    figure.suptitle(
        "One phantom study, slice by slice: the probability of any hemorrhage, out-of-fold", fontsize=11, y=0.99
    )
    return figure


def step_between_pictures(study: pd.DataFrame) -> int:
    """From one slice that is shown to the next."""
    return -(-len(study) // SHOWN)


def find_blood(study: pd.DataFrame) -> dict[str, np.ndarray]:
    """The share of blood in each pixel of the slices of a study, (size, size), by image."""
    series_id = study["series_id"].iloc[0]
    number = next(number for number in range(STUDIES) if identify(0, "train", number).series_id == series_id)
    return draw_blood({"seed": 0, "image_size": SMALL.image_size}, number)


def draw_probabilities(axis: Axes, study: pd.DataFrame, predictions: dict[str, pd.DataFrame]) -> None:
    """The curves of the runs over the slices that have blood."""
    places = np.arange(len(study))
    bled = study["any"].to_numpy() == 1
    axis.bar(places[bled], 1, width=1, color=VERMILION, alpha=0.15, label="truth: blood (a line around it above)")
    for name, (color, style) in RUNS.items():
        values = predictions[name].loc[study["image_id"], "any"]
        axis.plot(places, values, style, color=color, markersize=4, label=ROWS[name])
    axis.set(xlim=(-0.5, len(study) - 0.5), ylim=(0, 1), xlabel="slice, from the base of the head to its vertex")
    step = step_between_pictures(study)
    shown = places[step // 2 :: step]
    axis.set(ylabel="probability of any", xticks=shown, xticklabels=shown + 1)
    axis.legend(fontsize=8, loc="best", framealpha=0.9)


if __name__ == "__main__":
    command(main, PictureOptions)
