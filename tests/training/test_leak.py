"""No fold knows the label of a patient that it is scored on, not even through embeddings or the neighbours of a slice.

Here a label is a coin that was tossed for the patient, and all that an image shows is who the patient is. Who has
trained on a patient knows the label; all others can only guess. Every patient has a test study, too: whose fold has
trained on the patient knows its label, which must not come to the other folds as a pseudolabel.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from models import train_sequence, train_small
from models.common.config import FinetuneConfig
from models.common.files import hash_file, write_csv, write_json, write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import prediction_table, read_predictions
from models.inference import pseudolabel_files
from models.inference.predict import infer
from models.preprocessing.folds import make_folds
from models.preprocessing.store import compress_slice, write_series
from models.preprocessing.tables import read_folds, read_slices
from models.training import finetuning
from models.training.run import train

PATIENTS, SLICES, SIZE = 100, 8, 16
# One epoch, so that none is chosen by how well the fold's own patients are guessed: the first would be.
TINY = {"image_size": SIZE, "epochs": 1, "batch_size": 8, "max_lr": 2e-2, "augment": "none", "batchnorm_batches": 20}
BASE = replace(train_small.CONFIG, **TINY)
FINETUNED = FinetuneConfig(
    **vars(BASE) | {"name": "finetuned", "start": "small", "pseudolabels": "pseudo", "batch_size": 16}
)
SEQUENCE = replace(train_sequence.CONFIG, runs=("small",), views="none", epochs=1, batch_size=2, max_lr=1e-2)
CHANCE = 3 * np.sqrt((PATIENTS + 1) / (3 * PATIENTS**2))  # three standard deviations of the AUC of guesses


def write_cache(work: Work, folds_by: str) -> None:
    """The cache of patients with two or three studies and one in test, with two folds by patient or by study."""
    random, rows = np.random.default_rng(0), {"train": [], "test": []}
    labels = random.permutation(np.arange(PATIENTS) % 2)
    for patient, label in enumerate(labels):
        face = cv2.resize(random.uniform(-20, 100, (4, 4)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        for study in range(random.integers(3, 5)):
            series = f"s{patient}_{study}"
            for chunk in range(SLICES):
                row = {"image_id": f"{series}_{chunk}", "series_id": series, "patient_id": patient, "chunk": chunk}
                row |= {"study_id": series, "gap_below": 5.0, "pixel_spacing_0": 1.0}
                rows["train" if study else "test"].append(row | {"z": 5.0 * chunk, "tilt": 0.0, "label": float(label)})
            noise = random.normal(0, 3, (SLICES, SIZE, SIZE))
            chunks = [compress_slice(slice_) for slice_ in (face + noise).astype(np.int16)]
            write_series(work.series(SIZE, series), chunks, (SIZE, SIZE), {})
    write_parquet(work.metadata("test"), pd.DataFrame(rows["test"]).drop(columns="label"))
    table = pd.DataFrame(rows["train"])
    table = table.assign(**dict.fromkeys(LABELS, table["label"]))
    table["true_patient"] = table["patient_id"]
    table["patient_id"] = table[folds_by]  # what the folds keep together
    write_parquet(work.metadata("train"), table)
    write_csv(work.folds, make_folds(table, 2, seed=0))
    write_json(work.prepared, {"files": {work.folds.name: hash_file(work.folds)}})


def trained(folder: Path, folds_by: str, folds: int) -> Work:
    work = Work(folder)
    write_cache(work, folds_by)
    for fold in range(folds):
        for config in (BASE, SEQUENCE):
            # One view, as of the slices that it has trained on: what is learnt by heart is learnt of that.
            options = TrainOptions(config, fold=fold, tta="none", machine=Machine(work=folder, device="cpu"))
            train(options)
            infer(InferOptions(config.name, fold=fold, tta="none", split="train", machine=options.machine))
    return work


@pytest.fixture(scope="module")
def by_patient(tmp_path_factory) -> Work:
    return trained(tmp_path_factory.mktemp("by_patient"), "patient_id", 2)


@pytest.fixture(scope="module")
def finetuned(by_patient) -> Work:
    for fold in (0, 1):
        write_predictions(by_patient, fold, known_by=fold)
    for fold in (0, 1):
        finetune(by_patient, FINETUNED, fold)
    return by_patient


def write_predictions(work: Work, fold: int, known_by: int) -> None:
    """What a network would say of the test slices that is as sure as can be of the patients that a fold has trained on.

    Of all others it is as sure, and guesses.
    """
    patients = read_slices(work, "train").groupby("patient_id")["any"].first()
    trained_on = read_folds(work).set_index("patient_id")["fold"].loc[patients.index] != known_by
    said = patients.where(trained_on, np.random.default_rng(0).integers(0, 2, len(patients)))
    test = read_slices(work, "test")
    probability = test["patient_id"].map(0.01 + 0.98 * said).to_numpy()
    table = prediction_table(test["image_id"], np.tile(probability[:, None], len(LABELS)))
    write_parquet(work.prediction(BASE.name, fold, "test"), table)


def finetune(work: Work, config: FinetuneConfig, fold: int) -> None:
    pseudolabel_files.make_pseudolabels(pseudolabel_files.PseudolabelOptions((BASE.name,), work=work.root))
    train(TrainOptions(config, fold=fold, tta="none", machine=Machine(work=work.root, device="cpu")))


@pytest.fixture(scope="module")
def by_study(tmp_path_factory) -> Work:
    """With folds that split patients: what must not be."""
    return trained(tmp_path_factory.mktemp("by_study"), "series_id", 1)


def auc_of_patients(work: Work, name: str, fold: int, file: str, of_fold: bool) -> float:
    """AUC of `any` over the patients of a fold, or over those of the others, each the mean of its slices."""
    predictions = read_predictions(work.run(name, fold) / file, "")["any"].rename("predicted")
    slices = read_slices(work, "train").merge(read_folds(work), on="patient_id")
    slices = slices[(slices["fold"] == fold) == of_fold]
    patients = slices.join(predictions, on="image_id", validate="one_to_one").groupby("true_patient")
    assert not patients["predicted"].mean().isna().any()
    return roc_auc_score(patients["any"].first(), patients["predicted"].mean())


every_run = pytest.mark.parametrize("name", [BASE.name, SEQUENCE.name])


@every_run
def test_what_a_fold_says_of_patients_that_it_has_not_seen_is_a_guess(by_patient, name):
    aucs = [auc_of_patients(by_patient, name, fold, "valid.parquet", of_fold=True) for fold in (0, 1)]
    assert abs(np.mean(aucs) - 0.5) < CHANCE, aucs


@every_run
def test_of_patients_that_it_has_trained_on_it_knows_the_label(by_patient, name):
    for fold in (0, 1):
        assert auc_of_patients(by_patient, name, fold, "train.parquet", of_fold=False) > 0.9


@every_run
def test_folds_that_split_patients_would_be_found_out(by_study, name):
    assert auc_of_patients(by_study, name, 0, "valid.parquet", of_fold=True) > 0.8 > 0.5 + CHANCE


def test_pseudolabels_tell_a_fold_nothing_of_patients_that_it_has_not_seen(finetuned):
    aucs = [auc_of_patients(finetuned, FINETUNED.name, fold, "valid.parquet", of_fold=True) for fold in (0, 1)]
    assert abs(np.mean(aucs) - 0.5) < CHANCE, aucs


def test_pseudolabels_of_another_fold_would_be_found_out(by_patient, tmp_path, monkeypatch):
    """Those of all test slices, from a network that has trained on the patients whom the fold validates."""
    work = Work(tmp_path)
    shutil.copytree(by_patient.runs, work.runs)
    shutil.copytree(by_patient.cache, work.cache, ignore=shutil.ignore_patterns("pseudolabels_*", "embeddings"))
    write_predictions(work, 0, known_by=1)
    for module in (pseudolabel_files, finetuning):
        monkeypatch.setattr(module, "patients_of_fold", lambda *_: [])
    finetune(work, replace(FINETUNED, name="leaking"), 0)
    assert auc_of_patients(work, "leaking", 0, "valid.parquet", of_fold=True) > 0.8 > 0.5 + CHANCE
