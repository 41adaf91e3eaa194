"""What defines a run: one frozen, checked dataclass, from which the command line and config.json are made."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from models.common.channels import Channel, CommandLineChannel
from models.common.errors import InputError
from models.common.recipe import ImageRecipe, Recipe, Rule, Schedule
from models.common.recurrence import Cell, Recurrence

Optimizer = Literal["radam", "adam"]
Augment = Literal["hard", "light", "randomised", "strong", "none"]
Precision = Literal["auto", "fp16", "bf16", "fp32"]
Views = Literal["none", "flip", "d4"]
Pooling = Literal["avg", "gem", "attention"]

_NEW_NAMES = {"weights": "start"}  # fields that older versions wrote -> what they are called now


class NewerError(InputError):
    """What a newer version of this project has written, and this one does not know; the message names it."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Recipe):
    """What every run declares: its name, and how its weights are learnt. A run's folds differ in nothing else.

    Raises InputError for a value that cannot be, naming the flag that repairs it; the kinds of runs below do, too.
    """

    name: str
    """folder of the run below runs/"""
    optimizer: Optimizer
    """radam (radam.py) or torch's Adam, both with decoupled weight decay"""
    max_lr: float
    """peak of the one-cycle schedule"""
    epochs: int
    """passes over the training slices"""
    batch_size: int
    """slices a step; studies, where a network looks at studies"""
    accumulate: int = 1
    """parts in which a batch goes through the network, so that it fits a small card; batch norm sees a part"""
    weight_decay: float = 1e-4
    """decoupled: multiplied by the learning rate"""
    decay_norms_and_biases: bool = True
    """weight decay on norm layers and biases too: fastai 1's default (bn_wd=True), and so the original's"""
    clip_gradient: float | None = None
    """largest norm of the gradient; none: not clipped, as in the original"""
    precision: Precision = "auto"
    """on CUDA; auto: bf16 where the card has it, else fp16; other devices compute in fp32"""
    batchnorm_batches: int = 0
    """recompute batch-norm statistics over so many batches before each validation; 0: keep the running ones"""
    seed: int = 0
    """of the new layers, the order of slices and the augmentation"""

    def __post_init__(self) -> None:
        for name in ("max_lr", "epochs", "batch_size", "accumulate"):
            _require(getattr(self, name) > 0, self, name, "must be above 0")
        for name, kind in (("optimizer", Optimizer), ("precision", Precision), ("schedule", Schedule)):
            _require_choice(self, name, kind)
        for name in ("weight_decay", "batchnorm_batches", "seed"):
            _require(getattr(self, name) >= 0, self, name, "must not be negative")
        _require_plain(self, "name")
        _require(self.accumulate <= self.batch_size, self, "accumulate", "must not be above the batch size")
        clips = self.clip_gradient is None or self.clip_gradient > 0
        _require(clips, self, "clip_gradient", "must be above 0")
        _require_all(self, self.rules_of_recipe())

    def to_json(self) -> dict[str, Any]:
        """The fields, as numbers, texts and lists of texts."""
        return {name: _to_json(getattr(self, name)) for name in _names(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`, that of an older version too: what it did not have is the default.

        So a new field's default has to mean "as before". Raises NewerError for a field that is unknown here, and
        InputError for one that lacks though it has no default.
        """
        values = _with_new_names(values)
        if unknown := set(values) - set(_names(cls)):
            raise NewerError(f"the field {sorted(unknown)[0]!r}")
        if lacking := {field.name for field in dataclasses.fields(cls) if _has_no_default(field)} - set(values):
            raise InputError(f"the field {sorted(lacking)[0]!r} lacks")
        return cls(**{name: _from_json(name, value) for name, value in values.items()})


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ImageRecipe, RunConfig):
    """A network that looks at slices."""

    network: str
    """a name from models/training/networks.py, or timm/<name>: any image network of timm, like timm/resnet50"""
    image_size: int
    """side of the stored slice, pixels"""
    channels: tuple[CommandLineChannel, ...]
    """input channels, each a window (Hounsfield units) of the slice, or of one so many places or mm further along z"""
    crop_size: int | None = None
    """side of the centre crop that the network sees; none: the whole slice"""
    skip_low_information: bool = False
    """leave slices that show almost no brain out of training (never out of validation or test)"""
    augment: Augment = "hard"
    """hard: the original's; light: without grid distortion and gamma; randomised: hard ones, and a look that changes
    with each sample, for learning on drawings; strong: any rotation and scale, and noise, blur, windows, gamma and cuts
    (models/training/augmentation.py, models/training/appearance.py)"""
    window_jitter: float = 0.0
    """largest random change of a window's centre and width in training, as a share of its width; 0: none"""
    pretrained: bool = True
    """start from ImageNet weights"""
    start: str | None = None
    """start from these instead: those of a run (its name: of the same fold; or the folder of a fold), or a file
    (.safetensors, or a .pth of the two packages); of timm's networks a folder as its hub lays it out, too"""
    pooling: Pooling = "avg"
    """how features at all places become those of the slice; avg: the network's own; gem: a mean of powers that are
    learnt; attention: a mean with weights that are learnt. All but avg for timm's networks alone"""
    head_dropout: float = 0.0
    """share of a slice's features that the last layer is not given in training"""
    drop_path: float | None = None
    """chance that a slice skips the last block in training, less for earlier ones; none: the network's own. For timm's
    networks alone, as is checkpointing"""
    checkpointing: bool = False
    """keep activations between blocks alone, and compute the others anew for the backward pass: memory for time"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.image_size > 0, self, "image_size", "must be above 0")
        _require_choice(self, "augment", Augment)
        _require(len(self.channels) > 0, self, "channels", "must hold at least one channel")
        _require(all(channel.window.width > 0 for channel in self.channels), self, "channels", "need widths above 0")
        rule = "need units out of slices and mm, and whole offsets in slices (for others write @2.5mm)"
        _require(all(channel.is_possible for channel in self.channels), self, "channels", rule)
        _require(0 <= self.window_jitter < 1, self, "window_jitter", "must be at least 0 and below 1")
        idle = self.window_jitter > 0 and self.augment == "none"
        _require(not idle, self, "window_jitter", "needs --augment light, hard, randomised or strong")
        _require(self.start not in ("", self.name), self, "start", "must be another run, or a folder or file")
        _require_choice(self, "pooling", Pooling)
        _require(0 <= self.head_dropout < 1, self, "head_dropout", "must be at least 0 and below 1")
        skips = self.drop_path is None or 0 <= self.drop_path < 1
        _require(skips, self, "drop_path", "must be at least 0 and below 1")
        _require_all(self, self.rules_of_images())
        _require(self.noisy_labels not in ("", self.name), self, "noisy_labels", "must be another run")
        crop_fits = self.crop_size is None or 0 < self.crop_size <= self.image_size
        _require(crop_fits, self, "crop_size", f"must lie in 1 ... {self.image_size}, the image size")

    @property
    def input_size(self) -> int:
        """Side of the square that the network sees, pixels."""
        return self.crop_size or self.image_size


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """A network that goes on from the weights of a run, with pseudolabelled test slices among those it trains on."""

    pseudolabels: str
    """name of the pseudolabels, from make_pseudolabels.py --name"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_plain(self, "pseudolabels")
        _require(self.start is not None, self, "start", "must name the run whose weights it goes on from")


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Recurrence, TrainConfig):
    """A network that looks at slices, and recurrent layers over the slices of a study, trained together."""

    study_slices: int
    """longest stretch of a study to train on, slices"""
    slices_at_once: int = 16
    """slices whose activations are kept in training; those of the others are computed anew for the backward pass"""
    sequence_weight: float = 1.0
    """weight of the loss of the logits that the layers give"""
    slice_weight: float = 0.0
    """weight of the loss of the logits that the network gives each slice by itself"""
    batch_statistics: bool = True
    """batch norm by the slices of a pass; or by the statistics of the weights that the network starts from: slices of a
    few studies are alike"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_recurrence(self)
        _require_all(self, self.rules_of_studies())
        for name in ("study_slices", "slices_at_once", "sequence_weight"):
            _require(getattr(self, name) > 0, self, name, "must be above 0")
        _require(self.slice_weight >= 0, self, "slice_weight", "must not be negative")
        has_some = self.batch_statistics or self.pretrained or self.start is not None
        _require(has_some, self, "batch_statistics", "needs those of --start or --pretrained")
        idle = self.batchnorm_batches and not self.batch_statistics
        _require(not idle, self, "batchnorm_batches", "needs --batch-statistics")


@dataclass(frozen=True, kw_only=True)
class SequenceConfig(Recurrence, RunConfig):
    """Recurrent layers over what trained networks see in the slices of a study."""

    runs: tuple[str, ...]
    """trained runs, whose embeddings and logits are the input; all have trained the fold"""
    views: Views = "d4"
    """symmetries over which embeddings and logits are averaged: one, two or eight"""
    views_apart: bool = False
    """store what is seen in each view, and train on one of them or on their mean, drawn anew in each epoch"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_recurrence(self)
        _require_choice(self, "views", Views)
        idle = self.views_apart and self.views == "none"
        _require(not idle, self, "views_apart", "needs --views flip or d4")
        _require(len(set(self.runs)) == len(self.runs) > 0, self, "runs", "must name one or more different runs")


CONFIGS = {config.__name__: config for config in (TrainConfig, FinetuneConfig, StudyConfig, SequenceConfig)}


def _check_recurrence(config: Recurrence) -> None:
    _require_choice(config, "cell", Cell)
    for name in ("hidden", "layers", "heads"):
        _require(getattr(config, name) > 0, config, name, "must be above 0")
    for name in ("dropout", "logits_dropout"):
        _require(0 <= getattr(config, name) < 1, config, name, "must be at least 0 and below 1")
    for name in ("spacing", "study_weight"):
        _require(getattr(config, name) >= 0, config, name, "must not be negative")
    shared = config.cell != "transformer" or config.hidden % config.heads == 0
    _require(shared, config, "hidden", f"must be a multiple of --heads {config.heads}")
    _require(0 < config.shortest <= 1, config, "shortest", "must be above 0 and at most 1")


def _require(holds: bool, config: Any, name: str, rule: str) -> None:
    if not holds:
        raise InputError(f"{name} {rule}, not {getattr(config, name)!r}; repair --{name.replace('_', '-')}")


def _require_all(config: Any, rules: Iterable[Rule]) -> None:
    for holds, name, rule in rules:
        _require(holds, config, name, rule)


def _require_choice(config: Any, name: str, kind: Any) -> None:
    _require(getattr(config, name) in get_args(kind), config, name, f"must be one of {', '.join(get_args(kind))}")


def _require_plain(config: Any, name: str) -> None:
    plain = re.fullmatch(r"\w[\w.-]*", getattr(config, name)) is not None
    _require(plain, config, name, "must be a plain folder name")


def _with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    renamed = {_NEW_NAMES[name]: value for name, value in values.items() if name in _NEW_NAMES and value is not None}
    return {name: value for name, value in values.items() if name not in _NEW_NAMES} | renamed


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _names(config: type[RunConfig] | RunConfig) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value


def _from_json(name: str, value: Any) -> Any:
    if name == "channels":
        return tuple(Channel.parse(text) for text in value)
    return tuple(value) if isinstance(value, list) else value
