"""What the ablation changes, one thing at a time: fields of the configuration, and what the original did otherwise."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from comparison import quiet
from context import ABOVE, BELOW, TRIPLET, end_to_end, sequence

from models.common.config import RunConfig, TrainConfig
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.common.options import TestTimeAugmentation, TrainOptions
from models.common.prediction_files import prediction_table
from models.preprocessing.tables import split_fold
from models.train_lite0 import CONFIG as LITE0
from models.train_small import CONFIG as SMALL
from models.training.d4 import mean_probability
from models.training.evaluation import predict
from models.training.kinds import kind_of
from models.training.loading import make_loader
from models.training.loss import WeightedLogLoss
from models.training.processes import Processes
from models.training.run import train
from models.training.run_record import require_run
from models.training.symmetries import D4, GROUPS
from models.training.weights import load_trained

LITE0_EPOCHS = 3 / 8  # of the small network's: it begins with ImageNet's weights
VIEWS: TestTimeAugmentation = "flip"  # of every cell: all eight would be a third of the time
# Of D4: the turns, and the mirrors about the axes. Which two the original left out does not matter to a network here.
SIX = tuple(symmetry for symmetry in D4 if not (symmetry.mirror and symmetry.quarter_turns % 2))
NETWORKS = {
    "small": replace(SMALL, augment="light"),
    "lite0": replace(LITE0, image_size=SMALL.image_size, batch_size=SMALL.batch_size, augment="light"),
}


@dataclass(frozen=True)
class Change:
    """One thing that is otherwise than in the base."""

    what: str
    fields: dict[str, Any] = field(default_factory=dict)
    """of the configuration"""
    patched: str = ""
    """a name of PATCHES, within which it is trained"""
    again: str = ""
    """a name of AGAIN: the predictions of `beside` are made anew otherwise, and nothing is trained"""
    beside: str = "base"
    """the row that it is compared with"""
    networks: tuple[str, ...] = ("small", "lite0")
    scored_on_seen: bool = False
    """its score on drawings is none of a stranger, so that people say nothing of it"""


_SMALL, _LITE0 = ("small",), ("lite0",)
CHANGES = {
    "base": Change("the preset with light augmentation, one-cycle, best epoch, and a slice beside its mirror image"),
    # what the original did otherwise
    "symmetries": Change("all eight symmetries", again="eight"),
    "six_symmetries": Change("six of the eight symmetries", again="six", beside="symmetries"),
    "one_view": Change("no test-time augmentation", again="one"),
    "augmented_validation": Change("validation slices augmented, too", again="augmented", beside="one_view"),
    "pos_weight": Change("the positive half of any counts twice", patched="pos_weight"),
    "plain_loss": Change("the mean loss of the labels, any counting once", patched="plain_loss"),
    "folds_by_slice": Change(
        "folds by slice: a score of patients that were trained on", patched="folds_by_slice", scored_on_seen=True
    ),
    "crop": Change("a centre crop of 0.8 in training and prediction", {"crop_size": 52}),
    "crop_mismatch": Change("the crop in training alone", again="whole", beside="crop"),
    "cleaned": Change("low-information slices left out of training", {"skip_low_information": True}),
    # context
    "triplet": Change("one window of the slice and of its neighbours", {"channels": TRIPLET}),
    "context": Change("the slice, and one window of its neighbours", {"channels": (*SMALL.channels, BELOW, ABOVE)}),
    "smoothing": Change("the base, smoothed along z", again="smoothed"),
    "sequence": Change("recurrent layers over the base's embeddings"),
    "end_to_end": Change("network and recurrent layers, trained together", networks=_SMALL),
    # the recipe
    "no_augmentation": Change("slices as they are", {"augment": "none"}),
    "hard": Change("the original's augmentation", {"augment": "hard"}),
    "randomised": Change("hard, and another look in each sample", {"augment": "randomised"}),
    "strong": Change("strong augmentation", {"augment": "strong"}),
    "ema": Change("the average of the weights, not the best epoch", {"ema": 0.99}),
    "cosine": Change("cosine with warm-up, not one-cycle", {"schedule": "cosine"}),
    "head_lr": Change("the head at three times the rate", {"head_lr": 3.0}),
    "layer_decay": Change("0.8 of the rate, block by block down", {"layer_decay": 0.8}),
    "mixup": Change("mixup, a = 0.2", {"mixup": 0.2}),
    "cutmix": Change("CutMix, a = 1", {"cutmix": 1.0}),
    "label_smoothing": Change("0.02 of each label moved to a half", {"label_smoothing": 0.02}),
    "balanced": Change("twelve slices of a study in an epoch, twice as many epochs", {"balanced": 12, "epochs": 2}),
    "positives": Change("slices with blood drawn three times as often", {"positives": 3.0}),
    "noisy_labels": Change("labels weighted by out-of-fold disagreement"),
    "head_dropout": Change("0.3 of the features left out", {"head_dropout": 0.3}),
    "gem": Change("a generalised mean over the map", {"pooling": "gem"}, networks=_LITE0),
    "attention": Change("a learnt mean over the map", {"pooling": "attention"}, networks=_LITE0),
    "no_drop_path": Change("no drop path", {"drop_path": 0.0}, networks=_LITE0),
    "scratch": Change("random weights, not ImageNet's", {"pretrained": False}, networks=_LITE0),
}
NOT_SWITCHED = {
    "wrapped repair": "it changes 123 of 752,803 slices of the challenge, and none of a phantom without traps",
}


def config_of(network: str, change: str, seed: int, epochs: int, fold: int) -> RunConfig:
    """What a cell trains of a fold."""
    base = NETWORKS[network]
    epochs = epochs if network == "small" else max(round(LITE0_EPOCHS * epochs), 1)
    base = replace(base, name=f"{network}_{change}_{seed}", seed=seed, epochs=epochs)
    if change == "sequence":
        return sequence(f"{network}_{change}", seed, f"{network}_base")
    if change == "end_to_end":
        return end_to_end(base)
    if change == "noisy_labels":
        return replace(base, noisy_labels=judge_of(network, seed, fold))
    fields = dict(CHANGES[change].fields)
    for name, of_base in (("head_lr", base.max_lr), ("epochs", base.epochs)):  # told as so many times those of the base
        if name in fields:
            fields[name] *= of_base
    return replace(base, **fields)


def judge_of(network: str, seed: int, fold: int) -> str:
    """The run whose folds judge the labels of a fold that none of them has seen."""
    return f"{network}_judge{fold}_{seed}"


def train_cell(options: TrainOptions, patched: str) -> float:
    """Train a fold without a word, as one of PATCHES has it; the CPU seconds that it takes.

    They, and not those of a clock, are the same whatever else a machine does.
    """
    began = time.process_time()
    with quiet(), PATCHES[patched]():
        train(options)
    return time.process_time() - began


# ---- trained otherwise ----


class PositiveWeightLoss(WeightedLogLoss):
    """The original's: the metric's weight of `any` on its positive half alone."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits and targets (slices, 6) -> scalar."""
        weight = torch.ones(len(LABELS))
        weight[ANY] = 2.0
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float(), pos_weight=weight)


class PlainLoss(WeightedLogLoss):
    """The mean of all labels alike."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(smoothing)
        self.weights = torch.full_like(self.weights, 1 / len(LABELS))


def split_by_slice(work: Work, fold: int, skip_low_information: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation slices of a "fold" that patients stand on both sides of; all are validated once."""
    whole = pd.concat(split_fold(work, 0, skip_low_information=False))
    slices = whole.sort_values(["series_id", "chunk"]).reset_index(drop=True)
    folds = slices["fold"].nunique()
    drawn = np.random.default_rng(0).integers(folds, size=len(slices))
    return slices[drawn != fold].reset_index(drop=True), slices[drawn == fold].reset_index(drop=True)


@contextmanager
def _unchanged() -> Generator[None]:
    yield


PATCHES: dict[str, Callable[[], Any]] = {
    "": _unchanged,
    "pos_weight": lambda: patch("models.training.joint.WeightedLogLoss", PositiveWeightLoss),
    "plain_loss": lambda: patch("models.training.joint.WeightedLogLoss", PlainLoss),
    "folds_by_slice": lambda: patch("models.training.fold.split_fold", split_by_slice),
}


# ---- predicted otherwise ----


def predict_again(options: TrainOptions, how: str) -> tuple[pd.DataFrame, float]:
    """Out-of-fold predictions of a trained fold, otherwise than it has made them itself, and the CPU seconds of it."""
    began = time.process_time()
    work = options.machine.working_folder
    record = require_run(options.folder, "the base")
    config = record.config
    assert isinstance(config, TrainConfig)
    seen = replace(config, crop_size=None) if how == "whole" else config
    kind = kind_of(seen, options.folder)
    _, valid = split_fold(work, options.fold, skip_low_information=False)
    dataset = kind.dataset(valid, work, config.augment if how == "augmented" else "none")
    network = kind.network(dataset)
    load_trained(options.folder, record, network)
    group = {"eight": D4, "six": SIX, "whole": GROUPS[VIEWS]}.get(how, GROUPS["none"])
    processes, view = Processes(torch.device("cpu")), partial(mean_probability, group=group)
    with quiet():
        probability = predict(network, make_loader(dataset, 32, 0), processes, "fp32", "", view)
    return prediction_table(valid["image_id"], probability).set_index("image_id"), time.process_time() - began
