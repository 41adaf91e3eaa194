"""A finished run on disk: config.json, the record of what was trained and how; reading it needs no torch."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from models.common.config import CONFIGS, RunConfig, TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file, write_text

_PACKAGES = ("torch", "fastai", "albumentations", "efficientnet-pytorch", "pretrainedmodels", "numpy", "blosc2")


def save_config(
    folder: Path, config: RunConfig, fold: int, results: dict, stage: int | None = None, ran: dict | None = None
) -> None:
    """Write config.json, from which inference builds the network: last of a run's files, so that it marks the whole.

    `ran` tells what it was carried out on.
    """
    from torch import get_num_threads  # takes seconds, which whoever reads a record does not have

    description = {
        "kind": type(config).__name__,
        "config": config.to_json(),
        "fold": fold,
        "stage": stage,
        "weights_sha256": hash_file(folder / "model.safetensors"),
        "results": results,
        "ran": ran or {},
        "versions": {package: version(package) for package in _PACKAGES},
        "torch_threads": get_num_threads(),  # the last bits of a CPU run depend on it
    }
    write_text(folder / "config.json", json.dumps(description, indent=2))


class RunRecord(NamedTuple):
    """What config.json tells of a finished run."""

    config: RunConfig
    weights_sha256: str
    results: dict  # weighted_log_loss, best_epoch, prevalence (of the labels in training)
    versions: dict[str, str]  # of the packages that it was trained with
    stage: int | None  # of the challenge, whose slices it was trained on; None: those of cache/ itself


class SmoothedRecord(NamedTuple):
    """What config.json tells of predictions that models/smooth.py has made from those of another run."""

    name: str
    run: str  # the other one
    width_mm: float
    predictions_sha256: dict[str, str]  # of its files that this fold depends on: fold0/valid.parquet -> hash


def save_smoothed(folder: Path, record: SmoothedRecord) -> None:
    """Write config.json of smoothed predictions: last of their files, too."""
    write_text(folder / "config.json", json.dumps(record._asdict(), indent=2))


def read_record(folder: Path) -> RunRecord | SmoothedRecord | None:
    """The record of the predictions in `folder`, or None if none are finished. Raises InputError if it is damaged."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text())
        if "width_mm" in values:
            return SmoothedRecord(**values)
        kind = CONFIGS[values.get("kind", TrainConfig.__name__)]  # once there was no other
        config, stage = kind.from_json(values["config"]), values.get("stage")  # it was not always noted
        return RunRecord(config, values["weights_sha256"], values["results"], values["versions"], stage)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete {folder} and make that fold anew") from error


def read_run(folder: Path) -> RunRecord | None:
    """The record of the trained network in `folder`, or None if there is no finished one.

    Raises InputError if it is damaged, or smoothed predictions are there instead.
    """
    record = read_record(folder)
    if isinstance(record, SmoothedRecord):
        raise InputError(f"{folder} holds smoothed predictions of {record.run} and no network; choose another --name")
    return record


def require_run(folder: Path, name: str, fold: int) -> RunRecord:
    """The record of the trained network in `folder`, that of a fold of run `name`.

    Raises InputError, naming the command that trains it, if there is no finished one, and as `read_run`.
    """
    record = read_run(folder)
    if record is None:
        raise InputError(f"no trained network in {folder}; train it with: python models/train_{name}.py --fold {fold}")
    return record


def differences(config: RunConfig, other: RunConfig) -> list[str]:
    """Names and values of the fields in which two configurations differ."""
    if type(config) is not type(other):
        return [f"a {type(other).__name__} (now a {type(config).__name__})"]
    return field_differences(config, other, config.to_json())


def field_differences(config: RunConfig, other: RunConfig, names: Iterable[str]) -> list[str]:
    """The same of some fields, which both configurations have."""
    ours, theirs = config.to_json(), other.to_json()
    return [f"{name} {theirs[name]!r} (now {ours[name]!r})" for name in names if ours[name] != theirs[name]]


def stage_difference(stage: int | None, other: int | None) -> list[str]:
    """The same of the stages of the challenge on whose slices two runs are trained."""
    return [] if stage == other else [f"stage {other} (now {stage})"]
