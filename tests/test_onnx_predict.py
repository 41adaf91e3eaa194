"""Laws of predict.py without torch: the same answers, of whatever network, and nothing imported that is not there."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pydicom
import pytest
from head_ct import write
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_packaging import EXTRAS, PROJECT

from models import export_onnx
from models.common.errors import InputError
from models.export_onnx import ExportOptions
from models.inference import ensemble
from models.inference.asked import PredictOptions
from models.inference.asked_runs import find_folds
from models.inference.onnx_check import EXACT
from models.predict import predict
from models.reporting.answers import KEY
from models.training import run_record

REPOSITORY = Path(__file__).parent.parent
MIB = 2**20
DOWNLOAD = 400 * MIB  # at most, of the documented set
COMPRESSED = 0.3  # wheels, of what they install; measured: 279 MB of this set, .27
# As if all that `pip install .[onnx]` does not bring were not installed.
WITHOUT = """
import re, runpy, sys
from importlib.machinery import PathFinder
class Finder:
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {absent} else PathFinder.find_spec(name, path, target)
    def find_distributions(context):
        found = PathFinder.find_distributions(context)
        return [one for one in found if re.sub("[-_.]+", "-", one.name).lower() not in {packages}]
sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv = {words}
runpy.run_path({script}, run_name="__main__")
"""


def closure(lines: list[str]) -> dict[str, metadata.Distribution]:
    """What `pip install` brings for some requirements, by name, as far as it is installed here."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(line) for line in lines]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        for line in found[name].requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(needed)
    return found


SET = [*PROJECT["dependencies"], *EXTRAS["onnx"]]


def absent() -> list[str]:
    """The modules of packages that the set does not bring."""
    brought = closure(SET)
    owners = metadata.packages_distributions()
    return sorted(
        module
        for module, names in owners.items()
        if not {canonicalize_name(name) for name in names} & {*brought, "rsna-intracranial-hemorrhage"}
        and module.isidentifier()
        and module not in ("pip", "setuptools", "_distutils_hack", "pkg_resources")
    )


def without_torch(words: list[object], cwd: Path, script: Path = REPOSITORY / "models" / "predict.py"):
    """Run a script where nothing but the set is installed."""
    installed = {canonicalize_name(one.name) for one in metadata.distributions()}
    packages = sorted(installed - {*closure(SET), "rsna-intracranial-hemorrhage"})
    arguments = [script.name, *map(str, words)]
    code = WITHOUT.format(absent=absent(), packages=packages, words=arguments, script=repr(str(script)))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    line = [sys.executable, "-c", code]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, check=False, env=environment)


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*/answer.json"))]


def unlike(due: Any, found: Any, place: str = "") -> list[str]:
    """Where two answers differ: other words, or numbers that are further apart than EXACT."""
    if isinstance(due, dict) and isinstance(found, dict) and due.keys() == found.keys():
        return [line for name in due for line in unlike(due[name], found[name], f"{place}/{name}")]
    if isinstance(due, list) and isinstance(found, list) and len(due) == len(found):
        return [
            line
            for number, pair in enumerate(zip(due, found, strict=True))
            for line in unlike(*pair, f"{place}/{number}")
        ]
    if isinstance(due, float) and isinstance(found, float):
        return [] if abs(due - found) <= EXACT else [f"{place}: {due} and {found}"]
    return [] if due == found else [f"{place}: {due!r} and {found!r}"]


def same_answers(due: Path, found: Path) -> None:
    ours, theirs = told(found), told(due)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(theirs, ours, strict=True):
        for answer in (one, other):
            for name in ("notes", "command", "software"):  # the default network's are other words
                answer.pop(name)
            answer["checks"] = [check for check in answer["checks"] if check["name"] != "familiar"]  # told in words
        assert unlike(one, other) == []
    assert any(one["study_probability"] for one in ours)


@pytest.fixture
def graphs(run_folder, tmp_path) -> Path:
    """The run of the tests as ONNX."""
    export_onnx.export(ExportOptions((run_folder,), output=tmp_path / "onnx", work=tmp_path, slices=1))
    return tmp_path / "onnx"


def test_predict_answers_without_torch_as_with_it(heads, run_folder, graphs, tmp_path):
    assert {"torch", "torchvision", "fastai", "timm", "albumentations", "sklearn", "onnx"} <= set(absent())
    data = write(tmp_path / "data", heads[0])
    shared = {"output": tmp_path / "due", "device": "cpu", "tta": "flip", "dicom": True, "nifti": True}
    assert predict(PredictOptions((data,), weights=(run_folder,), **shared)) == 0
    key = (tmp_path / "due" / KEY).read_bytes()
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / KEY).write_bytes(key)
    flags = ["--weights", graphs, "--output", "found", "--dicom", "--nifti"]
    done = without_torch([data, *flags], tmp_path)
    assert done.returncode == 0, done.stderr
    same_answers(tmp_path / "due", tmp_path / "found")
    by_torch, by_onnx = (told(tmp_path / folder)[0]["software"] for folder in ("due", "found"))
    assert [one["engine"].split()[0] for one in (by_torch, by_onnx)] == ["torch", "onnxruntime"]
    assert set(by_torch) - set(by_onnx) >= {"torch", "fastai"}
    names = {path.relative_to(tmp_path / "found") for path in (tmp_path / "found").rglob("*") if path.is_file()}
    assert {path.name for path in names} >= {"page.html", "heat.nii.gz", "report.dcm"}


def test_without_torch_the_default_network_is_told_how_to_be_made(heads, tmp_path):
    data = write(tmp_path / "data", heads[0])
    done = without_torch([data, "--output", "answers"], tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "torch is not installed; make it, where torch is, with: python models/export_onnx.py" in done.stderr


@pytest.mark.slow
def test_the_default_network_answers_a_real_study_without_torch_as_with_it(real_sample, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    files = sorted((real_sample / "stage_2_test").glob("*.dcm"))
    first = pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID
    for file in files:
        if pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID == first:
            (data / file.name).symlink_to(file)
    export_onnx.export(ExportOptions(output=tmp_path / "onnx", work=tmp_path))
    assert predict(PredictOptions((data,), output=tmp_path / "due", device="cpu")) == 0
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / KEY).write_bytes((tmp_path / "due" / KEY).read_bytes())
    done = without_torch([data, "--weights", "onnx", "--output", "found"], tmp_path)
    assert done.returncode == 0, done.stderr
    same_answers(tmp_path / "due", tmp_path / "found")


def test_an_engine_that_is_not_there_is_told(run_folder, monkeypatch):
    monkeypatch.setattr(ensemble, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \.\[training\]"):
        ensemble.choose_engine(find_folds([run_folder]), "torch", "cpu", None)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(run_record, "_PACKAGES", ("numpy", "a-package-of-nobody"))
    assert list(run_record.package_versions()) == ["numpy"]


def test_the_set_without_torch_is_small_to_download():
    brought = closure(SET)
    assert not {"torch", "torchvision", "fastai", "timm", "scikit-learn", "onnx"} & set(brought)
    size = sum(bytes_of(one) for one in brought.values())
    assert size * COMPRESSED < DOWNLOAD


def bytes_of(distribution: metadata.Distribution) -> int:
    """What a distribution has installed."""
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or []]
    return sum(file.stat().st_size for file in files if file.is_file())
