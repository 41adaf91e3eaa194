"""The session of Kaggle's: its notebook runs from the competition's files to a submission, as Kaggle lays them out."""

import json
import os
import re
import resource
import sys
import sysconfig
import time
import venv
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType, SimpleNamespace

import nbformat
import pandas as pd
import pytest
from imported import import_script
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from once import HANG
from packaging.requirements import Requirement
from packed import build_wheel, packed_again

from models import train_session, train_session_sequence
from models.common import steps
from models.common.errors import InputError
from models.common.session import UNFINISHED
from models.common.steps import Steps
from models.phantom.dicom import write_phantom
from models.plan import PlanOptions, measured_milliseconds, speed_of
from models.preprocessing.raw import NESTED, find_raw
from models.training.planning import CHALLENGE, MARGIN, MOST_EPOCHS, epochs_within, plan, plan_of_prepare

REPOSITORY = Path(__file__).parent.parent
KAGGLE = REPOSITORY / "kaggle"
ATTACHED = "tyro"  # a package that the image lacks, and that comes from the attached wheels
TINY = {
    "FOLDS = range(5)": "FOLDS = range(1)",
    "IMAGE_SIZE = 224": "IMAGE_SIZE = 32",
    "CORES = 4": "CORES = 1",  # threads of which some wait for a core wait for each other most of the time
    "TRAIN, SEQUENCE = [], []": (
        'TRAIN = "--network small --no-pretrained --batch-size 16 --tta none".split()\n'
        'SEQUENCE = "--views none --epochs 1 --batch-size 2".split()'
    ),
}
NO_NETWORK = """
import socket
connect = socket.socket.connect
def only_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise OSError(101, f"Network is unreachable: {address}")
    return connect(self, address)
def nobody(*names, **_):
    raise socket.gaierror(-3, f"Temporary failure in name resolution: {names}")
socket.socket.connect = only_here
socket.getaddrinfo = nobody
"""


def notebook() -> nbformat.NotebookNode:
    read = nbformat.read(KAGGLE / "session.ipynb", as_version=4)
    nbformat.validate(read)
    return read


def code_cells() -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook().cells if cell.cell_type == "code"]


def test_the_notebook_is_short_and_committed_without_outputs():
    cells = code_cells()
    assert len(cells) <= 12
    for cell in cells:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert not re.search(r"^\s*(def|class) |^\s*[%!]", cell.source, re.MULTILINE), cell.source


def test_every_script_that_the_notebook_runs_is_there():
    text = "\n".join(cell.source for cell in code_cells())
    named = {*re.findall(r'session\.run(?:_folds)?\("(\w+)"', text), *re.findall(r'\("(score|blend|report)", ', text)}
    assert {"prepare", "train_session", "infer_session_sequence", "blend", "report"} <= named
    assert all((REPOSITORY / "models" / f"{name}.py").is_file() for name in named)


def test_what_kaggle_is_asked_for_is_what_the_notebook_looks_for():
    metadata = json.loads((KAGGLE / "kernel-metadata.json").read_text())
    assert (KAGGLE / metadata["code_file"]).is_file()
    assert metadata["competition_sources"] == [NESTED]
    assert (metadata["machine_shape"], metadata["enable_gpu"]) == ("NvidiaTeslaT4", True)
    collected = (KAGGLE / "collect_wheels.py").read_text()
    assert [f'"id": "{name}"' in collected for name in metadata["dataset_sources"]] == [True]


def test_from_nothing_to_a_late_submission_are_six_lines():
    page = (KAGGLE / "README.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = block.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("make kaggle-wheels ")
    assert re.search(r"^kaggle-wheels:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert lines[-1].startswith(f"kaggle competitions submit {NESTED} -f session/submission.csv")
    named = set(re.findall(r"`(\w+\.(?:py|ipynb))`", page))
    assert named
    assert all(any(REPOSITORY.glob(f"*/{name}")) for name in named)


def test_the_figures_of_the_page_are_the_planners():
    page, milliseconds = (KAGGLE / "README.md").read_text(), measured_milliseconds("prepare_vs_fastai")[0]
    config, over = train_session.CONFIG, train_session_sequence.CONFIG
    planned = partial(
        plan,
        slices=CHALLENGE,
        speed=speed_of(config, PlanOptions("session", "t4")),
        prepare=plan_of_prepare(224, CHALLENGE, milliseconds, 4, ""),
        gpus=2,
        sequence_epochs=over.epochs,
        views=over.views,
        side_by_side=True,
    )
    lines = {line.step: line for line in planned(config)}
    prepare = lines["prepare.py --image-size 224"]
    train, infer, seen = (lines[f"{step}, 5 folds"] for step in ("train, 5 epochs", "infer, D4", "embeddings, flip"))
    for hours, told in ((10, "the 10 that are left hold 5 epochs"), (7, "the 7 that are left hold 2")):
        assert told in " ".join(page.split())
        assert told.split(" hold ")[1].split()[0] == str(epochs_within(hours, config, planned))
    assert config.epochs == epochs_within(10, config, planned)
    assert "a tenth kept back; one at least, ten at most" in " ".join(page.split())
    assert (MARGIN, MOST_EPOCHS) == (0.1, 10)
    assert f"| {prepare.disk:.1f} GB | {prepare.seconds / 60:.0f} min of four cores" in page
    assert f"| {train.seconds / 3600:.1f} h | {train.seconds / 3600:.1f} |" in page
    assert f"| {infer.seconds / 60:.0f} min | {infer.seconds / 3600:.1f} |" in page
    assert f"| {seen.disk:.1f} GB | {seen.seconds / 60:.0f} min | {seen.seconds / 3600:.1f} |" in page
    whole = plan_of_prepare(512, CHALLENGE, milliseconds, 4, "").disk
    parts = f"ten parts of {whole / 10:.0f} GB are kept outputs; four parts of {whole / 4:.0f} GB"
    assert f"the whole is {whole:.0f} GB: {parts}" in " ".join(page.split())


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    """The script that collects the wheels."""
    return import_script(KAGGLE / "collect_wheels.py")


@pytest.fixture
def pip(collect, tmp_path, monkeypatch) -> list[tuple[object, ...]]:
    """The words of each call of pip, in whose place a file is written; the folder of the wheels is another one."""
    called: list[tuple[object, ...]] = []

    def note(step: str, folder: Path, *words: object) -> None:
        called.append((step, *words))
        (folder / f"{len(called)}.whl").touch()

    monkeypatch.setattr(collect, "FOLDER", tmp_path / "wheels")
    monkeypatch.setattr(collect, "pip", note)
    monkeypatch.setattr(collect, "copy_weights", lambda folder: (folder / "hub").mkdir())
    return called


def test_the_wheels_are_of_all_that_a_training_imports(collect):
    for python in collect.PYTHONS:
        found = collect.needed(collect.REQUIRED, python)
        assert {*collect.SOURCES, "fastai", "timm", "safetensors", "pydicom", "scikit-learn"} <= set(found)
        assert not any(name.startswith(("torch", "nvidia")) for name in found)


def test_what_an_extra_requires_is_collected_though_the_package_was_asked_for_without_it_before(collect):
    """The chain is that of blosc2, which asks for httpx[http2]."""
    found = collect.needed(collect.REQUIRED, "3.11.13")
    assert {"httpx", "h2", "hpack", "hyperframe"} <= set(found)
    for asked in (["httpx", "httpx[http2]"], ["httpx[http2]", "httpx"]):
        assert {"httpcore", "h2"} <= set(collect.needed(asked, "3.11.13"))
    assert "h2" not in collect.needed(["httpx"], "3.11.13")
    assert collect.applies(Requirement("h11; extra != 'http2'"), "3.11.13", {"http2"})  # without it, too


def test_versions_are_those_of_each_python_whichever_of_them_this_is(collect, pip, monkeypatch):
    here = collect.requires

    def requires(name: str) -> list[str] | None:
        if name == "importlib-resources":  # which is not installed beside Python 3.12
            raise PackageNotFoundError(name)
        return here(name)

    monkeypatch.setattr(collect, "requires", requires)
    collect.main()
    older, newer = ({str(word) for word in words} for step, *words in pip if step == "download")
    assert {"3.11.13", "imagecodecs==2026.3.6"} <= older
    assert {"3.12.11", "imagecodecs==2026.10.10"} <= newer
    assert any(word.startswith("importlib-resources==") for word in older)
    assert not any(word.startswith("importlib-resources==") for word in newer)


def test_the_wheels_of_before_stay_until_the_new_ones_are_complete(collect, pip, tmp_path, monkeypatch):
    collect.main()
    whole = {path.name for path in (tmp_path / "wheels").iterdir()}
    assert {"1.whl", "dataset-metadata.json", "hub"} < whole

    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]

    def fails(*_) -> None:
        raise CalledProcessError(1, "pip")

    monkeypatch.setattr(collect, "collect", fails)
    with pytest.raises(CalledProcessError):
        collect.main()
    assert {path.name for path in (tmp_path / "wheels").iterdir()} == whole
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert {"/kaggle/wheels/", "/kaggle/wheels_new/"} <= set(ignored)


# ---- cells of the notebook ----


def cell(text: str) -> str:
    """The only one that holds a text."""
    (found,) = (cell.source for cell in code_cells() if text in cell.source)
    return found


def test_a_card_that_torch_has_no_kernels_for_is_refused_before_any_work(monkeypatch, tmp_path):
    """A P100 beside one that can compute."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5) if device.index == 0 else (6, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {"HOURS": 1.0, "KEEP_FREE_GB": 1.0, "PART": None, "CORES": 4}
    settings |= {"WORK": tmp_path, "SCRATCH": tmp_path / "temp", "wheels": tmp_path, "earlier": []}
    with pytest.raises(
        InputError, match=r"card 1 has compute capability 6\.0, .* take another card \(on Kaggle T4 x2\)"
    ):
        exec(cell("import torch"), {"os": os, **settings})
    assert list(tmp_path.iterdir()) == []


def test_epochs_are_counted_with_the_flags_that_the_training_is_given():
    asked = []
    session = SimpleNamespace(epochs=lambda *words: asked.extend(words) or 3)
    told = {"goes_on": True, "session": session, "IMAGE_SIZE": 224, "FOLDS": range(5), "devices": ["cpu"]}
    told["TRAIN"] = ["--network", "efficientnet-b5", "--batch-size", "12"]
    exec(cell("session.epochs("), told)
    assert asked == ["session", range(5), ["cpu"], "--image-size", 224, *told["TRAIN"]]
    assert told["epochs"] == ["--epochs", 3]


# ---- the notebook, executed ----


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder as /kaggle: input/ with the competition's files and wheels, working/, temp/, and a home beside them."""
    root = tmp_path_factory.mktemp("kaggle")
    for name in ("working", "temp", "home", "blocked", f"input/{NESTED}", "input/wheels"):
        (root / name).mkdir(parents=True)
    write_phantom(root / "input" / NESTED / NESTED, studies=12, test_studies=2, image_size=32, seed=0, jobs=1)
    build_wheel(tmp_path_factory.mktemp("wheel")).rename(
        root / "input" / "wheels" / "rsna_intracranial_hemorrhage-0.1.0-py3-none-any.whl"
    )
    packed_again(ATTACHED, root / "input" / "wheels")
    (root / "blocked" / "sitecustomize.py").write_text(NO_NETWORK)
    return root


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The Python of an image that has all packages but this project and one that it requires."""
    root = tmp_path_factory.mktemp("image")
    venv.create(root, symlinks=True)
    packages = root / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(rf"rsna|__editable__|{ATTACHED}\b|{ATTACHED}-", path.name):
            (packages / path.name).symlink_to(path)
    site = next((root / "lib").glob("python3*/site-packages"))
    (site / "image.pth").write_text(f"{packages}\n")
    return root / "bin" / "python"


def execute(place: Path, image: Path, changes: dict[str, str]) -> str:
    """Run the notebook in working/, with nothing of this environment but its packages; all that it has said."""
    text, changed = notebook(), dict(changes)
    for cell in text.cells:
        for old in [old for old in changed if old in cell.source]:
            cell.source = cell.source.replace(old, changed.pop(old))
    assert changed == {}
    kernel = place / "kernels" / "image"
    kernel.mkdir(parents=True, exist_ok=True)
    argv = [str(image), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "image", "language": "python"}))
    specs = KernelSpecManager(kernel_dirs=[str(kernel.parent)], ensure_native_kernel=False)
    runtime = place / "home" / "runtime"
    runtime.mkdir(exist_ok=True)
    manager = AsyncKernelManager(
        kernel_name="image", kernel_spec_manager=specs, connection_file=str(runtime / f"kernel-{time.time_ns()}.json")
    )
    environment = {
        "HOME": str(place / "home"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(place / "blocked"),
        "CUDA_VISIBLE_DEVICES": "",
        "LANG": "C.UTF-8",
    }
    resources = {"metadata": {"path": str(place / "working")}}
    client = NotebookClient(text, km=manager, resources=resources, timeout=HANG, startup_timeout=HANG)
    client.execute(env=environment, cleanup_kc=True)
    return "\n".join(
        output.get("text", "") for cell in text.cells if cell.cell_type == "code" for output in cell.outputs
    )


@pytest.mark.slow
def test_the_notebook_goes_from_the_competitions_files_to_a_submission_without_a_network(place, image):
    """In two sessions: one without a GPU that makes a half of the cache, and one with its output attached."""
    began, working = cpu_seconds(), place / "working"
    said = execute(place, image, TINY | {"PART = None": 'PART = "1/2"'})
    assert re.search(rf"installed: rsna-intracranial-hemorrhage 0\.1\.0, {ATTACHED} \d", said)
    assert re.search(r"of the image: .*\bnumpy \d.*\btorch \d", said)
    assert "part 1/2 is prepared; save this version, and attach its output" in said
    assert {path.name for path in working.iterdir() if not path.name.startswith(".")} == {"cache", "pseudonyms.key"}
    working.rename(place / "input" / "half")
    working.mkdir()

    before = {path: path.stat().st_mtime_ns for path in (place / "input").rglob("*")}
    said = execute(place, image, TINY)
    assert re.search(r"earlier sessions: \S+/input/half\n", said)
    assert re.search(r"^session: 10 epochs, what 1[01]\.\d hours hold: ", said, re.MULTILINE)
    assert "epoch 10 of 10" in said
    raw = find_raw(place / "input" / NESTED)
    assert raw.root.name == raw.root.parent.name == NESTED
    sample = pd.read_csv(raw.sample_submission)
    submission = pd.read_csv(working / "submission.csv")
    assert list(submission["ID"]) == list(sample["ID"])
    assert submission["Label"].between(0, 1).all()
    assert "<html" in (working / "report_blend.html").read_text()
    assert "submit it: kaggle competitions submit" in said
    for name in ("session", "session_sequence"):
        assert (working / "runs" / name / "fold0" / "test.parquet").is_file()
    assert not (working / "cache").exists()  # it lay in the scratch
    stores = list((place / "temp" / "cache" / "slices_32").glob("*.slices"))
    assert 0 < sum(store.is_symlink() for store in stores) < len(stores) == 14  # those of the other session are linked
    assert {path: path.stat().st_mtime_ns for path in (place / "input").rglob("*")} == before
    assert not list(working.glob("kernel-*"))
    assert cpu_seconds() - began < 600


def cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU")
    return used.ru_utime + used.ru_stime


# ---- the steps ----


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    """In place of the scripts: one that notes its words and the time, and ends with the code that a file names."""
    fake = tmp_path / "fake"
    fake.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(__file__).parent\n"
        "with (folder / 'words').open('a') as file:\n"
        "    file.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "print('said by', sys.argv[2])\n"
        "code = folder / sys.argv[2]\n"
        "sys.exit(int(code.read_text()) if code.exists() else 0)\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(steps.sys, "executable", str(fake))
    return tmp_path


def test_each_step_is_told_what_is_left_of_the_hours_and_where_earlier_sessions_lie(scripts):
    session = Steps(Path("working"), 2.0, 1.5, [Path("last"), Path("part")])
    assert session.run("prepare", "--image-size", 224)
    (words,) = (scripts / "words").read_text().splitlines()
    own, _, budget = words.rpartition(" --budget-hours ")
    flags = "--image-size 224 --work working --keep-free-gb 1.5 --work-from last part"
    assert own == f"-m models.prepare {flags}"
    assert 1.9 < float(budget) <= 2


def test_a_step_that_is_not_finished_is_told_and_none_is_begun_after_the_hours(scripts, capsys):
    (scripts / "models.train_small").write_text(str(UNFINISHED))
    session = Steps(scripts, 1.0)
    assert not session.run("train_small")
    session.end = time.monotonic()
    assert not session.run("infer_small")
    assert session.unfinished == ["train_small", "infer_small"]
    assert "models/infer_small.py is not finished: the hours of this session are over" in capsys.readouterr().out
    assert len((scripts / "words").read_text().splitlines()) == 1


def test_a_fold_on_each_device_and_what_is_said_beside_the_first_is_in_a_log(scripts):
    assert Steps(scripts, 1.0).run_folds("train_small", range(4), ["cuda:0", "cuda:1"], "--epochs", 3)
    lines = (scripts / "words").read_text().splitlines()
    told = {re.search(r"--fold (\d) --device (cuda:\d) --epochs 3", line).groups() for line in lines}
    assert {fold for fold, _ in told} == {"0", "1", "2", "3"}
    assert {device for _, device in told} == {"cuda:0", "cuda:1"}
    logged = {file.name for file in scripts.glob("log_*")}
    assert logged == {f"log_train_small_fold{fold}.txt" for fold, device in told if device == "cuda:1"}


def test_how_many_epochs_the_hours_hold_is_what_the_planner_says_last(scripts, capsys):
    fake, answer = scripts / "fake", scripts / "answer"
    python = fake.read_text().splitlines()[0]
    fake.write_text(f"{python}\nimport sys\nprint(*sys.argv[1:])\nprint(open({str(answer)!r}).read())\n")
    session = Steps(Path("working"), 2.0, 1.5, [Path("last")])
    answer.write_text("session: 3 epochs, what 2.0 hours hold: 1.7 with all that comes after, and a tenth kept back\n")
    assert session.epochs("session", range(4), ["cuda:0", "cuda:1"], "--image-size", 32) == 3
    words, told = capsys.readouterr().out.splitlines()[:2]
    hours = re.search(r" --hours ([\d.]+)", words)
    assert 1.9 < float(hours[1]) <= 2
    assert words.replace(hours[0], "") == (
        "-m models.plan --preset session --measure --device cuda:0 --own --folds 4 --gpus 2 --side-by-side "
        "--work working --work-from last --image-size 32"
    )
    assert told.startswith("session: 3 epochs, ")
    session.epochs(
        "session", range(4), ["cpu"], "--network", "small", "--augment", "hard", "--batch-size=12", "--no-ema"
    )
    assert capsys.readouterr().out.splitlines()[0].endswith("--work-from last --network small --batch-size=12")
    answer.write_text("session: 1 epoch, with which last/runs/session/fold0 was begun\n")
    assert Steps(Path("working"), 0.0).epochs("session", range(1), ["cpu"]) == 1
    answer.write_text("session: 4 epochs were not what it said last\nelse")
    with pytest.raises(InputError, match=r"models/plan.py has failed: see what it has said above, mend that and run"):
        session.epochs("session", range(4), ["cpu"])


def test_a_step_that_fails_ends_the_session_with_what_to_do(scripts):
    (scripts / "models.train_small").write_text("1")
    with pytest.raises(
        InputError, match=r"models/train_small.py has ended with 1: see what it has said above, mend that"
    ):
        Steps(scripts, 1.0).run("train_small")
    with pytest.raises(InputError, match=r"has ended with 1: see "):
        Steps(scripts, 1.0).run_folds("train_small", range(2), ["cuda:0", "cuda:1"])
