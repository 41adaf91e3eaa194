"""Laws of score.py: files are scored by label and by kind of patient, and what is left out is said."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import prediction_table
from models.inference.comparing import differences, resample
from models.inference.scoring import read_patients, score_intervals
from models.inference.whose import IN_TRAIN, NOT_IN_TRAIN, SEEN, UNSEEN, note_seen
from models.score import ScoreOptions, score
from models.train_b5_pseudo import CONFIG as PSEUDO
from models.train_small import CONFIG
from models.training.metric import weighted_log_loss
from models.training.run_record import save_config
from models.training.scoring import WEIGHTED
from models.training.seen import Seen, write_seen

NAMES = np.array([f"ID_{number:03d}" for number in range(300)])
PATIENTS = np.array([f"ID_p{number // 7}" for number in range(300)])
TRAIN = 200  # of the slices are in train, the last of them of a patient who is in test too
TARGET = (np.random.default_rng(0).random((300, 6)) < 0.3).astype(float)
PROBABILITY = np.random.default_rng(1).random((300, 6))


@pytest.fixture
def work(tmp_path) -> Work:
    """The cache of a stage 1; beside it the labels of all slices, and predictions of those of test in both formats."""
    work = Work(tmp_path, stage=1)
    slices = pd.DataFrame(TARGET, columns=list(LABELS)).assign(image_id=NAMES, patient_id=PATIENTS)
    write_parquet(work.metadata("train"), slices[:TRAIN])
    write_parquet(work.metadata("test"), slices[TRAIN:][["image_id", "patient_id"]])
    write_rows(tmp_path / "labels.csv", NAMES, TARGET)
    write_rows(tmp_path / "submission.csv", NAMES[TRAIN:], PROBABILITY[TRAIN:])
    predictions = pd.DataFrame(PROBABILITY, columns=list(LABELS))
    predictions.insert(0, "image_id", NAMES)
    write_parquet(tmp_path / "test.parquet", predictions[TRAIN:])
    return work


def write_rows(path, names, values):
    ids = [f"{name}_{label}" for name in names for label in LABELS]
    pd.DataFrame({"ID": ids, "Label": values.ravel()}).to_csv(path, index=False)


@pytest.fixture
def scored(work, capsys):
    """What the script prints of files in the working folder."""

    def print_scores(*files: str, stage: int | None = 1) -> str:
        named = tuple(work.root / file if "." in file else Path(file) for file in files)
        score(ScoreOptions(named, work.root / "labels.csv", work.root, stage))
        return capsys.readouterr().out.replace(f"{work.root}/", "")

    return print_scores


def test_where_every_slice_has_the_same_labels_nothing_is_compared_with_the_prior(work, scored):
    write_rows(work.root / "labels.csv", NAMES, np.zeros_like(TARGET))
    last = scored("test.parquet").splitlines()[-1]
    assert "each label is the same in all slices, which leaves nothing to compare with; no AUC of any over " in last
    assert "%" not in last
    assert "nan" not in last


def test_patients_and_train_are_those_of_the_stage(work):
    known = read_patients(work).loc[NAMES]
    assert list(known["patient_id"]) == list(PATIENTS)
    assert list(known["in_train"]) == list(np.isin(PATIENTS, PATIENTS[:TRAIN]))
    assert 0 < known["in_train"][TRAIN:].sum() < len(NAMES) - TRAIN
    assert read_patients(Work(work.root)).empty


def test_nobody_is_in_train_where_there_is_no_train(work):
    work.metadata("train").unlink()
    assert list(read_patients(work).index) == list(NAMES[TRAIN:])
    assert not read_patients(work)["in_train"].any()


def test_a_submission_scores_as_its_prediction_file(scored):
    words = [scored(file).replace(file, "FILE").split() for file in ("submission.csv", "test.parquet")]
    assert words[0] == words[1]


def test_each_kind_of_patient_is_printed_with_its_intervals_and_what_is_not_scored_is_counted(work, scored):
    text = scored("submission.csv")
    assert "submission.csv: 100 of 100 predicted slices have a label, 100 of 300 labelled slices a prediction" in text
    in_train = read_patients(work).loc[NAMES[TRAIN:], "in_train"].to_numpy()
    for kind, rows in {IN_TRAIN: in_train, NOT_IN_TRAIN: ~in_train}.items():
        patients = PATIENTS[TRAIN:][rows]
        table = score_intervals(TARGET[TRAIN:][rows], PROBABILITY[TRAIN:][rows], patients)
        heading = f"{kind}: {rows.sum()} slices of {len(set(patients))} patients"
        assert f"{heading}\n{table.to_string(float_format='{:.4f}'.format, na_rep='')}\n" in text
        assert f"submission.csv, {kind} " in text
    assert "slices of 16" not in text  # all of them, in one score
    assert not re.search(r"^submission\.csv +100", text, re.MULTILINE)


def test_a_slice_without_a_label_is_counted_and_not_scored(work, scored):
    text = scored("submission.csv")
    write_rows(work.root / "submission.csv", [*NAMES[TRAIN:], "ID_x"], PROBABILITY[[*range(TRAIN, 300), 0]])
    assert scored("submission.csv") == text.replace("100 of 100 predicted", "100 of 101 predicted")


@pytest.mark.parametrize(("stage", "unknown"), [(None, 100), (1, 1)], ids=["no cache", "one slice without a patient"])
def test_whom_the_cache_does_not_know_is_scored_without_intervals_and_a_line_says_why(work, scored, stage, unknown):
    table = pd.read_parquet(work.metadata("test"))
    table.loc[table.index[-1], "patient_id"] = None
    write_parquet(work.metadata("test"), table)
    text = scored("submission.csv", stage=stage)
    assert f"the patient of {unknown} of these slices is not in the cache" in text
    assert "make it with: python models/prepare.py" in text
    assert ("high" in text) == (unknown == 1)
    assert f"patients whom the cache does not know: {unknown} slices" in text


def test_several_files_are_scored_one_by_one_and_nothing_is_made_up(scored):
    text = scored("submission.csv", "test.parquet")
    for name in ("submission.csv", "test.parquet"):
        assert f"{name}: 100 of 100 predicted slices" in text
    assert "equal weights" not in text


def test_a_file_of_other_slices_is_refused(work, scored):
    write_rows(work.root / "other.csv", ["ID_x"], np.full((1, 6), 0.5))
    with pytest.raises(InputError, match=r"other.csv holds no slice that has a label"):
        scored("other.csv")


def finish(work: Work, name: str, fold: int, seen: set[str], weights: str, **predicted: slice) -> Path:
    """A finished fold of a run, whom it has seen, and prediction files of some of the slices."""
    folder = work.run(name, fold)
    write_seen(folder, Seen(frozenset(seen)))
    (folder / "model.safetensors").write_text(weights)
    save_config(folder, replace(CONFIG, name=name), fold, {"best_epoch": 3})
    for split, rows in predicted.items():
        table = prediction_table(pd.Series(NAMES[rows]), PROBABILITY[rows])
        write_parquet(folder / f"{split}.parquet", table)
    return folder


def test_whom_a_network_has_trained_on_is_scored_apart_and_named(work, scored):
    trained = set(PATIENTS[:TRAIN]) - {PATIENTS[TRAIN]}
    finish(work, "b2", 0, trained, "1", test=slice(150, 300))
    text = scored("runs/b2/fold0/test.parquet")
    seen = np.isin(PATIENTS[150:], list(trained))
    assert f"{SEEN}: {seen.sum()} slices of {len(set(PATIENTS[150:][seen]))} patients" in text
    assert f"{UNSEEN}: {(~seen).sum()} slices" in text
    rows = [line for line in text.splitlines() if line.startswith("runs/b2/fold0/test.parquet")]
    loss = weighted_log_loss(TARGET[150:][~seen], PROBABILITY[150:][~seen].astype(np.float32))
    assert rows[-1].startswith(f"runs/b2/fold0/test.parquet: weighted log loss {loss:.4f}")  # of the unseen alone
    assert not any(re.search(r" 150 ", row) for row in rows[1:])


def test_what_infer_has_noted_counts_wherever_the_network_lies(work, scored, capsys):
    folder = finish(Work(work.root / "elsewhere"), "b2", 0, set(PATIENTS[:140]), "1")
    table = prediction_table(pd.Series(NAMES[:TRAIN]), PROBABILITY[:TRAIN])
    table.attrs = note_seen(folder, pd.DataFrame({"image_id": NAMES, "patient_id": PATIENTS})[:TRAIN])
    assert f"140 of 200 slices are of 20 {SEEN}" in capsys.readouterr().out
    write_parquet(work.root / "train.parquet", table)
    text = scored("train.parquet")
    assert f"{SEEN}: 140 slices of 20 patients" in text
    assert f"{UNSEEN}: 60 slices" in text
    assert "also in train" not in text


def test_a_run_and_its_smoothed_one_are_scored_by_name_and_what_was_chosen_on_their_slices_is_said(work, scored):
    finish(work, "b2", 0, set(PATIENTS[100:]), "1", valid=slice(0, 98))
    finish(work, "b5", 0, set(PATIENTS[100:]), "2", valid=slice(0, 98))
    text = scored("b2")
    assert "b5" not in text
    assert f"{UNSEEN}: 98 slices of 14 patients" in text
    assert "b2: chosen on the slices that it is scored on: the epoch whose weights are kept, of fold 0" in text
    with pytest.raises(InputError, match=r"no finished fold in \S+/b0; train one with: python models/train_b0.py"):
        scored("b0")


def test_a_run_with_pseudolabels_stands_beside_the_one_that_it_started_from(work, scored):
    others = np.clip(PROBABILITY + 0.2 * (TARGET - 0.5), 0.01, 0.99)
    for name, config in (("b5", CONFIG), ("b5_pseudo", PSEUDO)):
        folder = finish(work, name, 0, set(PATIENTS[100:]), name, valid=slice(0, 98))
        save_config(folder, replace(config, name=name), 0, {"best_epoch": 3})
    write_parquet(work.run("b5_pseudo", 0) / "valid.parquet", prediction_table(pd.Series(NAMES[7:98]), others[7:98]))
    drawn = [resample(TARGET[7:98], some[7:98].astype(np.float32), PATIENTS[7:98]) for some in (others, PROBABILITY)]
    value, low, high = differences(*drawn).loc[WEIGHTED]
    line = f"b5_pseudo less b5: weighted log loss {value:+.4f} [{low:+.4f}, {high:+.4f}], paired, on 91 slices of 13"
    assert high < 0
    assert line in scored("b5", "b5_pseudo")
    assert line in scored("b5_pseudo", "b5")
    assert "less" not in scored("b5_pseudo")
    write_parquet(work.run("b5_pseudo", 0) / "valid.parquet", prediction_table(pd.Series(NAMES[:7]), others[:7]))
    assert "on 7 slices of a single patient, and so without an interval" in scored("b5", "b5_pseudo")


def test_a_difference_that_may_be_none_is_said_to_be_one(work, scored):
    for name, config in (("b5", CONFIG), ("b5_pseudo", PSEUDO)):
        folder = finish(work, name, 0, set(PATIENTS[100:]), name, valid=slice(0, 98))
        save_config(folder, replace(config, name=name), 0, {"best_epoch": 3})
    text = scored("b5", "b5_pseudo")
    assert "+0.0000 [+0.0000, +0.0000], paired, on 98 slices of 14 patients: it may be none" in text


def test_one_half_done_run_blocks_nobody(work, capsys):
    finish(work, "b2", 0, set(PATIENTS[100:]), "1", valid=slice(0, 98))
    finish(work, "b5", 0, set(PATIENTS[100:]), "2")
    score(ScoreOptions(labels=work.root / "labels.csv", work=work.root, stage=1))
    out = capsys.readouterr().out
    assert "b5 is left out: no " in out
    assert out.splitlines()[-1].startswith("b2: weighted log loss")


def test_predictions_of_other_weights_than_those_beside_them_are_of_nobody_that_is_known(work, scored):
    folder = finish(work, "b2", 0, set(PATIENTS[:TRAIN]), "1", test=slice(TRAIN, 300))
    assert SEEN in scored("runs/b2/fold0/test.parquet")
    table = prediction_table(pd.Series(NAMES[TRAIN:]), PROBABILITY[TRAIN:])
    table.attrs = {"weights_sha256": "another"}
    write_parquet(folder / "test.parquet", table)
    text = scored("runs/b2/fold0/test.parquet")
    assert SEEN not in text
    assert IN_TRAIN in text
