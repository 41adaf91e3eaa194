"""Laws of what is tried before a long run, and of what a run tells of itself."""

import json
import re
import shutil
from collections import namedtuple
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import written
from fits import SMALL, learner_of, seeded_network, weights_of

from models.common.errors import InputError
from models.common.options import Machine, TrainOptions
from models.preprocessing.tables import split_fold
from models.train_b0_recurrent import CONFIG as RECURRENT
from models.train_small import CONFIG
from models.training.callbacks import History
from models.training.dataset import SliceDataset, StudyDataset
from models.training.loading import make_loader, require_shared_memory
from models.training.run import train

pytestmark = pytest.mark.usefixtures("tiny")


def options_for(few, name: str, **values) -> TrainOptions:
    config = values.pop("config", CONFIG)
    return TrainOptions(
        replace(config, name=name), fold=1, machine=Machine(work=few.root, device="cpu"), tta="none", **values
    )


STUDIES = replace(RECURRENT, network="small", image_size=64, pretrained=False, batch_size=2)


EVEN = replace(CONFIG, balanced=4)  # slices of a study, of which a batch takes several


@pytest.mark.parametrize("config", [CONFIG, EVEN, STUDIES], ids=["slices", "balanced", "studies"])
def test_a_fast_dev_run_goes_through_all_of_a_run_on_two_batches(few, capsys, config):
    options = options_for(few, "rehearsed", fast_dev_run=True, config=config)
    for _ in range(2):  # anew each time
        train(options)
    assert {file.name for file in options.folder.iterdir()} == written.FOLD_FILES
    assert len(pd.read_csv(options.folder / "history.csv")) == 1
    _, valid = split_fold(few, 1, skip_low_information=False)
    rehearsed = pd.read_parquet(options.folder / "valid.parquet")["image_id"]
    per_batch = valid["series_id"].nunique() if config is STUDIES else config.batch_size
    assert 0 < len(rehearsed) <= min(len(valid), 2 * per_batch * (40 if config is STUDIES else 1))
    assert list(rehearsed) == list(valid["image_id"][: len(rehearsed)])
    assert not options.fold_folder.exists()
    assert "all of a run has been gone through" in capsys.readouterr().out
    shutil.rmtree(options.folder)


def test_a_profile_is_a_table_and_a_trace_and_trains_nothing(few, capsys):
    options = options_for(few, "profiled", profile=True)
    train(replace(options, config=replace(options.config, batch_size=8)))
    path = options.folder.with_name("fold1_trace.json")
    names = {event["name"] for event in json.loads(path.read_text())["traceEvents"]}
    assert {"aten::convolution", "ProfilerStep#9"} <= names
    output = capsys.readouterr().out
    assert re.search(r"Self CPU.*\n", output)
    assert f"{path}: 10 steps" in output
    assert not options.folder.exists()


def test_a_run_tells_what_it_was_carried_out_on(few):
    options = options_for(few, "told")
    train(replace(options, config=replace(options.config, epochs=1, accumulate=3)))
    ran = json.loads((options.folder / "config.json").read_text())["ran"]
    history = pd.read_csv(options.folder / "history.csv")
    assert (ran["device"], ran["card"], ran["processes"], ran["precision"]) == ("cpu", None, 1, "fp32")
    assert (ran["compile"], ran["parts"]) == (False, 3)
    assert ran["slices_per_s"] == pytest.approx(history["slices_per_s"][0], abs=0.1)
    assert ran["train_seconds"] == pytest.approx(history["train_seconds"][0], abs=0.1)
    assert ran["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", ran["commit"])


def test_a_run_of_studies_tells_of_slices_a_second_too(few):
    options = options_for(few, "told_of_studies", config=replace(STUDIES, epochs=1))
    train(options)
    table, _ = split_fold(few, 1, skip_low_information=False)
    shown = make_loader(StudyDataset(table, few, options.config, "none"), 2, 0, options.config.seed).batch_sampler
    (row,) = pd.read_csv(options.folder / "history.csv").to_dict("records")
    assert row["slices_per_s"] * row["train_seconds"] == pytest.approx(sum(map(len, shown)))


def test_the_weights_of_the_best_epoch_are_kept_and_predicted_with(few, monkeypatch):
    """Of three epochs the second validates best, because the third is made worse."""
    after_epoch, weights = History.after_epoch, []

    def worse_at_last(self) -> None:
        if self.epoch == 2:
            self.learn.final_record[1] = 9.0  # fastai's validation loss
        after_epoch(self)
        weights.append({name: value.clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(History, "after_epoch", worse_at_last)
    options = options_for(few, "best")
    train(replace(options, config=replace(options.config, epochs=3, max_lr=1e-3)))
    history = pd.read_csv(options.folder / "history.csv")
    best = int(history["valid_loss"].idxmin())
    assert best < 2
    results = json.loads((options.folder / "config.json").read_text())["results"]
    assert results["best_epoch"] == best + 1
    assert results["weighted_log_loss"] == pytest.approx(history["valid_loss"][best], rel=1e-5)
    from models.training.weights import read_weights

    kept = read_weights(options.folder / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in weights[best].items())
    assert not all(torch.equal(kept[name], value) for name, value in weights[2].items())


def test_the_auc_of_the_history_is_of_the_out_of_fold_predictions(few):
    from models.training.scoring import auc

    options = options_for(few, "auc")
    train(replace(options, config=replace(options.config, epochs=1)))
    _, valid = split_fold(few, 1, skip_low_information=False)
    predicted = pd.read_parquet(options.folder / "valid.parquet")
    history = pd.read_csv(options.folder / "history.csv")
    expected = auc(valid["any"].to_numpy(), predicted["any"].to_numpy())
    assert history["auc_any"][0] == pytest.approx(expected, abs=1e-6)


def test_a_gradients_norm_is_that_of_the_last_step(few):
    learner = learner_of(few, SMALL, seeded_network())
    norms = []
    learner.opt.opt.register_step_pre_hook(
        lambda own, *_: norms.append(np.sqrt(sum(float(p.grad.square().sum()) for p in own.param_groups[0]["params"])))
    )
    learner.fit_one_cycle(1, 1e-3)
    assert learner.gradient_norm == pytest.approx(norms[-1], rel=1e-4)
    assert weights_of(learner.model).isfinite().all()


def test_a_small_shared_memory_is_one_line_before_the_training(few, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(64 << 20, 0, 1 << 20))
    table, _ = split_fold(few, 0, skip_low_information=False)
    dataset = SliceDataset(table, few, CONFIG, "none")
    needed = 4 * 2 * 32 * (3 * 64 * 64 + 6 * 4) / 2**30
    with pytest.raises(InputError, match=rf"4 loader processes hand over {needed:.2f} GiB at a time through /dev/shm"):
        require_shared_memory(dataset, 32, 4)
    require_shared_memory(dataset, 2, 4)
    require_shared_memory(dataset, 32, 0)


def test_shared_memory_is_for_the_slices_of_studies(few, monkeypatch):
    usage = namedtuple("usage", "total used free")
    table, _ = split_fold(few, 0, skip_low_information=False)
    dataset = StudyDataset(table, few, STUDIES, "none")
    sample = sum(part.nbytes for part in dataset[0, 0])
    usual = int(np.minimum(dataset.lengths, dataset.longest or 1000).mean())
    assert usual > 5
    for free, fits in ((4 * 2 * 2 * usual * sample, True), (4 * 2 * 2 * usual * sample - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(1 << 30, 0, free))
        with nullcontext() if fits else pytest.raises(InputError, match="loader processes hand over"):
            require_shared_memory(dataset, 2, 4)
