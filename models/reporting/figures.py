"""The figures of a report, as SVG in data URIs, and of a series, as PNG: the same bytes for the same numbers."""

import io
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from models.common.colours import BLUE, GREY, LABEL_COLOURS, LABEL_DASHES, VERMILION
from models.common.labels import ANY, LABELS
from models.preprocessing.geometry import known_z
from models.preprocessing.origin import SYNTHETIC
from models.reporting.ends import ends_of
from models.reporting.markup import data_uri

_NUMBERED = 12  # slices at most that have their number on a figure
_TICKS = (0.01, 0.1, 0.3, 0.6, 1)  # of axes that are stretched towards 0
_POINTS = 400  # of a curve: as many as a screen shows
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.09,  # inches
    "figure.constrained_layout.w_pad": 0.09,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "report",  # else the identifiers in the file are random
}


Curves = dict[int, tuple[np.ndarray, np.ndarray]]  # x and y by the number of a label


def mark_synthetic(figure: Figure) -> None:
    """Write below a figure that it shows drawings: for matplotlib's `figure.hooks`, of the figures of a notebook."""
    figure.text(0.5, -0.01, SYNTHETIC, ha="center", va="top", fontsize=11)  # which notebooks show without cutting


def png_uri(pixels: np.ndarray) -> str:
    """A grey image (rows, columns), or one of colours (rows, columns, 3) in OpenCV's order, uint8, as PNG."""
    return data_uri("image/png", cv2.imencode(".png", pixels)[1].tobytes())


@matplotlib.rc_context(_STYLE)
def to_svg(figure: Figure) -> str:
    """A figure as SVG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())


@matplotlib.rc_context(_STYLE)
def plot_losses(table: pd.DataFrame) -> Figure:
    """Each log loss as a share of the prior's, with its interval; takes the table of `score_labels`."""
    figure = Figure(figsize=(5.6, 2.7), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(table))[::-1]
    axes.hlines(rows, table["of prior low"], table["of prior high"], color=BLUE, linewidth=3, alpha=0.45)
    axes.plot(table["of prior"], rows, "o", color=BLUE)
    axes.axvline(1, color=GREY, linestyle="--", linewidth=1)
    axes.set(yticks=rows, yticklabels=table.index, ylim=(-0.6, len(table) - 0.4))
    axes.set(xlim=(0, None), xlabel="log loss as a share of the prior's (dashed); lower is better")
    return figure


def plot_roc(target: np.ndarray, probability: np.ndarray) -> Figure:
    """ROC curves of the labels that have both classes, and chance, of targets and probabilities (slices, 6)."""
    from sklearn.metrics import roc_curve  # a second, which the figures of an answer do without

    curves = {}
    for number in _with_both_classes(target):
        alarms, found, _ = roc_curve(target[:, number], probability[:, number])
        curves[number] = alarms, found
    names = {"xlabel": "false alarms: share of negative slices", "ylabel": "found: share of positive slices"}
    figure = _plot_curves(curves, title="ROC", **names)
    figure.axes[0].plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="_chance")
    return figure


def plot_precision(target: np.ndarray, probability: np.ndarray) -> Figure:
    """Precision-recall curves of the labels that have both classes, of targets and probabilities (slices, 6).

    The level of chance, the share of positive slices, is a tick at the right of each.
    """
    from sklearn.metrics import precision_recall_curve

    curves = {}
    for number in _with_both_classes(target):
        precision, recall, _ = precision_recall_curve(target[:, number], probability[:, number])
        curves[number] = recall, precision
    names = {"xlabel": "recall: share of positive slices found", "ylabel": "precision: share of alarms that are right"}
    figure = _plot_curves(curves, title="Precision and recall", **names)
    for number in curves:
        share = target[:, number].mean()
        figure.axes[0].plot([0.95, 1], [share, share], color=LABEL_COLOURS[number], linewidth=1, label="_chance")
    return figure


@matplotlib.rc_context(_STYLE)
def plot_calibration(label: str, points: pd.DataFrame, of: str = "slices") -> Figure:
    """Observed against predicted shares of one label, on axes stretched towards 0; takes what `calibrate` gives."""
    figure = Figure(figsize=(3.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="_as it should be")
    axes.vlines(points["predicted"], points["low"], points["high"], color=BLUE, alpha=0.45, linewidth=2)
    axes.plot(points["predicted"], points["observed"], "o-", color=BLUE, markersize=4, linewidth=1)
    axes.set_xscale("function", functions=(_root, np.square))
    axes.set_yscale("function", functions=(_root, np.square))
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=_TICKS, yticks=_TICKS, aspect="equal")
    axes.set(title=label, xlabel="predicted probability", ylabel=f"share of {of} with it")
    return figure


@matplotlib.rc_context(_STYLE)
def plot_covered(curves: dict[str, pd.DataFrame]) -> Figure:
    """The log loss of the surest slices over their share; takes what `cover` gives, by how it is told which are."""
    figure = Figure(figsize=(5.6, 3), layout="constrained")
    axes = figure.subplots()
    for (name, curve), colour, dash in zip(curves.items(), (BLUE, VERMILION), ("-", "--"), strict=False):
        axes.plot(*_thin(curve["coverage"].to_numpy(), curve["log loss"].to_numpy()), dash, color=colour, label=name)
    axes.set(xlim=(0, 1.01), ylim=(0, None))
    axes.set(xlabel="share of the slices that are answered, the surest first", ylabel="their log loss of any")
    figure.legend(loc="outside lower center", ncols=2, title="sure by")
    return figure


@matplotlib.rc_context(_STYLE)
def plot_course(slices: pd.DataFrame, target: np.ndarray, probability: np.ndarray, shown: int) -> Figure:
    """Probabilities (slices, 6) of a series over z beside its labels (slices, 6), small; `shown` is a row of them."""
    figure = Figure(figsize=(6, 2.5), layout="constrained")
    axes = figure.subplots()
    z = known_z(slices)
    half = np.median(np.diff(z)) / 2 if len(z) > 1 else 2.5
    for place in np.flatnonzero(target[:, ANY] == 1):
        axes.axvspan(z[place] - half, z[place] + half, color=VERMILION, alpha=0.2, linewidth=0)
    for number in range(len(LABELS)):
        look = {"color": LABEL_COLOURS[number], "linestyle": LABEL_DASHES[number]}
        axes.plot(z, probability[:, number], label=LABELS[number], linewidth=2.2 if number == ANY else 1, **look)
    axes.plot(z[shown], probability[shown, ANY], "o", color="black", markersize=7, label="_shown")
    where = "z, mm along the normal of the slices" if slices["z"].notna().all() else "z unknown, 5 mm a slice"
    axes.set(ylim=(-0.02, 1.02), ylabel="probability", xlabel=where)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@matplotlib.rc_context(_STYLE)
def draw_along_z(slices: pd.DataFrame, probability: np.ndarray, title: str) -> bytes:
    """Probabilities (slices, 6) of a series over z, by its rows of the metadata, as PNG: the last is at the right."""
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
        look = {
            "color": LABEL_COLOURS[number],
            "linestyle": LABEL_DASHES[number],
            "linewidth": 2.4 if number == ANY else 1.5,
        }
        axes.plot(z, probability[:, number], label=label, marker=".", **look)
    where = "z, mm along the normal of the slices" if slices["z"].notna().all() else "z unknown, 5 mm a slice"
    start, end = ends_of(slices)
    axes.set_xlabel(f"{start}  \N{LEFTWARDS ARROW}  {where}  \N{RIGHTWARDS ARROW}  {end}")
    axes.set(ylabel="predicted probability", ylim=(-0.02, 1.02))
    numbered = np.arange(0, len(z), -(-len(z) // _NUMBERED))
    above = axes.twiny()
    above.set(xlim=axes.get_xlim(), xticks=z[numbered], xticklabels=slices["chunk"].to_numpy()[numbered])
    above.set_xlabel("slice of the volume, counted from 0", color=GREY)
    above.tick_params(colors=GREY)
    above.spines["top"].set_visible(True)
    figure.suptitle(title, fontsize=10, fontweight="bold")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    warning = "Research software, not a medical device: do not base a decision about a patient on it."
    figure.supxlabel(warning, fontsize=8, color=GREY)
    return figure


@matplotlib.rc_context(_STYLE)
def plot_answer(slices: pd.DataFrame, probability: np.ndarray, shown: Sequence[int]) -> Figure:
    """Probabilities (slices, 6) of a series over z, for a page; `shown` are rows that have pictures there."""
    figure = Figure(figsize=(7.6, 3), layout="constrained")
    axes = figure.subplots()
    z = known_z(slices)
    for number, label in enumerate(LABELS):
        look = {"color": LABEL_COLOURS[number], "linestyle": LABEL_DASHES[number]}
        axes.plot(z, probability[:, number], label=label, linewidth=2.2 if number == ANY else 1, **look)
    axes.plot(z[list(shown)], probability[list(shown), ANY], "o", color="black", markersize=6, label="_shown")
    where = "z, mm" if slices["z"].notna().all() else "z unknown, 5 mm a slice"
    start, end = ends_of(slices)
    axes.set_xlabel(f"{start}  \N{LEFTWARDS ARROW}  {where}  \N{RIGHTWARDS ARROW}  {end}")
    axes.set(ylim=(-0.02, 1.02), ylabel="probability")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(values, 0))  # of what lies below the axis, too


def _with_both_classes(target: np.ndarray) -> list[int]:
    return [number for number, share in enumerate(target.mean(axis=0)) if 0 < share < 1]


@matplotlib.rc_context(_STYLE)
def _plot_curves(curves: Curves, **texts: str) -> Figure:
    """Curves in the unit square."""
    figure = Figure(figsize=(4.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, (x, y) in curves.items():
        width = 2.4 if number == ANY else 1.5
        look = {"color": LABEL_COLOURS[number], "linestyle": LABEL_DASHES[number], "linewidth": width}
        axes.plot(*_thin(x, y), label=LABELS[number], **look)
    if curves:
        figure.legend(loc="outside lower center", ncols=3)  # beside the curves, wherever these are
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", **texts)
    return figure


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a curve at even steps along it, its ends among them."""
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)).clip(max=len(x) - 1))
    return x[kept], y[kept]
