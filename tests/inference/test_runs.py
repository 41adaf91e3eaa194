"""Laws of reading runs: the folds of each together, and nothing that is not finished."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import torch

from models.common.channels import Channel, Window
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.runs import load_out_of_fold, load_runs
from models.training.run_record import save_config
from models.training.weights import save_weights

SLICES = [f"ID_{number:02d}" for number in range(20)]
CONFIG = TrainConfig(
    name="b0",
    network="small",
    image_size=64,
    channels=(Channel(0, Window(40, 80)),),
    optimizer="radam",
    max_lr=1e-3,
    epochs=1,
    batch_size=8,
)


def predictions(image_ids=SLICES, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).random((len(image_ids), 6), dtype=np.float32)
    return pd.DataFrame(values, columns=list(LABELS), index=pd.Index(image_ids, name="image_id"))


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(tmp_path)


def finish(work: Work, name: str, fold: int, valid: list[str], test: list[str] | None = SLICES) -> None:
    """A finished run: predictions for validation and test slices, weights, and config.json."""
    folder = work.run(name, fold)
    write_parquet(folder / "valid.parquet", predictions(valid, fold).reset_index())
    if test is not None:
        write_parquet(folder / "test.parquet", predictions(test, 10 + fold).reset_index())
    save_weights(folder, torch.nn.Linear(1, 1))
    save_config(folder, dataclasses.replace(CONFIG, name=name), fold, {})


def test_a_run_is_its_folds_together_and_the_mean_of_its_tests(work):
    finish(work, "b0", 0, SLICES[:12], SLICES)
    finish(work, "b0", 1, SLICES[12:], SLICES[::-1])
    (loaded,) = load_runs(work)
    assert (loaded.name, loaded.folds) == ("b0", [0, 1])
    pd.testing.assert_frame_equal(
        loaded.out_of_fold, pd.concat([predictions(SLICES[:12], 0), predictions(SLICES[12:], 1)])
    )
    second = predictions(SLICES[::-1], 11).loc[SLICES]
    pd.testing.assert_frame_equal(loaded.test, (predictions(SLICES, 10) + second) / 2)


def test_runs_are_sorted_by_name_and_unfinished_ones_left_out(work):
    for name in ("b5", "b0", "resnext101"):
        finish(work, name, 0, SLICES)
    (work.run("b5", 0) / "config.json").unlink()
    (work.runs / "notes.txt").write_text("")
    assert [loaded.name for loaded in load_runs(work)] == ["b0", "resnext101"]


@pytest.mark.parametrize("make", [False, True], ids=["no folder", "empty folder"])
def test_no_finished_run_is_an_input_error_that_tells_what_to_do(work, make):
    if make:
        work.run("b0", 0).mkdir(parents=True)
    with pytest.raises(InputError, match=r"python models/train_small.py"):
        load_runs(work)


def test_a_fold_without_test_predictions_is_named_with_its_command(work):
    finish(work, "b0", 2, SLICES, test=None)
    with pytest.raises(InputError, match=r"test\.parquet.*python models/infer_b0.py --fold 2"):
        load_runs(work)


@pytest.mark.parametrize(("first", "second"), [(SLICES, SLICES[:-2]), (SLICES[:-2], SLICES)], ids=["fewer", "more"])
def test_folds_that_disagree_about_the_test_slices_are_refused(work, first, second):
    finish(work, "b0", 0, SLICES[:10], first)
    finish(work, "b0", 1, SLICES[10:], second)
    with pytest.raises(InputError, match=r"runs/b0.* 2 of 20 slices"):
        load_runs(work)


def test_a_slice_in_the_validation_of_two_folds_is_refused(work):
    finish(work, "b0", 0, SLICES[:10])
    finish(work, "b0", 1, SLICES[9:])
    with pytest.raises(InputError, match=r"ID_09 .* two folds of b0"):
        load_runs(work)


def test_a_folder_beside_the_folds_is_no_fold(work):
    finish(work, "b0", 0, SLICES)
    work.run("b0", 0).rename(work.runs / "b0" / "fold0_old")
    finish(work, "b0", 1, SLICES)
    assert [loaded.folds for loaded in load_runs(work)] == [[1]]


def test_a_run_that_has_predicted_the_test_with_some_of_its_folds_is_their_mean_and_says_so(work, capsys):
    finish(work, "b0", 0, SLICES[:10], SLICES)
    finish(work, "b0", 1, SLICES[10:], test=None)
    (loaded,) = load_runs(work)
    assert (loaded.folds, len(loaded.out_of_fold)) == ([0, 1], len(SLICES))
    pd.testing.assert_frame_equal(loaded.test, predictions(SLICES, 10), check_names=False)
    assert re.search(r"those of fold 0; .*: python models/infer_b0.py --fold 1", capsys.readouterr().out)


def test_a_run_that_cannot_be_blended_is_left_out_unless_it_is_named(work, capsys):
    finish(work, "b0", 0, SLICES)
    finish(work, "b2", 0, SLICES, test=None)
    finish(work, "b5", 0, SLICES)
    (work.run("b5", 0) / "config.json").write_text("{")
    assert [run.name for run in load_runs(work)] == ["b0"]
    assert [line.partition(" is left out")[0] for line in capsys.readouterr().out.splitlines()] == ["b2", "b5"]
    assert list(load_out_of_fold(work)) == ["b0", "b2"]
    assert [run.name for run in load_runs(work, ["b0"])] == ["b0"]
    for name in ("b2", "b5", "b9"):
        with pytest.raises(InputError, match=name):
            load_runs(work, ["b0", name])


def test_a_validation_that_lacks_is_mended_by_training_anew_what_is_finished(work):
    finish(work, "b0", 0, SLICES)
    work.prediction("b0", 0, "valid").unlink()
    with pytest.raises(
        InputError, match=r"make it with: python models/train_b0.py --fold 0 .*, after deleting \S+b0.f"
    ):
        load_out_of_fold(work, ["b0"])
