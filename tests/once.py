"""What is made once for a whole run of the tests, whatever the number of pytest-xdist's workers."""

import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from models.common.files import replacing
from models.common.folders import Work
from models.phantom.study import PhantomStudy, draw_study

HANG = 3600  # seconds after which something waits for ever, on however busy a machine


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, by the first worker that asks for it; the others wait. Whoever changes it copies it.

    `make` gets the path of a folder that is not there yet.
    """
    folder = _of_all_workers(factory) / name
    finished = folder.with_name(f"{folder.name}.made")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that has failed
            make(folder)
            finished.touch()
    return folder


def drawn_once(factory: pytest.TempPathFactory) -> Callable[..., PhantomStudy]:
    """`draw_study`, which takes from a file what any worker has drawn already: many fixtures draw the same studies."""
    folder = _of_all_workers(factory) / "studies"
    folder.mkdir(parents=True, exist_ok=True)

    def draw(seed: int, image_size: int, patient_seed: int | None = None) -> PhantomStudy:
        file = folder / f"{seed}_{image_size}_{patient_seed}.npz"
        if not file.exists():
            with replacing(file) as draft:
                np.savez(draft, **vars(draw_study(seed, image_size, patient_seed)))
        with np.load(file) as kept:
            return PhantomStudy(**{field.name: kept[field.name][()] for field in fields(PhantomStudy)})

    return draw


def _of_all_workers(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of this run; a worker's own lies below it."""
    own = factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "once"


def linked(other: Work, folder: Path) -> Work:
    """A working folder of its own with what is in the cache of another one."""
    work = Work(folder)
    work.cache.mkdir()
    for path in other.cache.iterdir():
        (work.cache / path.name).symlink_to(path)
    return work
