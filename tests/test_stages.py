"""Laws of the two stages: what is trained in the first predicts the second as it is, and nothing of the two mixes."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from models import train_sequence, train_small
from models.common.config import FinetuneConfig, RunConfig
from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference.predict import infer
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.inference.runs import read_fold
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.inference.whose import SEEN, UNSEEN
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_slices
from models.score import ScoreOptions, score
from models.training.checkpoint_files import Checkpoint, read_checkpoint, write_checkpoint
from models.training.run import train

CONFIG = replace(train_small.CONFIG, image_size=32, epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def work(add_stage_1, tmp_path_factory) -> Work:
    """A working folder with both stages, and a fold that was trained in the first and has predicted its test slices.

    Two of the second's nine training studies were the test of the first.
    """
    root = tmp_path_factory.mktemp("stages")
    write_phantom(root / "data", studies=9, test_studies=1, image_size=32, seed=0, jobs=1)
    prepare(PrepareOptions(data=root / "data", work=root, image_size=(32,), folds=2, jobs=1, stage=2))
    slices = read_slices(Work(root, 2), "train")
    add_stage_1(root / "data", set(slices.loc[slices["series_id"].isin(slices["series_id"].unique()[2:4]), "image_id"]))
    prepare(PrepareOptions(data=root / "data", work=root, image_size=(32,), folds=2, jobs=1, stage=1))
    fit(Work(root), CONFIG, stage=1)
    infer(InferOptions(CONFIG.name, tta="none", machine=machine(Work(root), 1)))
    return Work(root)


def machine(work: Work, stage: int | None) -> Machine:
    return Machine(work=work.root, stage=stage, device="cpu")


def fit(work: Work, config: RunConfig, stage: int | None) -> None:
    train(TrainOptions(config, machine=machine(work, stage)))


def predicted(work: Work, stage: int) -> list[str]:
    return list(pd.read_parquet(work.run(CONFIG.name, 0) / f"test_stage_{stage}.parquet")["image_id"])


def test_what_is_trained_in_the_first_stage_predicts_the_second_as_it_is(work):
    folder = work.run(CONFIG.name, 0)
    before = {path.name: hash_file(path) for path in folder.iterdir()}
    infer(InferOptions(CONFIG.name, tta="none", machine=machine(work, 2)))
    assert before.items() <= {path.name: hash_file(path) for path in folder.iterdir()}.items()
    for stage in (1, 2):
        of_stage = Work(work.root, stage)
        assert predicted(work, stage) == list(read_slices(of_stage, "test")["image_id"])
        assert list(read_fold(of_stage, CONFIG.name, 0, "test").index) == predicted(work, stage)
    assert not set(predicted(work, 1)) & set(predicted(work, 2))


def test_test_slices_that_lack_are_named_with_the_stage_that_predicts_them(work):
    (work.run(CONFIG.name, 0) / "test_stage_2.parquet").unlink(missing_ok=True)
    repair = r"infer_small.py --fold 0 --work \S+ --stage 2$"
    with pytest.raises(InputError, match=rf"no \S+test_stage_2.parquet; make it with: .*{repair}"):
        read_fold(Work(work.root, 2), CONFIG.name, 0, "test")


@pytest.mark.parametrize("stage", [2, None])
def test_another_stage_does_not_train_over_a_run(work, stage):
    with pytest.raises(InputError, match=rf"trained with stage 1 \(now {stage}\); delete it, or .* with --name"):
        fit(work, CONFIG, stage)


def test_a_checkpoint_of_another_stage_is_refused(tmp_path):
    write_checkpoint(tmp_path, CONFIG, Checkpoint({"weights": torch.zeros(1)}, {"stage": 1}))
    assert read_checkpoint(tmp_path, CONFIG, stage=1) is not None
    with pytest.raises(InputError, match=r"begun with stage 1 \(now 2\); delete it, or write this run .* with --name"):
        read_checkpoint(tmp_path, CONFIG, stage=2)


def test_a_training_in_the_second_stage_sees_its_slices_and_writes_none(work):
    store = work.slices(32)
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    fit(work, replace(CONFIG, name="small_stage_2"), stage=2)
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
    folder = work.run("small_stage_2", 0)
    assert json.loads((folder / "config.json").read_text())["stage"] == 2
    slices, folds = read_slices(Work(work.root, 2), "train"), pd.read_csv(Work(work.root, 2).folds)
    validated = slices["patient_id"].isin(folds.loc[folds["fold"] == 0, "patient_id"])
    assert list(pd.read_parquet(folder / "valid.parquet")["image_id"]) == list(slices.loc[validated, "image_id"])


@pytest.mark.parametrize(
    ("name", "fold", "trained", "predicts", "split"),
    [("small_anew", 1, 2, 1, "test"), ("small", 0, 1, 1, "train"), ("small", 0, 1, None, "train")],
    ids=["the test of another stage", "its own train", "all that is known"],
)
def test_whom_a_network_has_trained_on_is_said_when_it_predicts_and_when_that_is_scored(
    name, fold, trained, predicts, split, work, capsys
):
    if not work.run(name, fold).is_dir():
        train(TrainOptions(replace(CONFIG, name=name), fold, machine=machine(work, trained)))
    if predicts is None:
        prepare(PrepareOptions(data=work.root / "data", work=work.root, image_size=(32,), folds=2, jobs=1))
    capsys.readouterr()
    infer(InferOptions(name, fold, tta="none", split=split, machine=machine(work, predicts)))
    slices = read_slices(Work(work.root, predicts), split)
    seen = slices["patient_id"].isin(pd.read_parquet(work.run(name, fold) / "patients.parquet")["patient_id"])
    assert seen.any()
    patients = slices.loc[seen, "patient_id"].nunique()
    assert f"{seen.sum()} of {len(slices)} slices are of {patients} {SEEN}" in capsys.readouterr().out
    file = Work(work.root, predicts).prediction(name, fold, split)
    score(ScoreOptions((file,), work.root / "data" / "stage_2_train.csv", work.root, predicts))
    out = capsys.readouterr().out
    assert f"{SEEN}: {seen.sum()} slices of {patients} patients" in out
    if not seen.all():
        assert f"{UNSEEN}: {(~seen).sum()} slices" in out
        assert f"over {(~seen).sum()} slices" in out.splitlines()[-1]


FINETUNED = FinetuneConfig(**vars(CONFIG) | {"name": "finetuned", "start": "small", "pseudolabels": "pseudo"})
SEQUENCE = replace(train_sequence.CONFIG, runs=("small",), views="none", epochs=1, batch_size=2)


@pytest.mark.parametrize("config", [FINETUNED, SEQUENCE], ids=["finetuned", "sequence"])
def test_what_builds_on_a_run_of_another_stage_is_refused(work, config):
    """The folds of the stages differ: the run has trained on slices that this one would be validated on."""
    with pytest.raises(
        InputError,
        match=r"small.fold0 has trained on \d of \d patients whom fold 0 of \S+stage_2.folds.csv",
    ):
        fit(work, config, stage=2)
    assert not list((work.cache / "embeddings").glob("*"))


def test_pseudolabels_are_those_of_a_stage(work):
    make_pseudolabels(PseudolabelOptions(("small",), work=work.root, stage=1))
    table = pd.read_parquet(work.cache / "stage_1" / "pseudolabels_pseudo_fold0.parquet")
    assert set(table["image_id"]) <= set(predicted(work, 1))
    infer(InferOptions(CONFIG.name, tta="none", machine=machine(work, 2)))
    with pytest.raises(InputError, match=r"small.fold0 has trained on \d of \d patients whom fold 0 of \S+stage_2"):
        make_pseudolabels(PseudolabelOptions(("small",), work=work.root, stage=2))


def test_smoothing_smooths_the_test_slices_of_every_stage(work):
    infer(InferOptions(CONFIG.name, tta="none", machine=machine(work, 2)))
    for stage in (1, 2):
        smooth_run(SmoothOptions("small", work=work.root, stage=stage))
        smoothed = Work(work.root, stage).prediction("small_smoothed", 0, "test")
        assert list(pd.read_parquet(smoothed)["image_id"]) == predicted(work, stage)
