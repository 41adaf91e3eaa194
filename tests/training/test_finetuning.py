"""Laws of finetuning: weighted targets, the weights that it starts from, and pseudolabels of the fold and no other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from written import FOLD_FILES

from models import train_small
from models.common.config import FinetuneConfig
from models.common.errors import InputError
from models.common.files import hash_file, write_parquet
from models.common.folders import Work
from models.common.labels import LABEL_WEIGHTS, LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference.predict import infer
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.inference.runs import load_runs
from models.phantom.dicom import write_phantom
from models.preprocessing.folds import label_shares
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import hash_tables, patients_of_fold, read_slices, split_fold
from models.training import fold as running
from models.training.dataset import SliceDataset
from models.training.finetuning import add_pseudolabels
from models.training.kinds import Finetuned, kind_of
from models.training.loss import WeightedLogLoss
from models.training.networks import build_network
from models.training.run import train
from models.training.weights import read_weights

BASE = replace(train_small.CONFIG, image_size=32, epochs=1, batch_size=32)
CONFIG = FinetuneConfig(**vars(BASE) | {"name": "small_pseudo", "start": "small", "pseudolabels": "pseudo"})


# ---- the loss ----


def logits_and_targets(slices: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(slices, len(LABELS), generator=generator, requires_grad=True)
    return logits, torch.rand(slices, len(LABELS), generator=generator)


def test_weights_of_1_change_no_bit_of_the_loss():
    logits, target = logits_and_targets()
    weighted = torch.stack([target, torch.ones_like(target)], dim=1)
    assert torch.equal(WeightedLogLoss()(logits, weighted), WeightedLogLoss()(logits, target))


def test_a_weight_of_0_takes_a_term_out_and_leaves_all_other_gradients_as_they_are():
    logits, target = logits_and_targets()
    weight = torch.ones_like(target)
    weight[3, 2] = weight[5] = 0
    (plain,) = torch.autograd.grad(WeightedLogLoss()(logits, target), logits)
    loss = WeightedLogLoss()(logits, torch.stack([target, weight], dim=1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, plain * weight)
    other = torch.where(weight == 0, 1 - target, target)
    assert torch.equal(WeightedLogLoss()(logits, torch.stack([other, weight], dim=1)), loss)


def test_a_term_counts_in_proportion_to_its_weight():
    logits, target = logits_and_targets()
    half = WeightedLogLoss()(logits, torch.stack([target, torch.full_like(target, 0.5)], dim=1))
    torch.testing.assert_close(half, WeightedLogLoss()(logits, target) / 2)


# ---- the chain ----


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    """A working folder with a trained fold, its test predictions and its pseudolabels."""
    work = Work(tmp_path_factory.mktemp("finetuning"))
    write_phantom(work.root / "data", studies=8, test_studies=3, image_size=32, seed=0, jobs=1)
    prepare(PrepareOptions(data=work.root / "data", work=work.root, image_size=(32,), folds=2, jobs=1))
    train(TrainOptions(BASE, machine=machine(work)))
    infer(InferOptions(BASE.name, tta="none", machine=machine(work)))
    make_pseudolabels(PseudolabelOptions((BASE.name,), work=work.root))
    return work


@pytest.fixture
def own(work, tmp_path) -> Work:
    """The same, to be changed."""
    (tmp_path / "cache").mkdir()
    for path in work.cache.iterdir():
        if path.is_dir():
            (tmp_path / "cache" / path.name).symlink_to(path)
        else:
            shutil.copy(path, tmp_path / "cache")
    shutil.copytree(work.run(BASE.name, 0), Work(tmp_path).run(BASE.name, 0))
    return Work(tmp_path)


def machine(work: Work) -> Machine:
    return Machine(work=work.root, device="cpu")


def finetune(work: Work, **changes) -> None:
    train(TrainOptions(replace(CONFIG, **changes), machine=machine(work)))


def pseudolabels(work: Work) -> Path:
    return work.pseudolabels("pseudo", 0)


def test_a_finetuned_fold_is_a_run_like_any_other_and_needs_nothing_else_for_inference(own, capsys):
    start, labels = hash_file(own.run("small", 0) / "model.safetensors"), hash_file(pseudolabels(own))
    finetune(own)
    printed = capsys.readouterr().out
    count = len(pd.read_parquet(pseudolabels(own)))
    assert f"slices to train on and {count:,} with pseudolabels" in printed
    assert "starting from" in printed
    record = json.loads((own.run(CONFIG.name, 0) / "config.json").read_text())
    assert record["results"]["sources"] == {**hash_tables(own), "small": start, pseudolabels(own).name: labels}
    labelled, _ = split_fold(own, 0, skip_low_information=False)
    assert record["results"]["prevalence"] == label_shares(labelled).to_dict()
    shutil.rmtree(own.run("small", 0))
    pseudolabels(own).unlink()
    infer(InferOptions(CONFIG.name, tta="none", machine=machine(own)))
    assert {path.name for path in own.run(CONFIG.name, 0).iterdir()} == FOLD_FILES | {"test.parquet"}
    (run,) = load_runs(own)
    assert list(run.test.index) == list(read_slices(own, "test")["image_id"])


def test_a_rehearsal_takes_two_batches_however_many_pseudolabels_there_are(own, capsys):
    train(TrainOptions(CONFIG, fast_dev_run=True, machine=machine(own)))
    assert f"fold0: {2 * CONFIG.batch_size} slices to train on, " in capsys.readouterr().out


def test_it_starts_from_the_weights_of_the_same_fold(work):
    network = build_network(CONFIG)
    kind_of(CONFIG, work.run(CONFIG.name, 0)).load_start(network)
    start = read_weights(work.run("small", 0) / "model.safetensors")
    assert all(torch.equal(value, start[name]) for name, value in network.state_dict().items())


def test_labelled_slices_weigh_1_and_pseudolabelled_ones_what_their_file_says(work):
    labelled, valid = split_fold(work, 0, skip_low_information=False)
    slices = add_pseudolabels(labelled, work, CONFIG, 0)
    dataset, table = SliceDataset(slices, work, CONFIG, "none"), pd.read_parquet(pseudolabels(work))
    assert len(dataset) == len(labelled) + len(table)
    for row in (0, len(labelled) - 1):
        target, weight = dataset[0, row][1]
        np.testing.assert_array_equal(target, labelled.loc[row, list(LABELS)].to_numpy(np.float32))
        assert (weight == 1).all()
    for row in (0, len(table) - 1):
        image, (target, weight) = dataset[0, len(labelled) + row]
        np.testing.assert_array_equal(target, table.loc[row, list(LABELS)].to_numpy(np.float32))
        np.testing.assert_array_equal(weight, table.loc[row, list(LABEL_WEIGHTS)].to_numpy(np.float32))
        test = read_slices(work, "test").set_index("image_id").loc[[table.loc[row, "image_id"]]].reset_index()
        torch.testing.assert_close(image, SliceDataset(test, work, CONFIG, "none")[0, 0][0])
    assert SliceDataset(valid, work, CONFIG, "none")[0, 0][1].shape == (len(LABELS),)


def test_low_information_slices_are_left_out_of_pseudolabels_where_they_are_of_training(work):
    labelled, _ = split_fold(work, 0, skip_low_information=True)
    slices = add_pseudolabels(labelled, work, replace(CONFIG, skip_low_information=True), 0)
    test = slices[~slices["image_id"].isin(labelled["image_id"])]
    whole = read_slices(work, "test")
    assert 0 < len(test) == (whole["img_pct_window"] >= 0.02).sum() < len(whole)


# ---- what is refused ----


def change(work: Work, table: pd.DataFrame, attrs: dict[str, str]) -> None:
    table.attrs = attrs
    write_parquet(pseudolabels(work), table)


def test_pseudolabels_of_whom_the_fold_validates_are_refused_in_training_too(own):
    """As if make_pseudolabels.py had let them pass."""
    table, test = pd.read_parquet(pseudolabels(own)), read_slices(own, "test")
    test.loc[test["image_id"] == table["image_id"][3], "patient_id"] = patients_of_fold(own, 0).iloc[0]
    write_parquet(own.metadata("test"), test)
    change(own, table, table.attrs | {"metadata_test.parquet": hash_file(own.metadata("test"))})
    message = rf"holds 1 slices of patients whom fold 0 validates on, first {table['image_id'][3]}; delete it"
    with pytest.raises(InputError, match=message):
        finetune(own)


@pytest.mark.parametrize("name", ["folds.csv", "metadata_test.parquet"])
def test_pseudolabels_of_other_folds_or_test_slices_are_refused(own, name):
    table = pd.read_parquet(pseudolabels(own))
    change(own, table, table.attrs | {name: "0" * 64})
    with pytest.raises(InputError, match=rf"pseudo_fold0.parquet was made with another \S+{name}; delete it and make"):
        finetune(own)


def test_what_lacks_is_named_with_the_command_that_makes_it(own):
    with pytest.raises(InputError, match=r"b5.fold0; train it with: \S+ \S+_b5.py --fold 0 --work \S+, or .* --start"):
        finetune(own, start="b5")
    pseudolabels(own).unlink()
    with pytest.raises(InputError, match=r"make it with: \S+ \S+labels.py small --name pseudo --work \S+$"):
        finetune(own)


def test_a_start_that_is_another_network_is_named_by_what_differs(own):
    changes = {"network": "efficientnet-b0", "channels": CONFIG.channels[:2]}
    message = (
        r"small.fold0 has network 'small' \(now 'efficientnet-b0'\), channels .*\(now .*\); make it equal, or name"
    )
    with pytest.raises(InputError, match=message):
        finetune(own, **changes)


def test_a_start_of_which_nobody_knows_whom_it_has_seen_must_have_been_validated_on_all_of_the_folds_slices(own):
    (own.run("small", 0) / "patients.parquet").unlink()
    valid = pd.read_parquet(own.prediction("small", 0, "valid"))
    write_parquet(own.prediction("small", 0, "valid"), valid.iloc[1:])
    with pytest.raises(InputError, match=rf"small.fold0 was not validated on 1 of .* first {valid['image_id'][0]}; it"):
        finetune(own)


@pytest.mark.parametrize("changed", ["pseudolabels", "start"])
def test_a_run_that_was_cut_short_does_not_go_on_with_other_pseudolabels_or_another_start(own, monkeypatch, changed):
    with monkeypatch.context() as cut_short:
        cut_short.setattr(running, "predict", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(own)
    if changed == "pseudolabels":
        table = pd.read_parquet(pseudolabels(own))
        change(own, table.iloc[1:], table.attrs)
    else:
        config = own.run("small", 0) / "config.json"
        config.write_text(config.read_text().replace(hash_file(config.with_name("model.safetensors")), "0" * 64))
        monkeypatch.setattr(Finetuned, "load_start", mock.Mock())  # which would refuse it, too
    name = pseudolabels(own).name if changed == "pseudolabels" else "small"
    with pytest.raises(
        InputError, match=rf"was begun with another {name} than there is now; bring that back, or delete"
    ):
        finetune(own)


@pytest.mark.parametrize("changes", [{"start": "small_pseudo"}, {"start": ""}, {"start": None}, {"pseudolabels": ""}])
def test_a_configuration_that_cannot_be_meant_names_its_flag(changes):
    with pytest.raises(InputError, match=f"--{next(iter(changes))}"):
        replace(CONFIG, **changes)
