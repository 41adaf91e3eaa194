"""Nobody is validated by a network that has trained on them: folds that were made anew, and weights, are no door.

Here folds.csv is made anew so that three of the six patients whom fold 0 validates are of those it has trained on.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from models import train_b0_recurrent, train_sequence, train_small
from models.common.config import FinetuneConfig, RunConfig, StudyConfig
from models.common.errors import InputError
from models.common.files import hash_file, write_csv, write_json, write_parquet
from models.common.folders import Work
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference.predict import infer
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.inference.runs import chosen_on_own_slices, load_runs
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import hash_tables, patients_of_fold, read_folds, read_slices, split_fold
from models.reporting.subject import read_subject
from models.score import ScoreOptions, score
from models.training import fold as running
from models.training.checkpoint_files import Checkpoint, read_checkpoint, write_checkpoint
from models.training.kinds import kind_of
from models.training.networks import build_network
from models.training.run import train
from models.training.run_record import PATIENTS, read_run
from models.training.seen import require_unseen, seen_by, write_seen
from models.training.sources import find_start
from models.training.weights import read_weights, write_tensors

BASE = replace(train_small.CONFIG, image_size=32, epochs=1, batch_size=16, augment="none")
PATIENTS_OF_ALL = 14


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    """A working folder with both folds of a trained run, and their test predictions."""
    work = Work(tmp_path_factory.mktemp("seen"))
    write_phantom(work.root / "data", studies=15, test_studies=2, image_size=32, seed=0, jobs=1)
    prepare_again(work)
    for fold in (0, 1):
        fit(work, BASE, fold)
        infer(InferOptions("small", fold=fold, tta="none", machine=machine(work)))
    return work


@pytest.fixture
def own(work, tmp_path) -> Work:
    """The same, to be changed."""
    shutil.copytree(work.cache, tmp_path / "cache", ignore=shutil.ignore_patterns("slices_*"))
    for store in work.cache.glob("slices_*"):
        (tmp_path / "cache" / store.name).symlink_to(store)
    shutil.copytree(work.runs, tmp_path / "runs")
    return Work(tmp_path)


def prepare_again(work: Work, folds: int = 2, **changes) -> None:
    prepare(PrepareOptions(data=work.root / "data", work=work.root, image_size=(32,), folds=folds, jobs=1, **changes))


def machine(work: Work) -> Machine:
    return Machine(work=work.root, device="cpu")


def fit(work: Work, config: RunConfig, fold: int = 0) -> None:
    train(TrainOptions(config, fold=fold, machine=machine(work)))


def write_folds(work: Work, folds: pd.DataFrame) -> None:
    write_csv(work.folds, folds)
    write_json(work.prepared, {"files": {work.folds.name: hash_file(work.folds)}})


def make_other_folds(work: Work) -> None:
    """Let three patients of each of the two folds change places."""
    folds = read_folds(work)
    moved = folds.groupby("fold")["patient_id"].head(3)
    write_folds(work, folds.assign(fold=folds["fold"].where(~folds["patient_id"].isin(moved), 1 - folds["fold"])))


def patients(work: Work, fold: int, name: str = "small") -> set[str]:
    """Whom a run has noted."""
    return set(pd.read_parquet(work.run(name, fold) / PATIENTS)["patient_id"])


def cut_short(work: Work, config: RunConfig, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(running, "predict", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(work, config)


def make_old(folder: Path, *, with_patients: bool = False) -> None:
    """As commit 032d62a left it."""
    file = folder / "config.json"
    record = json.loads(file.read_text())
    record["results"].pop("sources")
    if not with_patients:
        record.pop("patients_sha256")
        (folder / PATIENTS).unlink()
    file.write_text(json.dumps(record))


# ---- what is hashed ----


def test_tables_that_are_written_anew_hash_alike_and_test_slices_change_nothing(own):
    before = hash_tables(own)
    assert set(before) == {"folds.csv", "metadata_train.parquet"}
    slices, folds = read_slices(own, "train"), read_folds(own)
    write_parquet(own.metadata("test"), read_slices(own, "test").iloc[:5])
    other = slices.assign(img_mean=slices["img_mean"] + 1e-3, another=1).sample(frac=1, random_state=0)
    write_parquet(own.metadata("train"), other)
    write_folds(own, folds.iloc[::-1])
    assert hash_tables(own) == before


@pytest.mark.parametrize("changed", ["fold", "label", "patient", "unreadable", "new slice"])
def test_another_fold_label_patient_or_slice_hashes_otherwise(own, changed):
    before, slices, folds = hash_tables(own), read_slices(own, "train"), read_folds(own)
    if changed == "fold":
        folds.loc[3, "fold"] = 1 - folds.loc[3, "fold"]
    elif changed == "label":
        slices.loc[3, "any"] = 1 - slices.loc[3, "any"]
    elif changed == "patient":
        slices.loc[3, "patient_id"] = folds["patient_id"].iloc[-1]
    elif changed == "unreadable":
        slices.loc[3, "chunk"] = -1
    else:
        slices = pd.concat([slices, slices.iloc[[3]].assign(image_id="ID_new")])
    write_parquet(own.metadata("train"), slices)
    write_folds(own, folds)
    name = "folds.csv" if changed == "fold" else "metadata_train.parquet"
    after = hash_tables(own)
    assert [file for file in before if after[file] != before[file]] == [name]


def test_where_there_are_no_folds_nothing_is_hashed(own):
    own.folds.unlink()
    assert hash_tables(own) == {}


# ---- folds that were made anew ----


def test_a_run_does_not_go_on_over_other_folds(own, monkeypatch):
    """It has trained on three of the six whom it would be validated on, and was scored as out-of-fold."""
    config = replace(BASE, name="cut")
    cut_short(own, config, monkeypatch)
    make_other_folds(own)
    assert len(patients_of_fold(own, 0)) > 5
    with pytest.raises(InputError, match=r"cut.fold0 was begun with another folds.csv than there is now; bring that"):
        fit(own, config)


def test_a_run_does_not_go_on_over_other_labels(own, monkeypatch):
    config = replace(BASE, name="cut")
    cut_short(own, config, monkeypatch)
    slices = read_slices(own, "train")
    write_parquet(own.metadata("train"), slices.assign(epidural=1 - slices["epidural"]))
    with pytest.raises(InputError, match=r"was begun with another metadata_train.parquet than there is now"):
        fit(own, config)


def test_a_finished_run_is_not_finished_for_other_folds(own, capsys):
    make_other_folds(own)
    message = (
        r"small.fold0 was trained with another folds.csv than \S+cache holds now; it has trained on 3 of \d+ patients "
        r"whom it validates now; delete it to train it again, or write this run elsewhere with --name"
    )
    with pytest.raises(InputError, match=message):
        fit(own, BASE)
    assert "is finished" not in capsys.readouterr().out


def test_a_finished_run_is_finished_where_the_same_was_prepared_anew_or_nothing_is_left(own, work, capsys):
    (own.root / "data").symlink_to(work.root / "data")
    for path in own.cache.iterdir():
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)
    fit(own, BASE)
    prepare_again(own)
    fit(own, BASE)
    assert capsys.readouterr().out.count("is finished") == 2


USES = {
    "infer": lambda work: infer(InferOptions("small", tta="none", machine=machine(work))),
    "score": lambda work: score(ScoreOptions(work=work.root)),
    "smooth": lambda work: smooth_run(SmoothOptions("small", work=work.root)),
    "blend": load_runs,
    "report": lambda work: read_subject(work, "small"),
    "pseudolabels": lambda work: make_pseudolabels(PseudolabelOptions(("small",), work=work.root)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("is_old", [False, True], ids=["noted", "not noted"])
def test_nothing_uses_a_run_beside_other_folds_than_it_was_trained_with(own, use, is_old):
    if is_old:
        for fold in (0, 1):
            make_old(own.run("small", fold))
    use(own)
    make_other_folds(own)
    reason = r"has trained on 3 of \d+ patients whom fold 0 validates on and was validated on 3 patients of other folds"
    if is_old:
        reason = "was validated on 3 patients of other folds"
    message = rf"small.fold0 was trained with other folds than \S+folds.csv holds now: it {reason}; bring its folds"
    with pytest.raises(InputError, match=message):
        use(own)


def test_patients_who_have_come_since_make_no_other_folds(own):
    """They are nobody whom it has seen, and who was there is where they were."""
    slices, folds = read_slices(own, "train"), read_folds(own)
    come = slices[slices["series_id"] == slices["series_id"].iloc[0]]
    new = [f"{name}_new" for name in come["image_id"]]
    write_parquet(own.metadata("train"), pd.concat([slices, come.assign(image_id=new, patient_id="new")]))
    write_folds(own, pd.concat([folds, pd.DataFrame({"patient_id": ["new"], "fold": [0]})]))
    for use in USES.values():
        use(own)
    with pytest.raises(InputError, match=r"small.fold0 was trained with another folds.csv and metadata_train.parquet"):
        fit(own, BASE)


def test_a_network_that_was_trained_elsewhere_predicts_whom_it_does_not_know(own, work):
    make_other_folds(own)
    weights = work.run("small", 0)
    infer(InferOptions("small", fold=1, tta="none", weights=weights, split="train", machine=machine(own)))
    assert own.prediction("small", 1, "train").is_file()


# ---- what older versions have trained ----


def test_a_run_that_notes_no_folds_is_finished_if_it_was_validated_on_the_same_slices(own, capsys):
    make_old(own.run("small", 0))
    fit(own, BASE)
    assert "is finished" in capsys.readouterr().out
    make_other_folds(own)
    with pytest.raises(InputError, match=r"small.fold0 was not validated on \S+ of \S+ slices that \S+ has in its"):
        fit(own, BASE)


def test_a_checkpoint_that_notes_no_folds_goes_on_and_the_record_says_so(own, monkeypatch, capsys):
    config = replace(BASE, name="cut")
    cut_short(own, config, monkeypatch)
    (file,) = own.run("cut", 0).glob("checkpoint_*.json")
    description = json.loads(file.read_text())
    for name in ("sha256", "versions", "kind"):
        description.pop(name)
    description["state"].pop("sources")
    description["config"] = {k: v for k, v in description["config"].items() if k != "start"} | {"weights": None}
    write_json(file, description)
    fit(own, config)
    sentence = "begun by an older version of this project, which noted neither its packages nor its folds"
    assert f"warning: {own.run('cut', 0)}: {sentence}" in capsys.readouterr().out
    assert json.loads((own.run("cut", 0) / "config.json").read_text())["warnings"] == [sentence]


# ---- whom a run has seen ----


def test_a_fold_notes_all_patients_but_those_whom_it_validates(work):
    everybody = set(read_folds(work)["patient_id"])
    assert len(everybody) == PATIENTS_OF_ALL
    for fold in (0, 1):
        assert patients(work, fold) == everybody - set(patients_of_fold(work, fold))
        seen = seen_by(work.run("small", fold))
        assert (seen.patients, seen.unknown) == (patients(work, fold), set())
    assert list(pd.read_parquet(work.run("small", 0) / PATIENTS)["patient_id"]) == sorted(patients(work, 0))
    smooth_run(SmoothOptions("small", work=work.root))
    assert seen_by(work.run("small_smoothed", 1)) == seen_by(work.run("small", 1))


def test_a_note_that_is_another_one_is_refused(own):
    file = own.run("small", 0) / PATIENTS
    write_parquet(file, pd.read_parquet(file).iloc[1:])
    with pytest.raises(
        InputError, match=r"the sha256 of \S+patients.parquet is not the one in config.json; bring back"
    ):
        seen_by(own.run("small", 0))


def add_foreign(work: Work, name: str, fold: int, patient: str) -> None:
    """Let a run have seen one more."""
    folder = work.run(name, fold)
    seen = seen_by(folder)
    write_seen(folder, seen._replace(patients=seen.patients | {patient}))
    record = json.loads((folder / "config.json").read_text())
    record["patients_sha256"] = hash_file(folder / PATIENTS)
    (folder / "config.json").write_text(json.dumps(record))


FINETUNED = FinetuneConfig(**vars(BASE) | {"name": "finetuned", "start": "small", "pseudolabels": "pseudo"})
SEQUENCE = replace(train_sequence.CONFIG, runs=("small",), views="none", epochs=1, batch_size=2)
STARTED = replace(BASE, name="started", start="small")
BUILDING = pytest.mark.parametrize("config", [FINETUNED, SEQUENCE, STARTED], ids=lambda config: config.name)


@BUILDING
def test_a_run_has_seen_whom_those_have_seen_that_it_builds_on(own, config):
    add_foreign(own, "small", 0, "of another set")
    make_pseudolabels(PseudolabelOptions(("small",), work=own.root))
    fit(own, config)
    tested = set(read_slices(own, "test")["patient_id"]) if config is FINETUNED else set()
    assert patients(own, 0, config.name) == patients(own, 0) | tested
    assert "of another set" in patients(own, 0, config.name)
    assert seen_by(own.run(config.name, 0)).unknown == set()


@BUILDING
def test_what_nobody_has_noted_is_noted_as_unknown(own, config):
    make_old(own.run("small", 0))
    make_pseudolabels(PseudolabelOptions(("small",), work=own.root))
    fit(own, config)
    assert seen_by(own.run(config.name, 0)).unknown == {"small/fold0"}


def test_labellers_teach_whom_they_have_seen(own):
    for fold in (0, 1):
        shutil.copytree(own.run("small", fold), own.run("labeller", fold))
    add_foreign(own, "labeller", 0, "of the labeller")
    make_pseudolabels(PseudolabelOptions(("labeller",), work=own.root))
    fit(own, FINETUNED)
    assert "of the labeller" in patients(own, 0, "finetuned") - patients(own, 0)


# ---- one door for all weights that a run starts from ----

RECURRENT = StudyConfig(
    **{name: value for name, value in vars(train_b0_recurrent.CONFIG).items() if name not in vars(BASE)}
    | vars(BASE)
    | {"name": "recurrent", "batch_size": 1}
)


def starts(work: Work, fold: int) -> dict[str, Path]:
    folder = work.run("small", fold)
    link = work.root / "link.safetensors"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "model.safetensors")
    copy = work.root / "copy.safetensors"
    shutil.copy(folder / "model.safetensors", copy)
    return {"folder": folder, "weights in it": folder / "model.safetensors", "link": link, "copy": copy}


@pytest.mark.parametrize("way", ["folder", "weights in it", "link", "copy"])
@pytest.mark.parametrize("config", [STARTED, RECURRENT, FINETUNED], ids=lambda config: config.name)
def test_weights_of_another_fold_are_refused_however_they_are_named(own, config, way):
    """An epoch from them scored 0.4406 where an honest one scored 0.4520."""
    make_pseudolabels(PseudolabelOptions(("small",), work=own.root))
    message = (
        r"small.fold1 has trained on (\d+) of \1 patients whom fold 0 of \S+folds.csv validates on, first that of ID_"
    )
    with pytest.raises(InputError, match=message):
        fit(own, replace(config, start=str(starts(own, 1)[way])))


@pytest.mark.parametrize("way", ["name", "folder", "weights in it", "link", "copy"])
def test_those_of_the_same_fold_are_what_it_starts_from_however_they_are_named(own, way):
    start = str((starts(own, 0) | {"name": "small"})[way])
    network = build_network(BASE)
    kind = kind_of(replace(STARTED, start=start), own.run("started", 0))
    kind.load_start(network)
    weights = own.run("small", 0) / "model.safetensors"
    assert all(torch.equal(value, read_weights(weights)[name]) for name, value in network.state_dict().items())
    assert kind.sources(own, 0) == {**hash_tables(own), "small": hash_file(weights)}
    fit(own, kind.config)


def test_folds_of_another_number_are_no_way_around(own):
    """Fold 0 of four has patients of both folds of two."""
    folds, before = read_folds(own), set(patients_of_fold(own, 0))
    write_folds(own, folds.assign(fold=np.arange(len(folds)) % 4))
    known = set(patients_of_fold(own, 0)) - before
    assert 0 < len(known) < len(patients_of_fold(own, 0))
    for name in ("small", str(own.run("small", 1))):
        with pytest.raises(InputError, match=r"has trained on \d of \d patients whom fold 0"):
            fit(own, replace(STARTED, start=name))
    folds = read_folds(own)
    write_folds(own, folds.assign(fold=folds["fold"].mask(folds["patient_id"].isin(known), 1)))
    fit(own, STARTED)  # of whom it validates now nobody is known


def test_a_start_of_another_image_size_goes_on(own, work):
    """Progressive resizing."""
    (own.root / "data").symlink_to(work.root / "data")
    (own.cache / "slices_32").unlink()
    shutil.rmtree(own.cache)
    prepare(PrepareOptions(data=own.root / "data", work=own.root, image_size=(32, 48), folds=2, jobs=1))
    fit(own, replace(STARTED, image_size=48, crop_size=40))
    assert read_run(own.run("started", 0)).config.input_size == 40


def test_a_start_that_sees_something_else_is_refused(own):
    with pytest.raises(InputError, match=r"small.fold0 has channels .*; make it equal, or name another with --start"):
        fit(own, replace(STARTED, channels=BASE.channels[:2]))


def test_a_file_from_elsewhere_is_taken_and_noted_by_its_hash_and_as_unknown(own):
    file = own.root / "elsewhere.safetensors"
    write_tensors(file, build_network(BASE).state_dict())
    fit(own, replace(STARTED, start=str(file)))
    record = read_run(own.run("started", 0))
    assert record.sources == {**hash_tables(own), file.name: hash_file(file)}
    assert seen_by(own.run("started", 0)).unknown == {file.name}
    (note,) = chosen_on_own_slices(own, "started", [0])[-1:]  # report, card and score.py tell it
    assert note == f"perhaps {file.name}, of which nobody has noted whom it was trained on, of fold 0"


def test_other_weights_in_the_folder_of_a_run_and_what_is_not_there_are_refused(own):
    other = own.run("small", 0) / "other.safetensors"
    write_tensors(other, build_network(BASE).state_dict())
    for start, message in {
        str(other): r"other.safetensors lies in the folder of a run, and is not the weights that it has; move it",
        str(
            own.runs / "none" / "fold0"
        ): r"no trained network in \S+none.fold0; train it with: .*, or name another run with --start",
        "none": r"no trained network in \S+none.fold0; train it with: \S+ \S+_small.py --name none --fold 0 .*, or",
        "none.pth": r"no weights at none.pth; name a file with --start, or start with --no-pretrained",
    }.items():
        with pytest.raises(InputError, match=message):
            find_start(replace(STARTED, start=start), own.run("started", 0))


def test_a_run_is_unseen_by_what_it_has_not_trained_on_alone(own):
    _, valid = split_fold(own, 0, skip_low_information=False)
    require_unseen(own.run("small", 0), valid, own, 0)
    with pytest.raises(InputError, match=r"has trained on (\d+) of \1"):
        require_unseen(own.run("small", 1), valid, own, 0)
    for fold in (0, 1):
        make_old(own.run("small", fold))
    require_unseen(own.run("small", 0), valid, own, 0)
    with pytest.raises(InputError, match=rf"was not validated on {len(valid)} of {len(valid)} slices"):
        require_unseen(own.run("small", 1), valid, own, 0)


# ---- what is no part of a run's identity ----


def test_a_run_goes_on_and_is_finished_with_another_division_of_its_batches(own, monkeypatch, capsys):
    config = replace(BASE, name="cut")
    cut_short(own, config, monkeypatch)
    divided = replace(config, accumulate=4)
    fit(own, divided)
    fit(own, config)
    assert "going on in epoch" in (printed := capsys.readouterr().out)
    assert "is finished" in printed
    assert json.loads((own.run("cut", 0) / "config.json").read_text())["config"]["accumulate"] == 4


def test_the_parts_that_the_memory_allowed_are_kept_until_others_are_asked_for(tmp_path):
    write_checkpoint(tmp_path, BASE, Checkpoint({"weights": torch.zeros(1)}, {"parts": 8}))
    assert read_checkpoint(tmp_path, BASE).state["parts"] == 8
    assert read_checkpoint(tmp_path, replace(BASE, accumulate=2)).state["parts"] == 2


def test_a_run_goes_on_with_another_version_of_torch_and_the_record_says_so(own, monkeypatch, capsys):
    config = replace(BASE, name="cut")
    cut_short(own, config, monkeypatch)
    (file,) = own.run("cut", 0).glob("checkpoint_*.json")
    description = json.loads(file.read_text())
    description.pop("sha256")
    now = description["versions"][-1]["torch"]
    description["versions"][-1]["torch"] = "2.13.0"
    write_json(file, description)
    fit(own, config)
    sentence = f"begun with torch 2.13.0, went on with torch {now}"
    assert f"warning: {own.run('cut', 0)}: {sentence}" in capsys.readouterr().out
    record = json.loads((own.run("cut", 0) / "config.json").read_text())
    assert record["warnings"] == [sentence]
    assert record["versions"]["torch"] == now


def test_an_undisturbed_run_has_nothing_to_warn_of(work):
    assert "warnings" not in json.loads((work.run("small", 0) / "config.json").read_text())
    assert np.isfinite(read_run(work.run("small", 0)).results["weighted_log_loss"])
