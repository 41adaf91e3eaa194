"""Code and wheels for a session of Kaggle's, with or without internet: a folder that becomes a dataset.

    python kaggle/collect_wheels.py                # or make kaggle-wheels -> kaggle/wheels/
    kaggle datasets create -p kaggle/wheels --dir-mode tar

Needs internet, and the environment of `make demo`, in which is asked what each package requires: all that the project
requires but torch and what it brings along, which are gigabytes, and which every image of Kaggle's has. Versions are
those of constraints.txt, wheels are for Python 3.11 and 3.12. A folder of before stays until the new one is complete.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "kaggle" / "wheels"
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["training"]]
PYTHONS = ("3.11.13", "3.12.11")  # those of Kaggle's images; pip would take 3.11 for its first release
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")
OF_THE_IMAGE = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")
SOURCES = ("efficientnet-pytorch", "pretrainedmodels")  # of Python alone, and published without a wheel
METADATA = {
    "title": "RSNA hemorrhage wheels",
    "id": "YOUR_NAME/rsna-hemorrhage-wheels",
    "licenses": [{"name": "other"}],
}


def main() -> None:
    """Make the folder anew, beside that of before, and put it in its place."""
    folder = FOLDER.with_name("wheels_new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip("wheel", folder, "--no-deps", "--no-build-isolation", ROOT)
    for python in PYTHONS:
        collect(needed(REQUIRED, python), python, folder)
    (folder / "dataset-metadata.json").write_text(json.dumps(METADATA, indent=2))
    copy_weights(folder)
    shutil.rmtree(FOLDER, ignore_errors=True)
    folder.rename(FOLDER)
    files = list(FOLDER.glob("*.whl"))
    print(f"{FOLDER}: {len(files)} wheels, {sum(file.stat().st_size for file in files) / 1e6:,.0f} MB")


def needed(required: list[str], python: str) -> dict[str, str]:
    """Names and versions of what is required, and of what that requires, on a release of Python, without torch's."""
    versions = pinned(python)
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(line) for line in required]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked = (name, frozenset(requirement.extras))
        if asked in seen or OF_THE_IMAGE.fullmatch(name):
            continue
        seen.add(asked)
        found[name] = versions[name]
        waiting += [other for other in required_by(name) if applies(other, python, requirement.extras)]
    return found


def pinned(python: str) -> dict[str, str]:
    """Names and versions of constraints.txt that are for a release of Python."""
    lines = re.findall(r"^\w.*?==[^\\\n]+", CONSTRAINTS.read_text(), re.MULTILINE)
    pins = [pin for line in lines if applies(pin := Requirement(line), python)]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def required_by(name: str) -> list[Requirement]:
    """What a package requires, by the one that is installed here; of one for another Python alone nothing is known."""
    try:
        return [Requirement(line) for line in requires(name) or []]
    except PackageNotFoundError:
        return []


def applies(requirement: Requirement, python: str, extras: Iterable[str] = ()) -> bool:
    """Whether a requirement holds on a release of Python and this system, of a package asked for with some extras."""
    release = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    marker = requirement.marker
    return marker is None or any(marker.evaluate(release | {"extra": extra}) for extra in ("", *extras))


def collect(versions: dict[str, str], python: str, folder: Path) -> None:
    """Download wheels of packages for a release of Python; build those that are published as source alone."""
    pins = {name: f"{name}=={version}" for name, version in sorted(versions.items())}
    built = [pins.pop(name) for name in SOURCES]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    words = ["--no-deps", "--only-binary=:all:", *platforms, "--python-version", python]
    pip("download", folder, *words, *pins.values())
    pip("wheel", folder, "--no-deps", *built)


def pip(step: str, folder: Path, *words: object) -> None:
    """Run a command of pip that fills a folder. Raises CalledProcessError if it fails."""
    where = "--dest" if step == "download" else "--wheel-dir"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", step, where, folder, *words]
    subprocess.run([str(word) for word in command], check=True)


def copy_weights(folder: Path) -> None:
    """Put the ImageNet weights of EfficientNet-B0 where torch looks for them if TORCH_HOME names the folder."""
    from efficientnet_pytorch.utils import url_map

    from models.common.errors import InputError
    from models.training.pretrained import imagenet_file  # checks the hash

    try:
        kept = imagenet_file("efficientnet-b0", url_map["efficientnet-b0"])
    except InputError as error:  # packages may come from another place than weights
        print(f"warning: {error}; without them a session needs internet")
        return
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(kept, folder / "hub" / "checkpoints")


if __name__ == "__main__":
    main()
