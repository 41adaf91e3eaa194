"""The front doors: what a person types."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tyro
from once import HANG

from models import train_small
from models.common.config import FinetuneConfig, SequenceConfig, StudyConfig, TrainConfig
from models.common.files import write_parquet
from models.common.options import TrainOptions
from models.training.networks import ARCHITECTURES
from models.training.run_record import read_run, save_config

MODELS = Path(__file__).parent.parent / "models"
TRAIN = sorted(MODELS.glob("train_*.py"))
KINDS = {  # all others: TrainConfig
    "train_sequence": SequenceConfig,
    "train_session_sequence": SequenceConfig,
    "train_b0_recurrent": StudyConfig,
    "train_study": StudyConfig,
    "train_b5_pseudo": FinetuneConfig,
}
LINES = {"train_study": 40}  # it declares two networks, and how they learn together
INFER = sorted(MODELS.glob("infer_*.py"))


def names(paths):
    return [path.stem.split("_", 1)[1] for path in paths]


def run(*arguments, folder=None):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=folder, check=False, timeout=HANG
    )


def without_configuration(path):
    """The syntax tree of a training script, its docstring and the arguments of its CONFIG taken out."""
    tree = ast.parse(path.read_text())
    tree.body = tree.body[1:]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "TrainConfig":
            node.keywords = []
    return ast.dump(tree)


def test_training_scripts_differ_in_their_configuration_alone():
    plain = [path for path in TRAIN if path.stem not in KINDS]
    assert len(plain) > 5
    assert len({without_configuration(path) for path in plain}) == 1


@pytest.mark.parametrize("path", TRAIN, ids=lambda path: path.stem)
def test_training_script_fits_on_a_page_and_declares_its_name(path):
    config = importlib.import_module(f"models.{path.stem}").CONFIG
    assert type(config) is KINDS.get(path.stem, TrainConfig)
    assert path.stem == f"train_{config.name}"
    if isinstance(config, SequenceConfig):
        assert {f"train_{run}.py" for run in config.runs} <= {path.name for path in TRAIN}
    else:
        assert config.network in ARCHITECTURES or config.network.startswith("timm/")
    if isinstance(config, TrainConfig) and config.start is not None:
        assert f"train_{config.start}.py" in {path.name for path in TRAIN}
    assert len(path.read_text().splitlines()) <= LINES.get(path.stem, 30)


def test_every_training_script_has_its_inference_twin():
    assert names(TRAIN) == names(INFER)
    for path in INFER:
        name = path.stem.removeprefix("infer_")
        assert (
            path.read_text()
            .replace(f'"{name}"', '"NAME"')
            .endswith('from models.inference.predict import main\n\nif __name__ == "__main__":\n    main("NAME")\n')
        )


@pytest.mark.parametrize("path", TRAIN, ids=lambda path: path.stem)
def test_every_field_of_the_configuration_is_a_flag(path, capsys):
    config = importlib.import_module(f"models.{path.stem}").CONFIG
    with pytest.raises(SystemExit):
        tyro.cli(TrainOptions, default=TrainOptions(config), args=["--help"], config=(tyro.conf.OmitArgPrefixes,))
    text = capsys.readouterr().out
    for name in [*type(config).__dataclass_fields__, "fold", "work", "device", "workers"]:
        assert f"--{name.replace('_', '-')}" in text


def test_a_misspelt_flag_is_an_error(tmp_path):
    result = run("-X", "importtime", MODELS / "train_small.py", "--epoch", 3, folder=tmp_path)
    assert result.returncode == 2
    assert "--epoch" in result.stderr
    assert slow_imports(result.stderr) == set()


def slow_imports(importtime: str) -> set[str]:
    """What python -X importtime lists of packages that take long to import."""
    imported = {line.rpartition("|")[2].strip() for line in importtime.splitlines() if "import time:" in line}
    assert "models.common.cli" in imported
    return imported & {"torch", "fastai", "sklearn", "matplotlib"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["prepare.py", "--data", "nowhere"], r"error: no data folder at nowhere; name it with --data or RSNA_DATA"),
        (["train_small.py"], r"error: no cache/metadata_train.parquet; make it with: python models/prepare.py"),
        (
            ["infer_b5.py", "--fold", "2"],
            r"error: no trained network in runs/b5/fold2; train it with: ",
        ),
        (["train_small.py", "--max-lr", "-1"], r"max_lr must be above 0, not -1.0"),
        (["score.py"], r"error: no cache/metadata_train.parquet"),
        (["report.py"], r"error: no cache/metadata_train.parquet"),
        (["export_nifti.py"], r"error: no cache/metadata_test.parquet; make it with: python models/prepare.py"),
        (["smooth.py", "b2"], r"error: no finished fold in runs/b2; train one with: python models/train_b2.py"),
        (["make_pseudolabels.py"], r"error: name one or more different runs, like b5"),
        (
            ["make_pseudolabels.py", "b5"],
            r"error: no fold has test predictions of b5; make them with: python models/infer_b5.py",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_that_names_the_item_and_the_repair(command, message, tmp_path):
    script, *flags = command
    (tmp_path / "file").touch()
    result = run(MODELS / script, *flags, folder=tmp_path)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert re.search(message, " ".join(result.stderr.split()))
    if result.stderr.startswith("error"):
        assert len(result.stderr.splitlines()) == 1


def test_a_finished_run_and_finished_predictions_are_told_without_a_second_of_imports(tmp_path):
    folder = tmp_path / "runs/small/fold0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    save_config(folder, train_small.CONFIG, 0, {})
    table = pd.DataFrame({"image_id": ["ID_a"]})
    table.attrs = {"tta": "d4", "weights_sha256": read_run(folder).weights_sha256}
    write_parquet(folder / "test.parquet", table)
    for script, message in (("train_small.py", "is finished"), ("infer_small.py", "is there")):
        result = run("-X", "importtime", MODELS / script, folder=tmp_path)
        assert message in result.stdout
        assert slow_imports(result.stderr) == set()


def test_scripts_run_from_any_folder_and_write_into_the_current_one(phantom, tmp_path):
    result = run(MODELS / "prepare.py", "--data", phantom, "--image-size", 32, "--jobs", 1, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "cache" / "slices_32").is_dir()
