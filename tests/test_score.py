"""Laws of score.py: files are scored by label and by kind of patient, and what is left out is said."""

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.scoring import read_patients, score_parts
from models.score import ScoreOptions, score

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
        score(ScoreOptions(tuple(work.root / file for file in files), work.root / "labels.csv", work.root, stage))
        return capsys.readouterr().out.replace(f"{work.root}/", "")

    return print_scores


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


def test_each_part_is_printed_with_its_intervals_and_what_is_not_scored_is_counted(work, scored):
    text = scored("submission.csv")
    assert "submission.csv: 100 of 100 predicted slices have a label, 100 of 300 labelled slices a prediction" in text
    parts = score_parts(TARGET[TRAIN:], PROBABILITY[TRAIN:], read_patients(work).loc[NAMES[TRAIN:]])
    assert len(parts) == 3
    for name, table in parts.items():
        assert f"{name}\n{table.to_string(float_format='{:.4f}'.format, na_rep='')}\n" in text


def test_a_slice_without_a_label_is_counted_and_not_scored(work, scored):
    text = scored("submission.csv")
    write_rows(work.root / "submission.csv", [*NAMES[TRAIN:], "ID_x"], PROBABILITY[[*range(TRAIN, 300), 0]])
    assert scored("submission.csv") == text.replace("100 of 100 predicted", "100 of 101 predicted")


@pytest.mark.parametrize(("stage", "unknown"), [(None, 100), (1, 1)], ids=["no cache", "one slice without a patient"])
def test_without_all_patients_the_scores_have_no_intervals_and_a_line_says_why(work, scored, stage, unknown):
    table = pd.read_parquet(work.metadata("test"))
    table.loc[table.index[-1], "patient_id"] = None
    write_parquet(work.metadata("test"), table)
    text = scored("submission.csv", stage=stage)
    assert f"the patient of {unknown} of these slices is not in the cache" in text
    assert "make it with: python models/prepare.py" in text
    assert "high" not in text
    assert "all: 100 slices" in text


def test_several_files_are_scored_one_by_one_and_blended(scored):
    text = scored("submission.csv", "test.parquet")
    for name in ("submission.csv", "test.parquet", "blend, equal weights"):
        assert f"{name}: 100 of 100 predicted slices" in text
    assert text.splitlines()[-1].startswith("blend, equal weights: weighted log loss")


def test_a_file_of_other_slices_is_refused(work, scored):
    write_rows(work.root / "other.csv", ["ID_x"], np.full((1, 6), 0.5))
    with pytest.raises(InputError, match=r"other.csv holds no slice that has a label"):
        scored("other.csv")
