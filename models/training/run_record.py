"""A finished run on disk: config.json, the record of what was trained and how; reading it needs no torch."""

import json
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from models.common.config import CONFIGS, NewerError, RunConfig, TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file, write_text

PATIENTS = "patients.parquet"  # of a run's files: whose slices it has trained on
ROOT = Path(__file__).parent.parent.parent
_PROJECT = "rsna-intracranial-hemorrhage"
_PACKAGES = ("torch", "fastai", "albumentations", "efficientnet-pytorch", "pretrainedmodels", "numpy", "blosc2")


# What changes no more than the rounding, and the slices that batch norm sees together: a run may go on with another.
_OF_THE_MACHINE = ("accumulate", "precision")


def save_config(
    folder: Path,
    config: RunConfig,
    fold: int,
    results: dict,
    stage: int | None = None,
    ran: dict | None = None,
    warnings: Iterable[str] = (),
) -> None:
    """Write config.json, from which inference builds the network: last of a run's files, so that it marks the whole.

    `ran` tells what it was carried out on, `warnings` what of the training was not as it should be.
    """
    from torch import get_num_threads  # takes seconds, which whoever reads a record does not have

    description: dict[str, Any] = {
        "kind": type(config).__name__,
        "config": config.to_json(),
        "fold": fold,
        "stage": stage,
        "weights_sha256": hash_file(folder / "model.safetensors"),
        "results": results,
        "ran": ran or {},
        "versions": package_versions(),
        "torch_threads": get_num_threads(),  # the last bits of a CPU run depend on it
        "project": project_version(),
    }
    if (folder / PATIENTS).is_file():
        description["patients_sha256"] = hash_file(folder / PATIENTS)
    if noted := list(warnings):
        description["warnings"] = noted
    write_text(folder / "config.json", json.dumps(description, indent=2))


def package_versions() -> dict[str, str]:
    """Of the packages on which the bits of a run may depend."""
    return {package: version(package) for package in _PACKAGES if is_installed(package)}


def is_installed(package: str) -> bool:
    """Whether there is such a distribution: whoever answers by ONNX has fewer than whoever trains."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def project_version() -> str:
    """Of this project; nothing where its code lies there without having been installed."""
    try:
        return version(_PROJECT)
    except PackageNotFoundError:
        return ""


def commit() -> str | None:
    """The commit of this repository, with "+" where files have been changed; None where it is not one of git's."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class RunRecord(NamedTuple):
    """What config.json tells of a finished run."""

    config: RunConfig
    weights_sha256: str
    results: (
        dict  # weighted_log_loss, best_epoch (where one was chosen), prevalence (of the labels in training), sources
    )
    versions: dict[str, str]  # of the packages that it was trained with
    stage: int | None  # of the challenge, whose slices it was trained on; None: those of cache/ itself
    patients_sha256: str | None  # of patients.parquet; it was not always written
    ran: dict  # what it was carried out on, the commit and the command; it was not always noted

    @property
    def sources(self) -> dict[str, str]:
        """The sha256 of all that it was trained with, by name; those of the tables were not always noted."""
        return self.results.get("sources", {})

    @property
    def kept_epoch(self) -> int:
        """That of its weights: the best one or, of an average of them, the last one, of which none was chosen."""
        return self.results.get("best_epoch", self.config.epochs)


class SmoothedRecord(NamedTuple):
    """What config.json tells of predictions that models/smooth.py has made from those of another run."""

    name: str
    run: str  # the other one
    width_mm: float
    predictions_sha256: dict[str, str]  # of its files that this fold depends on: fold0/valid.parquet -> hash
    # Weighted log loss after smoothing less before: value, low, high, slices, patients; it was not always noted.
    gain: dict[str, Any] | None = None

    @property
    def fitted_on_own(self) -> bool:
        """Whether there was but one fold, so that the width was fitted on the very slices that it is scored on."""
        return sum(file.endswith("/valid.parquet") for file in self.predictions_sha256) == 1


def save_smoothed(folder: Path, record: SmoothedRecord) -> None:
    """Write config.json of smoothed predictions: last of their files, too."""
    write_text(folder / "config.json", json.dumps(record._asdict() | {"project": project_version()}, indent=2))


def read_record(folder: Path) -> RunRecord | SmoothedRecord | None:
    """The record of the predictions in `folder`, or None if none are finished.

    Raises InputError if it is damaged, or a newer version of this project has written it.
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    values = {}
    try:
        values = json.loads(file.read_text())
        return _smoothed_record(values) if "width_mm" in values else _run_record(values)
    except NewerError as error:
        wrote = f"version {values['project']}" if values.get("project") else "a newer version"
        raise InputError(
            f"{file} has {error}, which this version of the project ({project_version() or 'not installed'}) does not "
            f"know; {wrote} wrote it: use that one"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete {folder} and make that fold anew") from error


def _run_record(values: dict) -> RunRecord:
    config = read_config(values["config"], values.get("kind", TrainConfig.__name__))  # once there was no other
    noted = values.get("stage"), values.get("patients_sha256")  # they were not always noted
    return RunRecord(
        config, values["weights_sha256"], values["results"], values["versions"], *noted, values.get("ran", {})
    )


def _smoothed_record(values: dict) -> SmoothedRecord:
    fields = {name: value for name, value in values.items() if name != "project"}
    if unknown := set(fields) - set(SmoothedRecord._fields):
        raise NewerError(f"the field {sorted(unknown)[0]!r}")
    return SmoothedRecord(**fields)


def read_config(values: dict, kind: str) -> RunConfig:
    """The configuration of a kind of run. Raises NewerError for a kind, or a field, that is unknown here.

    Raises InputError as `RunConfig.from_json`.
    """
    if kind not in CONFIGS:
        raise NewerError(f"the kind {kind!r}")
    return CONFIGS[kind].from_json(values)


def read_run(folder: Path) -> RunRecord | None:
    """The record of the trained network in `folder`, or None if there is no finished one.

    Raises InputError if it is damaged, or smoothed predictions are there instead.
    """
    record = read_record(folder)
    if isinstance(record, SmoothedRecord):
        raise InputError(
            f"{folder} holds smoothed predictions of {record.run} and no network; name {record.run}, or "
            "to train a network choose another --name"
        )
    return record


def require_run(folder: Path, train_command: str) -> RunRecord:
    """The record of the trained network in `folder`.

    Raises InputError, naming the command that trains it, if there is no finished one, and as `read_run`.
    """
    record = read_run(folder)
    if record is None:
        raise InputError(f"no trained network in {folder}; train it with: {train_command}")
    return record


def differences(config: RunConfig, other: RunConfig) -> list[str]:
    """Names and values of the fields in which two configurations differ, but for those that no result depends on."""
    if type(config) is not type(other):
        return [f"a {type(other).__name__} (now a {type(config).__name__})"]
    return field_differences(config, other, [name for name in config.to_json() if name not in _OF_THE_MACHINE])


def field_differences(config: RunConfig, other: RunConfig, names: Iterable[str]) -> list[str]:
    """The same of some fields, which both configurations have."""
    ours, theirs = config.to_json(), other.to_json()
    return [f"{name} {theirs[name]!r} (now {ours[name]!r})" for name in names if ours[name] != theirs[name]]


def stage_difference(stage: int | None, other: int | None) -> list[str]:
    """The same of the stages of the challenge on whose slices two runs are trained."""
    return [] if stage == other else [f"stage {other} (now {stage})"]


def changed_sources(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The names of what a run was begun with and is another now, by its sha256.

    Older versions did not note tables, nor files of weights: then what they have noted counts alone.
    """
    whole = any(name.startswith("metadata_") for name in before)
    return [name for name in before | now if before.get(name) != now.get(name) and (whole or name in before)]
