"""The commands of README.md and docs/ do what the pages say, on a small phantom and with small networks.

Each page is followed from top to bottom in one process, in a folder of its own, with all the flags that it shows; those
that make it small are added. A line that needs what a test cannot have is parsed, and so are commands in sentences.
"""

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tyro
from pages import PAGES, REPOSITORY, Line, commands_in_sentences, pipeline, shell_lines

from models.common.folders import Work
from models.phantom.dicom import write_phantom
from models.preprocessing.tables import read_slices

SIZE = "32"  # pixels, of slices and networks
TINY = ["--network", "small", "--no-pretrained", "--epochs", "1", "--device", "cpu"]
RECIPE = "recipes/strong.sh"
# programs whose words are not this project's
ELSEWHERE = {"make", "kaggle", "unzip", "tensorboard", "sh", "pip", "docker"}
FOLLOWED = [page for page in PAGES if any(line.needs is None for line in shell_lines(page))]


def small(script: str, words: list[str]) -> list[str]:
    """The words of a command, and behind them, where they win, what makes it one of seconds."""
    if script == "make_phantom":
        drawn = [] if "--studies" in words else ["--studies", "12", "--test-studies", "3"]
        return [*words, *drawn, "--image-size", SIZE, "--jobs", "1"]
    if script == "prepare":  # the networks of the tests look at a size of their own
        sizes = words.index("--image-size") if "--image-size" in words else None
        words = [*words, "--image-size", "224", "512"] if sizes is None else words
        place = words.index("--image-size") + 1
        return [*words[:place], SIZE, *words[place:], "--jobs", "1"]
    if script in ("find_files", "export_nifti"):
        return [*words, *(("--jobs", "1") if script == "find_files" else ("--image-size", SIZE))]
    if script == "train_sequence":
        return [*words, "--epochs", "1", "--batch-size", "2", "--device", "cpu"]
    if script.startswith("train_"):
        batch = "2" if script in ("train_b0_recurrent", "train_study") else "16"  # studies, slices
        crop = ["--crop-size", "26"] if script == "train_resnext101" else []
        return [*words, *TINY, "--image-size", SIZE, "--batch-size", batch, *crop]
    return [*words, "--device", "cpu"] if script.startswith("infer_") else words


def call(script: Path, words: list[str]) -> None:
    """Run a script as its own program does, in this process. Raises SystemExit if it ends with an error."""
    arguments, sys.argv = sys.argv, [str(script), *words]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    finally:
        sys.argv = arguments


def execute(command: list[str]) -> None:
    program, *words = command
    if program == "python":
        script = Path(words[0])
        call(script, small(script.stem, words[1:]))
    elif program == "jupyter":
        folder = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        subprocess.run([folder / "jupyter", *words], env=environment, check=True)
    else:
        pytest.fail(f"{' '.join(command)}: a test cannot execute this; say in a comment what it needs")


def follow(line: Line, capfd: pytest.CaptureFixture[str]) -> None:
    """Do what a line says; all that it is to write must be new. Only scores and plans are printed and not written."""
    folder = Path()
    printed = any(script in line.text for script in ("score.py", "plan.py"))
    assert line.writes or printed, f"{line.text}: does not say what it writes"
    already = [pattern for pattern in line.writes if any(folder.glob(pattern))]
    assert already == [], f"{line.text}: is there before"
    capfd.readouterr()
    for command in line.commands:
        execute(command)
    lacking = [pattern for pattern in line.writes if not any(folder.glob(pattern))]
    assert lacking == [], f"{line.text}: is not written"
    assert line.writes or capfd.readouterr().out.strip(), f"{line.text}: prints nothing"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder that holds data/ alone."""
    folder = tmp_path_factory.mktemp("drawn")
    write_phantom(folder / "data", studies=12, test_studies=3, image_size=int(SIZE), jobs=1)
    return folder


@pytest.fixture(scope="module")
def prepared(drawn, tmp_path_factory) -> Path:
    """The same, and cache/."""
    folder = tmp_path_factory.mktemp("prepared") / "work"
    shutil.copytree(drawn, folder)
    prepare = REPOSITORY / "models" / "prepare.py"
    call(prepare, ["--data", str(folder / "data"), "--work", str(folder), "--image-size", SIZE, "--jobs", "1"])
    return folder


@pytest.fixture
def checkout(request, tmp_path, monkeypatch) -> Path:
    """What a reader has before the page that the test is about: a checkout, and what the pages before it have made."""
    page, folder = request.node.callspec.params["page"], tmp_path / "checkout"
    if page in ("README.md", "phantom.md"):
        folder.mkdir()
    elif page == "data.md":
        shutil.copytree(request.getfixturevalue("drawn"), folder)
        slices = read_slices(Work(request.getfixturevalue("prepared")), "train")
        tested = slices["series_id"].isin(slices["series_id"].unique()[:2])
        request.getfixturevalue("add_stage_1")(folder / "data", set(slices.loc[tested, "image_id"]))
    else:
        shutil.copytree(request.getfixturevalue("prepared"), folder)
    for name in ("models", "blending.ipynb"):
        (folder / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(folder)
    for variable in ("RSNA_DATA", "RSNA_WORK"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed_from_top_to_bottom(page, checkout, capsys):
    for line in shell_lines(page):
        if line.needs is None:
            follow(line, capsys)


@pytest.mark.parametrize("page", ["README.md"])
def test_the_pipeline_can_be_followed_from_top_to_bottom(page, checkout, capsys):
    for step, line in enumerate(pipeline()):
        if step == 4:  # needs two runs more, as its third column says
            for name in ("b5", "resnext101"):
                execute(["python", f"models/train_{name}.py"])
                execute(["python", f"models/infer_{name}.py"])
        follow(line, capsys)


@pytest.fixture
def parse(monkeypatch):
    """Reads the words of a command as its script does, and does nothing of what they ask for; the options."""
    read, reached = tyro.cli, []

    def only_read(*arguments, **options):
        reached.append(read(*arguments, **options))
        raise SystemExit(0)

    def parse_command(command: list[str]) -> object:
        place = next(place for place, word in enumerate(command) if word.endswith(".py"))
        script, count = REPOSITORY / command[place], len(reached)
        call(script, command[place + 1 :])
        assert len(reached) > count or "--help" in command
        return reached[-1] if len(reached) > count else None

    monkeypatch.setattr(tyro, "cli", only_read)
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))  # some benchmarks set it
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # and one this
    yield parse_command
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(REPOSITORY / "benchmarks")):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_not_executed_have_the_flags_that_their_scripts_know(page, parse):
    for line in (*shell_lines(page), *commands_in_sentences(page)):
        for command in line.commands:
            if command[0] in ("python", "torchrun"):
                parse(command)
            else:
                assert command[0] in {"jupyter", *ELSEWHERE}, line.text


# ---- recipes/strong.sh ----


def steps_of_recipe(folder: Path, **environment: str) -> list[list[str]]:
    """The commands that the recipe calls, one after the other, as if each of them did what it should."""
    called = folder / "called"
    python = folder / "python"
    python.write_text(f'#!/bin/bash\necho "${{@@Q}}" >> {called}\n')
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), **environment}
    subprocess.run([REPOSITORY / RECIPE], env=environment, check=True, capture_output=True)
    return [shlex.split(line) for line in called.read_text().splitlines()]


@pytest.mark.slow
def test_the_recipe_goes_from_a_raw_folder_to_a_submission_and_skips_what_is_finished(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("RSNA_DATA", str(drawn / "data"))
    monkeypatch.setenv("RSNA_WORK", str(tmp_path))
    steps = steps_of_recipe(tmp_path, SMALL="yes")
    assert len(steps) == 1 + 4 * 2 * 2 + 3
    execute_steps(steps)
    submission = pd.read_csv(tmp_path / "submission.csv")
    tested = read_slices(Work(tmp_path), "test")
    assert len(submission) == 6 * len(tested)
    assert submission["Label"].between(0, 1).all()
    assert (tmp_path / "report_blend.html").is_file()
    blended = json.loads((tmp_path / "blend" / "blend.json").read_text())
    assert set(blended["folds"]) == {"convnext", "effnetv2", "sequence", "study"}

    kept = ("runs/*/*/model.safetensors", "runs/*/*/valid.parquet", "runs/*/*/test.parquet")
    files = {path: path.stat().st_mtime_ns for pattern in kept for path in tmp_path.glob(pattern)}
    assert len(files) == 3 * 8
    execute_steps(steps)
    assert {path: path.stat().st_mtime_ns for path in files} == files


def execute_steps(steps: list[list[str]]) -> None:
    for script, *words in steps:
        call(Path(script), words + (["--device", "cpu"] if Path(script).stem.startswith(("train_", "infer_")) else []))


def test_the_small_recipe_is_of_one_process_however_many_gpus_there_are(tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    assert steps_of_recipe(many, SMALL="yes", GPUS="8") == steps_of_recipe(one, SMALL="yes")


@pytest.mark.parametrize("gpus", ["1", "8"])
def test_the_flags_of_the_recipe_are_known_to_its_scripts(gpus, tmp_path, parse):
    steps = steps_of_recipe(tmp_path, GPUS=gpus)
    assert len(steps) == 1 + 4 * 5 * 2 + 3
    for step in steps:
        parse(step)
    shared = [step for step in steps if step[:2] == ["-m", "torch.distributed.run"]]
    assert len(shared) == (0 if gpus == "1" else 4 * 5 * 2)


@pytest.mark.parametrize("gpus", ["2", "3", "8"])
def test_all_gpus_share_a_training_of_the_recipe_or_as_many_as_its_batch_can_be_divided_among(gpus, tmp_path, parse):
    trained = [step for step in steps_of_recipe(tmp_path, GPUS=gpus) if "/train_" in " ".join(step)]
    assert len(trained) == 4 * 5
    for step in trained:
        count = int(step[step.index("--nproc-per-node") + 1])
        assert count == min(int(gpus), parse(step).config.batch_size)
