"""Laws of asking networks: an answer is what the steps by hand give, and means what the run's validation says."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models import train_b0_recurrent, train_sequence
from models.common.config import StudyConfig
from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference.asked_runs import Study, find_folds
from models.inference.calibration import fit_calibration
from models.inference.combining import combine, points_of, read_runs, run_of
from models.inference.ensemble import Ensemble
from models.inference.operating import meaning_of, predictive_values
from models.inference.predict import infer
from models.preprocessing.tables import read_slices
from models.train_small import CONFIG
from models.training.fingerprint import EDGES, FILE, SUMS, Fingerprint, count_logits, distances, read_fingerprint, sums
from models.training.run import train
from models.training.run_record import SmoothedRecord, save_smoothed


@pytest.fixture(scope="module")
def runs(run_folder, few) -> dict[str, Path]:
    """A run of each kind that looks at slices or builds on one that does."""
    machine = Machine(work=few.root, device="cpu")
    sequence = replace(
        train_sequence.CONFIG, name="asked_layers", runs=("asked",), epochs=1, batch_size=2, hidden=8, views="flip"
    )
    shared = {name: value for name, value in vars(CONFIG).items() if name not in ("name", "epochs", "batch_size")}
    of_study = {name: getattr(train_b0_recurrent.CONFIG, name) for name in ("dropout", "reverse", "shortest")}
    study = StudyConfig(
        **shared | of_study, name="asked_studies", epochs=1, batch_size=2, hidden=8, study_slices=6, slices_at_once=6
    )
    for config in (sequence, study):
        train(TrainOptions(config, tta="none", machine=machine))
    return {"slices": run_folder, "layers": few.run("asked_layers", 0), "studies": few.run("asked_studies", 0)}


@pytest.mark.parametrize(
    ("kind", "tta"), [("slices", "flip"), ("slices", "d4"), ("layers", "flip"), ("studies", "flip")]
)
def test_an_answer_is_what_inference_writes(kind, tta, runs, few, tmp_path):
    (tmp_path / "cache").symlink_to(few.cache)
    machine = Machine(work=tmp_path, device="cpu")
    infer(InferOptions("by_hand", weights=runs[kind], tta=tta, machine=machine))
    due = pd.read_parquet(tmp_path / "runs" / "by_hand" / "fold0" / "test.parquet").set_index("image_id")
    ensemble = Ensemble(find_folds([runs[kind]]), "cpu", tta)
    for _, slices in read_slices(few, "test").groupby("series_id", sort=False):
        (said,) = ensemble.ask(Study(slices.reset_index(drop=True), few))
        assert said.probability.mean(axis=0) == pytest.approx(due.loc[slices["image_id"]].to_numpy(), abs=2e-5)


def test_layers_speak_for_the_network_that_they_build_on(runs):
    assert [fold.name for fold in find_folds([runs["slices"], runs["layers"]])] == ["asked_layers/fold0"]
    assert len(find_folds([runs["slices"], runs["studies"]])) == 2


def test_a_run_is_all_of_its_folds(runs):
    assert [fold.name for fold in find_folds([runs["slices"].parent])] == ["asked/fold0"]
    with pytest.raises(InputError, match="no finished run"):
        find_folds([runs["slices"].parent.parent / "nothing"])


def test_two_runs_of_one_name_are_refused_and_a_link_to_a_run_is_that_run(runs, tmp_path):
    """By their names answers note weights and calibrations: one of the two would stand for both."""
    other = shutil.copytree(runs["slices"].parent, tmp_path / "elsewhere" / "asked")
    with pytest.raises(InputError, match=r"asked/fold0 and \S+/asked/fold0 are called alike; rename the folder"):
        find_folds([runs["slices"], other])
    with pytest.raises(InputError, match="are called alike"):
        find_folds([runs["layers"], other])  # which build on the first
    (tmp_path / "asked").symlink_to(runs["slices"].parent)
    assert len(find_folds([runs["slices"], tmp_path / "asked"])) == 1


def test_of_a_folder_of_runs_those_are_asked_that_are_networks(runs, tmp_path):
    shutil.copytree(runs["slices"].parent, tmp_path / "asked")
    save_smoothed(tmp_path / "asked_smoothed" / "fold0", SmoothedRecord("asked_smoothed", "asked", 5.0, {}))
    assert [fold.name for fold in find_folds([tmp_path])] == ["asked/fold0"]
    with pytest.raises(InputError, match="holds smoothed predictions of asked and no network; name asked"):
        find_folds([tmp_path / "asked_smoothed"])


def test_slices_of_its_own_kind_are_familiar_and_noise_is_not(runs, few):
    ensemble = Ensemble(find_folds([runs["slices"]]), "cpu", "none")
    slices = read_slices(few, "train")
    (said,) = ensemble.ask(
        Study(slices[slices["series_id"] == slices["series_id"].iloc[0]].reset_index(drop=True), few)
    )
    assert said.strangeness < 2
    familiar = read_fingerprint(runs["slices"]).familiar
    rng = np.random.default_rng(0)
    far = familiar.mean + 9 * np.sqrt(np.diag(familiar.covariance)) * rng.choice([-1, 1], (20, SUMS))
    assert distances(far, familiar.mean, familiar.covariance).mean() / familiar.distance[2] > 3


# ---- what a run notes of itself ----


def test_a_fingerprint_takes_a_few_kilobytes_and_names_nobody(runs, few):
    slices = read_slices(few, "train")
    for folder in runs.values():
        text = (folder / FILE).read_text()
        assert len(text) < 16_000
        for name in ("image_id", "series_id", "study_id", "patient_id"):
            assert not any(value in text for value in slices[name].unique())


def test_a_fingerprint_tells_what_the_fold_was_validated_on(runs, few):
    valid = pd.read_parquet(runs["slices"] / "valid.parquet")
    slices = read_slices(few, "train").set_index("image_id").loc[valid["image_id"]]
    known = read_fingerprint(runs["slices"])
    assert known.patients == slices["patient_id"].nunique()
    assert known.studies == slices["study_id"].nunique()
    for label in LABELS:
        assert known.of_slices[label].sum(axis=1).tolist() == [(slices[label] == 0).sum(), (slices[label] == 1).sum()]
        assert known.of_studies[label].sum() == known.studies


def test_sums_of_embeddings_keep_distances(tmp_path):
    seen = np.random.default_rng(0).normal(size=(50, 640))
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)[np.triu_indices(50, 1)]
    kept = np.linalg.norm(sums(seen)[:, None] - sums(seen), axis=2)[np.triu_indices(50, 1)]
    ratio = kept / apart * np.sqrt(640 / SUMS)
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert np.abs(ratio - 1).max() < 0.7


# ---- what probabilities mean ----


def drawn(studies: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities (studies, 6) of a network that is too sure by a factor of two."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (studies, len(LABELS)))
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float), 1 / (1 + np.exp(-2 * logits))


def fingerprint(studies: int, seed: int) -> Fingerprint:
    counts = {label: np.array(of) for label, of in count_logits(*drawn(studies, seed)).items()}
    return Fingerprint(studies, studies, 5.0, counts, counts, None)


def test_calibration_by_counts_is_that_by_slices():
    target, probability = drawn(4000, 0)
    meaning = meaning_of([fingerprint(4000, 0)])
    logits = np.log(probability / (1 - probability))
    for column, label in enumerate(LABELS):
        due = fit_calibration(logits[:, column], target[:, column])
        assert meaning.slices[label].temperature == pytest.approx(due.temperature, rel=0.03)
        assert meaning.slices[label].bias == pytest.approx(due.bias, abs=0.03)
    assert meaning.slices["any"].temperature == pytest.approx(2, rel=0.1)


def test_counts_of_folds_add_up():
    both = meaning_of([fingerprint(3000, 1), fingerprint(3000, 2)])
    assert both.points["sensitivity"].positives == pytest.approx(6000 * 0.32, rel=0.1)
    assert both.slices["any"].temperature == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(("name", "other"), [("sensitivity", "specificity"), ("specificity", "sensitivity")])
def test_at_a_threshold_the_share_is_reached_and_a_step_further_it_is_not(name, other):
    point = meaning_of([fingerprint(5000, 3)]).points[name]
    target, probability = drawn(5000, 3)
    calibrated = 1 / (1 + np.exp(-np.log(probability[:, ANY] / (1 - probability[:, ANY])) / 2))
    alarm, bleeds = calibrated >= point.threshold, target[:, ANY] == 1
    reached = {"sensitivity": alarm[bleeds].mean(), "specificity": (~alarm[~bleeds]).mean()}
    assert getattr(point, name).value >= 0.95
    assert reached[name] == pytest.approx(0.95, abs=0.03)
    assert getattr(point, other).value == pytest.approx(reached[other], abs=0.04)
    for share in (point.sensitivity, point.specificity):
        assert share.low <= share.value <= share.high


def test_few_studies_have_no_threshold():
    assert meaning_of([fingerprint(12, 4)]).points == {}


def test_what_an_alarm_is_worth_follows_from_bayes():
    point = meaning_of([fingerprint(5000, 3)]).points["sensitivity"]
    worth = predictive_values(point, 0.2)
    sensitivity, specificity = point.sensitivity.value, point.specificity.value
    right = 0.2 * sensitivity / (0.2 * sensitivity + 0.8 * (1 - specificity))
    assert worth["PPV"].value == pytest.approx(right)
    assert worth["PPV"].low < right < worth["PPV"].high
    assert predictive_values(point, 0.02)["PPV"].value < right < predictive_values(point, 0.5)["PPV"].value


def test_runs_count_alike_and_so_do_their_folds(runs):
    fold = find_folds([runs["slices"]])[0]
    readings = read_runs([fold])
    assert points_of(readings) == readings[run_of(fold)].points
    high, low = np.full((2, 3, 6), 0.8), np.full((2, 3, 6), 0.2)
    as_it_is = next(iter(read_runs([fold._replace(fingerprint=None)]).values()))
    asked = {"a": as_it_is, "b": as_it_is}
    combined = combine([("a", high), ("a", high), ("b", low)], asked)
    assert combined.slices == pytest.approx(np.full((3, 6), 0.5))
    assert combined.study == pytest.approx(np.full(6, 0.5))
    assert (combined.low, combined.high) == pytest.approx((0.2, 0.8))
    assert combined.between_networks == pytest.approx(np.std([0.8, 0.8, 0.2]))
    assert combined.between_views == 0


def test_a_run_of_an_older_version_is_not_calibrated(runs):
    readings = read_runs([find_folds([runs["slices"]])[0]._replace(fingerprint=None)])
    (reading,) = readings.values()
    assert not reading.of_slices
    assert reading.points == {}
    assert len(EDGES) == 81
