"""Laws of the comparison: no blend is scored on a patient that its fit has seen; the second level sees neighbours."""

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference.aligned import align_runs
from models.inference.blending import fit_calibrated, fit_equal
from models.inference.evidence import WAYS, nested, possible_ways
from models.inference.stacking import fit_stacker
from models.training.metric import weighted_log_loss

PATIENTS, LENGTH = 40, 8
RANDOM = np.random.default_rng(0)
SLICES = pd.DataFrame(
    {
        "image_id": [f"ID_{number:03d}" for number in range(PATIENTS * LENGTH)],
        "series_id": np.repeat([f"S{number}" for number in range(PATIENTS)], LENGTH),
        "patient_id": np.repeat([f"P{number // 2}" for number in range(PATIENTS)], LENGTH),  # two studies each
    }
)
TARGET = np.repeat(RANDOM.random((PATIENTS, 6)) < 0.4, LENGTH, axis=0).astype(float)  # the same in a whole series


def noisy(seed: int) -> pd.DataFrame:
    values = np.clip(TARGET + np.random.default_rng(seed).normal(0, 0.6, TARGET.shape), 0.05, 0.95).astype(np.float32)
    return pd.DataFrame(values, columns=list(LABELS), index=pd.Index(SLICES["image_id"], name="image_id"))


RUNS = align_runs({"b0": noisy(1), "b2": noisy(2)}, SLICES)


@pytest.mark.parametrize("fit", WAYS.values(), ids=WAYS)
def test_a_patients_prediction_does_not_depend_on_its_own_labels(fit):
    own = (SLICES["patient_id"] == "P3").to_numpy()
    turned = np.where(own[:, None], 1 - TARGET, TARGET)
    before, after = (nested(fit, RUNS, target, SLICES["patient_id"]) for target in (TARGET, turned))
    np.testing.assert_array_equal(before[own], after[own])


def test_a_fit_to_noise_gains_in_sample_and_not_in_the_nested_score():
    random = np.random.default_rng(3).random(TARGET.shape) < 0.5
    everything = np.ones(len(TARGET), bool)
    in_sample = weighted_log_loss(random, fit_stacker(RUNS, random.astype(float), everything)(RUNS))
    unseen = weighted_log_loss(random, nested(fit_stacker, RUNS, random.astype(float), SLICES["patient_id"]))
    assert in_sample < np.log(2) < unseen


def test_what_fits_nothing_has_the_same_score_nested_and_plain():
    np.testing.assert_array_equal(
        nested(fit_equal, RUNS, TARGET, SLICES["patient_id"]), fit_equal(RUNS, TARGET, np.ones(len(TARGET), bool))(RUNS)
    )


def test_the_second_level_learns_from_neighbours():
    stacked = weighted_log_loss(TARGET, nested(fit_stacker, RUNS, TARGET, SLICES["patient_id"]))
    slice_by_slice = weighted_log_loss(TARGET, nested(fit_calibrated, RUNS, TARGET, SLICES["patient_id"]))
    assert stacked < slice_by_slice - 0.05


def test_the_second_level_keeps_any_the_largest_and_survives_a_label_that_no_slice_has():
    target = TARGET.copy()
    target[:, 0] = 0
    stacked = fit_stacker(RUNS, target, np.ones(len(target), bool))(RUNS)
    assert (stacked[:, 0] == 0).all()
    assert (stacked[:, ANY] == stacked.max(axis=1)).all()


def test_the_originals_weights_are_left_out_where_none_of_its_runs_is():
    others = align_runs({"small": noisy(1)}, SLICES)
    assert set(possible_ways(others)) == set(WAYS) - {"original"}
    assert set(possible_ways(RUNS)) == set(WAYS)


def test_one_patient_alone_is_an_input_error():
    with pytest.raises(InputError, match="one patient"):
        nested(fit_equal, RUNS, TARGET, pd.Series(["P0"] * len(TARGET)))
