"""Laws of the score: the challenge's metric, with scikit-learn as the oracle."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss, roc_auc_score

from models.common.labels import ANY, LABELS, METRIC_WEIGHTS
from models.inference.comparing import tails
from models.inference.scoring import score_intervals
from models.training.loss import WeightedLogLoss
from models.training.metric import log_losses, prior, weighted_log_loss
from models.training.scoring import WEIGHTED, label_table, score, score_prior

probabilities = st.floats(1e-6, 1 - 1e-6)
pairs = st.integers(1, 20).flatmap(
    lambda slices: st.tuples(
        arrays(np.float64, (slices, 6), elements=st.sampled_from([0.0, 1.0])),
        arrays(np.float64, (slices, 6), elements=probabilities),
    )
)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities (slices, 6), every label with both classes."""
    generator = np.random.default_rng(0)
    return (generator.random((500, 6)) < 0.3).astype(float), generator.random((500, 6))


def scikit_learn(target: np.ndarray, probability: np.ndarray) -> float:
    """All labels of all slices as one list of binary answers, those of `any` with a weight of 2."""
    weights = np.tile(METRIC_WEIGHTS, (len(target), 1))
    return log_loss(target.ravel(), probability.ravel(), sample_weight=weights.ravel(), labels=[0, 1])


@given(pairs)
def test_the_weighted_log_loss_is_scikit_learns(pair):
    assert weighted_log_loss(*pair) == pytest.approx(scikit_learn(*pair), rel=1e-12, abs=1e-12)


def test_the_log_loss_of_each_label_is_scikit_learns(pair):
    target, probability = pair
    expected = [log_loss(target[:, i], probability[:, i]) for i in range(6)]
    np.testing.assert_allclose(log_losses(target, probability), expected, rtol=1e-12)


@given(pairs)
def test_the_training_loss_is_the_score(pair):
    target, probability = pair
    logits = torch.logit(torch.from_numpy(probability))
    loss = WeightedLogLoss()(logits, torch.from_numpy(target)).item()
    assert loss == pytest.approx(weighted_log_loss(target, probability), rel=1e-5, abs=1e-6)


def test_one_half_throughout_scores_the_logarithm_of_two(pair):
    assert weighted_log_loss(pair[0], np.full((500, 6), 0.5)) == pytest.approx(0.693147, abs=1e-6)


def test_any_weighs_twice_as_much_as_a_subtype(pair):
    target, _ = pair
    right = np.where(target == 1, 0.9, 0.1)
    worse = {}
    for label in range(6):
        wrong = right.copy()
        wrong[:, label] = 1 - wrong[:, label]
        worse[label] = weighted_log_loss(target, wrong) - weighted_log_loss(target, right)
    assert all(worse[ANY] == pytest.approx(2 * worse[label]) for label in range(6) if label != ANY)


def test_a_sure_and_wrong_answer_costs_much_but_is_finite():
    target = np.array([[0.0, 1, 0, 1, 0, 1]])
    assert weighted_log_loss(target, 1 - target) == pytest.approx(-np.log(1e-15), rel=1e-3)
    assert weighted_log_loss(target, target) == pytest.approx(0, abs=1e-14)


def test_no_constant_prediction_is_better_than_the_prior(pair):
    target, _ = pair
    best = score_prior(target)[WEIGHTED]
    generator = np.random.default_rng(1)
    for _ in range(50):
        constant = np.clip(prior(target) + generator.normal(0, 0.05, 6), 0.01, 0.99)
        assert weighted_log_loss(target, constant) > best


def test_the_best_constant_of_the_training_loss_is_the_prevalence_for_any_too(pair):
    target = torch.from_numpy(pair[0])
    logits = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = WeightedLogLoss()(logits.expand(len(target), 6), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(logits.detach().sigmoid().double(), target.mean(dim=0), rtol=0, atol=1e-3)


def test_half_precision_logits_lose_nothing_in_the_loss(pair):
    target = torch.from_numpy(pair[0])
    logits = torch.logit(torch.from_numpy(pair[1]), eps=1e-3).half()
    loss = WeightedLogLoss()(logits, target)
    assert loss.dtype == torch.float32
    assert loss == WeightedLogLoss()(logits.float(), target)


def test_the_loss_adds_nothing_to_a_saved_network():
    assert not WeightedLogLoss().state_dict()


def test_a_score_names_the_metric_and_two_numbers_a_label(pair):
    target, probability = pair
    scores = score(target, probability)
    assert list(scores.index) == [WEIGHTED, *(f"log loss {x}" for x in LABELS), *(f"AUC {x}" for x in LABELS)]
    assert scores[WEIGHTED] == weighted_log_loss(target, probability)
    for i, label in enumerate(LABELS):
        assert scores[f"AUC {label}"] == roc_auc_score(target[:, i], probability[:, i])


@pytest.mark.parametrize("value", [0, 1])
def test_the_auc_of_a_label_with_one_class_is_nan_and_the_others_stay(pair, value):
    target, probability = pair
    target[:, 0] = value
    scores = score(target, probability)
    assert np.isnan(scores[f"AUC {LABELS[0]}"])
    assert scores.drop(f"AUC {LABELS[0]}").notna().all()


@pytest.fixture
def patients() -> np.ndarray:
    """The patient of each slice of `pair`: 40 of them, with few slices and with many."""
    return np.random.default_rng(2).geometric(0.05, 500).clip(max=40).astype(str)


def test_an_interval_is_around_the_score_of_the_slices_as_they_are(pair, patients):
    table = score_intervals(*pair, patients)
    expected = label_table(*pair)
    assert list(table.columns) == ["log loss", "low", "high", "prior's"]
    assert list(table.index) == [WEIGHTED, *LABELS]
    for column in ("log loss", "prior's"):
        np.testing.assert_allclose(table[column], expected[column], rtol=0, atol=1e-12)
    assert (table["low"] < table["log loss"]).all()
    assert (table["log loss"] < table["high"]).all()


def test_an_interval_is_that_of_scoring_the_slices_of_patients_drawn_one_by_one(pair, patients):
    target, probability = pair
    names, generator = np.unique(patients), np.random.default_rng(3)
    scores = []
    for _ in range(30):
        places = generator.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(patients == names[place]) for place in places])
        drawn = target[rows], probability[rows]
        scores.append([weighted_log_loss(*drawn), *log_losses(*drawn)])
    table = score_intervals(target, probability, patients, draws=30, seed=3)
    np.testing.assert_allclose(table[["low", "high"]].T, np.percentile(scores, tails(len(names)), axis=0), rtol=1e-12)


def test_an_interval_is_as_wide_as_the_standard_error_says(pair):
    target, probability = pair
    table = score_intervals(target, probability, np.arange(500), draws=4000)  # one slice each: a mean of equals
    losses = np.where(target == 1, -np.log(probability), -np.log1p(-probability))
    width = 2 * 1.96 * losses.std(axis=0) / np.sqrt(500)
    np.testing.assert_allclose((table["high"] - table["low"])[list(LABELS)], width, rtol=0.1)


def test_slices_of_a_patient_that_stand_many_times_do_not_narrow_an_interval(pair):
    once = score_intervals(*pair, np.arange(500))
    tenfold = score_intervals(*(np.repeat(array, 10, axis=0) for array in (*pair, np.arange(500))))
    pd.testing.assert_frame_equal(tenfold, once, rtol=1e-12)


def test_one_patient_has_no_interval(pair):
    table = score_intervals(*pair, np.full(500, "ID_a"))
    assert table[["low", "high"]].isna().all(axis=None)
    assert table[["log loss", "prior's"]].notna().all(axis=None)


def test_the_order_of_slices_changes_no_interval(pair, patients):
    order = np.random.default_rng(4).permutation(500)
    shuffled = score_intervals(*(array[order] for array in (*pair, patients)))
    pd.testing.assert_frame_equal(shuffled, score_intervals(*pair, patients), rtol=1e-12)


def test_another_seed_gives_another_interval_of_the_same_score(pair, patients):
    one, two = (score_intervals(*pair, patients, seed=seed) for seed in (0, 1))
    assert (one["low"] != two["low"]).all()
    pd.testing.assert_series_equal(one["log loss"], two["log loss"])


def test_the_prior_scores_0_2320_on_the_labels_of_stage_1(real_labels):
    slices = pd.read_csv(real_labels / "labels_stage2_train_wide_752803.csv.gz").query("stage1 == 'train'")
    target = slices[list(LABELS)].to_numpy()
    table = score_intervals(target, prior(target), np.arange(len(target)) // 40)  # about as many patients as it has
    assert table.loc[WEIGHTED, "log loss"] == pytest.approx(0.2320, abs=5e-5)
    pd.testing.assert_series_equal(table["log loss"], table["prior's"], check_names=False)


def test_real_slices_of_a_patient_are_so_alike_that_an_interval_of_slices_would_be_too_narrow(real_labels):
    table = pd.read_csv(real_labels / "labels_plus_metadata_stage1test_78545.csv.gz")
    target = table[list(LABELS)].to_numpy()
    widths = [
        np.ptp(score_intervals(target, prior(target), owners, draws=200).loc[WEIGHTED, ["low", "high"]])
        for owners in (table["PatientID"], table["SOPInstanceUID"])
    ]
    assert widths[0] > 2 * widths[1]
