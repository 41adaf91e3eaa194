"""What the torture tests share: small phantoms, prepare.py as a process of its own, and what it has left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from once import HANG, made_once
from pydicom.uid import RLELossless
from written import contents

from models.phantom.dicom import write_phantom
from models.phantom.draft import edited
from models.preprocessing.preparation import PrepareOptions, prepare

TESTS = Path(__file__).parent.parent
REPOSITORY = TESTS.parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(map(str, filter(None, [REPOSITORY, TESTS, os.environ.get("PYTHONPATH")]))),
}
SIZES = (48, 64)
FOLDS = 2


def drawn(factory: pytest.TempPathFactory, studies: int, test_studies: int, layout: str, *traps: str) -> Path:
    """A phantom of 48 px, drawn once; whoever changes it changes a copy."""

    def draw(folder: Path) -> None:
        write_phantom(folder, studies, test_studies, image_size=48, jobs=1 + (studies > 5), layout=layout, traps=traps)

    return made_once(factory, "_".join(["drawn", str(studies), str(test_studies), layout, *traps]), draw)


def small(factory: pytest.TempPathFactory) -> Path:
    """A raw folder of 4 series."""
    return drawn(factory, 3, 1, "stage_2")


def large(factory: pytest.TempPathFactory) -> Path:
    """A raw folder of 34 series."""
    return drawn(factory, 30, 4, "stage_2")


def undisturbed(factory: pytest.TempPathFactory, data: Path) -> Path:
    """A working folder with the cache of a drawn phantom, made in this process, once."""

    def make(work: Path) -> None:
        prepare(PrepareOptions(data=data, work=work, image_size=SIZES, folds=FOLDS, jobs=1))

    return made_once(factory, f"undisturbed_{data.name}", make)


def command(data: Path, work: Path, *flags: object) -> list[str]:
    """The command line of prepare.py; later flags replace earlier ones."""
    script = REPOSITORY / "models" / "prepare.py"
    words = [sys.executable, script, "--data", data, "--work", work, "--image-size", *SIZES, "--jobs", 2]
    return [str(word) for word in [*words, "--folds", FOLDS, *flags]]


def run_prepare(data: Path, work: Path, *flags: object, **options: object) -> subprocess.CompletedProcess:
    """Run prepare.py to its end; `options` are those of subprocess.run."""
    return subprocess.run(
        command(data, work, *flags),
        check=False,
        **{"capture_output": True, "text": True, "timeout": HANG, "env": ENVIRONMENT, **options},
    )


MARKS = (".prepare.lock", ".prepared_here")  # that prepare.py works, or has worked, there


def temporaries(work: Path) -> list[str]:
    """What is left of files that were being written."""
    return [str(path.relative_to(work)) for path in sorted(work.rglob(".*")) if path.name not in MARKS]


def require_same_cache(work: Path, other: Path) -> None:
    """Fail unless both working folders hold the same cache, and beside the first are a key and its marks alone."""
    found, expected = contents(work / "cache"), contents(other / "cache")
    names = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
    assert not names, f"other than undisturbed: {sorted(names)}"
    beside = {path.name for path in work.iterdir()}
    assert beside == {"cache", "pseudonyms.key", ".prepare.lock", ".prepared_here"}, (
        f"beside the cache: {sorted(beside)}"
    )
    mode = (work / "pseudonyms.key").stat().st_mode
    assert not mode & 0o077, f"the key can be read by others: {mode:o}"


def require_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    """Fail unless a call ended with the one-line message of an InputError in which these words stand."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    # joblib's tracker of shared memory, a process of its own, may warn after the end of the others.
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line


def compressed(data: Path, folder: Path) -> Path:
    """A copy of a raw folder in Kaggle's layout with all training slices RLE-compressed."""
    copy = shutil.copytree(data, folder)
    for path in (copy / "stage_2_train").iterdir():
        with edited(path) as dataset:
            dataset.compress(RLELossless, generate_instance_uid=False)
    return copy
