"""Laws of a release: it says what the runs say of which it was made, names nobody, and is whole or refused."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from once import linked
from pages import REPOSITORY
from sklearn.metrics import log_loss, roc_auc_score
from written import contents

from models import train_sequence
from models.common.errors import InputError
from models.common.files import read_json, write_json
from models.common.folders import RELEASE, Work
from models.common.labels import ANY, LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference import release_files
from models.inference.answering import open_court
from models.inference.asked import PredictOptions
from models.inference.asked_runs import Study, find_folds
from models.inference.blend_options import BlendOptions
from models.inference.blend_run import carry_out as blend
from models.inference.combining import combine, run_of
from models.inference.joining import join
from models.inference.onnx_export import export
from models.inference.operating import YOUDEN, calibrated, meaning_of
from models.inference.predict import infer
from models.inference.predictions import read_probabilities
from models.inference.release import read_release, weights_of_release
from models.inference.release_files import as_it_travels, plan
from models.inference.release_options import ReleaseOptions
from models.inference.released_blend import read_released_blend
from models.preprocessing.tables import read_slices
from models.reporting import releasing
from models.reporting.answers import _require_same
from models.reporting.releasing import carry_out, what_is_asked, zip_of
from models.reporting.traced import find
from models.training.fingerprint import read_fingerprint
from models.training.run import train
from models.training.run_record import read_run
from models.training.weights import read_weights

SLICES, LAYERS = "asked", "layers"
ASKED = {"device": "cpu", "slices": 60}


def options(work: Work, output: Path, *runs: str, **others: object) -> ReleaseOptions:
    return ReleaseOptions(runs, output=output, work=work.root, **ASKED | others)


@pytest.fixture(scope="module")
def work(few, run_folder, phantom, tmp_path_factory) -> Work:
    """A small network, layers over it, and a blend of both."""
    own = linked(few, tmp_path_factory.mktemp("released"))
    shutil.copytree(few.runs / SLICES, own.runs / SLICES)
    machine = Machine(work=own.root, device="cpu")
    config = replace(train_sequence.CONFIG, name=LAYERS, runs=(SLICES,), epochs=1, batch_size=2, hidden=8, views="flip")
    train(TrainOptions(config, tta="none", machine=machine))
    for name in (SLICES, LAYERS):
        infer(InferOptions(name, tta="none", machine=machine))
    blend(BlendOptions((SLICES, LAYERS), way="fitted_calibrated", data=phantom, work=own.root))
    # No run of one epoch gets weights of both: what is joined is to be seen.
    record = read_json(own.blend / "blend.json", "")
    for place, label in enumerate(LABELS):
        record["fitted"][label]["weights"] = {SLICES: 0.1 * place + 0.2, LAYERS: 0.8 - 0.1 * place}
    write_json(own.blend / "blend.json", record, indent=2)
    return own


@pytest.fixture(scope="module")
def single(work, tmp_path_factory) -> Path:
    """The release of the layers, which bring their network along; by the script, in this process."""
    folder = tmp_path_factory.mktemp("single") / "one"
    script = REPOSITORY / "models" / "release.py"
    line = [script, LAYERS, "--output", folder, "--work", work.root, "--device", "cpu", "--slices", 60]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in line])
        runpy.run_path(str(script), run_name="__main__")
    return folder


@pytest.fixture(scope="module")
def both(work, tmp_path_factory) -> Path:
    """The release of the blend."""
    folder = tmp_path_factory.mktemp("both") / "two"
    carry_out(options(work, folder, "blend"))
    return folder


@pytest.fixture
def copy(single, tmp_path) -> Path:
    return Path(shutil.copytree(single, tmp_path / "copy"))


def asked(weights: Path, work: Work):
    """What is answered to the first test study: (slices, study)."""
    court = open_court([weights], "cpu", "flip", synthetic=True)
    slices = read_slices(work, "test")
    study = Study(slices[slices["series_id"] == slices["series_id"].iloc[0]].reset_index(drop=True), work)
    said = [(run_of(one.fold), one.probability) for one in court.ensemble.ask(study)]
    return combine(said, court.readings, court.release), said


# ---- it says what the runs say ----


def test_it_answers_as_the_run_of_which_it_was_made(single, work):
    (before, own), (after, released) = asked(work.run(LAYERS, 0), work), asked(single, work)
    assert np.abs(own[0][1] - released[0][1]).max() < 1e-3
    assert after.slices == pytest.approx(before.slices, abs=2e-3)
    assert after.study == pytest.approx(before.study, abs=2e-3)
    assert [fold.name for fold in find_folds([single])] == ["layers/fold0"]


def test_of_a_blend_each_run_says_what_it_said(both, work):
    _, released = asked(both, work)
    for run, probability in released:
        _, own = asked(work.run(run, 0), work)
        moved = np.abs(own[0][1] - probability).max()
        assert moved < 1e-3
        assert run != SLICES or moved > 0  # it is another file


def test_the_large_tensors_are_float16(single):
    stored = read_weights(single / SLICES / "fold0" / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.numel() > 10_000} == {torch.float16}
    assert read_run(single / LAYERS / "fold0").sources[SLICES] == read_run(single / SLICES / "fold0").weights_sha256


def test_what_float16_moves_stays_float32_and_is_told(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(release_files, "MOST", 0)
    carry_out(options(work, tmp_path / "whole", LAYERS))
    assert "kept as float32" in capsys.readouterr().out
    for name in (SLICES, LAYERS):  # the network that they look through, too
        file = Path("fold0/model.safetensors")
        stored, before = (read_weights(folder / name / file) for folder in (tmp_path / "whole", work.runs))
        assert all(torch.equal(value, before[tensor]) for tensor, value in stored.items())
    (one, _), (other, _) = asked(work.run(LAYERS, 0), work), asked(tmp_path / "whole", work)
    np.testing.assert_array_equal(one.slices, other.slices)
    np.testing.assert_array_equal(one.study, other.study)


def test_a_blend_is_joined_by_its_weights_and_calibrated_as_a_whole(both, work):
    combined, said = asked(both, work)
    release = read_release(both)
    assert {run for run, _ in said} == {SLICES, LAYERS}  # the network speaks for itself, and the layers through it
    joined = join(release.shares, {run: probability.mean(axis=0) for run, probability in said})
    np.testing.assert_allclose(combined.slices, calibrated(joined, release.frozen.slices))
    np.testing.assert_allclose(combined.study, calibrated(joined.max(axis=0), release.frozen.studies))
    assert combined.low <= combined.study[ANY] <= combined.high


def test_runs_are_joined_as_the_blend_joins_them(work, phantom, tmp_path):
    """As models/inference/blending.py does it: what it has written of the test slices is the oracle."""
    (tmp_path / "own").mkdir()
    own = linked(work, tmp_path / "own")
    shutil.copytree(work.runs, own.runs)
    for way in ("fitted_calibrated", "equal"):
        blend(BlendOptions((SLICES, LAYERS), way=way, data=phantom, work=own.root))
        runs = {name: read_probabilities(own.prediction(name, 0, "test")) for name in (SLICES, LAYERS)}
        due = read_probabilities(own.blend / "test.parquet")
        shares = read_released_blend(own, ["blend"]).shares
        found = join(shares, {name: table.loc[due.index].to_numpy() for name, table in runs.items()})
        np.testing.assert_allclose(found, due.to_numpy(), atol=1e-6)
        shutil.rmtree(own.blend)


def test_a_second_level_does_not_travel_and_the_best_mean_stands_in_its_place(work, phantom, tmp_path):
    (tmp_path / "own").mkdir()
    own = linked(work, tmp_path / "own")
    shutil.copytree(work.runs, own.runs)
    blend(BlendOptions((SLICES, LAYERS), way="stacker", data=phantom, work=own.root))
    released = read_released_blend(own, [SLICES, LAYERS])
    assert released.replaced == LABELS
    assert all(sum(share.weights.values()) == pytest.approx(1) for share in released.shares.values())
    valid = read_probabilities(own.blend / "valid.parquet")
    assert set(released.unseen.index) == set(valid.index)
    assert not np.allclose(released.unseen.loc[valid.index], valid)  # scores are of what travels


def test_thresholds_and_calibration_are_those_of_the_own_validation(single, work):
    release, meaning = read_release(single), meaning_of([read_fingerprint(work.run(LAYERS, 0))])
    for label in LABELS:
        assert release.frozen.slices[label] == pytest.approx(meaning.slices[label])
        assert release.frozen.studies[label] == pytest.approx(meaning.studies[label])
    assert set(release.frozen.points["slices"]["any"]) == {"sensitivity", "specificity", YOUDEN}


# ---- it travels ----

BLOCKED = """
import runpy, socket, sys
def refuse(*_, **__):
    raise AssertionError("a socket")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_unpacked_elsewhere_it_answers_in_a_new_process_without_a_network(both, work, phantom, tmp_path):
    with zipfile.ZipFile(both.with_name("two.zip")) as archive:
        archive.extractall(tmp_path)
    assert contents(tmp_path / "two") == contents(both)
    series = read_slices(work, "test")
    study = series.loc[series["series_id"] == series["series_id"].iloc[0], "image_id"]
    (tmp_path / "scan").mkdir()
    for name in study:
        shutil.copy(phantom / "stage_2_test" / f"{name}.dcm", tmp_path / "scan")
    words = [REPOSITORY / "models" / "predict.py", "scan", "--weights", "two", "--device", "cpu", "--tta", "none"]
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "PYTHONPATH") if name in os.environ}
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, words)],
        env=kept | {"HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 3), result.stderr
    assert len(pd.read_csv(tmp_path / "answers" / "answers.csv")) == 1
    (answer,) = (tmp_path / "answers").glob("*/answer.json")
    assert set(json.loads(answer.read_text())["weights"]) == {"asked/fold0", "layers/fold0"}


def test_inference_scripts_take_it(single, work, tmp_path):
    (tmp_path / "cache").symlink_to(work.cache)
    machine = Machine(work=tmp_path, device="cpu")
    found = []
    for name, weights in (("own", single), ("same", single / LAYERS / "fold0")):
        infer(InferOptions(name, tta="none", weights=weights, machine=machine))
        found.append(read_probabilities(tmp_path / "runs" / name / "fold0" / "test.parquet"))
    pd.testing.assert_frame_equal(*found)


def test_of_several_runs_one_has_to_be_named_and_a_fold_has_to_be_there(both, single):
    assert weights_of_release(both, SLICES, 0) == both / SLICES / "fold0"
    assert weights_of_release(single, "anything", 0) == single / LAYERS / "fold0"
    with pytest.raises(InputError, match=r"holds the runs .*asked.*; name one of them with --name"):
        weights_of_release(both, "b2", 0)
    with pytest.raises(InputError, match=r"holds no fold 3 of layers"):
        weights_of_release(single, LAYERS, 3)


def test_a_release_is_named_alone(single, work):
    with pytest.raises(InputError, match=r"is a release.*; name it alone with --weights"):
        find_folds([single, work.run(SLICES, 0)])


@pytest.mark.parametrize("name", ["layers/fold0/model.safetensors", "asked/fold0/config.json", "card.md", "facts.json"])
@pytest.mark.parametrize("change", ["a bit", "gone"])
def test_a_changed_file_is_refused_by_name(copy, name, change):
    file = copy / name
    if change == "gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(str(file))} is .*(unpack the release again|get it again)"):
        open_court([copy], "cpu", "none", synthetic=True)
    with pytest.raises(InputError, match=re.escape(str(file))):
        infer(InferOptions("any", weights=copy, machine=Machine(work=copy)))


def test_a_file_that_was_added_to_a_fold_is_refused(copy):
    added = next(copy.glob("*/fold0")) / "slices.onnx"
    added.write_text("another network")
    with pytest.raises(InputError, match=r"slices\.onnx is no part of the release: delete it, or unpack"):
        read_release(copy)


def test_as_onnx_it_stays_a_release(both, work, tmp_path):
    """How its runs are joined, its calibration and its thresholds go with the graphs, and it answers the same."""
    export((both,), tmp_path / "onnx", "float32", None, most=8)
    before, after = read_release(both), read_release(tmp_path / "onnx")
    assert (after.shares, after.frozen, after.members) == (before.shares, before.frozen, before.members)
    assert not list((tmp_path / "onnx").rglob("*.safetensors"))
    assert (tmp_path / "onnx" / "fingerprint.json").read_bytes() == (both / "fingerprint.json").read_bytes()
    (ours, _), (theirs, _) = asked(tmp_path / "onnx", work), asked(both, work)
    assert ours.slices == pytest.approx(theirs.slices, abs=1e-4)
    assert ours.study == pytest.approx(theirs.study, abs=1e-4)
    with pytest.raises(InputError, match="is there, and was not exported: it is left alone"):
        export((both,), both, "float32", None, most=8)
    assert read_release(both).told == before.told


def test_a_fold_that_others_alone_build_on_travels_with_those_that_speak(work, monkeypatch):
    """A run that speaks by one fold, and is built on by two."""
    monkeypatch.setattr(release_files, "require_run", lambda folder, _: read_run(work.run(folder.parent.name, 0)))
    planned = plan(work, "blend", {SLICES: [0], LAYERS: [0, 1]}, None)
    assert (planned.silent, planned.speaking) == ({SLICES: [1]}, {SLICES: [0], LAYERS: [0, 1]})
    assert planned.all == {SLICES: [0, 1], LAYERS: [0, 1]}


def test_answers_of_two_releases_with_the_same_weights_are_not_mixed(copy, tmp_path):
    options = PredictOptions((tmp_path / "data",), output=tmp_path)
    _require_same(tmp_path / "predict.json", options, open_court([copy], "cpu", "none", synthetic=True))
    told = {name: value for name, value in read_json(copy / RELEASE, "").items() if name != "sha256"}
    write_json(copy / RELEASE, told | {"name": "refitted"})
    with pytest.raises(InputError, match="was made with --weights others; choose another folder with --output"):
        _require_same(tmp_path / "predict.json", options, open_court([copy], "cpu", "none", synthetic=True))


def test_a_changed_threshold_is_refused(copy):
    text = (copy / RELEASE).read_text()
    threshold = read_release(copy).frozen.points["slices"]["any"]["sensitivity"].threshold
    (copy / RELEASE).write_text(text.replace(str(threshold), "0.5", 1))
    with pytest.raises(InputError, match=r"release\.json is damaged, or was changed; unpack"):
        open_court([copy], "cpu", "none", synthetic=True)


def test_a_newer_one_is_told_so(copy):
    told = read_json(copy / RELEASE, "")
    write_json(copy / RELEASE, told | {"format": 2})
    with pytest.raises(InputError, match=r"is of format 2, and this version .* knows 1"):
        read_release(copy)


# ---- it names nobody ----


def test_nothing_of_those_whom_it_has_learnt_from_is_in_it(both, single, work, phantom):
    slices = pd.concat([read_slices(work, split) for split in ("train", "test")])
    canaries = {str(name) for of in ("image", "series", "study", "patient") for name in slices[f"{of}_id"]}
    canaries |= {path.name for path in phantom.rglob("*.dcm")} | {str(phantom), str(work.root)}
    assert len(canaries) > 300
    for folder in (both, single):
        for name, content in contents(folder).items():
            assert not name.endswith(".parquet")
            assert not [canary for canary in canaries if canary.encode() in content], name
    with zipfile.ZipFile(both.with_name("two.zip")) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


COMMAND = (
    "/home/jane/bin/python models/train_b2.py --start '/home/jane doe/w.safetensors' --work smith_john "
    "--work-from smith_1 smith_2 --pseudolabels=/home/jane/x.csv --fold 0"
)


def test_a_record_travels_without_folders_and_warnings():
    record = {
        "kind": "TrainConfig",
        "config": {"start": "/home/jane doe/scans/fold0"},
        "results": {"sources": {"/home/jane doe/w.safetensors": "a", "b2": "old"}},
        "ran": {"command": COMMAND},
        "patients_sha256": "hash",
        "warnings": ["ID_canary is strange"],
    }
    told = as_it_travels(record, {"old": "new"})
    assert told["results"]["sources"] == {"w.safetensors": "a", "b2": "new"}
    assert told["ran"]["command"] == (
        "python models/train_b2.py --start PATH --work PATH --work-from PATH PATH --pseudolabels=PATH --fold 0"
    )
    assert not any(word in json.dumps(told) for word in ("jane", "smith", "hash", "canary"))


# ---- the same command, and what it asks for ----


def test_a_zip_of_a_release_that_was_deleted_is_not_taken_for_its_own(single, work, tmp_path, monkeypatch):
    again = tmp_path / "single"
    shutil.copytree(single, again)
    zip_of(again).write_bytes(b"of older weights")
    shutil.rmtree(again)

    def full(_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(releasing, "write_release", lambda *words: shutil.copytree(single, words[-1], dirs_exist_ok=True))
        patch.setattr(releasing, "write_zip", full)
        with pytest.raises(OSError, match="no space"):
            carry_out(options(work, again, LAYERS))
    carry_out(options(work, again, LAYERS))
    with zipfile.ZipFile(zip_of(again)) as packed:
        assert packed.testzip() is None


def test_the_same_command_does_nothing_anew_and_another_is_refused(single, work, capsys):
    before = {path: path.stat().st_mtime_ns for path in single.rglob("*")}
    carry_out(options(work, single, LAYERS))
    assert f"{single} is there; delete it to make it anew" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in single.rglob("*")} == before
    with pytest.raises(InputError, match=r"was made with other license; delete it, or .*--output"):
        carry_out(options(work, single, LAYERS, license="apache-2.0"))
    with pytest.raises(InputError, match="was made with other weights"):
        carry_out(options(work, single, SLICES))


def test_a_folder_of_somebody_else_is_left_alone(work, tmp_path):
    (tmp_path / "runs" / "mine" / "fold0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"is there, and no release; choose another folder with --output"):
        carry_out(options(work, tmp_path, SLICES))
    assert (tmp_path / "runs" / "mine" / "fold0").is_dir()


def test_of_people_licence_and_source_are_asked_for(tmp_path):
    people = Work(tmp_path)
    with pytest.raises(InputError, match="--license"):
        what_is_asked(options(people, tmp_path, "b2"))
    with pytest.raises(InputError, match="--data-source"):
        what_is_asked(options(people, tmp_path, "b2", license="mit"))
    assert what_is_asked(options(people, tmp_path, "b2", license="mit", data_source="ours"))["license"] == "mit"
    with pytest.raises(InputError, match="--contact says nothing"):
        options(people, tmp_path, "b2", contact=" ")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (("nothing",), r"no finished fold in .*nothing; train one with"),
        ((SLICES, "b5"), r"is a blend of .*, not of asked, b5; delete it, then: python models/blend\.py asked b5"),
        ((), "name what to release"),
    ],
)
def test_what_is_not_there_is_told_with_its_repair(work, tmp_path, runs, message):
    with pytest.raises(InputError, match=message):
        carry_out(options(work, tmp_path / "out", *runs))


def test_scores_are_those_of_the_predictions(single, work):
    """Of scikit-learn, from what was predicted of the validation."""
    valid = read_probabilities(work.prediction(LAYERS, 0, "valid"))
    target = read_slices(work, "train").set_index("image_id").loc[valid.index, list(LABELS)].to_numpy()
    facts = read_json(single / "facts.json", "")
    for place, label in enumerate(LABELS):
        row, said = facts["scores"]["slices"][label], valid.to_numpy(float)[:, place]
        assert row["positives"] == target[:, place].sum()
        if 0 < target[:, place].mean() < 1:
            assert row["AUC"] == pytest.approx(roc_auc_score(target[:, place], said), abs=1e-9)
            assert row["log loss"] == pytest.approx(log_loss(target[:, place], said), abs=1e-6)
    assert facts["validated on"]["slices"] == len(valid)
    assert find(facts, ("data", "slices with", "any")) == read_slices(work, "train")["any"].sum()
    record = read_run(work.run(LAYERS, 0))
    assert find(facts, ("training", "hours", "layers/fold0")) == record.ran["train_seconds"] / 3600
