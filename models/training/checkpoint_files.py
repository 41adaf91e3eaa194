"""Checkpoints of a run that is not finished: safetensors for the tensors, JSON for the rest, the last two kept.

checkpoint_<number>.safetensors is written, flushed to disk and renamed before checkpoint_<number>.json, which holds
its sha256: a process that is killed in between leaves no checkpoint that looks whole.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from models.common.config import NewerError, RunConfig
from models.common.errors import InputError
from models.common.files import damaged, hash_file, read_json, write_json
from models.training.run_record import differences, package_versions, read_config, stage_difference

if TYPE_CHECKING:  # whoever only deletes checkpoints needs no torch, which takes seconds
    import torch

KEPT = 2


_COPIES = 5  # of the weights in a checkpoint: themselves, two moments of the optimizer, the best ones, an average


class Checkpoint(NamedTuple):
    """Everything that a run needs to go on as if it had not been away."""

    tensors: dict[str, "torch.Tensor"]
    state: dict[str, Any]


def largest_on_disk(sizes: Iterable[int]) -> int:
    """How many bytes a run takes while it goes on, by those of its weights: the checkpoints, and one being written."""
    return (KEPT + 1) * _COPIES * sum(sizes)


def write_checkpoint(folder: Path, config: RunConfig, checkpoint: Checkpoint) -> None:
    """Write the next checkpoint of a run and delete all but the last two. Raises InputError if the disk is full."""
    from models.training.weights import write_tensors

    number = max(_numbers(folder), default=0) + 1
    path = _tensors(folder, number)
    versions = _versions(folder)
    write_tensors(path, checkpoint.tensors)
    description = {
        "kind": type(config).__name__,
        "config": config.to_json(),
        "tensors_sha256": hash_file(path),
        "state": checkpoint.state,
        "versions": versions,
    }
    write_json(path.with_suffix(".json"), description)
    for old in _numbers(folder) - set(sorted(_whole_numbers(folder))[-KEPT:]):
        _delete(folder, old)


def read_checkpoint(folder: Path, config: RunConfig, stage: int | None = None) -> Checkpoint | None:
    """The last checkpoint that is whole, or None; damaged ones are named in a warning and deleted.

    Where the packages are others than those it was written with, that is printed. Raises InputError if it is one of
    another configuration or stage, or a newer version of this project has written it.
    """
    for number in sorted(_whole_numbers(folder), reverse=True):
        try:
            description, tensors = _read(_tensors(folder, number))
        except InputError:
            print(f"warning: {_tensors(folder, number)} or its .json is damaged; going on from the checkpoint before")
            _delete(folder, number)
            continue
        begun, state = _config(folder, description, config), description["state"]
        if different := differences(config, begun) + stage_difference(stage, state.get("stage")):
            raise InputError(
                f"{folder} was begun with {', '.join(different)}; delete it, or write this run elsewhere with --name"
            )
        if config.accumulate != begun.accumulate:  # asked for anew; else the parts that the memory allowed
            state["parts"] = config.accumulate
        for change in changes_of_version(folder)[-1:]:
            print(f"warning: {folder}: {change}")
        return Checkpoint(tensors, state)
    return None


def begun_config(folder: Path, config: RunConfig) -> RunConfig | None:
    """The configuration of the last checkpoint of a run like `config`; None where there is none that can be read.

    Raises InputError if a newer version of this project has written it.
    """
    for number in sorted(_whole_numbers(folder), reverse=True):
        with suppress(InputError):
            description = read_json(_tensors(folder, number).with_suffix(".json"), "")
            break
    else:
        return None
    return _config(folder, description, config)


def changes_of_version(folder: Path) -> list[str]:
    """Where a run that is not finished has gone on with other packages than before, a sentence each, in order."""
    versions = _versions(folder)
    return [_describe(before, after) for before, after in pairwise(versions)]


def _versions(folder: Path) -> list[dict[str, str]]:
    """The packages that a run has been trained with, one after the other; the last are those of this process."""
    now, before = package_versions(), []
    for number in sorted(_whole_numbers(folder), reverse=True):
        with suppress(InputError):
            before = read_json(_tensors(folder, number).with_suffix(".json"), "").get("versions", [{}])
            break
    return before if before[-1:] == [now] else [*before, now]


def _describe(before: dict[str, str], after: dict[str, str]) -> str:
    if not before:
        return "begun by an older version of this project, which noted neither its packages nor its folds"
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    theirs, ours = (", ".join(f"{name} {some.get(name)}" for name in changed) for some in (before, after))
    return f"begun with {theirs}, went on with {ours}"


def _config(folder: Path, description: dict[str, Any], config: RunConfig) -> RunConfig:
    try:
        return read_config(description["config"], description.get("kind", type(config).__name__))
    except NewerError as error:
        raise InputError(
            f"{folder} was begun by a newer version of this project, with {error}; go on with that one, or delete it"
        ) from error


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run, whole or not."""
    for number in _numbers(folder):
        _delete(folder, number)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, "torch.Tensor"]]:
    from models.training.weights import read_weights

    repair = "the same command"
    description = read_json(path.with_suffix(".json"), repair)
    if not path.is_file() or hash_file(path) != description["tensors_sha256"]:
        raise damaged(path, repair)
    return description, read_weights(path)


def _tensors(folder: Path, number: int) -> Path:
    return folder / f"checkpoint_{number:06d}.safetensors"


def _numbers(folder: Path, suffix: str = "*") -> set[int]:
    names = (re.fullmatch(r"checkpoint_(\d+)", path.stem) for path in folder.glob(f"checkpoint_*.{suffix}"))
    return {int(name[1]) for name in names if name}


def _whole_numbers(folder: Path) -> set[int]:
    return _numbers(folder, "json")  # written last


def _delete(folder: Path, number: int) -> None:
    for suffix in (".json", ".safetensors"):  # first what makes it a checkpoint
        _tensors(folder, number).with_suffix(suffix).unlink(missing_ok=True)
