"""What the steps of the pipeline would take, disk, hours and memory of the GPU, from speeds that are known.

A speed was measured, by benchmarks/gpu.py or here (timing.py), or published (anchors.py).
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from models.common.config import FinetuneConfig, StudyConfig, TrainConfig, Views
from models.common.labels import LABELS
from models.preprocessing.report import bytes_a_slice
from models.training.anchors import BANDWIDTH, Anchor, anchors_of

GB = 1e9
RAW_BYTES = 512 * 512 * 2  # of a slice's pixels
VIEWS = 8  # of D4
_VIEWS: dict[Views, int] = {"none": 1, "flip": 2, "d4": VIEWS}
FORWARD = 1 / 3  # of a training step: the backward pass costs two forward passes
# How many numbers the networks' embeddings have; a test asks the networks. Of timm's those of the presets.
WIDTHS = {
    "small": 256,
    "efficientnet-lite0": 1280,
    "efficientnet-lite0-trunk": 192,
    "efficientnet-b0": 1280,
    "efficientnet-b2": 1408,
    "efficientnet-b5": 2048,
    "resnext101_32x4d": 2048,
    "resnet50": 2048,
    "se_resnext50_32x4d": 2048,
    "densenet121": 1024,
    "timm/maxvit_tiny_tf_512.in1k": 512,
    "timm/convnext_tiny.fb_in22k_ft_in1k_384": 768,
    "timm/tf_efficientnetv2_s.in21k_ft_in1k": 1280,
}
# Of docs/results.md, on two CPU cores at the challenge's size: an epoch of recurrent layers, and the last step.
SEQUENCE_EPOCH, BLEND = 90.0, 73.0  # seconds
MOST_EPOCHS = 10  # the original's of B0: of more there is no figure
MARGIN = 0.1  # of the hours: each of some twenty commands has to start, and speeds are estimates


class Slices(NamedTuple):
    """How many slices there are."""

    train: int
    """with labels, of all folds"""
    test: int
    studies: int
    """with labels"""
    low_information: float
    """share of those with labels that show almost no brain"""
    folds: int = 5


CHALLENGE = Slices(752_803, 121_232, 21_744, 0.117)


class Speed(NamedTuple):
    """Slices a second of one device, with its loader."""

    train: float
    predict: float
    """as they are"""
    d4: float
    """under each of eight symmetries"""
    memory: float | None
    """GiB of the device that training takes"""
    d4_memory: float | None
    source: str


class Line(NamedTuple):
    """A step of the pipeline: what it takes, and by what that is known."""

    step: str
    disk: float | None
    """GB that it writes"""
    seconds: float | None
    memory: float | None
    """GiB of a GPU"""
    source: str
    is_part: bool = False
    """of another line, which counts it"""


def plan(
    config: TrainConfig,
    slices: Slices,
    speed: Speed,
    prepare: Line,
    gpus: int,
    sequence_epochs: int,
    views: Views = "d4",
    folds: int | None = None,
    side_by_side: bool = False,
) -> list[Line]:
    """A line for each step, from the raw files to the submission, on so many GPUs of a speed.

    `prepare` is that of models/prepare.py, `views` are those of the embeddings, `folds` how many are trained (none:
    all). Several GPUs share each fold or, side by side, have a fold each: then those of the last round may be idle. At
    most as many share a training as its batch has slices, or studies.
    """
    folds, every, by = folds or slices.folds, slices.train + slices.test, speed.source
    sharing, rounds = (1, math.ceil(folds / gpus)) if side_by_side else (gpus, folds)
    if gpus > 1:
        by += f", a fold on each of {gpus} GPUs" if side_by_side else f", shared by {gpus} GPUs"
    training, trained_by = sharing, by
    if config.batch_size < sharing:
        training, trained_by = config.batch_size, f"{speed.source}, shared by {config.batch_size} of {gpus} GPUs"
    epoch, valid = epoch_seconds(config, slices, speed) / training, slices.train / slices.folds / speed.d4 / training
    fold = config.epochs * epoch + valid  # the out-of-fold predictions
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    lines = [
        prepare,
        Line("train, an epoch of a fold", None, epoch, speed.memory, trained_by, is_part=True),
        *_of_folds(f"train, {epochs}", None, fold, speed.memory, trained_by, folds, rounds),
        *_of_folds("infer, D4", None, slices.test / speed.d4 / sharing, speed.d4_memory, by, folds, rounds),
    ]
    if not isinstance(config, StudyConfig):  # which has recurrent layers of its own
        width = WIDTHS.get(config.network)
        disk = None if width is None else 2 * every * (width + len(LABELS)) / GB
        seconds = every / speed.d4 / sharing * _VIEWS[views] / VIEWS
        named = "D4" if views == "d4" else views
        lines += _of_folds(f"embeddings, {named}", disk, seconds, speed.d4_memory, by, folds, rounds)
        share = slices.train / CHALLENGE.train * (slices.folds - 1) / slices.folds
        by = "measured, docs/results.md: two CPU cores"
        seconds = sequence_epochs * SEQUENCE_EPOCH * share
        lines += _of_folds(f"train_sequence.py, {sequence_epochs} epochs", None, seconds, None, by, folds, folds)
    seconds = BLEND * slices.train / CHALLENGE.train
    return [*lines, Line("blend of 12 runs", None, seconds, None, "measured, docs/results.md: two CPU cores")]


def _of_folds(
    step: str, disk: float | None, seconds: float, memory: float | None, source: str, folds: int, rounds: int
) -> list[Line]:
    """Of one fold, and of all, that one after the other would take as long as so many."""
    total, named = None if disk is None else folds * disk, "1 fold" if folds == 1 else f"{folds} folds"
    return [
        Line(f"{step}, a fold", disk, seconds, memory, source, is_part=True),
        Line(f"{step}, {named}", total, rounds * seconds, memory, source),
    ]


def epochs_within(hours: float, config: TrainConfig, planned: Callable[[TrainConfig], list[Line]]) -> int:
    """How many epochs so many hours hold once the slices are prepared, with all else that `planned` counts for them.

    A tenth of the hours is kept back. At most MOST_EPOCHS; and one at least: what a session cannot hold goes on in the
    next.
    """
    for epochs in range(MOST_EPOCHS, 1, -1):
        if seconds_after_preparing(planned(replace(config, epochs=epochs))) <= (1 - MARGIN) * 3600 * hours:
            return epochs
    return 1


def seconds_after_preparing(lines: list[Line]) -> float:
    """What a plan takes without its first line, which is that of models/prepare.py."""
    return sum(line.seconds or 0 for line in lines[1:] if not line.is_part)


def epoch_seconds(config: TrainConfig, slices: Slices, speed: Speed) -> float:
    """How long one device trains and validates for an epoch of a fold."""
    return slices_of_epoch(config, slices) / speed.train + slices.train / slices.folds / speed.predict


def slices_of_epoch(config: TrainConfig, slices: Slices) -> float:
    """How many slices a fold trains on in an epoch."""
    trained = (slices.folds - 1) / slices.folds
    if isinstance(config, StudyConfig):
        return slices.studies * trained * min(slices.train / slices.studies, config.study_slices)
    added = slices.test if isinstance(config, FinetuneConfig) else 0  # with pseudolabels
    kept = 1 - slices.low_information if config.skip_low_information else 1
    return (slices.train * trained + added) * kept


def plan_of_prepare(
    image_size: int, slices: Slices, milliseconds: float, cores: int, source: str, parts: int = 1
) -> Line:
    """The line of models/prepare.py, which takes so many milliseconds a slice on one core; of one of so many parts."""
    every = (slices.train + slices.test) / parts
    disk = every * bytes_a_slice(image_size) / GB
    read = every * RAW_BYTES / GB
    by = (
        f"{source}: {milliseconds:.2f} ms a slice on one core, {cores} cores; reading {read:,.0f} GB not counted; "
        "disk by 302 slices of the challenge"
    )
    part = f" --part 1/{parts}" if parts > 1 else ""
    return Line(f"prepare.py --image-size {image_size}{part}", disk, every * milliseconds / 1000 / cores, None, by)


def measured_speed(results: dict, config: TrainConfig, card: str) -> Speed | None:
    """What benchmarks/gpu.py has measured of a network on a card; None if it has not, or has only rehearsed it.

    At another size or batch: as many pixels a second, and as much memory a pixel.
    """
    if results["quick"] or not is_card(card, results["card"] or ""):
        return None
    rows = [row for row in results["rows"] if row["network"] == config.network and row["both"] and row["d4"]]
    if not rows:
        return None
    row = min(rows, key=lambda row: (abs(row["size"] - config.input_size), row["compile"], -row["both"]))
    pixels = (row["size"] / config.input_size) ** 2
    more = config.batch_size / row["batch"] / pixels
    as_measured = row["size"] == config.input_size
    scaled = "" if as_measured else f", scaled by pixels from {row['size']}"
    of_studies = isinstance(config, StudyConfig)  # whose memory follows from what they keep for the backward pass
    return Speed(
        row["both"] * pixels / passes(config),
        row["d4"] * pixels * VIEWS,
        row["d4"] * pixels,
        None if row["peak_gib"] is None or of_studies else row["peak_gib"] * more,
        None if row["d4_peak_gib"] is None else row["d4_peak_gib"] / pixels,
        f"measured, benchmarks/gpu.json: {results['card']} in {row['precision']}, {results['date'][:10]}, "
        f"commit {results['commit'][:7]}{scaled}",
    )


def published_speed(config: TrainConfig, card: str, load: float) -> Speed | None:
    """By what is published of a network, scaled by pixels, of that card or of another one; None if nothing is.

    Of another one scaled by the bandwidth of their memories, where both are known. `load` are the slices a second of
    the loader.
    """
    anchors = anchors_of(config.network)
    own = [anchor for anchor in anchors if is_card(card, anchor.card)]
    known = [
        anchor for anchor in anchors if anchor.card in BANDWIDTH and any(is_card(card, name) for name in BANDWIDTH)
    ]
    for anchor in own or known or anchors:
        slower, scaled = (1.0, "") if own else by_bandwidth(anchor, card)
        rate = anchor.scaled(config.input_size) * slower
        another = "" if own else f" (no figure of {card})"
        by = f"published: {anchor.card}{another}, {anchor.rate:,.0f}/s at {anchor.image_size} px, scaled by pixels"
        train, forward = rate / passes(config), rate / FORWARD
        by += scaled if train < load else f"{scaled}; but the loader gives {load:,.0f}/s"
        return Speed(min(train, load), min(forward, load), forward / VIEWS, None, None, by)
    return None


def passes(config: TrainConfig) -> float:
    """What a training step takes of one that keeps all activations: studies compute theirs anew for the way back."""
    return 1 + FORWARD if isinstance(config, StudyConfig) else 1.0


def by_bandwidth(anchor: Anchor, card: str) -> tuple[float, str]:
    """What the rate of an anchor is multiplied by for another card, and how that is told; 1 where it is not known."""
    for name, gigabytes in BANDWIDTH.items():
        if anchor.card in BANDWIDTH and is_card(card, name):
            its = BANDWIDTH[anchor.card]
            return gigabytes / its, f" and by the bandwidth of its memory ({gigabytes} of {its} GB/s)"
    return 1.0, ""


def is_card(asked: str, name: str) -> bool:
    """Whether a card's full name is meant: "h100" of "NVIDIA H100 80GB HBM3", "rtx3090" of "RTX 3090".

    By whole words, so that "a10" is no "A100"; what stands between letters and digits does not matter.
    """
    words = r"[^a-z0-9]*".join(filter(str.isalnum, asked.lower()))
    return bool(words) and re.search(rf"(?<![a-z0-9]){words}(?![a-z0-9])", name.lower()) is not None
