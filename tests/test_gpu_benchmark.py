"""Laws of benchmarks/gpu.py: whatever fails is a row with its reason, time is kept, and a kill loses nothing."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from once import linked

from models.common.errors import InputError
from models.common.folders import Work
from models.preprocessing.tables import read_slices

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "benchmarks"
FIELDS = {"preset", "network", "size", "batch", "precision", "channels_last", "compile", "published", "seconds", "why"}


@pytest.fixture
def modules(monkeypatch):
    """Imports a module of the folder, as it is imported when it stands first on the path."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as the script does, but not for the other tests
    yield import_module
    for name in set(sys.modules) - before & {path.stem for path in FOLDER.glob("*.py")}:
        del sys.modules[name]


@pytest.fixture
def rows(modules):
    return modules("gpu_rows")


@pytest.fixture
def setting(rows):
    return rows.Setting("b0", "auto", True, False, ("alone", "both", "loader"))


@pytest.fixture
def measure(rows, setting, monkeypatch, tmp_path):
    """Measure the setting, by a stand-in whose numbers are the given functions or values."""

    def measured(limit: float = 60, **numbers):
        class Stub:
            precision = "fp16"

            def __init__(self, *_):
                for name, number in numbers.items():
                    setattr(self, name, number if callable(number) else lambda said={name: number}: said)

        monkeypatch.setattr(rows, "Measurement", Stub)
        monkeypatch.setattr(rows, "START", 1.0)
        options = rows.RowOptions(Work(tmp_path), "cpu", seconds=0.0)
        return rows.measured_row(setting, options, limit, None)

    return measured


def failing(*_):
    raise RuntimeError("CUDA error:\n an illegal memory access")


def sleeping(*_):
    subprocess.Popen(["sleep", "60"]).wait()


def dying(*_):
    os._exit(7)


def require_whole(row, rows):
    """Every number is there, or its reason."""
    assert set(row) == FIELDS | set(rows.NUMBERS)
    assert {name for name in rows.NUMBERS if row[name] is None} == set(row["why"])
    assert all(row["why"].values())


def test_efficiency_is_that_of_both_beside_the_slower(measure, rows):
    row = measure(alone=200.0, both=90.0, loader=100.0)
    require_whole(row, rows)
    assert row["efficiency"] == 0.9
    assert row["why"]["d4"] == "not asked of this setting"
    assert row["precision"] == "fp16"  # what it was computed in
    rates = {"A100": 2489, "RTX 3090": 1752, "V100": 1301}
    assert row["published"] == {card: round(rate * (224 / 512) ** 2) for card, rate in rates.items()}


def test_a_number_that_fails_is_a_reason_and_the_others_are_measured(measure, rows):
    row = measure(alone=failing, both=90.0, loader=100.0)
    require_whole(row, rows)
    assert (row["alone"], row["both"], row["efficiency"]) == (None, 90, None)
    assert row["why"]["alone"] == "error: RuntimeError: CUDA error: an illegal memory access"


def test_what_cannot_even_be_made_is_a_reason(measure, rows, monkeypatch):
    measure(alone=200.0)
    monkeypatch.setattr(rows, "Measurement", failing)
    row = rows.measured_row(
        rows.Setting("b0", "bf16", True, False, ("alone",)), rows.RowOptions(Work(Path())), 60, None
    )
    require_whole(row, rows)
    assert row["why"]["alone"].startswith("error: RuntimeError: CUDA error")


def test_a_process_that_dies_is_a_reason_and_what_it_had_told_stays(measure, rows):
    row = measure(alone=200.0, both=dying, loader=100.0)
    require_whole(row, rows)
    assert (row["alone"], row["both"], row["loader"]) == (200, None, None)
    assert row["why"]["both"] == row["why"]["loader"] == "error: its process has ended with 7"


def test_a_process_is_ended_at_its_limit_with_what_it_has_started(measure, rows):
    began = time.monotonic()
    row = measure(limit=1.5, alone=200.0, both=sleeping)
    require_whole(row, rows)
    assert time.monotonic() - began < 30
    assert (row["alone"], row["both"]) == (200, None)
    assert row["why"]["both"] == "left out: time, not done after 2 s"


def test_a_row_ends_when_it_is_done_though_its_loaders_still_live(measure, rows):
    def with_a_loader(*_):
        if os.fork() == 0:  # it holds the connection open, and is ended with the row
            time.sleep(60)
            os._exit(0)
        return {"both": 90.0}

    row = measure(alone=200.0, both=with_a_loader, loader=100.0)
    require_whole(row, rows)
    assert row["both"] == 90
    assert row["seconds"] < 30
    assert "left out" not in row["why"]["d4"]


def test_what_has_no_time_left_is_not_begun(measure, rows):
    row = measure(limit=0.5, alone=200.0)
    require_whole(row, rows)
    assert row["alone"] is None
    assert row["why"]["alone"].startswith("left out: time")
    assert row["precision"] == "auto"


def test_what_matters_most_comes_first_and_all_is_asked_for(rows):
    presets = ("b0_224", "b0", "b2", "b5", "resnext101")
    settings = rows.settings(presets)
    assert [one.preset for one in settings[:5]] == list(presets)
    assert all(set(one.asked) == {"loader", "alone", "both", "d4"} for one in settings[:5])
    for preset in presets:
        ways = {one[1:4] for one in settings if one.preset == preset}
        assert ways == {("auto", True, False), ("fp16", True, False), ("auto", False, False), ("auto", True, True)}
    planned_by = [one for one in settings if {"both", "d4"} <= set(one.asked)]  # of which models/plan.py takes one
    assert {one.config(False).precision for one in planned_by} == {import_module("models.train_b2").CONFIG.precision}
    assert sum(one.needs(5.0) for one in settings if not one.compile) < 360  # seconds, of eight minutes
    assert settings[-1].compile


@pytest.mark.parametrize("name", ["sequence", "b22"])
def test_a_preset_that_looks_at_no_images_or_is_misspelt_is_one_line_before_any_work(name, modules, tmp_path):
    gpu = modules("gpu")
    message = rf"no preset '{name}' that looks at images; name one of b0, b0_224, "
    with pytest.raises(InputError, match=message):
        gpu.make_store(Work(tmp_path), gpu.GpuOptions(tmp_path, ("small", name)))
    assert list(tmp_path.iterdir()) == []


# ---- the tests in it ----

SOME = """
import os, time, pytest
pytestmark = pytest.mark.gpu
def test_passes(): assert os.environ["GPU_TESTS_DEVICE"] == "cuda:3"
@pytest.mark.parametrize("word", ["a word"])
def test_fails(word): assert word == "another"
@pytest.mark.skip(reason="no tool")
def test_skipped(): pass
"""


def test_the_tests_are_told_by_their_outcome(modules, tmp_path):
    (tmp_path / "test_some.py").write_text(SOME)
    told = modules("gpu_tests").tested(tmp_path / "test_some.py", "cuda:3", tmp_path / "log", limit=120)
    assert told["outcomes"] == {"test_passes": "passed", "test_fails[a word]": "failed", "test_skipped": "skipped"}
    assert told["counts"] == {"failed": 1, "passed": 1, "skipped": 1}
    assert (told["well"], told["why"]) == (False, None)
    assert any("another" in line for line in told["said"])


def test_tests_that_hang_are_ended_and_those_before_are_told(modules, tmp_path):
    (tmp_path / "test_some.py").write_text(f"{SOME}\ndef test_hangs(): time.sleep(600)")
    for limit in (5, 20, 80, 320):  # the first in which a busy machine comes to the one that hangs
        began = time.monotonic()
        told = modules("gpu_tests").tested(tmp_path / "test_some.py", "cuda:3", tmp_path / "log", limit)
        assert time.monotonic() - began < 2 * limit + 30
        assert (told["well"], told["why"]) == (False, f"left out: time, not done after {limit} s")
        if told["counts"]:
            break
    assert told["counts"] == {"failed": 1, "passed": 1, "skipped": 1}


def test_a_file_that_cannot_be_imported_is_told(modules, tmp_path):
    (tmp_path / "test_some.py").write_text("import no_such_package")
    told = modules("gpu_tests").tested(tmp_path / "test_some.py", "cpu", tmp_path / "log", limit=120)
    assert (told["well"], told["why"]) == (False, "error: no test was begun")
    assert any("no_such_package" in line for line in told["said"])


# ---- all of it ----


def test_the_series_of_the_store_stand_there_under_many_names(modules, few, tmp_path):
    work = linked(few, tmp_path)
    slices, table = read_slices(few, "train"), work.metadata("train")
    work.slices(64).unlink()
    work.slices(64).mkdir()
    for file in few.slices(64).resolve().iterdir():
        os.link(file, work.slices(64) / file.name)
    table.unlink()
    table.symlink_to(few.metadata("train").resolve())
    count = slices["series_id"].nunique()
    modules("gpu").multiply(work, [64], 3 * count)
    many = read_slices(work, "train")
    assert many["series_id"].nunique() == 3 * count
    assert len(many) == 3 * len(slices)
    assert all(work.series(64, name).is_file() for name in many["series_id"].unique())
    assert len(read_slices(few, "train")) == len(slices)


def test_without_a_gpu_it_is_one_line(modules, tmp_path, monkeypatch):
    gpu = modules("gpu")
    monkeypatch.setattr(gpu, "separately", lambda *_: {"gpu": None})
    with pytest.raises(InputError, match="no CUDA device here; --device cpu --quick rehearses without one"):
        gpu.main(gpu.GpuOptions(tmp_path))


def test_the_card_is_the_one_that_is_measured_and_none_where_a_cpu_is(modules, monkeypatch):
    gpu, cards = modules("gpu"), ["NVIDIA H100 80GB HBM3", "Tesla T4"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(cards))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: cards[getattr(device, "index", None) or 0])
    for device, card in (("cuda:0", cards[0]), ("cuda", cards[0]), ("cuda:1", cards[1]), ("cpu", None)):
        machine = gpu.describe_machine(device)
        assert gpu.described(machine, gpu.GpuOptions(Path(), device=device))["card"] == card
    with pytest.raises(InputError, match="--device cuda:2 is not there"):
        gpu.describe_machine("cuda:2")


def test_the_whole_script_on_the_cpu(modules, prepared, tmp_path, monkeypatch, capsys):
    """Of the small network on a store that is there; the torture runs the rest too."""
    gpu = modules("gpu")
    machine = {"gpu": None, "cpu": "some", "python": "3", "torch": "2"}
    monkeypatch.setattr(gpu, "separately", lambda *_: machine)
    monkeypatch.setattr(gpu, "make_store", lambda work, _: linked(prepared, work.root))
    monkeypatch.setattr(gpu.gpu_rows.Setting, "config", small)
    tests = tmp_path / "test_some.py"
    tests.write_text("import pytest\n@pytest.mark.gpu\ndef test_passes(): pass")
    options = gpu.GpuOptions(
        tmp_path / "out", ("small",), seconds=0.0, device="cpu", tests=tests, quick=True, compile=False, commit="abc"
    )
    assert gpu.main(options) == 0
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert (written["commit"], written["card"], written["quick"]) == ("abc", None, True)
    assert {"driver", "torch", "cuda", "date", "cores", "anchors"} < set(written)
    assert written["tests"]["counts"] == {"passed": 1}
    assert len(written["rows"]) == 3
    for row in written["rows"]:
        require_whole(row, gpu.gpu_rows)
        assert row["alone"] > 0
        assert not any("error" in reason for reason in row["why"].values()), row["why"]
    first = written["rows"][0]
    assert min(first["loader"], first["both"], first["efficiency"], first["d4"]) > 0
    assert {row["loader"] for row in written["rows"]} == {first["loader"]}
    printed = capsys.readouterr().out
    assert {row["precision"] for row in written["rows"]} == {"fp32"}  # of a CPU
    assert printed.count("fp32, channels first") == 2  # as it is measured, and in the table


def small(setting, _):
    config = import_module(f"models.train_{setting.preset}").CONFIG
    return replace(config, batch_size=4, precision=setting.precision)


def test_a_number_that_could_not_be_measured_makes_it_fail(modules):
    gpu = modules("gpu")
    row = {"why": {"both": "left out: time, not done after 2 s"}}
    assert gpu.went_well({"tests": None, "rows": [row]})
    assert not gpu.went_well({"tests": {"well": False}, "rows": [row]})
    assert not gpu.went_well({"tests": None, "rows": [row, {"why": {"both": "error: RuntimeError"}}]})


@pytest.mark.torture
def test_importing_all_of_it_never_asks_for_a_gpu():
    """A process that has touched the card cannot be forked into one that uses it."""
    code = """
import torch, sys
def asked(*_, **__): raise AssertionError("a GPU is asked for while modules are imported")
torch._C._cuda_getDeviceCount = torch.cuda._lazy_init = torch.cuda.is_available = torch.cuda.device_count = asked
sys.path.insert(0, "benchmarks")
import gpu, pretrainedmodels, torch._dynamo
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=REPOSITORY, check=True)


@pytest.mark.torture
def test_the_whole_command_with_every_preset_on_the_cpu(tmp_path):
    """But for compilation, whose compiler takes minutes for each network."""
    flags = ["--output", tmp_path, "--device", "cpu", "--quick", "--seconds", "0", "--no-compile"]
    flags += ["--minutes", "60", "--test-minutes", "30"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "gpu.py"), *map(str, flags)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["tests"]["counts"]["passed"] >= 9
    assert [row["preset"] for row in written["rows"]] == ["b0_224", "b0", "b2", "b5", "resnext101"] * 3
    assert all(row["alone"] > 0 for row in written["rows"])
