"""Laws of paired differences: scores that scikit-learn gives, draws of patients, intervals that hold the truth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from models.common.errors import InputError
from models.inference.comparing import (
    SCORES,
    differences,
    holds_zero,
    intervals,
    placements,
    resample,
    resample_prior,
    shares,
    tails,
)
from models.training.metric import prior
from models.training.scoring import WEIGHTED, score

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # targets, a good prediction, a worse one, patients
KINDS = {"the weighted loss": slice(0, 1), "the loss of a label": slice(1, 7), "the AUC of a label": slice(7, 13)}


def draw(patients: int, seed: int) -> Drawn:
    """Slices of patients who differ: in how many slices bleed, and in how wrong both networks are about them."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), random.integers(5, 15, patients))
    share = np.where(random.random((patients, 6)) < 0.5, random.beta(2, 2, (patients, 6)), 0.02)
    target = (random.random((len(owner), 6)) < share[owner]).astype(float)
    alike = random.normal(0, 0.7, (patients, 6))[owner]  # what both say of a patient
    good = expit(-1.5 + 2.5 * target + alike + random.normal(0, 1, target.shape))
    worse = expit(-1.5 + 2.0 * target + alike + random.normal(0, 1.2, target.shape))
    return target, good, worse, owner


def compared(drawn: Drawn, draws: int = 1000) -> dict[str, pd.DataFrame]:
    """Scores, paired differences and shares of the prior."""
    target, good, worse, owner = drawn
    ours, theirs = resample(target, good, owner, draws), resample(target, worse, owner, draws)
    return {
        "scores": intervals(ours),
        "differences": differences(ours, theirs),
        "shares": shares(ours, resample_prior(target, owner, draws)),
    }


def coverage(datasets: int) -> pd.DataFrame:
    """How often the intervals of simulated data sets of 100 patients hold what is true of 50,000."""
    truth = compared(draw(50_000, 1_000_000), draws=1)
    held = {name: pd.Series(0, SCORES) for name in truth}
    for seed in range(datasets):
        for name, table in compared(draw(100, seed)).items():
            true = truth[name]["value"]
            held[name] += (table["low"] <= true) & (true <= table["high"])
    shares_of = {name: {kind: times.iloc[rows].mean() for kind, rows in KINDS.items()} for name, times in held.items()}
    return pd.DataFrame(shares_of) / datasets


@pytest.mark.torture
def test_the_intervals_of_200_data_sets_hold_the_truth_as_often_as_they_say():
    covered = coverage(200)
    assert ((covered >= 0.92) & (covered <= 0.98)).all(axis=None), covered


def test_the_intervals_of_some_data_sets_hold_the_truth_in_most_of_them():
    covered = coverage(20).drop("the weighted loss")
    assert ((covered >= 0.88) & (covered < 1)).all(axis=None), covered


def test_scores_are_those_of_the_slices_as_they_are():
    target, good, _, owner = draw(50, 0)
    scores = resample(target, good, owner, draws=2)
    np.testing.assert_allclose(scores.value, score(target, good)[SCORES], rtol=1e-12)
    of_prior = resample_prior(target, owner, draws=2)
    np.testing.assert_allclose(of_prior.value, score(target, prior(target))[SCORES], rtol=1e-12)


def test_a_draw_is_scored_like_the_slices_of_its_patients_and_against_its_own_prior():
    target, good, _, owner = draw(150, 1)
    scores, of_prior = resample(target, good, owner, 30, seed=3), resample_prior(target, owner, 30, seed=3)
    generator = np.random.default_rng(3)
    for ours, theirs in zip(scores.draws, of_prior.draws, strict=True):
        rows = np.concatenate([np.flatnonzero(owner == place) for place in generator.integers(150, size=150)])
        expected = score(target[rows], good[rows])[SCORES].to_numpy()
        np.testing.assert_allclose(ours[:7], expected[:7], rtol=1e-12)
        np.testing.assert_allclose(ours[7:], expected[7:], atol=4e-3)  # a first-order approximation
        np.testing.assert_allclose(theirs, score(target[rows], prior(target[rows]))[SCORES], rtol=1e-12)


def test_the_draws_of_an_auc_vary_as_those_that_are_sorted_anew():
    target, good, _, owner = draw(60, 2)
    approximate = resample(target, good, owner, 200).draws[:, SCORES.index("AUC any")]
    generator, exact = np.random.default_rng(0), []
    for _ in range(200):
        times = np.bincount(generator.integers(60, size=60), minlength=60)[owner]
        exact.append(roc_auc_score(target[:, 5], good[:, 5], sample_weight=times))
    assert np.corrcoef(approximate, exact)[0, 1] > 0.98
    assert approximate.std() == pytest.approx(np.std(exact), rel=0.1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_placements_are_the_auc_with_ties_as_a_half(slices):
    positive, values = (np.array(column) for column in zip(*slices, strict=True))
    if not 0 < positive.mean() < 1:
        return
    above, below = placements(positive, values / 5)
    expected = roc_auc_score(positive, values)
    assert above[positive].mean() == pytest.approx(expected)
    assert below[~positive].mean() == pytest.approx(expected)


def test_a_prediction_does_not_differ_from_itself_and_a_difference_turns_with_its_sides():
    target, good, worse, owner = draw(50, 3)
    ours, theirs = resample(target, good, owner), resample(target, worse, owner)
    assert (differences(ours, ours) == 0).all(axis=None)
    one, other = differences(ours, theirs), differences(theirs, ours)
    np.testing.assert_allclose(one["low"], -other["high"], atol=1e-12)
    assert one.loc[WEIGHTED, "high"] < 0 < one.loc["AUC any", "low"]
    assert not holds_zero(one.loc[WEIGHTED])
    assert holds_zero(differences(ours, ours).loc[WEIGHTED])


def test_a_paired_interval_is_narrower_than_one_of_two_scores_apart():
    drawn = draw(100, 4)
    tables, worse = compared(drawn), intervals(resample(drawn[0], drawn[2], drawn[3]))
    width = {name: table["high"] - table["low"] for name, table in (tables | {"worse": worse}).items()}
    assert (width["differences"] < 0.8 * np.hypot(width["scores"], width["worse"])).all()


def test_one_patient_has_no_interval_and_a_label_with_one_class_no_auc():
    target, good, _, owner = draw(20, 5)
    target[:, 0] = 0
    table = intervals(resample(target, good, owner))
    assert table.loc["AUC epidural"].isna().all()
    assert table.drop("AUC epidural").notna().all(axis=None)
    alone = intervals(resample(target, good, np.zeros(len(owner))))
    assert alone["low"].isna().all()
    assert alone["high"].isna().all()
    assert alone.loc[WEIGHTED, "value"] == pytest.approx(table.loc[WEIGHTED, "value"])
    assert holds_zero(alone.loc[WEIGHTED])


def test_the_order_of_slices_changes_nothing():
    drawn = draw(50, 6)
    order = np.random.default_rng(0).permutation(len(drawn[0]))
    for name, table in compared(tuple(array[order] for array in drawn)).items():
        pd.testing.assert_frame_equal(table, compared(drawn)[name], rtol=1e-9)


def test_scores_of_other_patients_or_draws_are_not_compared():
    target, good, _, owner = draw(50, 7)
    ours = resample(target, good, owner)
    for theirs in (resample(target, good, owner // 2), resample(target, good, owner, seed=1)):
        with pytest.raises(InputError, match="not paired"):
            differences(ours, theirs)


def test_intervals_of_few_patients_are_wider():
    assert tails(100_000) == pytest.approx((2.5, 97.5), abs=1e-3)
    assert tails(10)[0] < tails(100)[0] < 2.5
    assert tails(100_000, 0.683) == pytest.approx((15.87, 84.13), abs=0.05)  # one standard error to each side
