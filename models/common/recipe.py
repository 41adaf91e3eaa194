"""How weights are learnt, beside what every run declares: each field's default means that nothing of it happens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["one-cycle", "cosine"]
Rule = tuple[bool, str, str]  # whether it holds, the field, and what it must be


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Of every kind of run."""

    schedule: Schedule = "one-cycle"
    """of the learning rate; cosine: it rises in a line, then falls along half a cosine to nothing"""
    warm_up: float = 0.05
    """share of the steps in which a cosine schedule rises"""
    ema: float = 0.0
    """how much of the moving average of the weights a step keeps, like 0.999, less in the first steps; validations see
    the average, and its last state is kept, not the best epoch's; 0: none"""
    label_smoothing: float = 0.0
    """share of each label that is moved to a half in training"""

    def rules_of_recipe(self) -> Iterator[Rule]:
        """What has to hold of these fields."""
        for name in ("ema", "label_smoothing", "warm_up"):
            yield 0 <= getattr(self, name) < 1, name, "must be at least 0 and below 1"


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """Of networks that look at images."""

    head_lr: float | None = None
    """peak rate of what is new, the last layer, a learnt pooling and recurrent layers; none: max_lr"""
    layer_decay: float = 1.0
    """by which the rate of a block of the backbone is smaller than that of the one above it"""
    mixup: float = 0.0
    """a of Beta(a, a), the share of another slice that is mixed into each, in grey values and labels; 0: none"""
    cutmix: float = 0.0
    """the same of a rectangle that is cut from another slice; with mixup, one of the two in each batch"""
    balanced: int = 0
    """how many slices of a study an epoch draws, in other places each time; 0: all of them. Weights make the loss that
    of all slices"""
    positives: float = 1.0
    """how many times as often as others slices with any hemorrhage are drawn, weighted back likewise"""
    noisy_labels: str | None = None
    """a run without this fold (--without) whose out-of-fold predictions tell which labels to trust less; none: all
    count alike"""
    without: int | None = None
    """a fold whose patients are left out of training beside those of the validation; none: no other"""

    def rules_of_images(self) -> Iterator[Rule]:
        """What has to hold of these fields."""
        yield self.head_lr is None or self.head_lr > 0, "head_lr", "must be above 0"
        yield 0 < self.layer_decay <= 1, "layer_decay", "must be above 0 and at most 1"
        for name in ("mixup", "cutmix", "balanced"):
            yield getattr(self, name) >= 0, name, "must not be negative"
        yield self.positives > 0, "positives", "must be above 0"
        yield self.without is None or self.without >= 0, "without", "must be the number of a fold"

    def rules_of_studies(self) -> Iterator[Rule]:
        """What has to hold where whole studies are looked at, whose slices are neither mixed nor drawn singly."""
        for name, before in {"mixup": 0, "cutmix": 0, "balanced": 0, "positives": 1}.items():
            yield getattr(self, name) == before, name, f"is for networks of single slices, and must be {before} here"
