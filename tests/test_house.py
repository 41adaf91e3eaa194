"""Laws of the layout: files under models/ are run, folders are imported, imports run one way, and docstrings tell."""

import ast
import subprocess
import sys
from pathlib import Path

import docstrings
import house
import pytest

MODULES = house.sources()
SCRIPTS = sorted(name for name in MODULES if house.is_script(name))
ROOMS = sorted(house.MAY_IMPORT)
SECONDS = {"torch", "fastai", "pretrainedmodels", "efficientnet_pytorch", "albumentations", "sklearn", "matplotlib"}
LONGEST_MODULE, LONGEST_FUNCTION = 300, 60  # lines; a function fits on a screen

every_script = pytest.mark.parametrize("script", SCRIPTS)
every_module = pytest.mark.parametrize("module", sorted(MODULES))


def test_the_rooms_are_those_of_the_map():
    rooms = {house.room_of(name) for name in MODULES} - {None}
    assert rooms == set(ROOMS) == {"common", "phantom", "preprocessing", "training", "inference", "reporting"}
    for room in ROOMS:
        assert f"{room}/" in MODULES["models"]


@every_script
def test_a_file_under_models_is_run_and_says_how(script):
    assert '__name__ == "__main__"' in MODULES[script]
    assert f"python {script.replace('.', '/')}.py" in ast.get_docstring(ast.parse(MODULES[script]))


def test_a_module_in_a_room_is_not_run():
    run = {name for name, text in MODULES.items() if "__main__" in text} - set(SCRIPTS)
    assert run <= {"models.preprocessing.decoding", "models.common.cli"}  # a process of its own; reads its docstring


def test_imports_run_one_way():
    assert house.wrong_imports(MODULES) == []


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("place", ["", "def late():\n    ", "class Some:\n    def late(self):\n        "])
def test_a_wrong_import_is_found_in_each_room_wherever_it_stands(room, place):
    wrong = [f"models.{other}" for other in ROOMS if other not in house.MAY_IMPORT[room]] + [SCRIPTS[0]]
    for name in wrong:
        for text in (f"import {name}", f"from {name} import some", f"from models import {name.split('.')[1]}"):
            planted = dict.fromkeys(SCRIPTS, "") | {f"models.{room}.deep.planted": place + text}
            assert len(house.wrong_imports(planted)) > 0, text


def test_no_module_needs_what_needs_it():
    assert house.circles(MODULES) == []


def test_a_circle_is_found():
    planted = {
        "models.common.a": "def f():\n    from models.common.b import g",
        "models.common.b": "import models.common.a",
    }
    assert house.circles(planted) == list(planted)


@every_script
def test_what_a_command_line_answers_costs_no_second_of_imports(script):
    needed = house.needed_at_start(script, MODULES)
    assert "models.common.cli" in needed
    assert not {name.split(".")[0] for name in needed} & SECONDS


def test_no_module_hides_one_of_the_standard_library_or_a_dependency():
    stems = {name.rpartition(".")[2] for name in MODULES} - {"radam"}
    assert not stems & (
        set(sys.stdlib_module_names) | SECONDS | {"pydicom", "pandas", "numpy", "cv2", "blosc2", "tyro"}
    )


def test_helpers_of_the_tests_have_names_of_their_own():
    """pytest puts each folder of the tests on the path: of two files of one name, the order of the tests picks one."""
    stems = [path.stem for path in Path(__file__).parent.rglob("*.py") if path.stem != "conftest"]
    assert not {stem for stem in stems if stems.count(stem) > 1}
    assert not set(stems) & {*sys.stdlib_module_names, *SECONDS}


def test_importing_a_module_changes_nothing_of_the_process():
    """Neither pydicom's settings nor logging, warnings and the environment; what other packages do counts for them."""
    at_start = (house.imports(text, everywhere=False) for text in MODULES.values())
    foreign = sorted({name for names in at_start for name in names if not is_ours(name)})
    code = f"""
import importlib, logging, os, warnings
def try_import(name):
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # something in a module, or a package that is optional
for name in {foreign}:
    try_import(name)
import pydicom
def state():
    loggers = {{name: logging.getLogger(name).level for name in ("", "pydicom", "fastai", "torch")}}
    return dict(os.environ), loggers, list(warnings.filters), vars(pydicom.config.settings).copy()
before = state()
for name in {sorted(MODULES)}:
    importlib.import_module(name)
assert state() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def is_ours(name: str) -> bool:
    return name.split(".")[0] in ("models", "radam")


@every_module
def test_a_module_has_one_concern_and_a_function_fits_on_a_screen(module):
    assert len(MODULES[module].splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(MODULES[module])):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_everything_public_has_a_docstring():
    assert docstrings.without_docstring(MODULES) == []


def test_what_raises_an_input_error_says_so():
    assert docstrings.silent_about_errors(MODULES) == []


def test_what_takes_or_gives_an_array_says_its_shape():
    assert docstrings.silent_about_shapes(MODULES) == []


@pytest.mark.parametrize(
    ("law", "text"),
    [
        (docstrings.without_docstring, "def some(): ..."),
        (docstrings.without_docstring, "class Some: ..."),
        (docstrings.without_docstring, "class Work:\n    'Some.'\n    def some(self): ..."),
        (docstrings.silent_about_errors, "def some():\n    'Some.'\n    raise InputError('')"),
        (docstrings.silent_about_errors, "def some():\n    raise made()\ndef made() -> InputError: ..."),
        (docstrings.silent_about_errors, "def some():\n    _some()\ndef _some():\n    raise InputError('')"),
        (docstrings.silent_about_errors, "class Some:\n    def __init__(self):\n        raise InputError('')"),
        (docstrings.silent_about_shapes, "def some(array: np.ndarray):\n    'An array (of slices).'"),
        (docstrings.silent_about_shapes, "def some() -> list[torch.Tensor]:\n    'What `other` gives.'"),
        (docstrings.silent_about_shapes, "class Some:\n    def forward(self, *images: torch.Tensor): ..."),
    ],
)
def test_a_docstring_that_lacks_or_is_silent_is_found(law, text):
    assert len(law({"models.common.folders": text})) == 1
