"""Laws of the score: the challenge's metric, with scikit-learn as the oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss, roc_auc_score

from models.labels import ANY, LABELS, METRIC_WEIGHTS
from models.training.loss import WeightedLogLoss, log_losses, prior, weighted_log_loss
from models.training.scoring import WEIGHTED, score, score_prior

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
