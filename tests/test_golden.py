"""What older versions have written is read for ever: caches, runs, and the commands that made them.

tests/golden/<commit>.tar.xz holds a raw folder, its cache and runs, as tests/golden/make_<commit>.py had them made;
tests/golden/runs_<commit>.tar.xz a cache and a run of each kind, as tests/golden/make_runs.py did.
"""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from golden import make_runs

from models import train_sequence, train_small
from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference.predict import infer
from models.inference.runs import load_runs
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.preprocessing.dicom import read_slices as read_hounsfield
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.store import Series, fit_to_square
from models.preprocessing.tables import read_slices, split_fold
from models.training.run import train
from models.training.seen import seen_by

ARCHIVES = [Path(__file__).parent / "golden/032d62a.tar.xz"]
RUNS = sorted(Path(__file__).parent.glob("golden/runs_*.tar.xz"))
ROUNDING = 1e-5  # another processor adds in another order
SMALL = replace(train_small.CONFIG, image_size=32, epochs=2, batch_size=4)
SEQUENCE = replace(train_sequence.CONFIG, runs=("small",), views="flip", epochs=1, batch_size=1, hidden=4)


def named(path: Path) -> str:
    return path.name.removesuffix(".tar.xz")


def unpacked(path: Path, folder: Path) -> Work:
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return Work(folder)


@pytest.fixture(params=ARCHIVES, ids=named)
def old(request, tmp_path) -> Work:
    return unpacked(request.param, tmp_path)


@pytest.fixture(params=RUNS, ids=named)
def runs(request, tmp_path) -> Work:
    return unpacked(request.param, tmp_path)


def test_there_are_some_and_they_are_small():
    assert "runs_032d62a" in {named(path) for path in RUNS}
    assert len(RUNS) >= 2
    assert all(path.stat().st_size < 100_000 for path in [*ARCHIVES, *RUNS])


def test_a_cache_holds_what_is_read_from_the_files_today_and_nothing_is_added_to_it(old):
    with pytest.raises(InputError, match="an older version of this project, whose caches cannot be added to"):
        prepare(PrepareOptions(data=old.root / "data", work=old.root, image_size=(32,), folds=2, jobs=1))
    slices = read_slices(old, "train")
    for row in slices.itertuples():
        stored = Series(old.series(32, row.series_id)).read(row.chunk)
        (today,) = read_hounsfield(old.root / f"data/stage_2_train/{row.image_id}.dcm")
        np.testing.assert_array_equal(stored, fit_to_square(today, 32))
    assert {len(part) for part in split_fold(old, 0, skip_low_information=False)} == {len(slices) // 2}


@pytest.mark.parametrize("config", [SMALL, SEQUENCE], ids=lambda config: config.name)
def test_a_run_is_finished_for_the_command_that_made_it(old, config, capsys):
    train(TrainOptions(config, machine=Machine(work=old.root, device="cpu")))
    assert f"{old.run(config.name, 0)} is finished" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["small", "sequence"])
def test_a_network_predicts_what_it_predicted(old, name):
    file = old.prediction(name, 0, "test")
    before = read_predictions(file, "")
    file.unlink()
    infer(InferOptions(name, machine=Machine(work=old.root, device="cpu")))
    pd.testing.assert_frame_equal(read_predictions(file, ""), before, atol=ROUNDING, rtol=0)
    assert before[list(LABELS)].std().max() > 100 * ROUNDING  # it does say something


def test_a_run_is_smoothed_as_it_was(old, capsys):
    smooth_run(SmoothOptions("small", work=old.root))
    assert "delete" in capsys.readouterr().out


def test_all_runs_are_scored_and_blended(old):
    assert [run.name for run in load_runs(old)] == ["sequence", "small", "small_smoothed"]


@pytest.mark.parametrize("config", make_runs.configs().values(), ids=lambda config: config.name)
def test_a_run_of_each_kind_is_finished_and_predicts_what_it_predicted(runs, config, capsys):
    machine = Machine(work=runs.root, device="cpu")
    train(TrainOptions(config, machine=machine))
    assert f"{runs.run(config.name, 0)} is finished" in capsys.readouterr().out
    file = runs.prediction(config.name, 0, "test")
    before = read_predictions(file, "")
    file.unlink()
    infer(InferOptions(config.name, machine=machine))
    pd.testing.assert_frame_equal(read_predictions(file, ""), before, atol=ROUNDING, rtol=0)
    assert before[list(LABELS)].std().max() > 100 * ROUNDING


def test_runs_of_each_kind_are_what_others_start_from_and_blend(runs):
    assert [run.name for run in load_runs(runs)] == ["finetuned", "recurrent", "sequence", "small"]
    started = replace(make_runs.SMALL, name="started", start="finetuned", image_size=32)
    train(TrainOptions(started, machine=Machine(work=runs.root, device="cpu")))
    _, valid = split_fold(runs, 0, skip_low_information=False)
    noted = seen_by(runs.run("started", 0))
    assert not set(valid["patient_id"]) & noted.patients
    assert noted.unknown == (set() if seen_by(runs.run("finetuned", 0)) else {"finetuned/fold0"})
