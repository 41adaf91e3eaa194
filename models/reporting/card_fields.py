"""The fields of a card, from the files of a release: whose slices, which networks, how they were made."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from models.common.labels import LABELS
from models.inference.release import FACTS
from models.reporting import card_text as words
from models.reporting.traced import Traced

CARD_FACTS = "release.json"
_BUILT = ("network", "image_size", "crop_size", "pretrained", "start", "pooling", "cell", "hidden", "layers")
_TRAINED = ("optimizer", "max_lr", "epochs", "batch_size", "weight_decay", "augment", "seed", "dropout")


class Table(NamedTuple):
    """A table of a card."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = str | Table


class Field(NamedTuple):
    """A field of a card."""

    title: str
    blocks: Sequence[Block]


def describe(show: Traced, folds: Sequence[str]) -> list[Field]:
    """What is known before anything is measured; `folds` are the config.json of each fold, b2/fold0/config.json."""
    release = CARD_FACTS
    return [
        Field("Summary", _summary(show)),
        Field(
            "Intended use",
            [
                f"Intended use: {show(release, 'asked', 'intended_use')}.",
                "Its clinical role is none so far: no reader has worked with it, and no study has shown a benefit. Its "
                "aim is to be a network whose limits are known.",
            ],
        ),
        Field("Warnings", list(words.WARNINGS)),
        Field("How it works", list(words.MECHANISM)),
        Field("Data", list(_data(show))),
        Field("Labels", [show(release, "labels_source")]),
        Field("Folds", list(_folds(show, folds))),
        Field("Preprocessing", [words.PREPROCESSING]),
        Field("Architecture", list(_architecture(show, folds))),
        Field("Training", list(_training(show, folds))),
    ]


def made(show: Traced, folds: Sequence[str]) -> list[Field]:
    """How to use it, its limits, its licence, and how it was made."""
    release = CARD_FACTS
    weights = [[fold.removesuffix("/config.json"), show(fold, "weights_sha256")] for fold in folds]
    versions = [[name, show(folds[0], "versions", name)] for name in show.names(folds[0], "versions")]
    return [
        Field("External testing", [words.EXTERNAL]),
        Field("Use", list(words.DIRECTIONS)),
        Field("Limits", list(words.LIMITS)),
        Field(
            "Licence",
            [
                f"Of the weights: {show(release, 'asked', 'license')}. Of the data: {show(release, 'data_source')}.",
                "Of the code that loads them: MIT. The weights, this card and all numbers on it are in this folder; "
                "the data is not.",
                f"Whom to ask: {show(release, 'asked', 'contact')}.",
            ],
        ),
        Field(
            "How it was made",
            [
                f"By `{show(release, 'command')}`, at commit {show(release, 'commit', unknown='not known')} of this "
                f"project, version {show(release, 'project')}; each fold by the command and commit below.",
                Table(
                    ["fold", "command", "commit"],
                    [
                        [
                            fold.removesuffix("/config.json"),
                            show(fold, "ran", "command", unknown="not noted"),
                            show(fold, "ran", "commit", unknown="not noted"),
                        ]
                        for fold in folds
                    ],
                ),
                Table(["weights", "sha256"], weights),
                Table(["trained with", "version"], versions),
            ],
        ),
        Field("Where the checklists are answered", _checklists()),
    ]


def _summary(show: Traced) -> list[Block]:
    release = CARD_FACTS
    rows = [
        ["name", show(release, "name")],
        ["locale", "none: it was made for no institution"],
        ["approval", "none: it is approved by nobody"],
        ["last update", show(release, "date")],
        ["version", show(release, "commit", unknown="not known")],
        ["patients, studies and slices that it was validated on", _counts(show)],
        ["AUC of any hemorrhage, studies", show.range(FACTS, "scores", "studies", "any", "AUC")],
        ["AUC of any hemorrhage, slices", show.range(FACTS, "scores", "slices", "any", "AUC")],
    ]
    text = "Deep learning that gives each slice of a head CT six probabilities of hemorrhage, and each study."
    return [text, Table(["what", "value"], rows)]


def _counts(show: Traced) -> str:
    return ", ".join(show(FACTS, "validated on", name, style=",d") for name in ("patients", "studies", "slices"))


def _data(show: Traced) -> Iterator[Block]:
    data = FACTS, "data"
    count = {name: show(*data, name, style=",d") for name in ("patients", "studies", "images", "unreadable")}
    yield f"Source: {show(CARD_FACTS, 'data_source')}."
    yield (
        f"Retrospective: {count['images']} labelled slices of {count['studies']} studies of {count['patients']} "
        f"patients, of which {count['unreadable']} slices have no image that can be read. {words.SELECTED}"
    )
    rows = [
        [label, show(*data, "slices with", label, style=",d"), show(*data, "studies with", label, style=",d")]
        for label in LABELS
    ]
    yield Table(["label", "slices that have it", "studies that have it"], rows)
    if problems := show.names(*data, "problems"):
        rows = [[name, show(*data, "problems", name, style=",d")] for name in problems]
        yield Table(["what was found in the data, and treated or left out", "items"], rows)
    else:
        yield "Nothing in the data had to be treated or left out."


def _folds(show: Traced, folds: Sequence[str]) -> Iterator[Block]:
    yield words.SPLIT
    rows = [
        [
            fold.removesuffix("/config.json"),
            show(fold, "fold", style="d"),
            show(fold, "results", "weighted_log_loss", style=".4f"),
            show(fold, "results", "best_epoch", style="d", unknown="the last one, or an average: none was chosen"),
        ]
        for fold in folds
    ]
    yield Table(["network", "fold that it was validated on", "weighted log loss there", "epoch that is kept"], rows)
    count = show(FACTS, "data", "folds", style="d", unknown="not noted")
    seed = show(FACTS, "data", "seed of the folds", style="d", unknown="not noted")
    yield f"Folds of the data: {count}, dealt with the seed {seed}."


def _architecture(show: Traced, folds: Sequence[str]) -> Iterator[Block]:
    for fold in folds:
        name, config = fold.removesuffix("/config.json"), show.files[fold]["config"]
        rows = [[of, show(FACTS, "training", of, name, style=",d")] for of in ("numbers", "bytes")]
        rows += [[one.replace("_", " "), show(fold, "config", one)] for one in _BUILT if config.get(one) is not None]
        for called, field in (("channel", "channels"), ("built on", "runs")):
            for place in range(len(config.get(field) or ())):
                rows.append([called, show(fold, "config", field, str(place))])
        yield Table([name, "value"], rows)
    yield show(CARD_FACTS, "joined")
    if show.files[CARD_FACTS]["blend"]:
        rows = [[label, _weights(show, label), show(CARD_FACTS, "blend", label, "space")] for label in LABELS]
        yield Table(["label", "weight of each run", "in the space of"], rows)
    rows = []
    for name in show.names(FACTS, "float16"):
        place = FACTS, "float16", name
        moved, slices = show(*place, "moved", style=".1e"), show(*place, "slices", style=",d")
        rows.append([name, show(*place, "kept"), moved, slices])
    yield Table(["network", "its weights are kept as", "most that float16 moves a probability", "slices"], rows)


def _weights(show: Traced, label: str) -> str:
    place = CARD_FACTS, "blend", label, "weights"
    return ", ".join(f"{run} {show(*place, run, style='.3f')}" for run in show.names(*place))


def _training(show: Traced, folds: Sequence[str]) -> Iterator[Block]:
    for fold in folds:
        config = show.files[fold]["config"]
        rows = [[one.replace("_", " "), show(fold, "config", one)] for one in _TRAINED if config.get(one) is not None]
        rows += [[one, show(fold, "ran", one, unknown="none, or not noted")] for one in ("device", "card", "precision")]
        name = fold.removesuffix("/config.json")
        rows.append(["hours", show(FACTS, "training", "hours", name, style=".3f", unknown="not noted")])
        yield Table([name, "value"], rows)
    yield f"Hours of all: {show(FACTS, 'training', 'hours of all', style='.3f', unknown='not noted')}. {words.ENERGY}"


def _checklists() -> list[Block]:
    claim = [[str(item), asked, where] for item, (asked, where) in words.CLAIM.items()]
    return [
        "Of the Model Facts label (doi:10.1038/s41746-020-0253-3):",
        Table(["field", "where"], [*words.MODEL_FACTS.items()]),
        "Of CLAIM 2024 (doi:10.1148/ryai.240300), in our words:",
        Table(["item", "what", "where"], claim),
    ]
