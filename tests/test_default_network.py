"""Laws of the command that makes the default network, and of its files: drawn, trained and measured in small."""

import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import REPOSITORY
from torch.nn.functional import interpolate
from written import contents

from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine
from models.inference import default, default_files, halving
from models.inference.blending import calibrated
from models.inference.default import FOLDER, LARGEST, SLICES, STUDIES, default_calibration, default_runs, require_whole
from models.inference.default_files import write_default
from models.inference.halving import as_half, halve
from models.inference.predict import infer
from models.inference.predictions import read_probabilities
from models.inference.runs import read_out_of_fold
from models.inference.scoring import in_common
from models.make_default_network import LAYERS, SEEDS, SLICE_NETWORK
from models.phantom.dicom import identify, write_phantom
from models.preprocessing.origin import DRAWN
from models.preprocessing.tables import read_slices
from models.training.metric import weighted_log_loss
from models.training.networks import build_network, load_initial_weights
from models.training.recurrent import build_sequence_network
from models.training.run_record import read_run, save_config
from models.training.scoring import score
from models.training.seen import Seen, seen_by, write_seen
from models.training.weights import load_trained, read_weights, save_weights, write_tensors

SCRIPT = REPOSITORY / "models" / "make_default_network.py"
SIZE = 32
TINY = ["--studies", "8", "8", "--image-size", SIZE, "--network", "small", "--no-pretrained", "--epochs", "1"]
FILES = {f"{name}/fold0/{file}" for name in (SLICES, STUDIES) for file in (*default.RUN_FILES, "fingerprint.json")}


def make(work: Path, *words: object) -> None:
    """Run the script in this process."""
    line = [SCRIPT, *TINY, "--device", "cpu", "--jobs", "1", "--work", work, "--output", work / "out", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in line])
        runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A working folder, in which the network lies in out/."""
    work = tmp_path_factory.mktemp("default")
    make(work)
    return work


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Slices of people, as far as anybody can tell: a phantom that is not marked as one."""
    folder = tmp_path_factory.mktemp("people") / "data"
    write_phantom(folder, 4, 1, SIZE, seed=7, jobs=1)
    (folder / DRAWN).unlink()
    return folder


def part(work: Path, name: str) -> Work:
    return Work(work / "default_network" / name)


def out_of_fold(work: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities (slices, 6) of what a run has validated on."""
    labels = read_slices(part(work, name), "train").set_index("image_id")
    return in_common(labels, read_out_of_fold(part(work, name), name, [0]))[1:]


def test_it_is_whole_and_nothing_else_lies_there(made):
    assert set(contents(made / "out")) == FILES | {"calibration.json", "files.json", "README.md"}
    assert [read_run(run).config.name for run in default_runs(made / "out")] == [SLICES, STUDIES]


def test_the_recurrent_layers_learn_from_what_the_network_says_of_strangers(made):
    """With its weights as they are used; and neither knows whom the demo shows, whose seed is 0."""
    slices, studies = default_runs(made / "out")
    assert read_run(studies).sources[SLICES] == read_run(slices).weights_sha256
    before, after = (seen_by(run) for run in (slices, studies))
    patients = [set(read_slices(part(made, name), "train")["patient_id"]) for name in (SLICES, STUDIES)]
    assert before.patients < patients[0]
    assert before.patients < after.patients < before.patients | patients[1]
    assert not patients[0] & patients[1]
    assert not before.unknown | after.unknown


def test_nobody_is_drawn_for_both_parts_or_for_the_demo_too():
    drawn = [{identify(seed, "train", number).patient_id for number in range(400)} for seed in (0, *SEEDS.values())]
    drawn.append({identify(0, "test", number).patient_id for number in range(20)})
    assert len(set().union(*drawn)) == sum(map(len, drawn))


def test_the_weights_are_float16_on_disk_and_float32_in_the_network(made):
    slices, _ = default_runs(made / "out")
    stored = read_weights(slices / "model.safetensors")
    large = {value.dtype for value in stored.values() if value.numel() > halving.SMALL}
    assert large == {torch.float16}
    network = build_network(read_run(slices).config)
    load_trained(slices, read_run(slices), network)
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}


def test_it_predicts_what_the_runs_predict_that_it_was_made_of(made):
    machine = Machine(work=part(made, STUDIES).root, device="cpu")
    for name, run in zip((SLICES, STUDIES), default_runs(made / "out"), strict=True):
        found = []
        for called, weights in ((f"{name}_whole", part(made, name).run(name, 0)), (f"{name}_halved", run)):
            options = InferOptions(called, split="test", weights=weights, machine=machine)
            infer(options)
            found.append(read_probabilities(options.output).to_numpy())
        assert np.abs(found[0] - found[1]).max() < 1e-3


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """The networks of the script, their last layers random, and the runs that they would be: (network, run) each."""
    folder, found = tmp_path_factory.mktemp("full_size"), []
    torch.manual_seed(0)
    slices = build_network(SLICE_NETWORK)
    load_initial_weights(slices, SLICE_NETWORK)
    layers = build_sequence_network(LAYERS, slices.width)
    torch.nn.init.normal_(layers.leave.weight, std=0.1)
    torch.nn.init.constant_(slices.head.bias, -2.0)  # a label has one slice in ten
    for config, network in ((SLICE_NETWORK, slices), (LAYERS, layers)):
        run = folder / config.name
        save_weights(run, network.eval())
        write_seen(run, Seen(frozenset(["ID_a"])))
        save_config(run, config, 0, {})
        found.append((network, run))
    return found


def test_float16_moves_probabilities_of_the_full_size_by_a_thousandth(full_size, tmp_path):
    (slices, _), (layers, _) = full_size
    halved = build_network(SLICE_NETWORK).eval(), build_sequence_network(LAYERS, slices.width).eval()
    for network, (_, run) in zip(halved, full_size, strict=True):
        halve(run, tmp_path / run.name)
        assert read_run(tmp_path / run.name).weights_sha256 != read_run(run).weights_sha256
        load_trained(tmp_path / run.name, read_run(tmp_path / run.name), network)
    coarse = torch.rand(12, 3, 9, 9, generator=torch.manual_seed(0))
    grey = (255 * interpolate(coarse, size=128, mode="bicubic").clamp(0, 1)).to(torch.uint8)
    place = torch.tensor([[0.0, 5.0 * z, 0.0] for z in range(12)])
    found = []
    with torch.inference_mode():
        for network, recurrent in ((slices, layers), halved):
            embedding = network.embed(grey)
            seen = torch.cat([embedding, network.head(embedding)], dim=1)
            found.append(torch.stack([network(grey).sigmoid(), recurrent(seen, place).sigmoid()]))
    assert found[0].std() > 0.01
    moved = (found[0] - found[1]).abs()
    assert 0 < moved.mean() < 2e-4
    assert moved.max() < 1e-3


def test_the_full_size_fits_a_repository(full_size, tmp_path):
    for _, run in full_size:
        halve(run, tmp_path / run.name)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.*"))
    assert 5_000_000 < size < LARGEST - 200_000 < 6_000_000  # with room for what else is beside the weights


def test_what_float16_cannot_hold_and_what_is_small_stays_as_it_is():
    numbers = torch.linspace(-1, 1, halving.SMALL + 1)
    assert as_half(numbers).dtype == torch.float16
    for kept in (numbers[1:], 7e4 * numbers, torch.arange(len(numbers)), torch.tensor(3), torch.tensor([])):
        assert as_half(kept) is kept


def test_files_that_are_too_large_are_refused(made, tmp_path, monkeypatch):
    monkeypatch.setattr(default_files, "LARGEST", 1_000_000)
    with pytest.raises(InputError, match=r"files have 1,\d+,\d+ bytes, more than 1,000,000; .*--network"):
        write_default(tmp_path, part(made, SLICES), part(made, STUDIES), {})
    with pytest.raises(InputError, match="no default network"):
        default_runs(tmp_path)


def test_layers_over_another_network_are_refused(made, tmp_path):
    """As there are once the network of slices has been deleted, and trained anew."""
    work = Work(tmp_path / "slices")
    shutil.copytree(part(made, SLICES).root, work.root)
    file = work.run(SLICES, 0) / "model.safetensors"
    write_tensors(file, {name: value * 2 for name, value in read_weights(file).items()})
    with pytest.raises(InputError, match=r"studies/fold0 was trained on another slices; delete it to train it again"):
        write_default(tmp_path / "out", work, part(made, STUDIES), {})
    with pytest.raises(InputError, match="no default network"):
        default_runs(tmp_path / "out")


def test_what_calibrates_it_was_fitted_on_what_the_layers_have_validated_on(made):
    target, probability = out_of_fold(made, STUDIES)
    after = 1 / (1 + np.exp(-calibrated(probability, tuple(default_calibration(made / "out").values()))))
    assert weighted_log_loss(target, after) < weighted_log_loss(target, probability)


def test_the_same_command_does_nothing_anew(made, capsys):
    times = {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")}
    make(made)
    assert f"{made / 'out'} is there; delete it to make it anew" in capsys.readouterr().out
    for name in ("files.json", "calibration.json"):  # as if it had been stopped before its end
        (made / "out" / name).unlink()
    before = contents(made / "out")
    make(made)
    told = capsys.readouterr().out
    assert "holds this phantom already" in told
    assert told.count("is finished; delete it to train it again") == 2
    assert before.items() <= contents(made / "out").items()
    trained = {path: time for path, time in times.items() if path.parent.parent.parent.name == "runs"}
    kept = [path for path in trained if path != part(made, STUDIES).run(SLICES, 0) / "model.safetensors"]  # a copy
    assert {path: path.stat().st_mtime_ns for path in kept} == {path: times[path] for path in kept}


def test_another_one_is_not_overwritten(made, capsys):
    with pytest.raises(SystemExit, match=r"made with .*'epochs': 1\}, not .*'epochs': 2\}; delete it, or .*--output"):
        make(made, "--epochs", "2")


def test_the_card_says_what_it_is_and_what_was_not_measured(made):
    card = (made / "out" / "README.md").read_text()
    assert "python models/make_default_network.py" in card
    assert "8 drawn studies, the recurrent layers from 8 others" in " ".join(card.split())
    for words in ("Trained on drawings", "not measured", "Not calibrated on people", "not a medical device"):
        assert re.search(rf"\*\*[^*]*{words}[:.]?\*\*", card)
    assert "ImageNet" not in card  # where it has not begun, --no-pretrained
    for name in FILES:
        assert f"`{hash_file(made / 'out' / name)[:16]}`" in card
    for name in (SLICES, STUDIES):
        target, probability = out_of_fold(made, name)
        scores = score(target, probability)
        assert f"| {len(target):,} | {scores['weighted log loss']:.3f} |" in card
        assert f"| {scores['AUC any']:.3f} |" in card
    assert max(map(len, card.splitlines())) <= 120


def test_measured_on_people_the_card_ranks_each_label(made, people, capsys):
    """With the AUC that the predictions have; what is not there to be ranked was not measured."""
    make(made, "--data", people)
    card = (made / "out" / "README.md").read_text()
    assert "was not measured" not in card
    assert require_whole(made / "out")  # the card is none of the files that make it whole
    work = part(made, "people")
    labels = read_slices(work, "train").set_index("image_id")
    (file,) = work.runs.glob(f"{STUDIES}_*/fold0/train.parquet")
    scores = score(*in_common(labels, read_probabilities(file))[1:])
    for label in LABELS:
        (row,) = re.findall(rf"^\| {label} \| (\d+) \| (.*) \| (.*) \|$", card, flags=re.MULTILINE)
        assert int(row[0]) == labels[label].sum()
        value = scores[f"AUC {label}"]
        assert row[2].startswith("not measured" if np.isnan(value) else f"{value:.3f} (")
    assert f"{len(labels):,} slices of {labels['patient_id'].nunique():,} people" in card


def test_drawings_measure_nothing(made, tmp_path):
    with pytest.raises(SystemExit, match=r"holds drawings, which tell nothing of people; .*--data"):
        make(tmp_path, "--output", made / "out", "--data", part(made, STUDIES).root / "data")


def test_slices_without_labels_measure_nothing(made, people, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(people / "stage_2_test", own)
    with pytest.raises(SystemExit, match=r"no slice of .* has a label; .*--data"):
        make(tmp_path, "--output", made / "out", "--data", own)


def test_the_one_in_the_repository_is_whole_and_small_if_it_has_been_made():
    if not (FOLDER / "files.json").is_file():
        with pytest.raises(InputError, match="no default network"):
            default_runs()
        return
    runs = default_runs()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*")) <= LARGEST + 10_000  # the card, and files.json
    records = [read_run(run) for run in runs]
    assert [record.config for record in records] == [replace(SLICE_NETWORK), replace(LAYERS)]
    assert all(record.ran["synthetic"] for record in records)
