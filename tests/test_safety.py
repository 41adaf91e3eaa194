"""Opening a file never runs code: nothing in the sources can unpickle or evaluate, and payloads are refused."""

import ast
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import blosc2
import nbformat
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from models.common.errors import InputError
from models.common.files import hash_file, write_json
from models.common.folders import Work
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference.predict import infer
from models.preprocessing.store import Series
from models.preprocessing.tables import read_slices
from models.train_b0_224 import CONFIG as B0
from models.train_small import CONFIG as SMALL
from models.training.checkpoint_files import Checkpoint, read_checkpoint, write_checkpoint
from models.training.networks import ARCHITECTURES, build_network, load_initial_weights
from models.training.run import train
from models.training.run_record import read_run, save_config
from models.training.weights import load_trained

REPOSITORY = Path(__file__).parent.parent
SOURCES = sorted([*REPOSITORY.glob("*.py"), *REPOSITORY.glob("models/**/*.py"), *REPOSITORY.glob("benchmarks/**/*.py")])
NOTEBOOKS = sorted(REPOSITORY.glob("*.ipynb"))
TRUSTED = REPOSITORY / "models" / "training" / "pretrained.py"  # alone may call torch.load, with weights_only

MODULES = {"pickle", "cPickle", "_pickle", "pickle5", "dill", "cloudpickle", "shelve", "marshal", "builtins"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
LOADERS = {f"{module}.load" for module in ("joblib", "yaml", "torch.hub", "torch.jit", "torch.export", "torch.package")}
COMMANDS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
EVERYWHERE = {  # whatever object they are an attribute of
    "load_learner",
    "SaveModelCallback",
    "load_state_dict_from_url",
    "load_url",
    "from_pretrained",
    "read_pickle",
    "to_pickle",
    "load_pickle",
    "save_pickle",
    "extractall",
    "unpack_archive",
}


class Finding(NamedTuple):
    line: int
    what: str


def findings(tree: ast.AST, trusted: bool = False) -> Iterator[Finding]:
    """What in a syntax tree could run code that a file brings along; `trusted` may call a guarded torch.load."""
    imported = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = forbidden_import(node)
        elif isinstance(node, ast.Call):
            found = forbidden_call(node, imported, trusted)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in BUILTINS:
            found = node.id
        elif isinstance(node, ast.Attribute):
            found = forbidden_name(full_name(node, imported))
        else:
            continue
        if found:
            yield Finding(node.lineno, found)


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Names in a file -> what they were imported as, so that `import torch as t` hides nothing."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def forbidden_import(node: ast.Import | ast.ImportFrom) -> str | None:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for name in (prefix + alias.name for alias in node.names):
        if name.split(".")[0] in MODULES or forbidden_name(name):
            return name
        if name in {"torch.load", "numpy.load"}:  # as a bare `load` it would not be seen for what it is
            return name
    return None


def forbidden_name(name: str) -> str | None:
    return name if name in LOADERS | COMMANDS or name.split(".")[-1] in EVERYWHERE else None


def forbidden_call(node: ast.Call, imported: dict[str, str], trusted: bool) -> str | None:
    name, keywords = full_name(node.func, imported), {keyword.arg: keyword.value for keyword in node.keywords}
    if name == "torch.load" and not (trusted and is_constant(keywords.get("weights_only"), True)):
        return name
    if name == "numpy.load" and not is_constant(keywords.get("allow_pickle"), False):
        return name
    for flag in ("shell", "allow_pickle"):
        if flag in keywords and not is_constant(keywords[flag], False):
            return flag
    if "deserialize" in keywords and not is_constant(keywords["deserialize"], "safe"):  # of blosc2.open
        return "deserialize"
    return None


def full_name(node: ast.expr, imported: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, imported)}.{node.attr}"
    return imported.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_source_can_run_what_a_file_brings_along(path):
    assert list(findings(ast.parse(path.read_text()), trusted=path == TRUSTED)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_notebook_can_run_what_a_file_brings_along(path):
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code":
            assert list(findings(ast.parse(cell.source))) == [], cell.source


def test_the_sources_and_both_notebooks_are_looked_at():
    assert len(NOTEBOOKS) == 2
    assert {"radam.py", "prepare.py", "pretrained.py", "d4.py"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as innocent",
        "def f():\n    from pickle import loads",
        "import os, marshal",
        "import dill",
        "import shelve",
        "from joblib import load",
        "import joblib\njoblib.load(f)",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=flag)",
        "import torch as t\nt.load(f)",
        "from torch import load",
        "import torch\ntorch.jit.load(f)",
        "from torch import hub\nhub.load(f)",
        "import torch\ntorch.hub.load_state_dict_from_url(url)",
        "from efficientnet_pytorch import EfficientNet\nEfficientNet.from_pretrained(name)",
        "from fastai.learner import load_learner",
        "from fastai import learner\nlearner.load_learner(f)",
        "from fastai.callback.tracker import SaveModelCallback",
        "eval(text)",
        "exec(text)",
        "run = eval\nrun(text)",
        "compile(text, name, 'exec')",
        "__import__(name)",
        "import builtins",
        "archive.extractall(folder)",
        "import shutil\nshutil.unpack_archive(f)",
        "from shutil import unpack_archive",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import subprocess\nsubprocess.run(command, shell=flag)",
        "import os\nos.system(command)",
        "from os import system",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "from numpy import load",
        "import pandas as pd\npd.read_pickle(f)",
        "import blosc2\nblosc2.open(f, deserialize='full')",
    ],
)
def test_the_checker_finds(source):
    assert list(findings(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "network.compile()",
        "import re\nre.compile(pattern)",
        "compile: bool = False",
        "import json\njson.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import subprocess\nsubprocess.run(command, shell=False)",
        "from safetensors.torch import load_file\nload_file(f)",
        "import joblib\njoblib.Parallel(2)",
        "'pickle eval exec'  # torch.load",
    ],
)
def test_the_checker_lets_pass(source):
    assert list(findings(ast.parse(source))) == []


def test_one_file_alone_may_call_torch_load_and_with_weights_only():
    guarded = ast.parse("import torch\ntorch.load(f, weights_only=True)")
    assert list(findings(guarded, trusted=True)) == []
    assert list(findings(guarded)) == [(2, "torch.load")]
    assert list(findings(ast.parse("import torch\ntorch.load(f)"), trusted=True)) == [(2, "torch.load")]


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def write_raw(file: Path, payload: Payload) -> None:
    file.write_bytes(pickle.dumps({"weight": payload}, protocol=2))


def write_zip(file: Path, payload: Payload) -> None:
    torch.save({"weight": payload}, file)


def write_legacy(file: Path, payload: Payload) -> None:
    torch.save({"weight": payload}, file, _use_new_zipfile_serialization=False)


def write_tar(file: Path, payload: Payload) -> None:
    """The oldest format of torch.save: a tar of pickles; this one has no tensors."""
    members = {"sys_info": [{}], "pickle": [{"weight": payload}], "storages": [0, []], "tensors": [0]}
    with tarfile.open(file, "w") as tar:
        for name, contents in members.items():
            data = b"".join(pickle.dumps(content) for content in contents)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_npz(file: Path, payload: Payload) -> None:
    with file.open("wb") as opened:
        np.savez(opened, weight=np.array([payload], dtype=object))


def load_trustingly(file: Path) -> None:
    torch.load(file, weights_only=False)


class Format(NamedTuple):
    write: Callable[[Path, Payload], None]
    suffix: str
    open: Callable[[Path], object]  # the way that runs it


FORMATS = {
    "raw pickle": Format(write_raw, ".pkl", lambda file: pickle.loads(file.read_bytes())),
    "zip": Format(write_zip, ".pth", load_trustingly),
    "legacy": Format(write_legacy, ".pth", load_trustingly),
    "tar": Format(write_tar, ".pth", load_trustingly),
    "object npz": Format(write_npz, ".npz", lambda file: np.load(file, allow_pickle=True)["weight"]),
}


class Bomb:
    """A payload of one format, to be written under any name."""

    def __init__(self, kind: Format, folder: Path) -> None:
        self.kind, self.folder, self.marker = kind, folder, folder / "ran"

    def write(self, name: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        self.kind.write(file, Payload(self.marker))
        return file


@pytest.fixture(params=FORMATS)
def bomb(request, tmp_path) -> Iterator[Bomb]:
    """A payload; after the test its mark must not be there."""
    bomb = Bomb(FORMATS[request.param], tmp_path)
    yield bomb
    assert not bomb.marker.exists()


def assert_refused(file: Path, function: Callable, *arguments: object) -> None:
    with pytest.raises(InputError) as refusal:
        function(*arguments)
    message = str(refusal.value)
    assert str(file) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", FORMATS)
def test_a_payload_runs_where_it_is_trusted(name, tmp_path):
    bomb = Bomb(FORMATS[name], tmp_path)
    file = bomb.write("payload")
    assert not bomb.marker.exists()
    bomb.kind.open(file)
    assert bomb.marker.exists()


@pytest.fixture(scope="module")
def b0():
    return build_network(B0)


def test_initial_weights_that_are_not_the_published_file_are_refused_unopened(bomb, b0, monkeypatch):
    file = bomb.write(f"payload{bomb.kind.suffix}")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    assert_refused(file, load_initial_weights, b0, B0, file)


def test_initial_weights_with_the_published_hash_are_refused_all_the_same(bomb, b0, monkeypatch):
    file = bomb.write("payload")
    file = file.rename(file.with_name(f"payload-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"))
    published = ARCHITECTURES[B0.network]._replace(imagenet=lambda: f"https://example.invalid/{file.name}")
    monkeypatch.setitem(ARCHITECTURES, B0.network, published)
    assert_refused(file, load_initial_weights, b0, B0, file)


def test_initial_weights_under_the_name_of_safetensors_are_refused(bomb):
    file = bomb.write("payload.safetensors")
    assert_refused(file, load_initial_weights, build_network(SMALL), SMALL, file)


def test_a_training_run_refuses_them(bomb, prepared):
    file = bomb.write("payload.safetensors")
    config = replace(SMALL, name="with_payload", start=str(file))
    assert_refused(file, train, TrainOptions(config, machine=Machine(work=prepared.root, device="cpu")))


@pytest.fixture
def run(bomb) -> Path:
    """The folder of a finished run whose weights are a payload, and whose config.json vouches for them."""
    file = bomb.write("runs/small/fold0/model.safetensors")
    save_config(file.parent, SMALL, 0, {"weighted_log_loss": 0.1, "best_epoch": 1, "prevalence": {}})
    return file.parent


def test_trained_weights_are_refused(run):
    assert_refused(run / "model.safetensors", load_trained, run, read_run(run), build_network(SMALL))


def test_inference_refuses_them(run, prepared, tmp_path):
    (tmp_path / "cache").symlink_to(prepared.cache)
    options = InferOptions("small", machine=Machine(work=tmp_path, device="cpu"))
    assert_refused(run / "model.safetensors", infer, options)
    assert not (run / "test.parquet").exists()


def test_the_description_of_a_run_is_refused(bomb):
    file = bomb.write("fold0/config.json")
    assert_refused(file, read_run, file.parent)


@pytest.mark.parametrize("earlier", [False, True], ids=["alone", "after a whole one"])
@pytest.mark.parametrize("part", ["safetensors", "json"])
def test_a_checkpoint_is_passed_over_with_a_warning(bomb, capsys, part, earlier):
    folder = bomb.folder / "fold0"
    whole = Checkpoint({"weight": torch.ones(2)}, {"step": 1})
    for _ in range(1 + earlier):
        write_checkpoint(folder, SMALL, whole)
    newest = sorted(folder.glob("*.safetensors"))[-1]
    bomb.write(newest.with_suffix(f".{part}").relative_to(bomb.folder))
    if part == "safetensors":  # vouched for
        description = {"config": SMALL.to_json(), "tensors_sha256": hash_file(newest), "state": {}}
        write_json(newest.with_suffix(".json"), description)
    found = read_checkpoint(folder, SMALL)
    assert f"warning: {newest}" in capsys.readouterr().out
    assert (found is not None) == earlier
    assert found is None or found.state == whole.state


def test_predictions_are_refused(bomb):
    file = bomb.write("runs/small/fold0/test.parquet")
    assert_refused(file, read_predictions, file, "python models/infer_small.py")


def test_metadata_is_refused(bomb):
    file = bomb.write("cache/metadata_train.parquet")
    assert_refused(file, read_slices, Work(bomb.folder), "train")


def test_a_series_of_the_store_is_refused(bomb):
    file = bomb.write("cache/slices_64/series.slices")
    assert_refused(file, Series, file)


def test_a_column_type_that_brings_a_pickle_along_is_not_made(tmp_path):
    """The extension types of old pyarrow unpickled what a parquet file holds (CVE-2023-47248)."""
    payload = pickle.dumps(Payload(tmp_path / "ran"))
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    field = pyarrow.field("image_id", pyarrow.string(), metadata=extension)
    file = tmp_path / "test.parquet"
    parquet.write_table(pyarrow.table([["ID_a"]], schema=pyarrow.schema([field])), file)
    assert_refused(file, read_predictions, file, "python models/infer_small.py")
    assert not (tmp_path / "ran").exists()


def leave_a_mark(inputs, output, offset):
    """Its source is what the file holds; blosc2 runs it with few names; blosc2 is one."""
    output[:] = inputs[0]
    blosc2.asarray(output, urlpath="ran", mode="w")


def test_a_series_that_brings_a_computation_along_is_refused(tmp_path, monkeypatch):
    """A file of blosc2 may hold the source of a function in place of an array (a lazy UDF)."""
    monkeypatch.chdir(tmp_path)
    marker, file = tmp_path / "ran", tmp_path / "slices_64" / "series.b2nd"
    file.parent.mkdir()
    values = blosc2.asarray(np.zeros((2, 64, 64), np.int16), urlpath=str(file.parent / "values.b2nd"))
    blosc2.lazyudf(leave_a_mark, (values,), np.int16).save(urlpath=str(file))
    assert_refused(file, Series, file)
    assert not marker.exists()
    blosc2.open(str(file), mode="r", deserialize="full")[:]
    assert marker.exists()


def test_json_is_data_whatever_stands_in_it(run):
    """config.json names the network; a name is looked up, never evaluated."""
    values = json.loads((run / "config.json").read_text())
    marker = run / "ran"
    values["config"]["network"] = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="no network"):
        build_network(read_run(run).config)
    assert not marker.exists()
