"""Laws of pseudolabels: what a probability becomes, and that no fold learns from them of whom it validates."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from models.common.errors import InputError
from models.common.files import hash_file, write_csv, write_json, write_parquet
from models.common.folders import Work
from models.common.labels import LABEL_WEIGHTS, LABELS
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.inference.pseudolabels import hard_labels, soft_labels
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.preprocessing.folds import make_folds
from models.preprocessing.tables import UNREADABLE, split_fold
from models.train_small import CONFIG
from models.training.run_record import save_config
from models.training.weights import save_weights

RUNS, FOLDS, SLICES = ("one", "two"), 3, 5
SHARED = 4  # patients who are in train and in test


def table_of(split: str, patients: list[str]) -> pd.DataFrame:
    """Metadata of a study for each patient."""
    rows = [(f"{split}_{patient}_{place}", patient, place) for patient in patients for place in range(SLICES)]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "chunk"])
    return table.assign(series_id=split + table["patient_id"], z=5.0 * table["chunk"], img_pct_window=0.5)


def random_predictions(image_ids: pd.Series, seed: int) -> pd.DataFrame:
    values = expit(np.random.default_rng(seed).normal(0, 4, (len(image_ids), 6))).astype(np.float32)
    return pd.DataFrame(values, index=pd.Index(image_ids), columns=list(LABELS))


def write_run(work: Work, run: str, seed: int) -> None:
    """Made-up predictions of all folds."""
    test = pd.read_parquet(work.metadata("test"))["image_id"]
    for fold in range(FOLDS):
        valid = split_fold(work, fold, skip_low_information=False)[1]["image_id"]
        for split, image_ids in (("valid", valid), ("test", test)):
            predictions = random_predictions(image_ids, 10 * seed + fold)
            write_parquet(work.prediction(run, fold, split), predictions.reset_index())
        save_weights(work.run(run, fold), torch.nn.Linear(1, 1))
        save_config(work.run(run, fold), replace(CONFIG, name=run), fold, {})


@pytest.fixture
def work(tmp_path) -> Work:
    """Tables of 12 training and 8 test patients, some of them the same, a test slice without an image, and two runs."""
    work = Work(tmp_path)
    train = table_of("train", [f"p{number:02d}" for number in range(12)])
    test = table_of("test", [f"p{number:02d}" for number in range(12 - SHARED, 20 - SHARED)])
    test.loc[len(test) - 1, "chunk"] = UNREADABLE
    labels = np.random.default_rng(0).integers(0, 2, (len(train), 6)).astype(np.float32)
    write_parquet(work.metadata("train"), train.join(pd.DataFrame(labels, columns=list(LABELS))))
    write_parquet(work.metadata("test"), test)
    write_csv(work.folds, make_folds(pd.read_parquet(work.metadata("train")), FOLDS, seed=0))
    write_json(work.prepared, {"files": {work.folds.name: hash_file(work.folds)}})
    for seed, run in enumerate(RUNS):
        write_run(work, run, seed)
    return work


def make(work: Work, *runs: str, **settings) -> None:
    make_pseudolabels(PseudolabelOptions(runs or RUNS, work=work.root, stage=work.stage, **settings))


def made(work: Work, fold: int) -> pd.DataFrame:
    return pd.read_parquet(work.pseudolabels("pseudo", fold)).set_index("image_id")


def patients(work: Work, image_ids: pd.Index) -> set[str]:
    table = pd.read_parquet(work.metadata("test")).set_index("image_id")
    return set(table.loc[image_ids, "patient_id"])


def fold_of(work: Work) -> pd.Series:
    return pd.read_csv(work.folds).set_index("patient_id")["fold"]


# ---- what a probability becomes ----


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_hard_ones_are_the_positives_above_the_threshold_and_nothing_else(threshold):
    probability = random_predictions(pd.Series([f"ID_{number}" for number in range(200)]), seed=1)
    table = hard_labels(probability, threshold)
    above = probability > threshold
    assert list(table.index) == list(probability.index[above.any(axis=1)])
    for columns in (list(LABELS), list(LABEL_WEIGHTS)):
        np.testing.assert_array_equal(table[columns], above.loc[table.index])


def test_soft_ones_are_the_probabilities_and_weigh_as_much_as_they_are_sure():
    steps = np.linspace(0, 1, 101)
    probability = pd.DataFrame(dict.fromkeys(LABELS, steps), dtype=np.float32)
    table = soft_labels(probability)
    pd.testing.assert_frame_equal(table[list(LABELS)], probability)
    weight = table["weight_any"].to_numpy()
    np.testing.assert_allclose(weight[[0, 50, 100]], [1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(weight, weight[::-1], atol=1e-5)
    assert (np.diff(weight[50:]) > 0).all()
    assert weight[75] == pytest.approx(1 - 0.811278, abs=1e-5)  # the entropy of a quarter, bits


# ---- what goes into those of a fold ----


def test_every_other_readable_test_slice_has_a_soft_one_and_no_patient_whom_the_fold_validates(work):
    make(work)
    test = pd.read_parquet(work.metadata("test"))
    folds, kept_out = fold_of(work), 0
    for fold in range(FOLDS):
        validated = set(folds.index[folds == fold])
        expected = test[(test["chunk"] != UNREADABLE) & ~test["patient_id"].isin(validated)]
        assert list(made(work, fold).index) == list(expected["image_id"])
        assert not patients(work, made(work, fold).index) & validated
        kept_out += len(validated & set(test["patient_id"]))
    assert kept_out == SHARED  # each by one fold


def test_those_of_a_fold_come_from_the_predictions_of_this_fold_alone(work):
    make(work)
    before = made(work, 1)
    for path in work.tables.glob("pseudolabels_*"):
        path.unlink()
    for run in RUNS:
        for other in (0, 2):
            path = work.prediction(run, other, "test")
            table = pd.read_parquet(path).set_index("image_id")
            write_parquet(path, (1 - table).reset_index())
    make(work)
    pd.testing.assert_frame_equal(made(work, 1), before)
    expected = [pd.read_parquet(work.prediction(run, 1, "test")).set_index("image_id") for run in RUNS]
    mean = ((expected[0] + expected[1]) / 2).loc[before.index]
    np.testing.assert_allclose(before[list(LABELS)], mean, rtol=1e-6)


def test_a_run_that_was_trained_with_other_folds_is_refused(work):
    """Its fold may have trained on whom the fold of these tables validates."""
    table = pd.read_csv(work.folds)
    write_csv(work.folds, table.assign(fold=(table["fold"] + 1) % FOLDS))
    write_json(work.prepared, {"files": {work.folds.name: hash_file(work.folds)}})
    message = (
        r"one.fold0 was trained with other folds than \S+ holds now: it was validated on 4 patients of other folds"
    )
    with pytest.raises(InputError, match=message):
        make(work)
    assert not list(work.tables.glob("pseudolabels_*"))


def test_a_smoothed_run_will_do_unless_its_width_was_fitted_on_the_folds_own_labels(work):
    smooth_run(SmoothOptions("one", work=work.root))
    make(work, "one_smoothed")
    assert len(list(work.tables.glob("pseudolabels_*"))) == FOLDS
    for fold in (1, 2):
        (work.run("two", fold) / "config.json").unlink()
    smooth_run(SmoothOptions("two", work=work.root))
    with pytest.raises(InputError, match=r"two_smoothed.fold0 has a width that is fitted on its own labels; train"):
        make(work, "two_smoothed", name="other")


def test_folds_that_a_run_has_not_predicted_are_named_and_left_out(work, capsys):
    work.prediction("two", 1, "test").unlink()
    make(work)
    assert "fold 1 is left out: not predicted by two" in capsys.readouterr().out
    assert [work.pseudolabels("pseudo", fold).is_file() for fold in range(FOLDS)] == [True, False, True]
    message = "no fold has test predictions of one and three; make them with: python models/infer_small.py --name three"
    with pytest.raises(InputError, match=message):
        make(work, "one", "three")


# ---- the script ----


def test_the_report_tells_how_many_there_are_their_prevalence_and_what_was_left_out(work, capsys):
    make(work, "one", kind="hard", threshold=0.7)
    lines = capsys.readouterr().out.splitlines()
    train, _ = split_fold(work, 0, skip_low_information=False)
    test = pd.read_parquet(work.metadata("test"))
    shared = test["patient_id"].isin(fold_of(work).index[fold_of(work) == 0]).sum()
    assert lines[0].endswith(
        f"{len(made(work, 0))} of {len(test)} test slices; left out: {shared} of patients whom the fold validates on, "
        "1 without an image"
    )
    count = made(work, 0)["weight_any"].sum()
    label, total, share, prevalence, training = lines[7].split()
    assert (label, float(total), float(prevalence)) == ("any", count, 1)
    assert float(share) == pytest.approx(count / (len(test) - 1 - shared), rel=1e-3)
    assert float(training) == pytest.approx(train["any"].mean(), rel=1e-3)


def test_a_file_is_left_alone_and_one_that_was_made_in_another_way_is_refused(work):
    make(work)
    first = work.pseudolabels("pseudo", 0).read_bytes()
    make(work)
    assert work.pseudolabels("pseudo", 0).read_bytes() == first
    with pytest.raises(InputError, match=r"pseudo_fold0.parquet was made with kind soft, not hard; delete it to make"):
        make(work, kind="hard")
    with pytest.raises(InputError, match=r"was made with runs one two, not one; delete it"):
        make(work, "one")
    write_run(work, "two", seed=9)
    with pytest.raises(InputError, match=r"was made with two's test.parquet \w{64}, not \w{64}; delete it"):
        make(work)
    assert work.pseudolabels("pseudo", 0).read_bytes() == first


def test_a_threshold_for_soft_ones_is_refused_and_not_ignored(work):
    with pytest.raises(InputError, match="soft pseudolabels have no --threshold; leave it out, or take --kind hard"):
        make(work, threshold=0.5)
