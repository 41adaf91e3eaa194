"""Laws of scores elsewhere: they are scikit-learn's, thresholds are never fitted, nobody is scored who was seen."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import elsewhere
import house
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from elsewhere import (
    POINTS,
    answer_volumes,
    hinted,
    labels_of,
    plain_slices,
    spread,
    write_answer,
    write_mask,
    write_scan,
)
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from models.common.errors import InputError
from models.common.files import hash_file, write_json
from models.common.folders import Work
from models.common.labels import ANY, LABELS, METRIC_WEIGHTS
from models.inference import external_orientation
from models.inference.external import External, alarms, read_external
from models.inference.external_answers import read_answers
from models.inference.external_joining import Rows
from models.inference.external_orientation import fit_of
from models.inference.external_scores import apart, at_threshold, own_aucs, own_points, score_labels, worse
from models.inference.operating import Range
from models.inference.scoring import score_intervals
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.reporting.external import score_table, threshold_table
from models.reporting.tables import calibrate, calibration_error
from models.score import ScoreOptions, score
from models.train_small import CONFIG
from models.training.fingerprint import EDGES, Fingerprint, count_logits
from models.training.run_record import save_config
from models.training.scoring import WEIGHTED
from models.training.seen import Seen, write_seen

PATIENTS = [*range(66, 90)]
TOLERANCE = 1e-9


def draw_set(folder: Path, seed: int = 0, strength: float = 2.0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels and answers of made-up patients of PhysioNet, (slices, 6) each; every fourth has no hemorrhage."""
    generator = np.random.default_rng(seed)
    target, said = {}, {}
    for patient in PATIENTS:
        types = (generator.random((elsewhere.SLICES, 5)) < 0.25) & (patient % 4 > 0)
        target[f"{patient:03d}"] = np.column_stack([types, types.any(axis=1)]).astype(float)
        said[f"{patient:03d}"] = hinted(target[f"{patient:03d}"], generator, strength)
        write_scan(folder / "ct_scans" / f"{patient:03d}.nii", upwards=patient % 3 == 0)
    return target, said


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A folder with that set and the answers to it; its labels and answers."""
    folder = tmp_path_factory.mktemp("physionet")
    target, said = draw_set(folder)
    answer_volumes(folder / "ct_scans", folder / "answers", lambda place, _: said[place[:3]])
    elsewhere.write_physionet(folder, {int(name): own for name, own in target.items()})
    return folder, target, said


def read(folder: Path, labels: Path | None = None) -> External:
    return read_external("physionet", labels or folder, folder / "answers", Work(folder), None)


# ---- the numbers ----


def test_every_score_of_slices_and_studies_is_that_of_scikit_learn(made):
    folder, target, said = made
    joined = read(folder).joined
    both = {
        "slices": (np.concatenate([*target.values()]), np.concatenate([*said.values()]), joined.of_slices),
        "studies": (
            np.array([own.max(axis=0) for own in target.values()]),
            np.array([own.max(axis=0) for own in said.values()]),
            joined.of_studies,
        ),
    }
    for true, probability, rows in both.values():
        table = score_labels(rows, LABELS)
        for place, label in enumerate(LABELS):
            row, p = table.loc[label], probability[:, place]
            assert row["AUC"] == pytest.approx(roc_auc_score(true[:, place], p), abs=TOLERANCE)
            assert row["log loss"] == pytest.approx(log_loss(true[:, place], p, labels=[0, 1]), abs=TOLERANCE)
            constant = np.full(len(true), true[:, place].mean())
            assert row["prior's"] == pytest.approx(log_loss(true[:, place], constant, labels=[0, 1]), abs=TOLERANCE)
            observed, predicted = calibration_curve(true[:, place], p, n_bins=10, strategy="quantile")
            points = calibrate(rows.target[:, place], rows.probability[:, place], rows.patients)
            assert points["observed"].to_numpy() == pytest.approx(observed, abs=TOLERANCE)
            error = np.average(np.abs(observed - predicted), weights=points["slices"])
            assert calibration_error(points) == pytest.approx(error, abs=TOLERANCE)
            assert row["predicted"] - row["observed"] == pytest.approx(np.mean(p - true[:, place]), abs=TOLERANCE)
            assert 0 <= row["AUC low"] <= row["AUC"] <= row["AUC high"] <= 1
    true, probability, rows = both["slices"]
    losses = [log_loss(true[:, place], probability[:, place], labels=[0, 1]) for place in range(len(LABELS))]
    due = np.average(losses, weights=METRIC_WEIGHTS)
    assert score_intervals(*rows).loc[WEIGHTED, "log loss"] == pytest.approx(due, abs=TOLERANCE)


def test_sensitivity_and_specificity_are_those_of_scikit_learn_at_the_frozen_thresholds(made):
    folder, target, said = made
    external = read(folder)
    true = np.array([own[:, ANY].max() for own in target.values()])
    highest = np.array([own[:, ANY].max() for own in said.values()])
    for name, point in POINTS.items():
        studies = external.joined.of_studies
        own = at_threshold(alarms(external, name), studies.target[:, ANY], studies.patients)
        alarm = highest >= point.threshold
        for side, share in enumerate(own):
            due = recall_score(true, alarm, pos_label=1 - side)
            assert share.value == pytest.approx(due, abs=TOLERANCE)
            assert share.low <= share.value <= share.high


def test_an_auc_of_one_is_not_certain_and_one_class_has_none():
    target = np.zeros((8, 6))
    target[:3] = 1
    patients = np.array([*"aabbcdef"])
    row = score_labels(Rows(target, target * 0.8 + 0.1, patients), ["any"]).loc["any"]
    assert (row["AUC"], row["AUC high"]) == (1, 1)
    assert row["AUC low"] < 0.5  # two patients, or three, tell little
    none = score_labels(Rows(target * 0, target * 0.8 + 0.1, patients), ["any"]).loc["any"]
    assert np.isnan(none["AUC"])
    assert np.isnan(at_threshold(np.ones(0, bool), np.ones(0), np.ones(0))).all()


def test_a_difference_of_shares_has_the_interval_of_newcombe():
    """Method 10 of R. G. Newcombe, Statistics in Medicine 1998, example (a): 56 of 70 less 48 of 80."""
    ours, theirs = (
        Range(right / count, *binomtest(right, count).proportion_ci(method="wilson"))
        for right, count in ((56, 70), (48, 80))
    )
    assert apart(ours, theirs) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert worse(apart(ours, theirs)) == "better here"
    assert worse(apart(theirs, ours)) == "worse here"
    assert worse(apart(ours, ours)) == "may be none"


def test_the_figures_of_the_release_are_those_of_its_validation():
    generator = np.random.default_rng(5)
    folds, values, targets = [], [], []
    for _ in range(2):
        target = (generator.random((300, 6)) < 0.3).astype(float)
        logits = np.clip(np.round(generator.normal(size=target.shape) + 1.5 * target, 2), -9, 9)
        counts = {label: np.array(own) for label, own in count_logits(target, 1 / (1 + np.exp(-logits))).items()}
        folds.append(Fingerprint(150, 300, 5.0, counts, counts, None))
        values.append(np.digitize(logits, EDGES))
        targets.append(target)
    found = own_aucs([folds], "of_studies")
    for place, label in enumerate(LABELS):
        due = roc_auc_score(np.concatenate(targets)[:, place], np.concatenate(values)[:, place])
        assert found[label].value == pytest.approx(due, abs=2e-3)  # a logit on an edge may fall on either side
        assert found[label].low < due < found[label].high
    turned_over = {label: own[::-1] for label, own in folds[0].of_studies.items()}
    found = own_aucs([folds[:1]], "of_studies")
    both = own_aucs([folds[:1], [folds[0]._replace(of_studies=turned_over)]], "of_studies")
    assert all(both[label].value == pytest.approx(1 - found[label].value) for label in LABELS)  # the least able
    assert own_points({"sensitivity": [0.9, 0.8, 1.0], "specificity": [0.5, 0.4, 0.6]})[0].low == 0.8


def test_scores_stand_beside_those_of_the_release_that_answered(made, tmp_path):
    folder, _, _ = made
    external = read(folder)
    assert external.own == []
    assert set(score_table(external, external.joined.of_studies, "studies")["own validation"]) == {"-"}
    counts = {label: np.eye(2, len(EDGES) + 1) * 50 for label in LABELS}
    whole = Fingerprint(100, 100, 5.0, counts, counts, None)
    table = score_table(external._replace(own=[[whole]]), external.joined.of_studies, "studies")
    assert table["own validation"].str.startswith("1.000 [0.9").all()
    difference = table["difference"].str.partition(" ")[0].astype(float)
    assert difference.to_numpy() == pytest.approx(table["AUC"].str[:5].astype(float) - 1)


# ---- thresholds are never fitted ----


def test_no_threshold_is_fitted_whatever_the_labels_are(made, tmp_path, monkeypatch):
    """Labels of other patients change no threshold and no alarm; what fits is not called at all."""

    def refuse(*_, **__):
        raise AssertionError("fitted")

    folder, target, _ = made
    for name in ("minimize", "brentq", "curve_fit"):
        monkeypatch.setattr(scipy.optimize, name, refuse)
    first = read(folder)
    second = replace_labels(first, dict(zip(target, [*target.values()][1:] + [*target.values()][:1], strict=True)))
    for name, point in POINTS.items():
        assert first.answers.points[name]["threshold"] == point.threshold
        assert (alarms(first, name) == alarms(second, name)).all()
    tables = [threshold_table(external) for external in (first, second)]
    assert list(tables[0].index) == list(tables[1].index)
    for external, table in zip((first, second), tables, strict=True):
        true = external.joined.studies["any"].to_numpy()
        due = [recall_score(true, alarms(external, name), pos_label=side) for name in POINTS for side in (1, 0)]
        assert list(table["here"].str[:5]) == [f"{value:.3f}" for value in due]
    assert not tables[0]["here"].equals(tables[1]["here"])


def replace_labels(external: External, target: dict[str, np.ndarray]) -> External:
    studies = external.joined.studies.copy()
    for name in studies.index:
        studies.loc[name, list(LABELS)] = target[name].max(axis=0)
    return external._replace(joined=external.joined._replace(studies=studies))


def test_no_module_of_external_sets_knows_how_to_fit():
    forbidden = {"fit_calibration", "fit_shift", "roc_curve", "meaning_of", "operating_points", "minimize"}
    modules = {name: text for name, text in house.sources().items() if ".external" in name}
    assert len(modules) >= 9
    for name, text in modules.items():
        words = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        assert not words & forbidden, name


@pytest.mark.parametrize(("content", "message"), [({"format": 2}, "has the format 2, and"), ({}, "is damaged; delete")])
def test_an_answer_of_a_newer_version_is_not_called_damaged(content, message, tmp_path):
    (tmp_path / "ID_1").mkdir()
    (tmp_path / "ID_1" / "answer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_answers(tmp_path)


def test_networks_without_thresholds_are_told_so(made, tmp_path, capsys):
    _, target, said = made
    for name in said:
        write_scan(tmp_path / "ct_scans" / f"{name}.nii")
    answer_volumes(tmp_path / "ct_scans", tmp_path / "answers", lambda place, _: said[place[:3]], points={})
    elsewhere.write_physionet(tmp_path, {int(name): own for name, own in target.items()})
    score(ScoreOptions(external="physionet", labels=tmp_path, predictions=tmp_path / "answers", work=tmp_path))
    text = capsys.readouterr().out
    assert "the networks have no threshold, and none is fitted here" in text
    assert "sensitivity at" not in text


# ---- which end is the head ----


def turned(folder: Path) -> Path:
    """The labels, counted from the other end."""
    file = folder / "hemorrhage_diagnosis_raw_ct.csv"
    table = pd.read_csv(file)
    table["SliceNumber"] = elsewhere.SLICES + 1 - table["SliceNumber"]
    table.to_csv(file, index=False)
    return folder


def test_labels_that_count_from_the_other_end_are_caught_by_what_the_networks_say(made, tmp_path):
    folder, target, _ = made
    notes = read(folder).joined.notes
    assert any("from the other end, as it should be" in note for note in notes)
    elsewhere.write_physionet(tmp_path, {int(name): own for name, own in target.items()})
    assert read(folder, tmp_path).joined.notes[-1] == notes[-1]
    with pytest.raises(InputError, match="fit the labels better from the other end of the head: mean AUC within 16"):
        read(folder, turned(tmp_path))


def test_labels_that_count_from_the_other_end_are_caught_by_masks_beside_them(made, tmp_path):
    """Also where the networks see nothing."""
    _, target, _ = made
    generator = np.random.default_rng(0)
    for name in target:
        write_scan(tmp_path / "ct_scans" / f"{name}.nii")
        write_mask(tmp_path / "masks" / f"{name}.nii", [[255] if row[ANY] else [] for row in target[name]])
    noise = {name: hinted(own * 0, generator) for name, own in target.items()}
    answer_volumes(tmp_path / "ct_scans", tmp_path / "answers", lambda place, _: noise[place[:3]])
    elsewhere.write_physionet(tmp_path, {int(name): own for name, own in target.items()})
    notes = read(tmp_path).joined.notes
    assert "orientation by masks: 24 studies, 0 labels are others than what is drawn" in notes
    assert "which does not tell the two apart" in notes[-1]
    with pytest.raises(InputError, match=r"the labels of 1\d studies \(.*\) fit their masks better from the other end"):
        read(turned(tmp_path))


def test_a_reader_and_a_mask_that_differ_by_a_slice_do_not_turn_a_bleed_in_the_middle_of_the_head():
    told = np.isin(np.arange(30), range(13, 18))
    slices = pd.DataFrame({"study": "a", "number": range(30), LABELS[ANY]: told, "drawn": np.roll(told, -1)})
    assert external_orientation._by_masks(slices).endswith("2 labels are others than what is drawn")
    far = slices.assign(**{LABELS[ANY]: np.roll(told, 6), "drawn": np.roll(told[::-1], -6)})
    with pytest.raises(InputError, match="fit their masks better from the other end"):
        external_orientation._by_masks(far)


@pytest.mark.parametrize("one", [True, False])
def test_volumes_that_were_turned_before_they_were_answered_are_caught_by_their_place(made, tmp_path, one):
    """One of them is enough, and no network has to see anything."""
    folder, target, _ = made
    for name in target:
        upwards = int(name) % 3 == 0
        write_scan(tmp_path / "ct_scans" / f"{name}.nii", upwards=upwards != (name == "070" or not one))
    answer_volumes(tmp_path / "ct_scans", tmp_path / "answers", lambda _, count: np.full((count, 6), 0.5))
    with pytest.raises(InputError, match=f"labels of {1 if one else 24} studies .* lie head to feet where"):
        read_external("physionet", folder, tmp_path / "answers", Work(tmp_path), None)


def test_a_turned_mask_is_caught(tmp_path):
    for name in ("001", "002"):
        write_scan(tmp_path / "data" / f"{name}.nii.gz")
        write_mask(tmp_path / "label" / f"{name}.nii.gz", [[1], [1], *[[]] * 8], upwards=name == "001")
    answer_volumes(tmp_path / "data", tmp_path / "answers", lambda _, count: spread(np.full(6, 0.9), count))
    with pytest.raises(InputError, match=r"the labels of 1 studies \(002\) lie head to feet"):
        read_external("instance", tmp_path, tmp_path / "answers", Work(tmp_path), None)


def test_hemorrhage_in_the_middle_of_the_head_tells_neither_end():
    target = labels_of((), (), ("subdural",), (), ())
    slices = pd.DataFrame(target, columns=list(LABELS)).assign(p_any=[0.1, 0.2, 0.9, 0.2, 0.1], number=range(1, 6))
    studies = pd.concat([slices.assign(study=name) for name in "abcde"])
    fit = fit_of(studies, pd.Series([*"abcde"], [*"abcde"]))
    assert (fit.studies, fit.as_joined, fit.reversed) == (5, 1, 1)
    assert not fit.high < 0
    turned_over = studies.assign(p_any=[0.9, 0.8, 0.1, 0.2, 0.3] * 5)
    for some in ("abcd", "a"):  # of so few it may be by chance
        chosen = turned_over[turned_over["study"].isin([*some])]
        assert np.isnan(fit_of(chosen, pd.Series([*"abcde"], [*"abcde"])).high)


# ---- whom the networks have seen ----

NAMES = [f"ID_0000000{number}_ID_000000000{number}" for number in range(6)]


@pytest.fixture
def challenge(tmp_path) -> Path:
    """Masks of six studies of the challenge, and answers to its own files by a fold that has trained on four."""
    for number, name in enumerate(NAMES):
        write_mask(tmp_path / "ground truths" / f"{name}.nii.gz", [[5] if number % 2 else [], [], [], []])
    train_fold(tmp_path, {name[:11] for name in NAMES[:4]})
    return tmp_path


def train_fold(root: Path, seen: set[str] | None) -> None:
    """A finished fold in runs/, and the answers that it gives."""
    folder = Work(root).run("b2", 0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text("made up")
    if seen is not None:
        write_seen(folder, Seen(frozenset(seen)))
    save_config(folder, replace(CONFIG, name="b2"), 0, {"best_epoch": 1})
    write_answers(root, {"b2/fold0": json.loads((folder / "config.json").read_text())["weights_sha256"]})


def write_answers(root: Path, weights: dict[str, str]) -> None:
    for name in NAMES:
        slices = plain_slices(name[-8:], image="ID_{study}{number}")
        write_answer(root / "answers", name[12:], slices, spread(np.full(6, 0.5)), patient=name[:11], weights=weights)


def bhsd(root: Path, work: Path | None = None) -> External:
    return read_external("bhsd", root, root / "answers", Work(work or root), None)


def test_whom_a_release_has_seen_is_told_by_the_runs_that_it_was_made_of(challenge, tmp_path_factory):
    """A release rounds weights, notes what they were, and says nothing of patients."""
    run, release = Work(challenge).run("b2", 0), tmp_path_factory.mktemp("release")
    record = json.loads((run / "config.json").read_text())
    travels = {name: value for name, value in record.items() if name != "patients_sha256"}
    rounded = write_release(release, travels | {"float32_sha256": record["weights_sha256"]})
    write_answers(challenge, {"b2/fold0": rounded})
    with pytest.raises(InputError, match=r"whom b2/fold0 has trained on is not .* with --release"):
        bhsd(challenge)
    joined = read_external("bhsd", challenge, challenge / "answers", Work(challenge), release).joined
    assert list(joined.studies.index) == NAMES[4:]
    as_onnx(release)
    assert (
        list(read_external("bhsd", challenge, challenge / "answers", Work(challenge), release).joined.studies.index)
        == NAMES[4:]
    )
    write_release(release, travels | {"float32_sha256": "ef" * 32})
    with pytest.raises(InputError, match="whom b2/fold0 has trained on is not"):  # of another run of that name
        read_external("bhsd", challenge, challenge / "answers", Work(challenge), release)
    (release / "b2" / "fold0" / "model.safetensors").write_text("others")
    with pytest.raises(InputError, match=r"model\.safetensors is damaged, or was changed"):
        read_external("bhsd", challenge, challenge / "answers", Work(challenge), release)
    write_release(release, travels, weights="others")
    with pytest.raises(InputError, match=r"has not answered .*: it does not hold the weights of b2/fold0 that have"):
        read_external("bhsd", challenge, challenge / "answers", Work(challenge), release)


def as_onnx(release: Path) -> None:
    """Let a release hold a graph in place of the weights, as models/export_onnx.py does."""
    fold, told = release / "b2" / "fold0", json.loads((release / "release.json").read_text())
    (fold / "model.safetensors").rename(fold / "slices.onnx")
    told["sha256_of"] = {f"b2/fold0/{file.name}": hash_file(file) for file in fold.iterdir()}
    write_json(release / "release.json", {name: value for name, value in told.items() if name != "sha256"})


def write_release(folder: Path, record: dict, weights: str = "rounded") -> str:
    """A release of one fold as far as scoring reads it; the sha256 of its weights."""
    fold = folder / "b2" / "fold0"
    fold.mkdir(parents=True, exist_ok=True)
    (fold / "model.safetensors").write_text(weights)
    sha256 = hash_file(fold / "model.safetensors")
    (fold / "config.json").write_text(json.dumps(record | {"weights_sha256": sha256}))
    as_they_are, none = {label: [1, 0] for label in LABELS}, {label: {} for label in LABELS}
    told = {
        **{"format": 1, "name": "b2", "synthetic": False, "blend": None},
        "members": [{"run": "b2", "folds": [0], "speaks": True}],
        "sha256_of": {f"b2/fold0/{file.name}": hash_file(file) for file in fold.iterdir()},
        "calibration": {"slices": as_they_are, "studies": as_they_are},
        "operating_points": {"slices": none, "studies": none},
    }
    write_json(folder / "release.json", told)
    return sha256


def test_studies_of_the_challenge_that_a_network_has_trained_on_are_left_out(challenge):
    external = bhsd(challenge)
    assert list(external.joined.studies.index) == NAMES[4:]
    assert set(external.joined.slices["study"]) == set(NAMES[4:])
    assert list(external.joined.probability.index) == NAMES[4:]
    text = "\n".join(external.joined.notes)
    assert f"4 studies are of patients that a network has trained on, and are left out: {NAMES[0]}, ..." in text


def test_masks_of_the_challenge_are_refused_where_nobody_knows_whom_the_network_has_seen(challenge, tmp_path_factory):
    no_runs = tmp_path_factory.mktemp("no_runs")
    with pytest.raises(InputError, match="the challenge's own studies, and whom b2/fold0 has trained on is not"):
        bhsd(challenge, no_runs)
    (Work(challenge).run("b2", 0) / "patients.parquet").unlink()
    with pytest.raises(InputError, match="whom b2/fold0 has trained on is not known"):
        bhsd(challenge)


def test_masks_of_the_challenge_are_refused_to_a_network_that_has_trained_on_all_of_them(challenge):
    train_fold(challenge, {name[:11] for name in NAMES})
    with pytest.raises(InputError, match=r"all 6 studies of bhsd .* answer with the fold that has validated on them"):
        bhsd(challenge)
    train_fold(challenge, {"ID_ffffffff"})
    assert len(bhsd(challenge).joined.studies) == 6  # the fold that has validated on them


def test_an_overlap_that_was_planted_in_another_set_is_found_by_its_key(made, tmp_path):
    """Somebody has trained on PhysioNet's volumes as data of their own: patients have keyed hashes there."""
    folder, target, said = made
    hashed = Pseudonyms(read_key(tmp_path / "pseudonyms.key")).hash
    train_fold(tmp_path, {hashed("066.nii"), hashed("ct_scans/067.nii")})
    weights = json.loads(next((tmp_path / "answers").glob("*/answer.json")).read_text())["weights"]
    answer_volumes(folder / "ct_scans", tmp_path / "own", lambda place, _: said[place[:3]], weights=weights)
    external = read_external("physionet", folder, tmp_path / "own", Work(tmp_path), None)
    assert set(target) - set(external.joined.studies.index) == {"066", "067"}
