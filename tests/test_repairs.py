"""Laws of the commands that errors name: one function builds them, and each is a command that its script takes."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import house
import pyarrow.parquet as pq
import pytest
from pages import REPOSITORY
from test_commands import call, parse  # noqa: F401  the latter is a fixture

from models.common.errors import InputError
from models.common.folders import Work
from models.common.repair import command_of, command_of_fold, command_of_run, typed_command
from models.phantom.dicom import write_phantom
from models.preprocessing.origin import is_synthetic, noted, prepare_command
from models.preprocessing.store import Series
from models.preprocessing.tables import read_folds, read_slices

MODULES = {name: text for name, text in house.sources().items() if name.startswith("models.")}
SIZE = 32
# What stands for a word that the code knows only when it runs; a new one in a repair needs a line here.
WORDS = {
    "name": ["a run"],
    "record.run": ["b2"],
    "config.start": ["b5"],
    "config.pseudolabels": ["pseudo"],
    "data": ["own data"],
    "work": [Work(Path("a folder"), 1)],
    "self.working_folder": [Work(Path("a folder"), 2)],
    "self.data": [Path("own data")],
    "Path(known['data']) if 'data' in known else None": [Path("own data"), None],
    "*[] if fold is None else ['--fold', fold]": [["--fold", 1], []],
    "*self.words": [["b2", "b5", "--way", "fitted"], []],
    "*options.words": [["b2", "b5", "--way", "fitted"], []],
    "Work(default_work(), material.work.stage)": [Work(Path("."), 2)],
    "subject.name": ["b2"],
    "*flags": [["--no-heat"], []],
    "Work(default_work(), work.stage)": [Work(Path("."), 2)],
    "*runs": [["b2", "b5"], []],
    "*options.runs": [["b2", "b5"], ["blend"]],
    "*options.image_size": [[32, 64], [224]],
    "*words": [["--image-size", 32, 64, "--folds", 3, "--seed", 1, "--take", "a key", "--labels", "own.csv"], []],
}


def repairs() -> list[tuple[str, list[ast.expr], dict[str, ast.expr]]]:
    """Every call of `command_of` with a script of its own: where, its words, and its folders."""
    calls = ((module, node) for module, text in MODULES.items() for node in ast.walk(ast.parse(text)))
    return [
        (module, node.args, {word.arg: word.value for word in node.keywords})
        for module, node in calls
        if is_repair(node)
    ]


def is_repair(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Call) and ast.unparse(node.func) == "command_of"
    return is_call and isinstance(node.args[0], ast.Constant)


def values(word: ast.expr) -> list:
    """What a word of a repair can be."""
    return [word.value] if isinstance(word, ast.Constant) else WORDS[ast.unparse(word)]


@pytest.mark.parametrize(("module", "words", "folders"), repairs())
def test_a_repair_is_a_command_that_its_script_takes(module, words, folders, parse):  # noqa: F811
    for last in (0, -1):  # with what may stand there, and without
        given = []
        for word in words:
            value = values(word)[last]
            given += value if isinstance(word, ast.Starred) else [value]
        line = command_of(*given, **{name: values(value)[last] for name, value in folders.items()})
        parse(shlex.split(line))


def test_there_are_repairs_in_each_room_and_all_are_built_in_one_place():
    assert {house.room_of(module) for module, *_ in repairs()} >= {"preprocessing", "training", "inference"}
    for module, text in MODULES.items():
        tree = ast.parse(text)
        documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
        documents = {ast.get_docstring(node, clean=False) for node in documented}
        constants = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not [text for text in constants - documents if "python models/" in text], module


@pytest.mark.parametrize("step", ["train", "infer"])
@pytest.mark.parametrize(
    ("name", "script", "named"),
    [
        ("b2", "b2", False),
        ("b2_triplet", "b2_triplet", False),
        ("small_wide", "small", True),
        ("b2_triplet_5mm", "b2_triplet", True),
        ("b0_224_of_mine", "b0_224", True),
        ("my.own-1", "small", True),
    ],
)
def test_a_run_without_a_script_of_its_own_is_made_by_the_one_that_it_is_called_after(step, name, script, named, parse):  # noqa: F811
    words = shlex.split(command_of_run(step, name, Work(Path("my work"), 2), 3))
    assert words[1] == f"models/{step}_{script}.py"
    assert words[2:] == [*(["--name", name] if named else []), *["--fold", "3", "--work"], "my work", "--stage", "2"]
    parse(words)


def test_folders_that_a_script_takes_by_itself_are_not_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSNA_WORK", raising=False)
    monkeypatch.delenv("RSNA_DATA", raising=False)
    assert command_of("prepare", work=Work(Path(".")), data=Path("data")) == "python models/prepare.py"
    assert command_of("prepare", work=Work(tmp_path), data=tmp_path / "data") == "python models/prepare.py"
    assert command_of_fold("train", Path("runs/b2/fold3")) == "python models/train_b2.py --fold 3"
    assert command_of_fold("train", tmp_path / "runs/b2/fold3") == "python models/train_b2.py --fold 3"
    assert command_of_fold("train", Path("mine/runs/b2/fold3")) == "python models/train_b2.py --fold 3 --work mine"
    monkeypatch.setenv("RSNA_WORK", "mine")
    assert command_of_fold("train", Path("mine/runs/b2/fold3")) == "python models/train_b2.py --fold 3"
    assert command_of("score", work=Work(Path("."))) == "python models/score.py --work ."


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A cache of three folds, of a phantom whose folder has an odd name, beside another phantom in data/."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed in (("my own data", 0), ("data", 1)):
        write_phantom(folder / name, studies=6, test_studies=1, image_size=SIZE, seed=seed, jobs=1)
    prepare = REPOSITORY / "models" / "prepare.py"
    flags = f"--image-size {SIZE} --folds 3 --seed 5 --jobs 1".split()
    call(prepare, ["--data", str(folder / "my own data"), "--work", str(folder), *flags])
    return folder


@pytest.fixture
def broken(made, tmp_path, monkeypatch) -> Work:
    """A copy of it, to be broken; the process stands beside the other data."""
    work = Work(Path(shutil.copytree(made, tmp_path / "its work")))
    monkeypatch.chdir(work.root)
    monkeypatch.delenv("RSNA_DATA", raising=False)
    return work


def damage(path: Path, at: int | None = None) -> Path:
    """Flip a bit in the middle of a file, or at a byte of it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)
    return path


def damage_table(path: Path) -> Path:
    """Flip the last bit of the values of a column; the heads of pages, which no checksum covers, hold no values."""
    column = pq.read_metadata(path).row_group(0).column(0)
    first = column.dictionary_page_offset or column.data_page_offset
    return damage(path, first + column.total_compressed_size - 1)


def store(work: Work) -> Path:
    return next(iter(sorted(work.slices(SIZE).iterdir())))


BREAKS = {
    "no metadata": (lambda work: work.metadata("train").unlink(), lambda work: read_slices(work, "train")),
    "damaged metadata": (
        lambda work: damage_table(work.metadata("test")),
        lambda work: read_slices(work, "test"),
    ),
    "no folds": (lambda work: work.folds.unlink(), read_folds),
    "damaged folds": (lambda work: work.folds.write_text("patient_id,fold\n"), read_folds),
    "damaged slices": (
        lambda work: damage(store(work)),
        lambda work: [Series(path).read(i) for path in work.slices(SIZE).iterdir() for i in range(len(Series(path)))],
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_the_repair_that_an_error_names_mends_the_cache_from_its_own_data(what, broken):
    damaged, read = BREAKS[what]
    damaged(broken)
    with pytest.raises(InputError) as caught:
        read(broken)
    message = str(caught.value)
    if delete := re.match(r"(\S.*?) is damaged", message):
        Path(delete[1]).unlink()
    command = shlex.split(message.partition("make it with: ")[2] or message.partition("anew with: ")[2])
    assert command[command.index("--data") + 1].endswith("my own data")
    call(REPOSITORY / command[1], [*command[2:], "--jobs", "1"])
    read(broken)
    assert [path.name for path in broken.cache.glob("slices_*")] == [f"slices_{SIZE}"]


def test_the_repair_of_a_cache_is_the_command_that_made_it(broken):
    assert shlex.split(prepare_command(broken)) == [
        *f"python models/prepare.py --image-size {SIZE} --folds 3 --seed 5 --data".split(),
        str(noted(broken)["data"]),
    ]
    assert f"--image-size {SIZE} 64 " in prepare_command(broken, 64)
    broken.prepared.unlink()
    assert prepare_command(broken, 64) == "python models/prepare.py --image-size 64"


def test_of_own_files_no_path_is_noted(tmp_path):
    write_phantom(tmp_path / "DOE^JANE", studies=3, test_studies=0, image_size=SIZE, jobs=1, layout="tree")
    for mark in ("phantom.json", "contact_sheet.png"):
        (tmp_path / "DOE^JANE" / mark).unlink()
    prepare = REPOSITORY / "models" / "prepare.py"
    words = ["--data", str(tmp_path / "DOE^JANE"), "--work", str(tmp_path), "--image-size", str(SIZE), "--jobs", "1"]
    call(prepare, words)
    assert "DOE" not in Work(tmp_path).prepared.read_text()
    assert not is_synthetic(Work(tmp_path))


def test_the_command_that_is_noted_names_no_folder(monkeypatch):
    words = ["--fold", "1", "--work", "its folder", "--name", "my small", "--data=/a/b", "--stage", "2"]
    words += ["--output", "/home/doe", "--work-from", "/home/doe/first", "../doe", "--work_from", "../doe"]
    monkeypatch.setattr("sys.argv", [str(REPOSITORY / "models" / "train_small.py"), *words])
    assert typed_command() == "python models/train_small.py --fold 1 --name 'my small' --stage 2"
    monkeypatch.setattr("sys.argv", ["pytest", *words])
    assert typed_command() is None
