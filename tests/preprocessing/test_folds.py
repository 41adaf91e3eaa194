"""Laws of cross-validation: whole patients, equal shares of every label, one result."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.common.errors import InputError
from models.common.labels import LABELS, SUBTYPES
from models.preprocessing.folds import label_shares, make_folds, spread


def slice_table(slices_of_patient: list[int], seed: int = 0) -> pd.DataFrame:
    """A labelled slice table with so many slices for each patient."""
    generator = np.random.default_rng(seed)
    patients = np.repeat([f"ID_{number:04d}" for number in range(len(slices_of_patient))], slices_of_patient)
    labels = generator.random((len(patients), 5)) < [0.01, 0.1, 0.07, 0.1, 0.12]
    table = pd.DataFrame(labels.astype(np.float32), columns=list(SUBTYPES))
    return table.assign(any=table.max(axis=1), patient_id=patients)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 30), min_size=5, max_size=40), st.integers(2, 5), st.integers(0, 9))
def test_every_patient_is_in_exactly_one_fold_and_no_fold_is_empty(slices_of_patient, count, seed):
    table = slice_table(slices_of_patient)
    folds = make_folds(table, count, seed)
    assert list(folds.columns) == ["patient_id", "fold"]
    assert list(folds["patient_id"]) == sorted(set(table["patient_id"]))
    assert set(folds["fold"]) == set(range(count))


@pytest.fixture(scope="module")
def stage1_test(real_labels) -> pd.DataFrame:
    """The 78,545 slices of the challenge whose patients are known: 2,144 of them, in 2,214 studies."""
    table = pd.read_csv(real_labels / "labels_plus_metadata_stage1test_78545.csv.gz")
    return table.rename(columns={"PatientID": "patient_id"})


@pytest.fixture(scope="module")
def whole_set(real_labels, stage1_test) -> pd.DataFrame:
    """The labels of all 752,803 slices of stage 2, given to as many made-up patients as the challenge has.

    No public table tells whose they are. So studies are drawn from `stage1_test`, each gives a made-up study its
    length and the labels of its slices, and real slices with these labels fill the places (4 % of places get others,
    since the two sets differ in how frequent labels are). Every patient has a study; the studies left over go to some
    patients at random.
    """
    generator, patients, weights = np.random.default_rng(0), 18_938, 1 << np.arange(len(LABELS))
    slices = pd.read_csv(real_labels / "labels_stage2_train_wide_752803.csv.gz")
    studies = [
        labels @ weights for _, labels in stage1_test.set_index("StudyInstanceUID")[list(LABELS)].groupby(level=0)
    ]
    drawn = generator.integers(len(studies), size=25_000)
    owner = np.append(np.arange(patients), generator.integers(patients, size=len(drawn) - patients))
    wanted = np.concatenate([studies[study] for study in drawn])[: len(slices)]
    place = np.repeat(owner, [len(studies[study]) for study in drawn])[: len(slices)]
    patient = np.empty(len(slices), int)
    patient[np.argsort(slices[list(LABELS)] @ weights, kind="stable")] = place[np.argsort(wanted, kind="stable")]
    return slices.assign(patient_id=np.char.add("ID_", patient.astype(str)))


def worst_deviation(table: pd.DataFrame, folds: pd.DataFrame) -> tuple[float, float]:
    """By how much a label's share in a fold, and a fold's number of slices, differ at most, relative to the whole."""
    split = table.merge(folds, on="patient_id", validate="many_to_one").groupby("fold")
    assert split.size().sum() == len(table)
    shares = split[list(LABELS)].mean() / label_shares(table)
    return (shares - 1).abs().max(axis=None), (split.size() * len(split) / len(table) - 1).abs().max()


@pytest.mark.parametrize("count", [2, 5, 10])
@pytest.mark.parametrize("seed", range(3))
def test_no_real_patient_is_in_two_folds_and_every_label_has_its_share_in_each(stage1_test, count, seed):
    folds = make_folds(stage1_test, count, seed)
    assert folds["patient_id"].is_unique
    assert set(folds["patient_id"]) == set(stage1_test["patient_id"])
    shares, sizes = worst_deviation(stage1_test, folds)
    assert shares < 0.1
    assert sizes < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_set_is_split_within_a_minute_and_3_percent(whole_set, seed):
    assert len(whole_set) == 752_803
    assert whole_set["patient_id"].nunique() == 18_938
    started = time.process_time()  # another's load does not count
    folds = make_folds(whole_set, 5, seed)
    assert time.process_time() - started < 60
    assert folds["patient_id"].is_unique
    shares, sizes = worst_deviation(whole_set, folds)
    assert shares < 0.03
    assert sizes < 0.01


def test_a_rare_label_is_spread_over_the_folds():
    table = slice_table([20] * 50).assign(epidural=0.0)
    table.loc[np.arange(0, 1000, 200), "epidural"] = 1.0  # one slice of five patients
    split = table.merge(make_folds(table, 5, seed=0), on="patient_id").groupby("fold")
    assert split["epidural"].sum().tolist() == [1] * 5


def test_groups_go_where_least_is_of_what_they_hold():
    counts = np.array([[8, 0], [8, 0], [0, 1], [0, 1], [1, 0], [1, 0]])
    fold = spread(counts, 2, np.random.default_rng(0))
    assert [counts[fold == number].sum(axis=0).tolist() for number in range(2)] == [[9, 1], [9, 1]]


def test_the_same_seed_gives_the_same_folds_and_another_seed_others():
    table = slice_table([20] * 60)
    pd.testing.assert_frame_equal(make_folds(table, 5, seed=3), make_folds(table, 5, seed=3))
    assert not make_folds(table, 5, seed=3).equals(make_folds(table, 5, seed=4))


def test_folds_are_whole_numbers_after_reading_their_file(tmp_path):
    folds = make_folds(slice_table([5] * 10), 5, seed=0)
    folds.to_csv(tmp_path / "folds.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "folds.csv"), folds)


@pytest.mark.parametrize("patients", [0, 1, 4])
def test_fewer_patients_than_folds_are_refused_with_both_numbers(patients):
    with pytest.raises(InputError, match=rf"{patients} patients .* 5 folds.*--folds"):
        make_folds(slice_table([10] * patients), 5, seed=0)


@pytest.mark.parametrize("folds", [-1, 0, 1])
def test_fewer_than_two_folds_are_refused(folds):
    with pytest.raises(InputError, match="--folds"):
        make_folds(slice_table([10] * 6), folds, seed=0)


def test_shares_are_the_prevalence_of_each_label():
    table = slice_table([100] * 20)
    shares = label_shares(table)
    assert list(shares.index) == list(LABELS)
    assert np.allclose(shares, [table[label].sum() / len(table) for label in LABELS])
