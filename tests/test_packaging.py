"""`pip install .` gives a package that works, and the declared, the listed and the locked requirements agree."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packed import build_wheel, default_network

REPOSITORY = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
BACKEND = PYPROJECT["build-system"]["requires"]
OWN = {"models", "radam"}
ON_DEMAND = {"wandb", "distributed"}  # imported behind --wandb and --dask, which say what to install
PYTHONS = ("3.11", "3.12", "3.13")


def requirement_lines(name: str) -> list[str]:
    """What a requirements file asks for, a requirement with its hashes on one line."""
    lines = (REPOSITORY / name).read_text().replace("\\\n", "").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def distributions(lines: list[str] | set[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package, built as `pip install .` builds it, without a network."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_requirements_txt_lists_what_pyproject_declares():
    listed = [Requirement(line.split("  #")[0]) for line in requirement_lines("requirements.txt") if line != "-e ."]
    extras = ("onnx", "training", "notebooks", "checks")
    declared = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    assert [str(requirement) for requirement in listed] == [str(Requirement(line)) for line in declared]
    assert "-e ." in requirement_lines("requirements.txt")


def test_what_the_package_imports_is_declared():
    imported = set()
    for path in (REPOSITORY / "radam.py", *REPOSITORY.glob("models/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    known = packages_distributions()
    engines = {*EXTRAS["onnx"], *EXTRAS["training"]}
    declared = distributions(PROJECT["dependencies"]) | distributions(engines | ON_DEMAND)
    foreign = {name: known.get(name, [name]) for name in imported - OWN - set(sys.stdlib_module_names)}
    assert {name for name, sources in foreign.items() if not distributions(set(sources)) & declared} == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_every_requirement_with_its_hashes(python):
    system = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    locked = {}
    for line in requirement_lines("constraints.txt"):
        pinned, *hashes = line.split("--hash=sha256:")
        requirement = Requirement(pinned)
        assert hashes, f"{requirement} has no hash"
        if requirement.marker is None or requirement.marker.evaluate(system):
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            locked[canonicalize_name(requirement.name)] = pin.version
    wanted = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines), *BACKEND]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_the_wheel_holds_every_module_script_and_page(wheel):
    files = {path for path in (REPOSITORY / "models").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(REPOSITORY).as_posix() for path in files} | {"radam.py"}
    expected |= {path.relative_to(REPOSITORY).as_posix() for path in default_network(REPOSITORY).values()}
    assert {"models/prepare.py", "models/reporting/page.html", "models/reporting/page.css"} < expected
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_the_wheel_takes_the_first_two_steps_from_any_folder(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    tiny = "--image-size 32 --jobs 1"
    code = f"""
import runpy, sys
import radam, models
print(radam.__file__, models.__file__)
for words in ("make_phantom data --studies 6 --test-studies 1 {tiny}", "prepare --folds 2 {tiny}"):
    sys.argv = words.split()
    runpy.run_module(f"models.{{sys.argv[0]}}", run_name="__main__")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where = done.stdout.splitlines()[0].split()
    assert all(Path(path).is_relative_to(site) for path in where)
    assert (elsewhere / "cache" / "folds.csv").is_file()


def test_the_build_backend_is_pinned():
    assert distributions(BACKEND) == {"setuptools"}
    assert [pin.operator for line in BACKEND for pin in Requirement(line).specifier] == ["=="]
