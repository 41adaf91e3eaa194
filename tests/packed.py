"""Packages as wheels, made without a network."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from zipfile import ZipFile

from models.inference.default import FOLDER, needed_files

REPOSITORY = Path(__file__).parent.parent


def default_network(root: Path) -> dict[str, Path]:
    """The files of the network in the repository, or in a copy of it."""
    return needed_files(root / FOLDER.relative_to(REPOSITORY))


def build_wheel(folder: Path) -> Path:
    """That of this project, as `pip install .` builds it."""
    source = folder / "source"
    copytree(REPOSITORY / "models", source / "models", ignore=ignore_patterns("__pycache__"))
    for name in ("radam.py", "pyproject.toml", "README.md", "LICENSE"):
        copy(REPOSITORY / name, source)
    for path in default_network(source).values():  # where it has not been made, as if it were
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    words = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def packed_again(name: str, folder: Path) -> Path:
    """The wheel of a package of Python alone that is installed here."""
    installed = distribution(name)
    wheel = folder / f"{name}-{installed.version}-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for file in installed.files or []:
            if ".." not in file.parts and file.suffix != ".pyc" and file.name not in ("INSTALLER", "REQUESTED"):
                archive.write(file.locate(), str(file))
    return wheel
