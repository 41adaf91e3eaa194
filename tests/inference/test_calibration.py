"""Laws of calibration: it mends what was distorted, and leaves alone what is right."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from models.common.labels import ANY
from models.inference.calibration import fit_calibration, fit_shift, raise_any

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(-1, 2, 5000)
TARGET = (RANDOM.random(len(LOGITS)) < expit(LOGITS)).astype(float)


@pytest.mark.parametrize(("temperature", "bias"), [(1, 0), (0.5, 1), (3, -2)])
def test_a_distortion_is_found(temperature, bias):
    found = fit_calibration((LOGITS - bias) * temperature, TARGET)
    assert found.temperature == pytest.approx(temperature, rel=0.08)
    assert found.bias == pytest.approx(bias, abs=0.15)


def test_it_agrees_with_scikit_learn():
    found = fit_calibration(LOGITS, TARGET)
    oracle = LogisticRegression(C=1e6).fit(LOGITS[:, None], TARGET)
    assert 1 / found.temperature == pytest.approx(oracle.coef_[0, 0], rel=2e-3)
    assert found.bias == pytest.approx(oracle.intercept_[0], abs=2e-3)


@pytest.mark.parametrize("value", [0, 1])
def test_a_label_with_one_class_stays_finite_and_goes_to_its_side(value):
    found = fit_calibration(LOGITS, np.full(len(LOGITS), value))
    assert np.isfinite(found).all()
    assert abs(expit(found(LOGITS)).mean() - value) < 0.01


def test_logits_that_rank_backwards_are_flattened_and_never_turned_round():
    found = fit_calibration(-LOGITS, TARGET)
    assert found.temperature > 100
    assert expit(found(np.zeros(1)))[0] == pytest.approx(TARGET.mean(), abs=0.02)


def test_any_becomes_the_largest_and_nothing_else_changes():
    probability = RANDOM.random((50, 6))
    raised = raise_any(probability)
    assert (raised[:, ANY] == probability.max(axis=1)).all()
    assert (raised[:, :ANY] == probability[:, :ANY]).all()


def test_the_shift_makes_any_as_frequent_as_it_is_once_it_is_raised():
    largest = expit(RANDOM.permutation(LOGITS) - 2)
    shift = fit_shift(LOGITS, TARGET, largest)
    assert shift < 0
    raised = np.maximum(expit(LOGITS + shift), largest)
    assert raised.sum() + shift == pytest.approx(TARGET.sum(), abs=1e-6)


def test_where_any_is_right_and_no_type_above_it_nothing_is_shifted():
    right = fit_calibration(LOGITS, TARGET)(LOGITS)
    assert fit_shift(right, TARGET, np.zeros(len(LOGITS))) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("value", [0, 1])
def test_the_shift_of_one_class_is_finite(value):
    for largest in (0.0, 1.0):
        assert np.isfinite(fit_shift(LOGITS, np.full(len(LOGITS), value), np.full(len(LOGITS), largest)))
