"""Laws of cross-validation: whole patients, equal shares of every label, one result."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from models.labels import LABELS, SUBTYPES
from models.preprocessing.folds import label_shares, make_folds, rarest_subtype


def slice_table(slices_of_patient: list[int], seed: int = 0) -> pd.DataFrame:
    """A labelled slice table with so many slices for each patient."""
    generator = np.random.default_rng(seed)
    patients = np.repeat([f"ID_{number:04d}" for number in range(len(slices_of_patient))], slices_of_patient)
    labels = generator.random((len(patients), 5)) < [0.01, 0.1, 0.07, 0.1, 0.12]
    table = pd.DataFrame(labels.astype(np.float32), columns=list(SUBTYPES))
    return table.assign(any=table.max(axis=1), patient_id=patients)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=5, max_size=40), st.integers(2, 5), st.integers(0, 9))
def test_every_patient_is_in_exactly_one_fold_and_no_fold_is_empty(slices_of_patient, count, seed):
    table = slice_table(slices_of_patient)
    folds = make_folds(table, count, seed)
    assert list(folds.columns) == ["patient_id", "fold"]
    assert list(folds["patient_id"]) == sorted(set(table["patient_id"]))
    assert set(folds["fold"]) == set(range(count))


def test_no_patient_of_the_real_set_is_in_two_folds_and_every_label_has_its_share_in_each(real_labels):
    table = pd.read_csv(real_labels / "labels_plus_metadata_stage1test_78545.csv.gz")
    table = table.rename(columns={"PatientID": "patient_id"})
    folds = make_folds(table, 5, seed=0)
    assert folds["patient_id"].is_unique
    assert set(folds["patient_id"]) == set(table["patient_id"])
    split = table.merge(folds, on="patient_id", validate="many_to_one").groupby("fold")
    shares = split[list(LABELS)].mean() / label_shares(table)
    assert shares.min().min() > 0.9
    assert shares.max().max() < 1.1
    assert split.size().max() < 1.05 * split.size().min()


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


def test_a_slice_is_named_after_its_rarest_subtype():
    table = pd.DataFrame(0, index=range(6), columns=list(LABELS), dtype=np.float32)
    table.loc[:3, "subdural"] = 1
    table.loc[2:3, "intraventricular"] = 1
    table.loc[3, "epidural"] = 1
    assert list(rarest_subtype(table)) == ["subdural", "subdural", "intraventricular", "epidural", "none", "none"]


def test_shares_are_the_prevalence_of_each_label():
    table = slice_table([100] * 20)
    shares = label_shares(table)
    assert list(shares.index) == list(LABELS)
    assert np.allclose(shares, [table[label].sum() / len(table) for label in LABELS])
