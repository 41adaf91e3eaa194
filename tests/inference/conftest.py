"""What the tests of answers share: two drawn heads, and the small network that is asked."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from head_ct import Series, head
from once import made_once

from models.common.options import Machine, TrainOptions
from models.inference.answering import Court, open_court
from models.phantom.study import PhantomStudy, draw_study
from models.train_small import CONFIG
from models.training.run import train

SIDE = 96  # pixels of the drawn heads


@pytest.fixture(scope="session")
def heads(tmp_path_factory) -> tuple[Series, Series]:
    """Two drawn heads as a scanner writes them."""

    def draw(folder: Path) -> None:
        folder.mkdir()
        for seed in (3, 8):
            np.savez(folder / f"{seed}.npz", **vars(draw_study(seed, SIDE)))

    folder = made_once(tmp_path_factory, "heads", draw)
    drawn = []
    for seed in (3, 8):
        with np.load(folder / f"{seed}.npz") as kept:
            drawn.append(head(PhantomStudy(**{field.name: kept[field.name][()] for field in fields(PhantomStudy)})))
    return drawn[0], replace(drawn[1], name="other")


@pytest.fixture(scope="session")
def run_folder(few) -> Path:
    """A run of one fold, trained for an epoch."""
    machine = Machine(work=few.root, device="cpu")
    train(TrainOptions(replace(CONFIG, name="asked", epochs=1), tta="none", machine=machine))
    return few.run("asked", 0)


@pytest.fixture
def court(run_folder) -> Court:
    """Who answers, of that run."""
    return open_court([run_folder], "cpu", "none", synthetic=True)
