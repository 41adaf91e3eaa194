"""The figures of a report, as SVG in data URIs, and of a series, as PNG: the same bytes for the same numbers."""

import base64
import io

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from models.common.labels import ANY, LABELS
from models.preprocessing.geometry import known_z, plane_of

# Told apart by people who see no red or green (M. Okabe and K. Ito, 2008), and in print by their dashes.
_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), "-")
_GREY = "#8a8f98"
_CERTAIN = 1e-9  # log loss of a prior that knows: all slices have the label, or none
_ENDS = {"coronal": ("front", "back"), "sagittal": ("right", "left")}  # of a series along z
_ENDS |= dict.fromkeys(("axial", "unknown"), ("feet", "head"))
_NUMBERED = 12  # slices at most that have their number on a figure
_POINTS = 400  # of a curve: as many as a screen shows
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.09,  # inches
    "figure.constrained_layout.w_pad": 0.09,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "report",  # else the identifiers in the file are random
}


def data_uri(kind: str, content: bytes) -> str:
    """Content of a media type like "image/png" as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@matplotlib.rc_context(_STYLE)
def draw_losses(table: pd.DataFrame) -> str:
    """Log losses with their intervals, each as a share of the prior's; takes the table of `score_labels`."""
    figure = Figure(figsize=(5.6, 2.7), layout="constrained")
    axes = figure.subplots()
    prior = table["prior's"].where(table["prior's"] > _CERTAIN)
    share = table[["log loss", "low", "high"]].div(prior, axis=0)
    rows = np.arange(len(share))[::-1]
    axes.hlines(rows, share["low"], share["high"], color="#0072b2", linewidth=3, alpha=0.45)
    axes.plot(share["log loss"], rows, "o", color="#0072b2")
    axes.axvline(1, color=_GREY, linestyle="--", linewidth=1)
    axes.set(yticks=rows, yticklabels=share.index, ylim=(-0.6, len(share) - 0.4))
    axes.set(xlim=(0, None), xlabel="log loss as a share of the prior's (dashed); lower is better")
    return _svg(figure)


def draw_roc(target: np.ndarray, probability: np.ndarray) -> str:
    """ROC curves of the labels that have both classes, of targets and probabilities (slices, 6)."""
    curves = {}
    for number in _with_both_classes(target):
        alarms, found, _ = roc_curve(target[:, number], probability[:, number])
        curves[number] = alarms, found
    names = {"xlabel": "false alarms: share of negative slices", "ylabel": "found: share of positive slices"}
    return _draw_curves(curves, title="ROC", **names)


def draw_precision(target: np.ndarray, probability: np.ndarray) -> str:
    """Precision-recall curves of the labels that have both classes, of targets and probabilities (slices, 6)."""
    curves = {}
    for number in _with_both_classes(target):
        precision, recall, _ = precision_recall_curve(target[:, number], probability[:, number])
        curves[number] = recall, precision
    names = {"xlabel": "recall: share of positive slices found", "ylabel": "precision: share of alarms that are right"}
    return _draw_curves(curves, title="Precision and recall", **names)


@matplotlib.rc_context(_STYLE)
def draw_calibration(label: str, points: pd.DataFrame) -> str:
    """Observed against predicted shares of one label above the number of slices; takes what `calibrate` gives."""
    figure = Figure(figsize=(3.5, 4), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    axes.vlines(points["predicted"], points["low"], points["high"], color="#0072b2", alpha=0.45, linewidth=2)
    axes.plot(points["predicted"], points["observed"], "o-", color="#0072b2", markersize=4, linewidth=1)
    axes.set(title=label, ylabel="share of slices with it", ylim=(-0.02, 1.02))
    counts.bar(points.index, points["slices"], width=0.09, color=_GREY)
    counts.set(yscale="log", ylim=(0.5, None), ylabel="slices", xlim=(-0.02, 1.02), xlabel="predicted probability")
    return _svg(figure)


@matplotlib.rc_context(_STYLE)
def draw_along_z(slices: pd.DataFrame, probability: np.ndarray, title: str) -> bytes:
    """Probabilities (slices, 6) of a series over z, by its rows of the metadata, as PNG: the head is at the right."""
    figure = plot_along_z(slices, probability, title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def plot_along_z(slices: pd.DataFrame, probability: np.ndarray, title: str) -> Figure:
    """The figure of `draw_along_z`, which takes the same (slices, 6)."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    z = known_z(slices)
    for number, label in enumerate(LABELS):
        look = {"color": _COLOURS[number], "linestyle": _DASHES[number], "linewidth": 2.4 if number == ANY else 1.5}
        axes.plot(z, probability[:, number], label=label, marker=".", **look)
    where = "z, mm along the normal of the slices" if slices["z"].notna().all() else "z unknown, 5 mm a slice"
    start, end = _ENDS[plane_of(slices)]
    axes.set_xlabel(f"{start}  \N{LEFTWARDS ARROW}  {where}  \N{RIGHTWARDS ARROW}  {end}")
    axes.set(ylabel="predicted probability", ylim=(-0.02, 1.02))
    numbered = np.arange(0, len(z), -(-len(z) // _NUMBERED))
    above = axes.twiny()
    above.set(xlim=axes.get_xlim(), xticks=z[numbered], xticklabels=slices["chunk"].to_numpy()[numbered])
    above.set_xlabel("slice of the volume, counted from 0", color=_GREY)
    above.tick_params(colors=_GREY)
    above.spines["top"].set_visible(True)
    figure.suptitle(title, fontsize=10, fontweight="bold")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    warning = "Research software, not a medical device: do not base a decision about a patient on it."
    figure.supxlabel(warning, fontsize=8, color=_GREY)
    return figure


def _with_both_classes(target: np.ndarray) -> list[int]:
    return [number for number, share in enumerate(target.mean(axis=0)) if 0 < share < 1]


@matplotlib.rc_context(_STYLE)
def _draw_curves(curves: dict[int, tuple[np.ndarray, np.ndarray]], **texts: str) -> str:
    """Curves in the unit square, by the number of their label."""
    figure = Figure(figsize=(4.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, (x, y) in curves.items():
        width = 2.4 if number == ANY else 1.5
        look = {"color": _COLOURS[number], "linestyle": _DASHES[number], "linewidth": width}
        axes.plot(*_thin(x, y), label=LABELS[number], **look)
    if curves:
        figure.legend(loc="outside lower center", ncols=3)  # beside the curves, wherever these are
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", **texts)
    return _svg(figure)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a curve at even steps along it, its ends among them."""
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)).clip(max=len(x) - 1))
    return x[kept], y[kept]


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())
