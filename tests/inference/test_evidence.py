"""Laws of the comparison: no blend is scored on a patient that its fit has seen; the second level sees neighbours."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference.aligned import align_runs
from models.inference.blending import fit_calibrated, fit_equal
from models.inference.calibration import raise_any
from models.inference.evidence import (
    ENOUGH,
    FEW,
    WAYS,
    LabelWise,
    Nest,
    choose_ways,
    compose,
    nested,
    possible_ways,
    some_patients,
    ways_to_try,
)
from models.inference.stacking import fit_boosted, fit_stacker
from models.training.metric import slice_losses, weighted_log_loss

PATIENTS, LENGTH = 40, 8
RANDOM = np.random.default_rng(0)
SLICES = pd.DataFrame(
    {
        "image_id": [f"ID_{number:03d}" for number in range(PATIENTS * LENGTH)],
        "series_id": np.repeat([f"S{number}" for number in range(PATIENTS)], LENGTH),
        "study_id": np.repeat([f"T{number}" for number in range(PATIENTS)], LENGTH),
        "z": np.tile(5.0 * np.arange(LENGTH), PATIENTS),
        "patient_id": np.repeat([f"P{number // 2}" for number in range(PATIENTS)], LENGTH),  # two studies each
    }
)
TARGET = raise_any(np.repeat(RANDOM.random((PATIENTS, 6)) < 0.4, LENGTH, axis=0).astype(float))  # of a whole series


def noisy(seed: int) -> pd.DataFrame:
    values = np.clip(TARGET + np.random.default_rng(seed).normal(0, 0.6, TARGET.shape), 0.05, 0.95).astype(np.float32)
    return pd.DataFrame(values, columns=list(LABELS), index=pd.Index(SLICES["image_id"], name="image_id"))


MADE = {"b0": noisy(1), "b2": noisy(2)}
RUNS = align_runs(MADE, SLICES)


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


@pytest.mark.parametrize("fit", [fit_stacker, fit_boosted])
@pytest.mark.parametrize("value", [0, 1])
def test_the_second_level_never_answers_0_or_1_for_a_label_that_no_slice_has_or_all_have(fit, value):
    target = TARGET.copy()
    target[:, 0] = value
    stacked = fit(RUNS, target, np.ones(len(target), bool))(RUNS)
    assert 0 < stacked[:, 0].min() < stacked[:, 0].max() < 1  # the runs' own order is kept
    assert abs(stacked[:, 0].mean() - value) < 0.02
    assert (slice_losses(1 - target, stacked)[:, 0] < 15).all()  # nats, where another patient's slice is otherwise
    assert (stacked[:, ANY] == stacked.max(axis=1)).all()


@pytest.mark.parametrize("fit", WAYS.values(), ids=WAYS)
def test_any_is_at_least_the_largest_type_in_every_way(fit):
    torn = align_runs({name: table.assign(any=table["any"] / 2) for name, table in MADE.items()}, SLICES)
    said = fit(torn, TARGET, np.ones(len(TARGET), bool))(torn)
    assert (said[:, ANY] == said.max(axis=1)).all()


@pytest.mark.parametrize("fit", [fit_calibrated, fit_stacker, fit_boosted])
def test_any_is_expected_as_often_as_it_is_though_it_was_raised(fit):
    """Types that often contradict `any` lift its mean; one slice's worth of belief holds it back by little."""
    torn = align_runs({name: table.assign(any=0.3) for name, table in MADE.items()}, SLICES)
    said = fit(torn, TARGET, np.ones(len(TARGET), bool))(torn)
    assert said[:, ANY].mean() == pytest.approx(TARGET[:, ANY].mean(), abs=0.005)


@pytest.mark.parametrize("fit", WAYS.values(), ids=WAYS)
def test_what_is_said_of_some_slices_is_what_is_said_of_them_among_all(fit):
    rows = np.arange(len(TARGET)) % 3 == 0
    blend = fit(RUNS, TARGET, rows)
    np.testing.assert_allclose(blend(RUNS, rows), blend(RUNS)[rows], rtol=1e-6)


def test_the_simplest_way_that_does_not_differ_is_for_all_labels_but_those_on_which_it_is_worse():
    random, slices = np.random.default_rng(5), np.full(200, 10)
    simple = 3 + random.normal(0, 1, (200, 6))
    better = simple - 0.05 + random.normal(0, 0.01, simple.shape)  # by little, but for nearly all patients
    alike = simple - 0.001 + random.normal(0, 0.5, simple.shape)
    worse = simple + 0.05 + random.normal(0, 0.01, simple.shape)
    first = np.arange(6) < 3
    assert choose_ways({"equal": simple, "fitted": alike}, slices) == ("equal",) * 6
    assert choose_ways({"equal": simple, "fitted": better}, slices) == ("fitted",) * 6
    assert choose_ways({"equal": better, "fitted": simple}, slices) == ("equal",) * 6
    mixed = np.where(first, better, worse)
    assert choose_ways({"equal": simple, "fitted": mixed}, slices) == ("fitted",) * 3 + ("equal",) * 3
    # Of three ways, what is best for a label by chance alone does not count against a simpler one.
    three = {"equal": simple, "fitted": mixed, "stacker": mixed - 1e-9 + random.normal(0, 0.1, simple.shape)}
    assert choose_ways(three, slices) == ("fitted",) * 3 + ("equal",) * 3
    assert choose_ways({"equal": simple[:1], "fitted": better[:1]}, slices[:1]) == ("equal",) * 6  # no interval


def test_losses_that_no_label_proves_alone_count_together():
    random, slices = np.random.default_rng(6), np.full(100, 10)
    simple = 3 + random.normal(0, 1, (100, 6))
    better = simple - 0.1 + random.normal(0, 1.5, simple.shape)
    alone = [
        choose_ways({"equal": simple[:, [label] * 6], "fitted": better[:, [label] * 6]}, slices) for label in range(6)
    ]
    assert sum(ways == ("equal",) * 6 for ways in alone) > 2
    assert choose_ways({"equal": simple, "fitted": better}, slices) == ("fitted",) * 6


def apart(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses (200, 6) of two ways: of each label the second is less by so many standard errors of the difference."""
    random = np.random.default_rng(7)
    noise = random.normal(0, 1, (200, 6))
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
    simple = 3 + random.normal(0, 1, (200, 6))
    return simple, simple - errors / np.sqrt(200) + noise


@pytest.mark.parametrize(("errors", "way"), [(-1, "equal"), (0.3, "equal"), (0.6, "fitted"), (4, "fitted")])
def test_the_way_for_all_is_the_simplest_within_a_standard_error_of_the_best(errors, way):
    """Six labels, each a part of one error apart, are together apart by more."""
    simple, other = apart(np.full(6, float(errors)))
    assert choose_ways({"equal": simple, "fitted": other}, np.full(200, 10)) == (way,) * 6


@pytest.mark.parametrize(("errors", "way"), [(2.3, "fitted"), (4, "equal")])
def test_a_label_departs_from_the_way_for_all_where_that_is_proven_of_six_labels(errors, way):
    simple, other = apart(np.array([-errors, 5, 5, 5, 5, 5]))
    assert choose_ways({"equal": simple, "fitted": other}, np.full(200, 10)) == (way, *("fitted",) * 5)


@pytest.mark.parametrize(("patients", "parts"), [(2, 2), (8, 8), (40, 10), (FEW - 1, 10), (FEW, 5)])
def test_few_patients_are_dealt_into_more_parts_so_that_a_fit_lacks_fewer_of_them(patients, parts):
    nest = Nest(RUNS, np.zeros((patients, 6)), pd.Series(range(patients)))
    assert nest.count == parts == len(set(nest.part))


def test_a_label_is_composed_of_its_way_and_any_is_raised():
    said = {"equal": np.full((3, 6), 0.2), "stacker": np.full((3, 6), 0.7)}
    ways = ("equal", "stacker", "equal", "equal", "equal", "equal")
    np.testing.assert_array_equal(compose(ways, said), [[0.2, 0.7, 0.2, 0.2, 0.2, 0.7]] * 3)


def test_the_chosen_ways_are_fitted_and_used_label_by_label():
    nest = Nest(RUNS, TARGET, SLICES["patient_id"])
    ways = ("equal", "stacker", "equal", "equal", "fitted", "stacker")
    chosen = nest.finish(ways, WAYS)
    assert isinstance(chosen, LabelWise)
    assert list(chosen.blends) == ["equal", "stacker", "fitted"]
    everything = np.ones(len(TARGET), bool)
    expected = {way: WAYS[way](RUNS, TARGET, everything)(RUNS) for way in chosen.blends}
    np.testing.assert_array_equal(chosen(RUNS), compose(ways, expected))


def test_what_is_chosen_for_a_part_does_not_depend_on_the_labels_of_its_patients():
    part = Nest(RUNS, TARGET, SLICES["patient_id"]).part
    said = []
    for target in (TARGET, np.where((part == 2)[:, None], 1 - TARGET, TARGET)):  # all labels of a part turned round
        nest = Nest(RUNS, target, SLICES["patient_id"])
        tried = {way: nest.attempt(WAYS[way]) for way in ("equal", "fitted", "stacker")}
        said.append((nest.choose_nested(tried)[part == 2], np.stack([one.without[2] for one in tried.values()])))
    for one, other in zip(*said, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_choice_looks_at_all_other_patients_each_by_fits_that_have_seen_neither():
    nest = Nest(RUNS, TARGET, SLICES["patient_id"])
    tried = nest.attempt(WAYS["equal"])
    whole = nest.losses(tried.probability)  # equal weights are the same wherever they are fitted
    for part in range(nest.count):
        own = np.isin(np.arange(nest.patients), nest.codes[nest.part == part])
        np.testing.assert_allclose(tried.without[part][~own], whole[~own])
        assert (tried.without[part][own] == 0).all()


def test_enough_patients_are_whole_patients_drawn_at_random():
    codes = np.repeat(np.arange(100), 7)
    chosen = some_patients(codes, 200)
    assert 200 <= chosen.sum() < 207
    assert (np.bincount(codes[chosen]) % 7 == 0).all()
    assert codes[chosen].max() > 50
    assert some_patients(codes, ENOUGH).all()


def test_the_originals_weights_are_left_out_where_none_of_its_runs_is():
    others = align_runs({"small": noisy(1)}, SLICES)
    assert set(possible_ways(others)) == set(WAYS) - {"original"}
    assert set(possible_ways(RUNS)) == set(WAYS)


@pytest.mark.parametrize(("patients", "left"), [(FEW - 1, {"boosted"}), (FEW, set())])
def test_trees_are_tried_where_there_are_enough_patients(patients, left):
    """They take most of the time, and of few patients they are never the best way."""
    assert set(ways_to_try(SimpleNamespace(runs=RUNS, patients=patients))) == set(WAYS) - left


def test_one_patient_alone_is_an_input_error():
    with pytest.raises(InputError, match="one patient"):
        nested(fit_equal, RUNS, TARGET, pd.Series(["P0"] * len(TARGET)))
