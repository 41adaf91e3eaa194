"""Code and wheels for a session of Kaggle's, with or without internet: a folder that becomes a dataset.

    python kaggle/collect_wheels.py                # or make kaggle-wheels -> kaggle/wheels/
    kaggle datasets create -p kaggle/wheels --dir-mode tar

Needs internet, and the environment of `make demo`, whose versions are taken: all that the project requires but torch
and what it brings along, which are gigabytes, and which every image of Kaggle's has. Wheels are for Python 3.11 and
3.12.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "kaggle" / "wheels"
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
    """Make the folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pip("wheel", "--no-deps", "--no-build-isolation", ROOT)
    collect(needed(REQUIRED))
    (FOLDER / "dataset-metadata.json").write_text(json.dumps(METADATA, indent=2))
    copy_weights()
    files = list(FOLDER.glob("*.whl"))
    print(f"{FOLDER}: {len(files)} wheels, {sum(file.stat().st_size for file in files) / 1e6:,.0f} MB")


def needed(required: list[str]) -> dict[str, str]:
    """Names and installed versions of what is required, and of what that requires, without torch's."""
    found: dict[str, str] = {}
    waiting = [Requirement(line) for line in required]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or OF_THE_IMAGE.fullmatch(name):
            continue
        installed = distribution(name)
        found[name] = installed.version
        below = [Requirement(line) for line in installed.requires or []]
        waiting += [other for other in below if applies(other, requirement.extras)]
    return found


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """Whether a package that is asked for with some extras, or none, requires it on this system."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


def collect(versions: dict[str, str]) -> None:
    """Download wheels of packages for each Python; build those that are published as source alone."""
    pinned = {name: f"{name}=={version}" for name, version in sorted(versions.items())}
    built = [pinned.pop(name) for name in SOURCES]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    for python in PYTHONS:
        pip("download", "--no-deps", "--only-binary=:all:", *platforms, "--python-version", python, *pinned.values())
    pip("wheel", "--no-deps", *built)


def pip(step: str, *words: object) -> None:
    """Run a command of pip that fills the folder. Raises CalledProcessError if it fails."""
    where = "--dest" if step == "download" else "--wheel-dir"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", step, where, FOLDER, *words]
    subprocess.run([str(word) for word in command], check=True)


def copy_weights() -> None:
    """Put the ImageNet weights of EfficientNet-B0 where torch looks for them if TORCH_HOME names this folder."""
    from efficientnet_pytorch.utils import url_map

    from models.common.errors import InputError
    from models.training.pretrained import imagenet_file  # checks the hash

    try:
        kept = imagenet_file("efficientnet-b0", url_map["efficientnet-b0"])
    except InputError as error:  # packages may come from another place than weights
        print(f"warning: {error}; without them a session needs internet")
        return
    (FOLDER / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(kept, FOLDER / "hub" / "checkpoints")


if __name__ == "__main__":
    main()
