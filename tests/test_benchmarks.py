"""Laws of the benchmarks: a ratio above 1 is always good news, and the table says of what it was measured."""

import json
import os
import re
import sys
from dataclasses import replace
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.path import Path as MatplotlibPath

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import ANY
from models.inference.comparing import Resampled, resample
from models.inference.evidence import WAYS
from models.phantom.dicom import identify
from models.phantom.study import draw_study
from models.train_small import CONFIG as SMALL
from models.training import learner
from models.training.callbacks import History

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "benchmarks"
SCRIPTS = {path.stem for path in FOLDER.glob("*.py")}
SHARED = {"run", "comparison", "experiment", "ablation_changes", "ablation_kept", "ablation_people"}
SHARED |= {"gpu_rows", "gpu_tests", "realism_slices", "realism_features", "realism_measures"}
FAKE = """
import os

def rows(data):
    return [{"name": f"of process {os.getpid()}", "ours": 1.0, "peer": 2.0, "unit": data.name, "ratio": 2.0}]
"""


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a script of the folder, as it is imported when it stands first on the path."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module
    for name in set(sys.modules) - before & SCRIPTS:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("ours", "peer", "unit", "ratio"),
    [
        (1, 2, "ms a slice", 2),
        (2, 1, "ms a slice", 0.5),
        (1, 2, "ms a step", 2),
        (2, 1, "slices/s", 2),
        (1, 2, "slices/s", 0.5),
    ],
)
def test_a_ratio_above_1_means_that_ours_is_better(benchmark, ours, peer, unit, ratio):
    row = benchmark("comparison").row("name", ours, peer, unit)
    assert row == {"name": "name", "ours": ours, "peer": peer, "unit": unit, "ratio": ratio}


def test_all_take_a_turn_in_every_round_and_the_first_rounds_are_left_out(benchmark):
    turns, times = [], {"ours": iter([90, 3, 1, 2]), "peer": iter([80, 10, 30, 20])}

    def measure(name):
        turns.append(name)
        return next(times[name])

    measures = {name: lambda name=name: measure(name) for name in times}
    assert benchmark("comparison").take_turns(measures, rounds=3, warm_up=1) == {"ours": 2, "peer": 20}
    rounds = list(zip(turns[::2], turns[1::2], strict=True))
    assert all(sorted(names) == ["ours", "peer"] for names in rounds)
    assert len(set(rounds)) == 2  # orders


def test_the_table_has_a_line_a_row_with_its_numbers(benchmark):
    comparison = benchmark("comparison")
    lines = comparison.table([comparison.row("d4_vs_ttach", 10, 12.5, "ms a slice")]).splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["d4_vs_ttach", "10.00", "12.50", "ms", "a", "slice", "1.25"]


def test_the_data_are_those_of_the_environment_or_a_phantom(benchmark, monkeypatch):
    comparison = benchmark("comparison")
    monkeypatch.delenv("RSNA_DATA", raising=False)
    assert comparison.BenchmarkOptions().data is None
    monkeypatch.setenv("RSNA_DATA", "somewhere")
    assert comparison.BenchmarkOptions().data == Path("somewhere")


@pytest.fixture
def results(benchmark, monkeypatch, tmp_path, capsys):
    """What is written by a run of two made-up benchmarks, and what it prints."""
    run = benchmark("run")
    for name in ("fake_one", "fake_two"):
        (tmp_path / f"{name}.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(run, "BENCHMARKS", ("fake_one", "fake_two"))
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    run.main(run.RunOptions(data=tmp_path))
    return json.loads((tmp_path / "results.json").read_text()), capsys.readouterr().out


def test_results_tell_machine_commit_and_data_and_each_benchmark_has_a_process_of_its_own(results, tmp_path):
    written, printed = results
    assert set(written) == {"machine", "commit", "data", "rows"}
    assert set(written["machine"]) == {"cpu", "cores", "gpu", "python", "torch"}
    assert written["machine"]["cores"] == os.cpu_count()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", written["commit"])
    assert written["data"] == f"slices of {tmp_path.name}"
    assert str(tmp_path.parent) not in json.dumps(written)
    for row in written["rows"]:
        assert set(row) == {"name", "ours", "peer", "unit", "ratio"}
        assert row["name"] in printed
    assert len({*(row["name"] for row in written["rows"]), f"of process {os.getpid()}"}) == 3


def test_some_benchmarks_are_printed_and_not_written(benchmark, monkeypatch, tmp_path, capsys):
    run = benchmark("run")
    (tmp_path / "fake_one.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run, "describe_machine", dict)  # is another test's, and costs the start of torch
    run.main(run.RunOptions(data=tmp_path, only=("fake_one",)))
    assert "of process" in capsys.readouterr().out
    assert not (tmp_path / "results.json").exists()


def test_every_script_is_part_of_the_run_or_an_experiment(benchmark):
    run = benchmark("run")
    assert set(run.BENCHMARKS) | set(run.EXPERIMENTS) == SCRIPTS - SHARED


def test_every_script_tells_its_command_and_those_of_the_run_have_rows(benchmark):
    run = benchmark("run")
    assert not set(run.BENCHMARKS) & set(run.EXPERIMENTS)
    for name in SCRIPTS - SHARED:
        text = (FOLDER / f"{name}.py").read_text()
        assert f"python benchmarks/{name}.py" in text
        assert bool(re.search(r"^def rows\(", text, flags=re.MULTILINE)) == (name in run.BENCHMARKS)


def test_no_script_hides_a_library():
    """The folder of a script that is run is first on the path."""
    assert not SCRIPTS & {*sys.stdlib_module_names, *packages_distributions()}


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Call a benchmark with the words of a command line, in an empty folder that stays so; returns what it prints."""

    def call_with(module, options: type, *words: object) -> list[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
        module.command(module.main, options)
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out.splitlines()

    return call_with


def test_an_epoch_of_the_sequence_network_is_measured_on_a_tenth_of_the_studies_and_on_all(
    benchmark, call, monkeypatch
):
    """Of four studies a batch, and here; each of the two is to have a process of its own."""
    sequence, measured = benchmark("sequence"), []

    def here(function, *arguments):
        measured.append(function)
        return function(*arguments)

    monkeypatch.setattr(sequence, "separately", here)
    monkeypatch.setattr(sequence, "CONFIG", replace(sequence.CONFIG, batch_size=4))
    flags = ["--studies", "80", "--share", "0.5", "--width", "8", "--device", "cpu"]
    lines = call(sequence, sequence.SequenceOptions, *flags)
    assert measured == [sequence.measure] * 2
    for line, expected in zip(lines[-2:], (4, 40), strict=True):
        studies, slices, seen, _, speed, peak, _ = map(float, line.split())
        assert (studies, slices) == (expected, round(expected * 752_803 / 21_744))
        assert 0.5 * slices < seen < slices  # stretches of half a study to all of it
        assert speed > 0
        assert 50 < peak < 20_000


def test_a_tenth_of_the_studies_that_is_no_batch_is_one_line(benchmark):
    sequence = benchmark("sequence")
    with pytest.raises(InputError, match="a tenth of 100 studies is no batch of 32; raise --studies or --share"):
        sequence.main(sequence.SequenceOptions(studies=100))


def test_the_studies_of_the_sequence_benchmark_have_the_challenges_number_of_slices(benchmark):
    sequence = benchmark("sequence")
    slices = sequence.make_table(1000, 34_621)
    assert len(slices) == 34_621
    assert slices["series_id"].nunique() == 1000
    dataset = sequence.SyntheticDataset(slices, width=8)
    for row in (0, 40, 34_620):
        seen, place, labels = dataset[0, row]
        assert (seen.shape, place.shape, labels.shape) == ((14,), (3,), (6,))
        assert (seen == dataset[1, row][0]).all()
    assert (dataset[0, 0][0] != dataset[0, 1][0]).any()


def test_rows_of_the_context_benchmark_differ_in_what_they_are_named_after_alone(benchmark):
    context = benchmark("context")
    configs = {name: context.config_of(name, 1, 4) for name in context.ROWS if name not in ("smoothing", context.MEAN)}
    assert {config.name for config in configs.values()} == {f"{name}_1" for name in configs}
    assert {config.seed for config in configs.values()} == {1}
    slices = {
        name: replace(configs[name], name="x", channels=configs["single"].channels) for name in ("single", "context")
    }
    slices |= {
        name: replace(configs[f"{name}_one_window"], name="x", channels=configs["single"].channels)
        for name in ("single", "triplet")
    }
    assert len(set(slices.values())) == 1
    assert [str(channel) for channel in configs["triplet_one_window"].channels] == ["40/80@-5mm", "40/80", "40/80@5mm"]
    assert configs["single"].channels == configs["end_to_end"].channels == configs["context"].channels[:3]
    assert (configs["recurrent"].runs, configs["context_recurrent"].runs) == (("single_1",), ("context_1",))
    assert (configs["study"].start, configs["study"].channels) == ("single_1", configs["single"].channels)


def test_the_picture_of_a_study_has_a_line_around_the_blood_of_slices_that_have_some(benchmark, monkeypatch):
    picture = benchmark("context_picture")
    name = identify(0, "train", 0)
    drawn = draw_study(name.seed, SMALL.image_size, name.patient_seed)
    images = [name.image_id(index) for index in range(len(drawn.labels))]
    study = pd.DataFrame({"series_id": name.series_id, "image_id": images, "chunk": range(len(images))})
    study["any"] = [labels[ANY] for labels in drawn.labels]
    said = pd.DataFrame({"any": 0.5}, index=images)
    monkeypatch.setattr(picture, "Series", lambda _: Store(drawn.hounsfield))
    (axis,) = picture.draw(Work(Path()), study, dict.fromkeys(picture.RUNS, said)).axes
    tiles = {tile.get_title(): tile for tile in axis.child_axes}
    lined = {title for title, tile in tiles.items() if any(path.vertices.size for path in contours(tile))}
    assert lined == {title for title in tiles if study["any"][int(title.split()[1]) - 1]}
    assert 0 < len(lined) < len(tiles)
    assert len(axis.lines) == len(picture.RUNS)


def test_the_picture_of_a_study_is_drawn_by_the_version_that_has_drawn_the_study(benchmark, tmp_path):
    picture = benchmark("context_picture")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phantom.json").write_text('{"version": 1}')
    with pytest.raises(InputError, match="of version 1 of the drawing"):
        picture.main(picture.PictureOptions(work=tmp_path))


class Store:
    """Slices (slices, size, size) as the store gives them."""

    def __init__(self, slices: np.ndarray) -> None:
        self.slices = slices

    def read(self, chunk: int) -> np.ndarray:
        return self.slices[chunk]


def contours(axes: Axes) -> list[MatplotlibPath]:
    """All lines of contours within axes."""
    drawn = [each for each in axes.collections if isinstance(each, ContourSet)]
    return [path for each in drawn for path in each.get_paths()]


def scored(value: float) -> Resampled:
    """A run that has this score, of ten patients."""
    return Resampled(np.full(13, value), np.full((1000, 13), value), 10, 0)


def test_an_experiment_tells_the_mean_and_the_spread_of_its_seeds(benchmark, tmp_path, capsys):
    experiment = benchmark("experiment")
    seeds = {"single": [0.3, 0.5, 0.4], "context": [0.2, 0.2, 0.2]}
    rows = {name: experiment.summarise([scored(value) for value in values]) for name, values in seeds.items()}
    assert rows == {"single": {"mean": 0.4, "spread": 0.1}, "context": {"mean": 0.2, "spread": 0}}
    output = tmp_path / "x.json"
    options = experiment.ExperimentOptions(studies=5, epochs=2, output=output)
    experiment.report(options, rows, {"single": "one slice", "context": "three slices"})
    written = json.loads(output.read_text())
    assert set(written) == {"machine", "commit", "settings", "rows"}
    assert written["rows"] == rows
    assert written["settings"] == {"studies": 5, "epochs": 2, "test_studies": 1, "seeds": 3, "folds": 2}
    assert "single                  0.4000    0.1000   one slice\n" in capsys.readouterr().out
    experiment.report(options, {"single": {"mean": 0.5, "spread": 0.1}}, {"single": "one slice"}, under="forty studies")
    experiment.report(options, rows, {"single": "one slice", "context": "three slices"})
    written = json.loads(output.read_text())
    assert written["rows"] == rows
    assert written["others"]["forty studies"]["rows"]["single"]["mean"] == 0.5


@pytest.mark.parametrize(("name", "seeds"), [("context", 3), ("blending", 5)])
def test_committed_results_are_of_the_rows_of_their_benchmark(benchmark, name, seeds):
    written = json.loads((FOLDER / f"{name}.json").read_text())
    assert list(written["rows"]) == list(benchmark(name).ROWS)
    assert re.fullmatch(r"[0-9a-f]{40}", written["commit"])
    assert written["settings"]["seeds"] == seeds


def test_every_way_to_blend_is_a_row_beside_the_chosen_one(benchmark):
    blending = benchmark("blending")
    assert set(blending.ROWS) == {blending.CHOSEN, *WAYS, "b5_like", "b5_like_pseudo"}


def test_b5_is_finetuned_from_its_own_weights_at_a_tenth_of_its_rate(benchmark):
    blending = benchmark("blending")
    config = blending.standin(blending.PRESETS[3], seed=2, epochs=4)
    tuned = blending.finetuned(config, "pseudo_2")
    assert (config.name, tuned.name, tuned.start, tuned.pseudolabels) == ("b5", "b5_pseudo", "b5", "pseudo_2")
    assert (tuned.max_lr, tuned.epochs, tuned.seed) == (config.max_lr / 10, 2, config.seed)


def test_the_chosen_blend_is_compared_on_the_patients_of_all_seeds(benchmark):
    """What it is worse by in one seed and better by in the other is nothing in the mean; proven is each by itself."""
    blending = benchmark("blending")
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(50), 4)
    target = (random.random((200, 6)) < 0.4).astype(float)
    good, bad = np.where(target == 1, 0.7, 0.3), np.where(target == 1, 0.6, 0.4)
    of = {name: resample(target, said, patients) for name, said in (("good", good), ("bad", bad))}
    seeds = [{"by_label": of["bad"], "equal": of["good"]}, {"by_label": of["good"], "equal": of["bad"]}]
    beside = blending.beside_chosen(seeds, "equal")
    assert beside == {"chosen worse by": 0, "low": 0, "high": 0, "proven": 1}
    worse = blending.beside_chosen(seeds[:1], "equal")
    assert worse["chosen worse by"] == pytest.approx(np.log(0.7 / 0.6), abs=1e-4)
    assert worse["low"] > 0
    assert worse["proven"] == 1


def test_what_a_script_costs_to_ask_is_its_cpu_time_and_a_missing_one_is_named(benchmark, tmp_path):
    startup = benchmark("startup")
    assert 0.05 < startup.cpu_seconds(REPOSITORY, "train_b2.py") < 60
    with pytest.raises(InputError, match=r"no .*train_b2\.py"):
        startup.cpu_seconds(tmp_path, "train_b2.py")


def test_scripts_are_compared_that_all_checkouts_have_and_the_others_are_named(
    benchmark, tmp_path, monkeypatch, capsys
):
    startup, old, nothing = benchmark("startup"), tmp_path / "old", tmp_path / "nothing"
    for folder in (old / "models", nothing):
        folder.mkdir(parents=True)
    for name in ("__init__", "score", "train_b2", "gone"):
        (old / "models" / f"{name}.py").touch()
    monkeypatch.setattr(startup, "cpu_seconds", lambda checkout, _: 7.0 if checkout == old else 0.5)
    startup.main(startup.StartupOptions((old,), rounds=1))
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("left out, for not all checkouts have them: ")
    assert {"gone.py", "plan.py", "train_session.py"} <= set(first.partition(": ")[2].split(", "))
    assert lines[:2] == ["score.py 0.50 7.00", "train_b2.py 0.50 7.00"]
    assert len(lines) == 5
    with pytest.raises(InputError, match=r"no script in .*nothing/models; name the folder of a checkout"):
        startup.main(startup.StartupOptions((old, nothing)))


def test_the_last_steps_are_measured_at_any_size_and_written(benchmark, tmp_path, monkeypatch, capsys):
    full_size = benchmark("full_size")
    monkeypatch.setattr(full_size, "separately", lambda function, *arguments: function(*arguments))
    full_size.main(full_size.FullSizeOptions(slices=350, test_slices=70, runs=3, output=tmp_path / "full_size.json"))
    written = json.loads((tmp_path / "full_size.json").read_text())
    assert written["settings"] == {"slices": 350, "test_slices": 70, "runs": 3, "labels": "random"}
    assert len(written["rows"]) == 6
    for row in written["rows"].values():
        assert set(row) == {"s", "s CPU", "GiB"}
    printed = capsys.readouterr().out
    assert "420 rows" in printed
    assert "the same" in printed


def test_people_are_predicted_by_the_last_epoch_which_nobody_has_chosen(benchmark, monkeypatch):
    studies, kept = benchmark("real_studies"), []
    monkeypatch.setattr(studies, "train_quietly", lambda _: kept.append(learner.History(last=False).last))
    studies.train_to_the_end(None)
    assert kept == [True]
    assert learner.History is History
