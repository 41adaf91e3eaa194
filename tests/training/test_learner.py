import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import written

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS, METRIC_WEIGHTS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference.predict import infer
from models.preprocessing.tables import split_fold
from models.train_small import CONFIG
from models.training.callbacks import MEASURED, RecomputeBatchNorm
from models.training.dataset import SliceDataset
from models.training.evaluation import predict
from models.training.learner import make_learner
from models.training.loading import make_loader
from models.training.metric import weighted_log_loss
from models.training.networks import build_network
from models.training.processes import Processes
from models.training.run import train

CPU = torch.device("cpu")
ALONE = Processes(CPU)


@pytest.fixture(scope="module")
def options(few):
    config = replace(CONFIG, name="learner", epochs=2)
    return TrainOptions(config, fold=1, machine=Machine(work=few.root, device="cpu"))


@pytest.fixture(scope="module")
def run(options, few):
    train(options)
    return few.run("learner", 1)


def test_a_run_is_its_files(run):
    assert {file.name for file in run.iterdir()} == written.FOLD_FILES


def test_out_of_fold_predictions_are_of_the_folds_patients_alone(run, few):
    _, valid = split_fold(few, 1, skip_low_information=False)
    predictions = read_predictions(run / "valid.parquet", "")
    assert list(predictions.index) == list(valid["image_id"])
    assert (predictions.dtypes == np.float32).all()


def test_history_holds_an_epoch_a_row_and_the_best_one_is_kept(run, few):
    history = pd.read_csv(run / "history.csv")
    by_label = [f"log_loss_{label}" for label in LABELS]
    columns = [
        "epoch",
        "train_loss",
        "valid_loss",
        *by_label,
        "auc_any",
        "learning_rate",
        "gradient_norm",
        "loss_scale",
    ]
    assert list(history.columns) == [*columns, *MEASURED]
    assert (history["slices_per_s"] * history["train_seconds"]).round().nunique() == 1  # the slices of an epoch
    np.testing.assert_allclose(np.average(history[by_label], axis=1, weights=METRIC_WEIGHTS), history["valid_loss"])
    assert list(history["epoch"]) == [1, 2]
    results = json.loads((run / "config.json").read_text())["results"]
    assert results["best_epoch"] == history["epoch"][history["valid_loss"].idxmin()]
    predictions = read_predictions(run / "valid.parquet", "")  # of all views; an epoch is validated on one
    _, valid = split_fold(few, 1, skip_low_information=False)
    score = weighted_log_loss(valid[list(LABELS)].to_numpy(), predictions.to_numpy())
    assert results["weighted_log_loss"] == pytest.approx(score)
    assert score == pytest.approx(history["valid_loss"].min(), rel=0.1)


def test_a_finished_run_is_left_alone(run, options, capsys):
    before = (run / "model.safetensors").stat().st_mtime_ns
    train(options)
    assert "is finished" in capsys.readouterr().out
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_is_refused_by_the_name_of_the_field(run, options):
    with pytest.raises(InputError, match=r"fold1 was trained with max_lr 0.003 \(now 0.1\)"):
        train(replace(options, config=replace(options.config, max_lr=0.1)))


def test_the_same_command_gives_the_same_bits(run, options, few):
    train(replace(options, config=replace(options.config, name="again")))
    other = few.run("again", 1)
    one, two = written.trained(run), written.trained(other)
    assert {name for name in one if one[name] != two[name]} == {"config.json"}  # it has the name


def test_inference_predicts_every_test_slice_and_is_done_once(run, options, few, tmp_path, capsys):
    (tmp_path / "cache").symlink_to(few.cache)
    own = shutil.copytree(run, Work(tmp_path).run("learner", 1))  # what others look at stays as it was trained
    machine = replace(options.machine, work=tmp_path)
    infer(InferOptions("learner", fold=1, machine=machine))
    predictions = read_predictions(own / "test.parquet", "")
    assert list(predictions.index) == list(pd.read_parquet(few.metadata("test"))["image_id"])
    infer(InferOptions("learner", fold=1, machine=machine))
    assert "is there" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"test.parquet was made with tta d4, not none"):
        infer(InferOptions("learner", fold=1, tta="none", machine=machine))


def test_a_network_reads_slices_of_another_working_folder(run, options, few, tmp_path):
    """Predictions for one's own data: the weights stay where they were trained."""
    (tmp_path / "cache").symlink_to(few.cache)
    machine = replace(options.machine, work=tmp_path)
    infer(InferOptions("learner", fold=1, split="train", weights=run, machine=machine))
    assert (tmp_path / "runs/learner/fold1/train.parquet").is_file()


def test_a_finished_run_is_not_finished_for_another_view_of_its_out_of_fold_predictions(options, run):
    message = r"fold1 was trained with tta 'd4' \(now 'flip'\); delete it, or write this run elsewhere with --name"
    with pytest.raises(InputError, match=message):
        train(replace(options, tta="flip"))


def test_a_run_that_notes_no_view_of_its_predictions_stays_finished(options, run, few, tmp_path, capsys):
    (tmp_path / "cache").symlink_to(few.cache)
    own = shutil.copytree(run, Work(tmp_path).run("learner", 1))
    predictions = pd.read_parquet(own / "valid.parquet")
    predictions.attrs = {}
    predictions.to_parquet(own / "valid.parquet")
    train(replace(options, tta="flip", machine=replace(options.machine, work=tmp_path)))
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("tta", ["d4", "none"])
def test_out_of_fold_predictions_are_made_as_test_predictions_are(run, options, few, tmp_path, tta):
    own = run
    if tta != options.tta:
        once = replace(options, tta=tta, config=replace(options.config, name=f"learner_{tta}"))
        train(once)
        own = once.folder
        history = pd.read_csv(own / "history.csv")  # whose epochs are validated without
        score = json.loads((own / "config.json").read_text())["results"]["weighted_log_loss"]
        assert score == pytest.approx(history["valid_loss"].min(), rel=1e-4)
    (tmp_path / "cache").symlink_to(few.cache)
    machine = replace(options.machine, work=tmp_path)
    infer(InferOptions("learner", fold=1, split="train", weights=own, tta=tta, machine=machine))
    valid, again = (
        pd.read_parquet(own / "valid.parquet"),
        pd.read_parquet(tmp_path / "runs/learner/fold1/train.parquet"),
    )
    assert valid.attrs["tta"] == again.attrs["tta"] == tta
    expected = again.set_index("image_id").loc[valid["image_id"]]
    np.testing.assert_allclose(valid[list(LABELS)], expected, atol=1e-5)


def test_inference_before_training_names_the_command(options):
    with pytest.raises(
        InputError, match=r"no trained network in .*fold0; train it with: python models/train_b2.py --fold 0"
    ):
        infer(InferOptions("b2", machine=options.machine))


def test_a_batch_larger_than_the_fold_is_refused(options):
    with pytest.raises(InputError, match=r"lower --batch-size 5000"):
        train(replace(options, config=replace(options.config, name="large", batch_size=5000)))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_slices(options):
    with pytest.raises(
        InputError, match=r"not finite in epoch 1, step \d+, .* slices ID_\w+, .*; lower --max-lr 1e\+30"
    ):
        train(replace(options, config=replace(options.config, name="diverged", max_lr=1e30, epochs=1)))


@pytest.mark.parametrize("name", ["radam", "adam"])
def test_one_cycle_reaches_the_optimizer(options, few, name):
    """fastai's schedule and weight decay arrive at the torch optimizer's own groups."""
    config = replace(options.config, optimizer=name, batch_size=16, weight_decay=0.02)
    slices, _ = split_fold(few, 0, skip_low_information=False)
    loader = make_loader(SliceDataset(slices.head(64), few, config, augment="none"), 16, 0, shuffle_seed=0)
    learner = make_learner(build_network(config), loader, loader, config, ALONE, [])
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(2, 1e-3)
    (group,) = learner.opt.opt.param_groups
    assert group["weight_decay"] == 0.02
    assert group["lr"] == pytest.approx(learner.opt.hypers[-1]["lr"])
    assert group["lr"] < 1e-4  # near the end of the cycle


@pytest.mark.parametrize("parts", [1, 4])
def test_recomputed_batch_norm_is_the_mean_over_training_batches_in_the_parts_of_a_step(options, few, parts):
    slices, _ = split_fold(few, 0, skip_low_information=False)
    loader = make_loader(SliceDataset(slices, few, options.config, augment="none"), 32, 0, shuffle_seed=0)
    network = build_network(options.config)
    callback = RecomputeBatchNorm(loader, 3, ALONE)
    callback.learn = type("Stub", (), {"model": network, "parts": parts})()
    passes = []
    network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    callback.before_validate()
    assert passes == [32 // parts] * 3 * parts
    first = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    means = []
    convolution = network.backbone[0][0]
    with torch.inference_mode():
        for number, (grey, _) in enumerate(loader):
            if number == 3:
                break
            seen = convolution((grey.float() / 255 - 0.449) / 0.226)
            means += [part.mean(dim=(0, 2, 3)) for part in seen.tensor_split(parts)]
    # Of images in channels-last format torch's CPU batch norm sums in float32: a relative error of 1e-4.
    torch.testing.assert_close(first.running_mean, torch.stack(means).mean(dim=0), rtol=1e-3, atol=1e-5)
    assert not network.training


def test_predictions_keep_the_order_of_the_loader(options, few):
    slices, _ = split_fold(few, 0, skip_low_information=False)
    network = build_network(options.config)
    forward, backward = (
        predict(network, make_loader(SliceDataset(table, few, options.config, "none"), 8, 0), ALONE, "fp32", "")
        for table in (slices.head(20), slices.head(20)[::-1])
    )
    np.testing.assert_allclose(forward, backward[::-1], rtol=1e-5, atol=1e-6)
    assert forward.shape == (20, len(LABELS))
