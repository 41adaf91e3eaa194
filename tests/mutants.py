"""Copies of the project with one promise broken, for tests that hold that other tests turn red by it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def copy_project(folder: Path) -> None:
    """What tests need of the project."""
    for name in ("models", "tests"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("radam.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)


def break_promise(file: Path, text: str, broken: str) -> None:
    """Put something else in the place of a text that stands once in a file."""
    content = file.read_text()
    assert content.count(text) == 1
    file.write_text(content.replace(text, broken))


def run_tests(folder: Path, *tests: str) -> subprocess.CompletedProcess:
    """pytest in a copy, till the first test that fails: it ends with 0 if none does, and with 1 if one does."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
