"""The whole path: raw folder -> cache -> runs -> submission.csv."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from once import made_once

from models import train_b0_224, train_b0_recurrent, train_sequence, train_small, train_study
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference.aligned import align_runs
from models.inference.evidence import nested, possible_ways
from models.inference.predict import infer
from models.inference.runs import load_runs
from models.inference.scoring import score_table
from models.inference.submission import write_submission
from models.phantom.dicom import write_phantom
from models.preprocessing.challenge_csv import image_ids, read_labels, read_sample_submission
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.raw import find_raw
from models.preprocessing.tables import read_slices
from models.training.run import train


def test_the_real_sample_ends_in_a_valid_submission(real_sample, tmp_path):
    work, machine = Work(tmp_path), Machine(work=tmp_path, device="cpu")
    prepare(PrepareOptions(data=real_sample, work=tmp_path, image_size=(64,), jobs=1))
    small = replace(train_small.CONFIG, epochs=1)
    b0 = replace(train_b0_224.CONFIG, image_size=64, epochs=1, batch_size=16, pretrained=False)
    sequence = replace(train_sequence.CONFIG, runs=("small",), views="none", epochs=1, batch_size=2)
    joint = replace(train_b0_recurrent.CONFIG, network="small", image_size=64, epochs=1, batch_size=2, pretrained=False)
    for config in (small, b0, sequence, joint):
        train(TrainOptions(config, fold=0, machine=machine))
        infer(InferOptions(config.name, fold=0, machine=machine))
    runs = load_runs(work)
    assert [run.name for run in runs] == ["b0_224", "b0_recurrent", "sequence", "small"]
    sample = read_sample_submission(find_raw(real_sample).sample_submission)
    slices = read_slices(work, "train").dropna(subset=list(LABELS))
    aligned = align_runs({run.name: run.out_of_fold for run in runs}, slices)
    known = slices.set_index("image_id").loc[aligned.image_ids]
    test = align_runs({run.name: run.test for run in runs}, read_slices(work, "test"), fill=True)
    for fit in possible_ways(aligned).values():
        target = known[list(LABELS)].to_numpy()
        assert np.isfinite(nested(fit, aligned, target, known["patient_id"])).all()
        blended = fit(aligned, target, np.ones(len(target), bool))(test)
        predictions = pd.DataFrame(blended, index=test.image_ids, columns=list(LABELS))
        write_submission(tmp_path / "submission.csv", predictions, sample, image_ids(sample))

    submission = pd.read_csv(tmp_path / "submission.csv")
    assert len(submission) == 396
    assert list(submission["ID"]) == list(sample)
    assert submission["Label"].between(0, 1).all()


@pytest.mark.parametrize("length", [1, 400])
def test_studies_of_one_slice_and_of_four_hundred_are_trained_on_and_predicted(prepared, tmp_path, length):
    """Tables whose every third series has so many slices; all others are as they were."""
    work, machine = Work(tmp_path), Machine(work=tmp_path, device="cpu")
    work.cache.mkdir()
    for path in (prepared.slices(64), prepared.folds, prepared.prepared):
        (work.cache / path.name).symlink_to(path)
    for split, studies in (("train", 12), ("test", 3)):
        table = read_slices(prepared, split)
        series = [rows for _, rows in table.groupby("series_id", sort=False)][:studies]
        write_parquet(work.metadata(split), pd.concat(with_length(series, length), ignore_index=True))
    small = replace(train_small.CONFIG, epochs=1)
    sequence = replace(train_sequence.CONFIG, runs=("small",), views="none", epochs=1, batch_size=2, hidden=16)
    joint = replace(train_b0_recurrent.CONFIG, network="small", image_size=64, epochs=1, batch_size=2, pretrained=False)
    study = replace(
        train_study.CONFIG, network="small", image_size=64, channels=small.channels, start="small", epochs=1
    )
    for config in (small, sequence, joint, study):
        train(TrainOptions(config, fold=0, tta="none", machine=machine))
        infer(InferOptions(config.name, fold=0, tta="none", machine=machine))
        predictions = read_predictions(work.run(config.name, 0) / "test.parquet", "")
        assert list(predictions.index) == list(read_slices(work, "test")["image_id"])


def with_length(series, length):
    """Every third of some series cut to one length, or repeated up to it, half a millimetre apart."""
    for number, rows in enumerate(series):
        if number % 3:
            yield rows
            continue
        repeated = pd.concat([rows] * -(-length // len(rows)), ignore_index=True).head(length)
        names = [f"{name}_{place}" for place, name in enumerate(repeated["image_id"])]
        yield repeated.assign(image_id=names, z=np.arange(length) * 0.5)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Work:
    """A fold of the small network, much as `make demo` trains it."""
    return Work(made_once(tmp_path_factory, "demo", train_demo))


def train_demo(folder: Path) -> None:
    write_phantom(folder / "data", studies=60, test_studies=1, image_size=64, seed=0, jobs=1)
    prepare(PrepareOptions(data=folder / "data", work=folder, image_size=(64,), jobs=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number rounds otherwise, and ends with another network
    config = replace(train_small.CONFIG, epochs=8, max_lr=1e-2)  # fewer studies and epochs than the demo, faster
    train(TrainOptions(config, fold=0, machine=Machine(work=folder, device="cpu")))
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_small_network_learns_the_phantom(demo):
    predictions = read_predictions(demo.run("small", 0) / "valid.parquet", "")
    labels = read_slices(demo, "train").set_index("image_id")
    row = score_table(labels, {"small": predictions}).loc["small"]
    # .73 to .81 were seen, of four seeds: another processor rounds otherwise, and ends with another network, too.
    assert row["weighted log loss"] < 0.85 * row["prior"]
    assert row["AUC any"] > 0.8  # .87 to .91 were seen


@pytest.mark.slow
def test_the_small_network_ranks_real_slices_that_it_never_trained_on(demo, real_sample, tmp_path):
    prepare(PrepareOptions(data=real_sample, work=tmp_path, image_size=(64,), jobs=1))
    machine = Machine(work=tmp_path, device="cpu")
    infer(InferOptions("small", split="train", weights=demo.run("small", 0), machine=machine))
    predictions = read_predictions(tmp_path / "runs/small/fold0/train.parquet", "")
    labels = read_labels(real_sample / "stage_2_train.csv")[0].set_index("image_id")[list(LABELS)]
    assert score_table(labels, {"small": predictions}).loc["small", "AUC any"] >= 0.72  # .81 and .83 were seen
