"""Laws of blending: equal runs give that run, nothing depends on the order, a fit is no worse than its members."""

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference import blending
from models.inference.aligned import SPACES, align_runs
from models.inference.blending import (
    ORIGINAL_WEIGHTS,
    Blend,
    fit_best_single,
    fit_calibrated,
    fit_equal,
    fit_original,
    fit_simplex,
    fit_weights,
    logit_loss,
    probability_loss,
)
from models.inference.calibration import raise_any
from models.training.metric import log_losses, weighted_log_loss

FITS = (fit_best_single, fit_equal, fit_weights, fit_calibrated)
STUDIES, LENGTH = 30, 10
RANDOM = np.random.default_rng(0)
SLICES = pd.DataFrame(
    {
        "image_id": [f"ID_{number:03d}" for number in RANDOM.permutation(STUDIES * LENGTH)],
        "series_id": np.repeat([f"S{number}" for number in range(STUDIES)], LENGTH),
        "study_id": np.repeat([f"T{number}" for number in range(STUDIES)], LENGTH),
        "z": np.tile(5.0 * np.arange(LENGTH), STUDIES),
    }
)
EVIDENCE = RANDOM.normal(-1, 1.5, (len(SLICES), 6))
TARGET = raise_any((RANDOM.random(EVIDENCE.shape) < expit(EVIDENCE)).astype(float))
ALL = np.ones(len(SLICES), bool)


def predictions(noise: float, seed: int) -> pd.DataFrame:
    """What a run of so much noise says."""
    values = expit(EVIDENCE + np.random.default_rng(seed).normal(0, noise, EVIDENCE.shape)).astype(np.float32)
    return pd.DataFrame(raise_any(values), columns=list(LABELS), index=pd.Index(SLICES["image_id"], name="image_id"))


RUNS = {"b0": predictions(1.0, 1), "b2": predictions(0.7, 2), "other": predictions(2.0, 3)}


def blended(fit, runs=RUNS, slices=SLICES, target=TARGET, fill=False) -> pd.DataFrame:
    aligned = align_runs(runs, slices, fill)
    return pd.DataFrame(fit(aligned, target, ALL)(aligned), index=aligned.image_ids, columns=list(LABELS))


@pytest.mark.parametrize("fit", [fit_best_single, fit_equal, fit_original, fit_weights])
def test_blending_equal_runs_gives_that_run(fit):
    equal = dict.fromkeys(("b0", "b2", "b5"), RUNS["b0"])
    np.testing.assert_allclose(blended(fit, equal), RUNS["b0"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fit", FITS)
def test_the_order_of_rows_in_a_run_changes_nothing(fit):
    turned = {name: table.sample(frac=1, random_state=number) for number, (name, table) in enumerate(RUNS.items())}
    pd.testing.assert_frame_equal(blended(fit, turned), blended(fit))


@pytest.mark.parametrize("fit", FITS)
def test_the_order_of_slices_and_of_runs_changes_nothing(fit):
    order = np.random.default_rng(1).permutation(len(SLICES))
    other = blended(fit, dict(reversed(RUNS.items())), SLICES.iloc[order], TARGET[order])
    np.testing.assert_allclose(other.loc[SLICES["image_id"]], blended(fit), rtol=0, atol=1e-4)


def test_a_fitted_blend_is_at_least_as_good_on_its_slices_as_its_best_member():
    best = np.min([log_losses(TARGET, table.to_numpy()) for table in RUNS.values()], axis=0)
    assert (log_losses(TARGET, blended(fit_weights).to_numpy()) <= best + 1e-7).all()


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 2**31), st.sampled_from(SPACES))
def test_fitted_weights_are_the_best_of_the_simplex(runs, seed, space):
    random = np.random.default_rng(seed)
    target = (random.random(80) < 0.3).astype(float)
    logits = 2 * target[:, None] - 1 + random.normal(0, 2, (80, runs))
    values = logits if space == "logit" else expit(logits)
    weights, loss = fit_simplex(values, target, space)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    measure = logit_loss if space == "logit" else probability_loss
    others = np.vstack([np.eye(runs), random.dirichlet(np.ones(runs), 50)])
    assert loss <= min(measure(other, values, target)[0] for other in others) + 1e-7


@pytest.mark.parametrize("loss", [logit_loss, probability_loss])
def test_gradients_are_those_of_finite_differences(loss):
    values = RUNS["b0"].to_numpy()[:, :3].astype(float)
    weights, step = np.array([0.2, 0.3, 0.5]), 1e-6
    value, gradient = loss(weights, values, TARGET[:, 0])
    numeric = [(loss(weights + step * unit, values, TARGET[:, 0])[0] - value) / step for unit in np.eye(3)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


def test_losses_are_those_of_the_metric():
    probability = RUNS["b2"].to_numpy()[:, [ANY]].astype(float)
    target = TARGET[:, ANY]
    expected = log_losses(TARGET, RUNS["b2"].to_numpy())[ANY]
    assert probability_loss(np.ones(1), probability, target)[0] == pytest.approx(expected)
    assert logit_loss(np.ones(1), logit(probability), target)[0] == pytest.approx(expected)


def test_equal_and_original_weights_are_the_weighted_mean_of_probabilities():
    np.testing.assert_allclose(blended(fit_equal), sum(RUNS.values()) / 3, atol=1e-6)
    expected = (0.2 * RUNS["b0"] + 0.4 * RUNS["b2"]) / 0.6  # "other" is none of the original's
    np.testing.assert_allclose(blended(fit_original), expected, atol=1e-6)
    assert sum(ORIGINAL_WEIGHTS.values()) == pytest.approx(1)


def test_none_of_the_originals_runs_is_an_input_error_that_names_them():
    with pytest.raises(InputError, match=r"\('other',\) has a weight; weights are for \['b0', 'b0_224', 'b2'"):
        blended(fit_original, {"other": RUNS["other"]})


def test_the_best_single_run_is_the_one_with_the_lowest_loss():
    np.testing.assert_allclose(blended(fit_best_single), RUNS["b2"], atol=1e-6)


def test_a_final_answer_has_the_mean_of_the_others_where_a_run_lacks_a_slice():
    lacking = RUNS | {"b2": RUNS["b2"].iloc[50:]}
    mixed = blended(fit_equal, lacking, fill=True)
    assert list(mixed.index) == list(SLICES["image_id"])
    expected = (RUNS["b0"] + RUNS["other"]).iloc[:50] / 2
    np.testing.assert_allclose(mixed.iloc[:50], expected, atol=1e-6)
    np.testing.assert_allclose(mixed.iloc[50:], blended(fit_equal).iloc[50:], atol=1e-12)
    filled = align_runs(lacking, SLICES, fill=True)
    assert list(filled.image_ids[~filled.complete]) == list(SLICES["image_id"].iloc[:50])


def test_runs_are_compared_on_slices_that_all_of_them_have_and_no_filled_value_is_among_them():
    lacking = {"b0": RUNS["b0"].iloc[:200], "b2": RUNS["b2"].iloc[50:].sample(frac=1, random_state=0)}
    aligned = align_runs(lacking, SLICES)
    assert list(aligned.image_ids) == list(SLICES["image_id"].iloc[50:200])
    assert aligned.complete.all()
    for number, name in enumerate(lacking):
        np.testing.assert_array_equal(aligned.values["probability"][:, :, number].T, RUNS[name].iloc[50:200])


def test_runs_without_a_common_slice_cannot_be_compared():
    with pytest.raises(InputError, match=r"no slice that all of the runs b0, b2 have.* train the same folds"):
        align_runs({"b0": RUNS["b0"].iloc[:100], "b2": RUNS["b2"].iloc[100:]}, SLICES)


def test_a_slice_that_no_run_has_is_not_in_the_blend():
    image_ids = SLICES["image_id"].iloc[3:]
    few = {name: table.loc[image_ids] for name, table in RUNS.items()}
    for fill in (False, True):
        assert list(align_runs(few, SLICES, fill).image_ids) == list(image_ids)


@pytest.mark.parametrize("fit", FITS)
def test_any_is_at_least_the_largest_type_in_every_way(fit):
    torn = {name: table.assign(any=0.5 * table["any"]) for name, table in RUNS.items()}
    mixed = blended(fit, torn)
    assert (mixed["any"] >= mixed.max(axis=1)).all()


def test_weights_that_are_not_found_are_those_of_the_best_run_or_equal_ones(monkeypatch):
    failed = scipy.optimize.OptimizeResult(x=np.array([0.9, 0.05, 0.05]), success=False)
    values = np.stack([table["any"].to_numpy() for table in RUNS.values()], axis=1)
    tried = []
    monkeypatch.setattr(blending, "minimize", lambda *_, **options: tried.append(options["options"]["ftol"]) or failed)
    weights, loss = fit_simplex(values, TARGET[:, ANY], "probability")
    choices = [*np.eye(3), np.full(3, 1 / 3)]
    losses = [probability_loss(choice, values.astype(float), TARGET[:, ANY])[0] for choice in choices]
    assert loss == min(losses)
    np.testing.assert_array_equal(weights, choices[np.argmin(losses)])
    assert tried == list(blending.TOLERANCES)


def test_what_is_fitted_depends_on_the_chosen_rows_alone():
    rows = np.arange(len(SLICES)) < 200
    aligned = align_runs(RUNS, SLICES)
    wrong = np.where(rows[:, None], TARGET, 1 - TARGET)
    for fit in FITS:
        np.testing.assert_array_equal(fit(aligned, TARGET, rows)(aligned), fit(aligned, wrong, rows)(aligned))


def test_calibration_mends_runs_that_are_too_sure_and_any_is_the_largest():
    too_sure = {name: expit(3 * logit(table.astype(float))).astype(np.float32) for name, table in RUNS.items()}
    calibrated, fitted = (blended(fit, too_sure) for fit in (fit_calibrated, fit_weights))
    assert (calibrated["any"] >= calibrated.max(axis=1)).all()
    gain = log_losses(TARGET, fitted.to_numpy()) - log_losses(TARGET, calibrated.to_numpy())
    assert (gain[:ANY] > 0.01).all()  # `any` of these made-up slices has nothing to do with the types


def test_a_run_that_is_sure_and_wrong_does_not_make_the_loss_infinite():
    sure = RUNS | {"sure": (RUNS["b0"] > 0.5).astype(np.float32)}
    for fit in FITS:
        assert np.isfinite(weighted_log_loss(TARGET, blended(fit, sure).to_numpy()))


def test_a_label_that_no_slice_has_can_be_fitted():
    target = TARGET.copy()
    target[:, 0] = 0
    for fit in FITS:
        assert np.isfinite(blended(fit, target=target)).all(axis=None)
    assert blended(fit_calibrated, target=target)["epidural"].mean() < 0.02


def test_a_blend_is_for_the_runs_that_it_was_made_of():
    blend = Blend(("b2", "b0", "other"), np.full((6, 3), 1 / 3))
    with pytest.raises(InputError, match="'b2', 'b0', 'other'"):
        blend(align_runs(RUNS, SLICES))
