"""Laws of blending: a weighted mean by slice, and a submission that is whole or not written."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.config import Channel, TrainConfig, Window
from models.errors import InputError
from models.inference.blending import (
    ORIGINAL_WEIGHTS,
    Run,
    blend,
    equal_weights,
    load_runs,
    normalised,
    write_submission,
)
from models.labels import LABELS
from models.paths import Work, write_parquet
from models.training.checkpoint import save_config, save_weights

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


def run(name: str) -> Run:
    return Run(name, [0], predictions(), predictions())


def submission_ids(image_ids=SLICES, seed: int = 0) -> pd.Series:
    rows = [f"{image_id}_{label}" for image_id in image_ids for label in LABELS]
    return pd.Series(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


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


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_blending_a_run_with_itself_gives_that_run(weights):
    named = {f"run{number}": weight for number, weight in enumerate(weights)}
    mixed = blend(dict.fromkeys(named, predictions()), named)
    pd.testing.assert_frame_equal(mixed, predictions(), rtol=0, atol=1e-6)


def test_a_blend_is_the_weighted_mean():
    runs = {"a": predictions(seed=1), "b": predictions(seed=2)}
    pd.testing.assert_frame_equal(blend(runs, {"a": 0.75, "b": 0.25}), 0.75 * runs["a"] + 0.25 * runs["b"])


@given(st.permutations(range(len(SLICES))))
def test_the_order_of_rows_and_of_runs_changes_nothing(order):
    runs = {"a": predictions(seed=1), "b": predictions(seed=2)}
    turned = {"b": runs["b"].iloc[order], "a": runs["a"]}
    pd.testing.assert_frame_equal(blend(turned, {"b": 0.4, "a": 0.6}), blend(runs, {"a": 0.6, "b": 0.4}))


def test_only_the_proportion_of_weights_counts():
    runs = {"a": predictions(seed=1), "b": predictions(seed=2)}
    pd.testing.assert_frame_equal(blend(runs, {"a": 3.0, "b": 1.0}), blend(runs, {"a": 0.75, "b": 0.25}))


def test_a_slice_that_a_run_lacks_gets_the_mean_of_the_others():
    runs = {"a": predictions(SLICES[:5], 1), "b": predictions(SLICES[3:8], 2), "c": predictions(SLICES[:8], 3)}
    mixed = blend(runs, {"a": 0.5, "b": 0.3, "c": 0.2})
    assert list(mixed.index) == SLICES[:8]
    expected = (0.5 * runs["a"].loc["ID_00"] + 0.2 * runs["c"].loc["ID_00"]) / 0.7
    np.testing.assert_allclose(mixed.loc["ID_00"], expected, rtol=1e-5)
    assert mixed.notna().all(axis=None)
    assert (mixed.dtypes == np.float32).all()


def test_a_run_without_a_weight_is_not_in_the_blend():
    runs = {"a": predictions(seed=1), "b": predictions(seed=2)}
    pd.testing.assert_frame_equal(blend(runs, {"a": 1.0}), runs["a"])


def test_weights_of_the_runs_that_are_there_sum_to_one():
    weights = normalised(ORIGINAL_WEIGHTS, [run("b0"), run("b2"), run("another")])
    assert weights == {"b0": pytest.approx(1 / 3), "b2": pytest.approx(2 / 3)}
    assert sum(ORIGINAL_WEIGHTS.values()) == pytest.approx(1)
    assert equal_weights([run("b0"), run("b2")]) == {"b0": 0.5, "b2": 0.5}


@pytest.mark.parametrize("weights", [{}, {"b5": 1.0}, {"b0": 0.0}])
def test_runs_that_all_lack_a_weight_are_an_input_error(weights):
    with pytest.raises(InputError, match="b0"):
        normalised(weights, [run("b0")])


def test_a_submission_holds_exactly_the_asked_ids_in_their_order(tmp_path):
    ids = submission_ids(SLICES[:7])
    table = write_submission(tmp_path / "submission.csv", predictions(), ids)
    written = pd.read_csv(tmp_path / "submission.csv")
    assert list(written.columns) == ["ID", "Label"]
    assert list(written["ID"]) == list(table["ID"]) == list(ids)
    for name, value in zip(written["ID"], written["Label"], strict=True):
        image_id, label = name.rsplit("_", 1)
        assert value == pytest.approx(predictions().loc[image_id, label], abs=1e-7)


def test_a_submission_that_lacks_a_slice_is_not_written(tmp_path):
    with pytest.raises(InputError, match=r"lacks 1 of 20 slices, first ID_03"):
        write_submission(tmp_path / "submission.csv", predictions().drop("ID_03"), submission_ids())
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_a_submission_with_a_value_that_is_no_probability_leaves_the_old_file(tmp_path, value):
    file = tmp_path / "submission.csv"
    file.write_text("old")
    wrong = predictions()
    wrong.loc["ID_03", "subdural"] = value
    with pytest.raises(InputError, match="no probability"):
        write_submission(file, wrong, submission_ids())
    assert file.read_text() == "old"


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
