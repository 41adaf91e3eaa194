"""Laws of blend.py: it does what the notebook does, notes how, and makes the same submission again from its notes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_notebooks import in_long_form, write_run

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.inference.blend_options import BlendOptions
from models.inference.blend_record import BlendRecord, describe_fit, read_record_of_blend, write_record
from models.inference.blend_run import carry_out, gather, ways_for
from models.inference.blending import Blend
from models.inference.calibration import Calibration
from models.inference.runs import load_runs
from models.inference.stacking import fit_boosted
from models.inference.whose import NOT_IN_TRAIN, UNSEEN
from models.preprocessing.tables import read_slices, split_fold
from models.score import ScoreOptions, score
from models.train_b0_224 import CONFIG as B0_224
from models.train_small import CONFIG as SMALL
from models.training.metric import log_losses
from models.training.run_record import save_config
from models.training.seen import seen_in, write_seen


@pytest.fixture(scope="module")
def runs(phantom, prepared, tmp_path_factory) -> Path:
    """A working folder with two runs of two folds."""
    work = Work(tmp_path_factory.mktemp("runs"))
    (work.root / "cache").symlink_to(prepared.cache)
    write_run(work, SMALL, folds=[0, 1], noise=3.0, phantom=phantom)
    write_run(work, B0_224, folds=[0, 1], noise=4.0, phantom=phantom)
    for config in (SMALL, B0_224):
        for fold in (0, 1):
            train, _ = split_fold(work, fold, skip_low_information=False)
            write_seen(work.run(config.name, fold), seen_in(train))
            save_config(work.run(config.name, fold), config, fold, {"best_epoch": 1})
    return work.root


@pytest.fixture
def work(runs, tmp_path) -> Work:
    """The same, to be changed."""
    return Work(shutil.copytree(runs, tmp_path / "work", symlinks=True))


@pytest.fixture
def blend(work, phantom):
    def make(*runs: str, way: str | None = None) -> BlendRecord:
        carry_out(BlendOptions(runs, way, phantom, work.root))
        return read_record_of_blend(work)

    return make


def submission(work: Work) -> bytes:
    return (work.root / "submission.csv").read_bytes()


def test_the_way_with_the_best_nested_score_is_used_and_noted_for_each_label(work, blend):
    record = blend()
    assert set(record.ways) == set(record.fitted) == set(record.nested) == set(LABELS)
    shutil.rmtree(work.blend)
    record = blend(way="fitted")
    truth = read_slices(work, "train").set_index("image_id")
    written = read_predictions(work.blend / "valid.parquet", "")
    losses = log_losses(truth.loc[written.index, list(LABELS)].to_numpy(), written.to_numpy())
    for label, loss in zip(LABELS, losses, strict=True):
        assert record.nested[label][record.ways[label]] == pytest.approx(loss, abs=1e-6)
    test = read_predictions(work.blend / "test.parquet", "")
    values = pd.read_csv(work.root / "submission.csv").set_index("ID")["Label"]
    assert values.to_dict() == pytest.approx(in_long_form(test, work), abs=1e-6)
    assert record.folds == {"b0_224": [0, 1], "small": [0, 1]}
    assert set(record.runs_sha256["small"]) == {
        f"fold{fold}/{split}.parquet" for fold in (0, 1) for split in ("valid", "test")
    }


@pytest.mark.parametrize("way", ["best", "best_single", "fitted_calibrated", "stacker"])
def test_from_its_notes_the_same_submission_is_made_again(work, blend, way):
    first, made = blend(way=way), submission(work)
    for name in ("submission.csv", "blend/valid.parquet", "blend/test.parquet"):
        (work.root / name).unlink()
    again = blend()
    assert submission(work) == made
    assert again == first


def test_runs_may_be_named_in_any_order_when_the_submission_is_made_again(work, blend):
    first, made = blend(way="fitted"), submission(work)
    assert list(first.folds) == ["b0_224", "small"]
    assert blend("small", "b0_224") == first
    assert submission(work) == made


def test_what_the_notes_tell_is_what_was_submitted(work, blend):
    record = blend(way="fitted_calibrated")
    tables = {run: np.mean([read(work, run, fold) for fold in (0, 1)], axis=0) for run in record.folds}
    fitted = record.fitted["any"]
    space = fitted["spaces"]
    values = {run: logit(table[:, -1]) if space == "logit" else table[:, -1] for run, table in tables.items()}
    mean = sum(fitted["weights"][run] * values[run] for run in tables)
    logits = mean if space == "logit" else logit(mean)
    temperature, bias = fitted["calibrations"]["temperature"], fitted["calibrations"]["bias"]
    own = 1 / (1 + np.exp(-(logits / temperature + bias)))
    written = read_predictions(work.blend / "test.parquet", "").to_numpy()
    np.testing.assert_allclose(written[:, -1], np.maximum(own, written[:, :-1].max(axis=1)), atol=1e-5)


def read(work: Work, run: str, fold: int) -> np.ndarray:
    return pd.read_parquet(work.prediction(run, fold, "test"))[list(LABELS)].to_numpy(float)


def logit(values: np.ndarray) -> np.ndarray:
    values = np.clip(values, 1e-6, 1 - 1e-6)
    return np.log(values / (1 - values))


@pytest.mark.parametrize("file", ["runs/small/fold0/valid.parquet", "runs/b0_224/fold1/test.parquet"])
def test_a_blend_of_other_predictions_is_neither_made_again_nor_scored(work, blend, file, capsys):
    blend(way="equal")
    table = pd.read_parquet(work.root / file)
    table["any"] = 1 - table["any"]
    write_parquet(work.root / file, table)
    with pytest.raises(InputError, match=rf"was made with another {file.removeprefix('runs/')}; delete it, then: "):
        blend()
    with pytest.raises(InputError, match=rf"was made from another {file.removeprefix('runs/')}; delete"):
        score(ScoreOptions((Path("blend"),), work=work.root))
    capsys.readouterr()
    score(ScoreOptions(work=work.root))  # it blocks nobody
    out = capsys.readouterr().out
    assert "blend is left out: " in out
    assert out.splitlines()[-1].startswith("small: weighted log loss")


def test_predictions_of_the_test_that_came_or_went_are_told_and_make_no_other_submission(work, blend):
    file = work.prediction("b0_224", 1, "test")
    elsewhere = file.rename(work.root / file.name)
    blend(way="equal")
    made = submission(work)
    elsewhere.rename(file)
    with pytest.raises(InputError, match=r"was made with no b0_224/fold1/test.parquet, which is there now; delete it"):
        blend()
    assert submission(work) == made
    shutil.rmtree(work.blend)
    blend(way="equal")
    file.unlink()
    with pytest.raises(InputError, match=r"was made with b0_224/fold1/test.parquet, which lacks now; delete it"):
        blend()


def test_another_way_than_the_one_that_is_noted_is_refused(work, blend):
    blend(way="equal")
    with pytest.raises(InputError, match=r"was made with --way equal; delete it, then: python models/blend.py"):
        blend(way="fitted")
    with pytest.raises(InputError, match="the folds"):
        blend("small")


def test_trees_are_fitted_to_few_patients_only_where_somebody_asks_for_them(work):
    material = gather(work, load_runs(work, ("small",)))
    assert "boosted" not in ways_for("best", material.nest)
    assert "boosted" not in ways_for("fitted", material.nest)
    assert ways_for("boosted", material.nest)["boosted"] is fit_boosted


def test_a_way_that_nobody_knows_is_refused(blend):
    with pytest.raises(InputError, match=r"--way median is none of best, .*equal"):
        blend(way="median")


def test_a_blend_file_that_was_exchanged_is_refused(work, blend):
    blend(way="equal")
    shutil.copy(work.blend / "test.parquet", work.blend / "valid.parquet")
    with pytest.raises(InputError, match=r"valid.parquet is not the one that blend.json tells of; delete"):
        blend()


def test_without_a_raw_folder_nothing_is_fitted_or_written(work, phantom, monkeypatch):
    monkeypatch.setattr("models.inference.blend_run.choose", lambda *_: pytest.fail("minutes of fits for nothing"))
    with pytest.raises(InputError, match=r"no data folder at .*nowhere; name it with --data"):
        carry_out(BlendOptions((), "equal", work.root / "nowhere", work.root))
    sample = pd.read_csv(phantom / "stage_2_sample_submission.csv").replace({"ID": {r"^ID_": "ID_f"}}, regex=True)
    other = shutil.copytree(phantom, work.root / "other", ignore=shutil.ignore_patterns("*.dcm"))
    sample.to_csv(other / "stage_2_sample_submission.csv", index=False)
    with pytest.raises(InputError, match=r"has none of the .* slices of the sample submission"):
        carry_out(BlendOptions((), "equal", other, work.root))
    assert not work.blend.exists()


def test_runs_can_be_named_and_one_without_test_predictions_is_left_out(work, blend, capsys):
    assert set(blend("small").folds) == {"small"}
    shutil.rmtree(work.blend)
    for fold in (0, 1):
        work.prediction("b0_224", fold, "test").unlink()
    capsys.readouterr()
    assert set(blend().folds) == {"small"}
    assert "b0_224 is left out: no " in capsys.readouterr().out
    shutil.rmtree(work.blend)
    with pytest.raises(InputError, match=r"python models/infer_b0_224.py --fold 0"):
        blend("b0_224", "small")


def test_slices_that_a_run_lacks_are_said_to_be_left_out_also_where_too_few_are_left(work, blend, capsys):
    shutil.rmtree(work.run("b0_224", 1))
    lacking, total = (len(read_predictions(work.run("small", fold) / "valid.parquet", "")) for fold in (1, 0))
    blend(way="equal")
    said = capsys.readouterr().out
    assert f"b0_224 has no prediction of {lacking:,} of {lacking + total:,} slices: its fold 1 is not trained" in said
    assert f"the {total:,} slices that all 2 runs have; the other {lacking:,} are left out" in said
    shutil.rmtree(work.blend)
    rows = read_predictions(work.run("b0_224", 0) / "valid.parquet", "").reset_index()
    patients = read_slices(work, "train").set_index("image_id")["patient_id"].reindex(rows["image_id"]).to_numpy()
    write_parquet(work.run("b0_224", 0) / "valid.parquet", rows[patients == patients[0]].reset_index(drop=True))
    with pytest.raises(InputError, match=r"of one patient, .* train the same folds of each run, or name fewer runs"):
        blend(way="equal")
    assert "are left out" in capsys.readouterr().out


def test_a_single_run_is_called_by_its_name(work, blend, capsys):
    record = blend(way="best_single")
    assert record.name == "small alone"
    assert all(record.called(label) == "small alone" for label in LABELS)
    capsys.readouterr()
    score(ScoreOptions(work=work.root))
    text = capsys.readouterr().out
    assert "blend: small alone" in text
    assert "best_single" not in text
    assert "equal weights" not in text


def test_what_is_scored_of_a_blend_is_what_was_written(work, blend, capsys):
    record = blend(way="equal")
    capsys.readouterr()
    score(ScoreOptions(work=work.root))
    loss = np.average([record.nested[label]["equal"] for label in LABELS], weights=[1, 1, 1, 1, 1, 2])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"blend: equal: weighted log loss {loss:.4f}")


def test_the_way_of_a_blend_is_not_said_to_be_chosen_on_the_slices_that_it_is_scored_on(work, blend, capsys):
    blend()
    capsys.readouterr()
    score(ScoreOptions((Path("blend"),), work=work.root))
    notes = [line for line in capsys.readouterr().out.splitlines() if "chosen on the slices that it is scored" in line]
    assert [note.partition("scored on: ")[2] for note in notes] == [
        f"the epoch whose weights are kept, of folds 0 and 1 of {run}" for run in ("b0_224", "small")
    ]


def test_ways_of_each_label_are_told_one_by_one(blend):
    record = blend(way="equal")
    mixed = replace(record, ways=record.ways | {"any": "stacker"})
    assert mixed.name == "a way for each label"
    assert (mixed.called("any"), mixed.called("subdural")) == ("stacker", "equal")


def test_fields_that_are_to_come_are_noted_and_read(work, blend):
    runs = ("a", "b")
    weights = np.arange(12.0).reshape(6, 2)
    fitted = Blend(runs, weights, ("logit",) * 6, (Calibration(2.0, 0.5),) * 6)
    assert describe_fit(fitted, 1, runs) == {
        "kind": "Blend",
        "weights": {"a": 2.0, "b": 3.0},
        "spaces": "logit",
        "calibrations": {"temperature": 2.0, "bias": 0.5},
    }
    blend(way="equal")
    file = work.blend / "blend.json"
    assert json.loads(file.read_text())["fitted"]["any"]["weights"] == {"b0_224": 0.5, "small": 0.5}
    file.write_text(file.read_text().replace("0.5", "0.6"))
    with pytest.raises(InputError, match=r"blend.json is damaged; delete it and make it anew with: python models/bl"):
        read_record_of_blend(work)


def test_the_submission_of_the_blend_is_known_by_its_hash(work, blend, phantom, capsys):
    blend(way="equal")
    answers, own = phantom / "phantom_test_labels.csv", work.root / "submission.csv"
    capsys.readouterr()
    score(ScoreOptions((own,), answers, work.root))
    assert UNSEEN in capsys.readouterr().out
    own.write_text(own.read_text() + "\n")
    score(ScoreOptions((own,), answers, work.root))
    assert NOT_IN_TRAIN in capsys.readouterr().out  # nobody knows by whom


def test_another_fit_than_the_noted_one_is_not_passed_off_as_it(work, blend):
    record = blend(way="fitted")
    fitted = {label: {**values, "weights": {"b0_224": 0.9, "small": 0.1}} for label, values in record.fitted.items()}
    write_record(work, replace(record, fitted=fitted))
    made = submission(work)
    with pytest.raises(InputError, match=r"another version of this project made \S+blend, which fits \w+ otherwise"):
        blend()
    assert submission(work) == made


def test_other_labels_are_another_blend(work, blend):
    record = blend(way="equal")
    other = dict.fromkeys(record.tables_sha256, "0" * 64)
    write_record(work, replace(record, tables_sha256=other))
    with pytest.raises(InputError, match=r"was made with another (folds.csv|metadata_train.parquet); delete it"):
        blend()
