"""What is unlike in runs is said: folds that one lacks, and predictions that were made in another way."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import prediction_table
from models.inference.runs import Run, load_runs
from models.inference.unlike import describe_left_out, describe_views
from models.train_small import CONFIG
from models.training.run_record import SmoothedRecord, save_config, save_smoothed
from models.training.weights import save_weights

SLICES = [f"ID_{number:02d}" for number in range(20)]


def run_of(name: str, folds: list[int], slices: list[str]) -> Run:
    table = pd.DataFrame(0.5, index=pd.Index(slices, name="image_id"), columns=list(LABELS))
    return Run(name, folds, table, table)


@pytest.fixture
def work(tmp_path) -> Work:
    return Work(tmp_path)


def finish(work: Work, name: str, fold: int, **views: str) -> None:
    """A finished fold whose files note how they were made, where `views` tell it."""
    folder = work.run(name, fold)
    for split, slices in (("valid", SLICES[10 * fold : 10 * fold + 10]), ("test", SLICES)):
        table = prediction_table(pd.Series(slices), np.full((len(slices), 6), 0.5))
        table.attrs = {"tta": views[split]} if split in views else {}
        write_parquet(folder / f"{split}.parquet", table)
    save_weights(folder, torch.nn.Linear(1, 1))
    save_config(folder, dataclasses.replace(CONFIG, name=name), fold, {})


def test_runs_of_the_same_slices_need_no_word():
    assert describe_left_out([run_of("b0", [0, 1], SLICES), run_of("b2", [0, 1], SLICES[::-1])]) == []


def test_the_run_that_lacks_a_fold_is_named_and_what_is_left_out_is_counted():
    runs = [run_of("b0", [0], SLICES[:12]), run_of("b2", [0, 1], SLICES), run_of("b5", [0, 1], SLICES[1:])]
    assert describe_left_out(runs) == [
        "b0 has no prediction of 8 of 20 slices: its fold 1 is not trained",
        "b5 has no prediction of 1 of 20 slices: first ID_00",
        "compared, fitted and chosen by: the 11 slices that all 3 runs have; the other 9 are left out",
    ]


def test_an_older_run_is_told_to_be_of_one_view_where_its_test_is_of_eight(work):
    finish(work, "b0", 0, test="d4")
    finish(work, "b2", 0, valid="d4", test="d4")
    expected = ["b0: out-of-fold predictions are of one view, those of the test of eight views"]
    assert describe_views(work, load_runs(work)) == expected


def test_folds_that_were_made_in_two_ways_and_the_mean_of_networks_are_told(work):
    finish(work, "b2", 0, valid="flip", test="d4")
    finish(work, "b2", 1, valid="d4", test="d4")
    first, second = describe_views(work, load_runs(work))
    assert first == "b2: out-of-fold predictions are of eight views or two views, those of the test of eight views"
    assert second.startswith("an out-of-fold prediction is of one network, one of the test the mean of up to 2")


def test_a_smoothed_run_is_made_as_the_one_that_it_smooths(work):
    finish(work, "b2", 0, test="d4")
    smoothed = work.run("b2_smoothed", 0)
    for split in ("valid", "test"):
        write_parquet(smoothed / f"{split}.parquet", pd.read_parquet(work.prediction("b2", 0, split)))
    save_smoothed(smoothed, SmoothedRecord("b2_smoothed", "b2", 1.0, {}))
    lines = describe_views(work, load_runs(work))
    assert [line.split(":")[0] for line in lines] == ["b2", "b2_smoothed"]
