"""Data that the tests share: phantoms that they draw, and the real sample where it is present."""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from head_ct import Series, head
from hypothesis import settings
from once import drawn_once, linked, made_once

import models.phantom.dicom
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.common.process import start_process
from models.phantom.dicom import write_phantom
from models.phantom.study import PhantomStudy, draw_study
from models.preprocessing.challenge_csv import image_ids
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_folds, read_slices
from models.train_small import CONFIG
from models.training.run import train

pytest_plugins = ["skips", "pytester"]
start_process()
gc.disable()  # until all modules are imported: see pytest_collection_finish
# The processes that tests start, pytest-xdist's too, keep the memory that they have freed: to give it back to the
# system after each step of a training, and to be given it anew, costs a tenth of that step.
for threshold in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
    os.environ.setdefault(threshold, str(1 << 28))  # bytes
settings.register_profile("busy machines too", deadline=None)
settings.load_profile("busy machines too")

HEADS, HEAD_SIDE = (10, 8), 96  # seeds and pixels of the drawn heads, whose slices lie 5 mm apart
REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_collection_finish() -> None:
    """Modules stay: the collector of garbage is not to look through them again and again, nor at the end."""
    gc.freeze()
    gc.enable()


def _present(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; name its folder with {variable}")
    return folder


@pytest.fixture(scope="session")
def real_sample() -> Path:
    """Nine studies of the challenge in Kaggle's layout; not part of this repository."""
    return _present("RSNA_SAMPLE", SHARED / "rsna_sample")


@pytest.fixture(scope="session")
def real_labels() -> Path:
    """The challenge's label tables; not part of this repository."""
    return _present("RSNA_LABELS", SHARED / "rsna_labels")


@pytest.fixture(scope="session")
def add_stage_1() -> Callable[[Path, set[str]], None]:
    """Add stage 1 to a raw folder of stage 2: its test slices are these images of the second's training."""

    def add(data: Path, tested: set[str]) -> None:
        for path in (data / "stage_2_train").iterdir():
            folder = data / f"stage_1_{'test' if path.stem in tested else 'train'}"
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder)
        labels = pd.read_csv(data / "stage_2_train.csv")
        in_test = image_ids(labels["ID"]).isin(tested)
        labels[~in_test].to_csv(data / "stage_1_train.csv", index=False)
        labels[in_test].to_csv(data / "stage_1_sample_submission.csv", index=False)

    return add


@pytest.fixture(scope="session", autouse=True)
def studies_are_drawn_once(tmp_path_factory) -> Iterator[None]:
    """Whatever phantoms the tests write in this process; tests/phantom/conftest.py draws anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.phantom.dicom, "draw_study", drawn_once(tmp_path_factory))
        yield


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """A raw folder of 24 training and 6 test studies at 64 px."""

    def draw(folder: Path) -> None:
        write_phantom(folder, studies=24, test_studies=6, image_size=64, seed=223, jobs=1)  # each kind in five patients

    return made_once(tmp_path_factory, "phantom", draw)


@pytest.fixture(scope="session")
def prepared(phantom, tmp_path_factory) -> Work:
    """A working folder with the cache of that phantom. Tests that write to it do so under names of their own."""

    def make(folder: Path) -> None:
        prepare(PrepareOptions(data=phantom, work=folder, image_size=(64,), jobs=1))

    made = Work(made_once(tmp_path_factory, "prepared", make))
    return linked(made, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def few(prepared, tmp_path_factory) -> Work:
    """The same with fold 0 and a third of the other training studies: for runs that are to end, no more."""
    work = linked(prepared, tmp_path_factory.mktemp("few"))
    slices = read_slices(prepared, "train")
    series = slices.drop_duplicates("series_id").merge(read_folds(work), on="patient_id", validate="many_to_one")
    in_folds = series.sort_values("fold", kind="stable")
    kept = in_folds["series_id"][(in_folds["fold"] == 0) | (np.arange(len(in_folds)) % 3 == 0)]
    work.metadata("train").unlink()
    write_parquet(work.metadata("train"), slices[slices["series_id"].isin(kept)].reset_index(drop=True))
    return work


@pytest.fixture(scope="session")
def heads(tmp_path_factory) -> tuple[Series, Series]:
    """Two drawn heads as a scanner writes them."""

    def draw(folder: Path) -> None:
        folder.mkdir()
        for seed in HEADS:
            np.savez(folder / f"{seed}.npz", **vars(draw_study(seed, HEAD_SIDE)))

    folder = made_once(tmp_path_factory, "heads", draw)
    drawn = []
    for seed in HEADS:
        with np.load(folder / f"{seed}.npz") as kept:
            drawn.append(head(PhantomStudy(**{field.name: kept[field.name][()] for field in fields(PhantomStudy)})))
    return drawn[0], replace(drawn[1], name="other")


@pytest.fixture(scope="session")
def run_folder(few) -> Path:
    """A run of one fold, trained for an epoch."""
    machine = Machine(work=few.root, device="cpu")
    train(TrainOptions(replace(CONFIG, name="asked", epochs=1), tta="none", machine=machine))
    return few.run("asked", 0)
