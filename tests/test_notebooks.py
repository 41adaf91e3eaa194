"""The notebooks run from top to bottom on a phantom, keep to the house rules, and are committed without outputs."""

import ast
import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from once import HANG
from scipy.special import expit

from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import prediction_table, read_predictions
from models.inference.calibration import raise_any
from models.inference.evidence import WAYS
from models.preprocessing.challenge_csv import read_labels
from models.preprocessing.elements import Reason
from models.preprocessing.folds import label_shares
from models.preprocessing.origin import SYNTHETIC
from models.preprocessing.problems import NO_SLICE_OF_FILE, Problem
from models.preprocessing.raw import find_raw
from models.preprocessing.tables import read_slices, split_fold
from models.train_b0_224 import CONFIG as B0_224
from models.train_small import CONFIG as SMALL
from models.training.metric import weighted_log_loss
from models.training.run_record import save_config
from models.training.scoring import WEIGHTED
from models.training.weights import save_weights

REPOSITORY = Path(__file__).parent.parent
METADATA, BLENDING = "creating-a-metadata-dataframe-fastai.ipynb", "blending.ipynb"
NAME = "DOE^JANE"  # stands in every header of the metadata notebook's data
TRAPS = "## The traps, with pictures"
EXPLAINED = [  # what the section says of the traps that it plants
    (Reason.TRUNCATED.value, NO_SLICE_OF_FILE),
    *(
        problem.value
        for problem in (
            Problem.CONSTANT,
            Problem.WRAPPED,
            Problem.BELOW_AIR,
            Problem.NOT_SQUARE,
            Problem.BEYOND_BONE,
            Problem.DUPLICATE_POSITIONS,
            Problem.UNEVEN_SPACING,
            Problem.MIXED_ORIENTATION,
            Problem.BOTH_SPLITS,
            Problem.REPEATED_LABEL,
        )
    ),
]


@pytest.fixture
def work(prepared, tmp_path) -> Work:
    """A working folder with the shared cache and no runs."""
    (tmp_path / "cache").symlink_to(prepared.cache)
    return Work(tmp_path)


@pytest.fixture(scope="module")
def named_phantom(phantom, tmp_path_factory) -> Path:
    """The phantom as a hospital would have it: with a patient's name in every training file."""
    folder = tmp_path_factory.mktemp("named")
    raw = find_raw(phantom)
    for file in (raw.test, raw.labels, raw.sample_submission):
        (folder / file.name).symlink_to(file)
    (folder / raw.train.name).mkdir()
    for path in raw.files("train"):
        dataset = pydicom.dcmread(path)
        dataset.PatientName = NAME
        dataset.save_as(folder / raw.train.name / path.name)
    return folder


@pytest.fixture(scope="module")
def metadata_notebook(named_phantom, prepared, tmp_path_factory) -> tuple[NotebookNode, set[str]]:
    """The metadata notebook, executed on a cache that was asked for by its stage, and the patients of its traps."""
    tables = ("metadata_train.parquet", "metadata_test.parquet", "series.csv", "prepare.json")
    staged = Work(tmp_path_factory.mktemp("staged"), 2)
    staged.tables.mkdir(parents=True)
    for path in prepared.cache.iterdir():
        ((staged.tables if path.name in tables else staged.cache) / path.name).symlink_to(path)
    last = 'print([text.get_text() for text in plt.figure().texts])\nprint(*slices["patient_id"].unique())'
    notebook = execute(METADATA, named_phantom, staged, last=last)
    marks, patients = notebook.cells.pop().outputs[0].text.splitlines()
    assert marks == str([SYNTHETIC])  # on every figure of a phantom
    return notebook, set(patients.split())


@pytest.mark.parametrize("name", [METADATA, BLENDING])
def test_notebooks_are_committed_without_outputs(name):
    cells = code_cells(read_notebook(name))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.parametrize("name", [METADATA, BLENDING])
def test_notebooks_are_short_and_begin_with_their_parameters(name):
    cells = code_cells(read_notebook(name))
    assert len(cells) <= 15
    assert "DATA = default_data()" in cells[0].source
    assert "WORK = Work(default_work()" in cells[0].source
    for cell in cells:
        assert not re.search(r"^\s*(def|class) |^\s*[%!]", cell.source, re.MULTILINE), cell.source


@pytest.mark.parametrize("name", [METADATA, BLENDING])
def test_no_cell_takes_the_name_of_what_is_imported_so_that_any_can_be_run_again(name):
    nodes = [node for cell in code_cells(read_notebook(name)) for node in ast.walk(ast.parse(cell.source))]
    imports = [node.names for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {alias.asname or alias.name.partition(".")[0] for names in imports for alias in names}
    taken = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert imported & taken == set()


@pytest.mark.parametrize("name", [METADATA, BLENDING])
def test_notebooks_hold_no_absolute_path(name):
    text = "\n".join(cell.source for cell in read_notebook(name).cells)
    assert re.findall(r"(?<![\w.)])(?:/|[A-Z]:\\|~/)\w+/", text) == []


def test_the_metadata_notebook_runs_and_names_no_patient(metadata_notebook, prepared):
    notebook, of_traps = metadata_notebook
    assert count_figures(notebook) == 9
    assert text_outputs(notebook).startswith(SYNTHETIC)
    text = text_outputs(notebook)
    assert "largest difference between the two tables: 0.0000\n" in text  # this project's statistics and fastai's
    assert "largest difference between the repaired slice and the original: 0 HU" in text
    assert "30 series, 30 of them taken; what they are:" in text
    assert NAME not in text
    patients = of_traps.union(read_slices(prepared, "train")["patient_id"])
    assert len(of_traps) > 2
    assert not any(patient in text for patient in patients)


def test_the_metadata_notebook_shows_the_traps_and_what_becomes_of_them(metadata_notebook):
    cells = metadata_notebook[0].cells
    first = next(place for place, cell in enumerate(cells) if cell.source.startswith(TRAPS))
    section = nbformat.v4.new_notebook(cells=cells[first:])
    assert count_figures(section) == 2
    text = text_outputs(section)
    assert f"planted: {len(EXPLAINED)} traps; found: {len(EXPLAINED)} problems" in text
    for problem, treatment in EXPLAINED:
        assert f"<td>{problem}</td>" in text
        assert f"<td>{treatment}</td>" in text
    assert "patients in both train and test: 1\n" in text


def test_the_metadata_notebook_says_what_to_do_with_an_archive(phantom, work, tmp_path, monkeypatch):
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", phantom))
    with pytest.raises(InputError, match=r"fastai reads no file in \S*packed.zip; unpack it"):
        run_here(METADATA, packed, work, monkeypatch)


def test_the_blending_notebook_takes_for_each_label_what_nested_scores_speak_for(phantom, work):
    write_run(work, SMALL, folds=[0, 1], noise=3.0, phantom=phantom)
    write_run(work, B0_224, folds=[0], noise=4.0, phantom=phantom)
    last = "print(scores.to_json())\nprint(summary.to_json())\nprint(chosen_ways)"
    last += "\nprint([text.get_text() for text in plt.figure().texts])"
    notebook = execute(BLENDING, phantom, work, last=last)
    assert count_figures(notebook) == 5

    sample = pd.read_csv(find_raw(phantom).sample_submission)
    submission = pd.read_csv(work.root / "submission.csv")
    assert list(submission.columns) == ["ID", "Label"]
    assert list(submission["ID"]) == list(sample["ID"])
    assert submission["Label"].between(0, 1).all()

    *tables, ways, marks = notebook.cells[-1].outputs[0].text.splitlines()
    assert marks == str([SYNTHETIC])
    assert text_outputs(notebook).startswith(SYNTHETIC)
    scores, summary = (pd.DataFrame(json.loads(table)) for table in tables)
    assert set(scores.index) == {*WAYS, "by_label"} - {"boosted"}  # of few patients
    assert set(summary.index) == {"small", "b0_224", "prior", *(f"blend: {way}" for way in scores.index)}
    text = text_outputs(notebook)
    by_label = ", ".join(f"{label} {way}" for label, way in zip(LABELS, ast.literal_eval(ways), strict=True))
    assert f"used for submission.csv: by_label: {by_label}\n" in text
    assert f"nested {scores.loc['by_label', 'nested']:.4f}, equal weights" in text
    assert scores.loc["fitted", "on its own slices"] < scores.loc["fitted", "nested"]
    for table in (scores, summary):
        assert (table["low"] <= table["worse by"]).all()
        assert (table["worse by"] <= table["high"]).all()

    truth = read_slices(work, "train").set_index("image_id")[list(LABELS)]
    own = read_predictions(work.run(B0_224.name, 0) / "valid.parquet", "")  # it is scored on these, and on no others
    assert summary.loc["b0_224", WEIGHTED] == pytest.approx(weighted_log_loss(truth.loc[own.index], own), abs=1e-6)
    assert "b0_224 has no prediction of" in text
    assert f"the {len(own):,} slices that all 2 runs have" in text

    written = read_predictions(work.blend / "valid.parquet", "")  # the nested ones, which the report is of
    assert list(written.index) == list(own.index)
    nested = scores.loc["by_label", "nested"]
    assert weighted_log_loss(truth.loc[written.index], written) == pytest.approx(nested, abs=1e-6)
    test = read_predictions(work.blend / "test.parquet", "")
    assert (test["any"] >= test.max(axis=1)).all()
    assert submission.set_index("ID")["Label"].to_dict() == pytest.approx(in_long_form(test, work), abs=1e-6)


def test_a_way_that_is_asked_for_is_used_and_where_a_run_lacks_slices_the_others_stand_in(phantom, work):
    small = np.mean(write_run(work, SMALL, folds=[0, 1], noise=3.0, phantom=phantom), axis=0)
    b0_224 = np.mean(write_run(work, B0_224, folds=[0], noise=4.0, phantom=phantom), axis=0)
    file = work.run(B0_224.name, 0) / "test.parquet"
    lacking = pd.read_parquet(file).iloc[2:]
    write_parquet(file, lacking)
    notebook = execute(BLENDING, phantom, work, way="equal")
    assert "used for submission.csv: equal: epidural equal, " in text_outputs(notebook)
    assert f"b0_224 lacks 2 of {len(lacking) + 2} slices, first " in text_outputs(notebook)
    submission = pd.read_csv(work.root / "submission.csv").set_index("ID")["Label"]
    expected = (small + b0_224) / 2  # the runs count alike, whatever their folds
    expected[:2] = small[:2]
    expected = raise_any(expected)
    assert submission.to_dict() == pytest.approx(in_long_form(expected, work), abs=1e-6)


def test_without_a_run_the_blending_notebook_says_what_to_do(phantom, work, monkeypatch):
    with pytest.raises(InputError, match=r"no finished run in .*; train one with: python models/train_small"):
        run_here(BLENDING, phantom, work, monkeypatch)
    assert not (work.root / "submission.csv").exists()


def test_a_way_that_the_runs_do_not_have_is_refused_before_any_is_tried(phantom, work, monkeypatch):
    write_run(work, SMALL, folds=[0, 1], noise=3.0, phantom=phantom)  # none of the original's
    with pytest.raises(InputError, match=r"--way original is none of best, equal, best_single"):
        run_here(BLENDING, phantom, work, monkeypatch, way="original")
    assert not work.blend.exists()


def read_notebook(name: str) -> NotebookNode:
    notebook = nbformat.read(REPOSITORY / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(name: str, data: Path, work: Work, way: str = "best", last: str = "") -> NotebookNode:
    """Run a notebook from the repository's root, and the code `last` in a cell at its end; no cell may warn."""
    notebook = asked(name, way)
    if last:
        notebook.cells.append(nbformat.v4.new_code_cell(last))
    # Without kernel folders "python3" is this interpreter's own kernel, whatever the user has installed.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    patience = {"timeout": HANG, "startup_timeout": HANG}
    client = NotebookClient(notebook, km=manager, resources={"metadata": {"path": str(REPOSITORY)}}, **patience)
    environment = {**os.environ, "RSNA_DATA": str(data), "RSNA_WORK": str(work.root), "OMP_NUM_THREADS": "1"}
    client.execute(env=environment, cleanup_kc=True)
    assert "Warning" not in text_outputs(notebook)
    return notebook


def run_here(name: str, data: Path, work: Work, monkeypatch: pytest.MonkeyPatch, way: str = "best") -> None:
    """Run the cells of a notebook that refuses to go on, without the seconds that a kernel takes to start."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("RSNA_DATA", str(data))
    monkeypatch.setenv("RSNA_WORK", str(work.root))
    names: dict[str, object] = {}
    for cell in code_cells(asked(name, way)):
        exec(cell.source, names)


def asked(name: str, way: str) -> NotebookNode:
    """A notebook that is asked for one way to blend."""
    notebook = read_notebook(name)
    first = code_cells(notebook)[0]
    first.source = first.source.replace('WAY = "best"', f'WAY = "{way}"')
    return notebook


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def text_outputs(notebook: NotebookNode) -> str:
    """All that a reader sees but the pictures."""
    return "\n".join(
        output.get("text", "") + "".join(value for kind, value in output.get("data", {}).items() if "text" in kind)
        for output in outputs(notebook)
    )


def count_figures(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def write_run(work: Work, config: TrainConfig, folds: list[int], noise: float, phantom: Path) -> list[np.ndarray]:
    """Write folds of a run that predicts the truth with noise; returns each fold's test predictions (slices, 6)."""
    answers = read_labels(phantom / "phantom_test_labels.csv")[0].set_index("image_id")
    test_ids = read_slices(work, "test")["image_id"]
    predictions = []
    for fold in folds:
        folder, rng = work.run(config.name, fold), np.random.default_rng((fold, config.image_size))
        train, valid = split_fold(work, fold, skip_low_information=False)
        out_of_fold = noisy(valid[list(LABELS)].to_numpy(), noise, rng)
        predictions.append(noisy(answers.loc[test_ids].to_numpy(), noise, rng))
        write_parquet(folder / "valid.parquet", prediction_table(valid["image_id"], out_of_fold))
        write_parquet(folder / "test.parquet", prediction_table(test_ids, predictions[-1]))
        save_weights(folder, torch.nn.Linear(1, 1))
        results = {"weighted_log_loss": 0.1, "best_epoch": 1, "prevalence": label_shares(train).to_dict()}
        save_config(folder, config, fold, results)
    return predictions


def noisy(truth: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Probabilities around a truth of zeros and ones, (slices, 6)."""
    return expit(-3 + 5 * truth + noise * rng.standard_normal(truth.shape)).astype(np.float32)


def in_long_form(predictions: np.ndarray | pd.DataFrame, work: Work) -> dict[str, float]:
    """Predictions of the test slices (slices, 6), in the order of the metadata, by the IDs of a submission."""
    image_ids = read_slices(work, "test")["image_id"]
    ids = [f"{image_id}_{label}" for image_id in image_ids for label in LABELS]
    return dict(zip(ids, np.ravel(predictions).tolist(), strict=True))
