"""The network that is used where nobody names one: it lies in the repository, and has learnt from drawings alone.

models/inference/default_network/
    slices/fold0/      the network of slices, a finished run: config.json, model.safetensors, patients.parquet
    studies/fold0/     the recurrent layers over it, the same files; this one predicts, and looks for the other beside
    calibration.json   a temperature and a bias for each label
    files.json         the sha256 of all of these, and how they were made; written last: it marks the whole
    README.md          the card (default_card.py)
"""

from pathlib import Path
from typing import Any

from models.common.errors import InputError
from models.common.files import damaged, first_changed, read_json
from models.common.labels import LABELS
from models.common.repair import command_of
from models.inference.calibration import Calibration

FOLDER = Path(__file__).parent / "default_network"
SLICES, STUDIES = "slices", "studies"  # its runs
WARNING = (
    "the default network has learnt from drawings of make_phantom.py alone and is not calibrated on people; "
    "research software, not a medical device"
)
CARD = "README.md"
RUN_FILES = ("config.json", "model.safetensors", "patients.parquet")
LARGEST = 6_000_000  # bytes, of all files together: every clone and every wheel has them


def default_runs(folder: Path = FOLDER) -> tuple[Path, ...]:
    """The folders of its two finished runs: the network of slices, and the recurrent layers over it, which predict.

    Raises InputError if it is not in `folder`, or one of its files is not the one that it was made with.
    """
    require_whole(folder)
    return run_folder(folder, SLICES), run_folder(folder, STUDIES)


def default_calibration(folder: Path = FOLDER) -> dict[str, Calibration]:
    """Of each label, for what the recurrent layers predict (`models.inference.blending.calibrated`); of drawings.

    Raises InputError as `default_runs`.
    """
    require_whole(folder)
    values = read_json(folder / "calibration.json", repair())
    return {label: Calibration(*values[label]) for label in LABELS}


def run_folder(folder: Path, name: str) -> Path:
    """Where a run of a default network lies: as in runs/, since the second one looks for the first beside itself."""
    return folder / name / "fold0"


def needed_files(folder: Path) -> dict[str, Path]:
    """The files of a default network without which it is none, by their names in files.json."""
    paths = [run_folder(folder, name) / file for name in (SLICES, STUDIES) for file in RUN_FILES]
    return {path.relative_to(folder).as_posix(): path for path in [*paths, folder / "calibration.json"]}


def require_whole(folder: Path) -> dict[str, Any]:
    """What files.json tells of a default network.

    Raises InputError if it is not there, or one of its files is missing or another one.
    """
    if not (folder / "files.json").is_file():
        raise InputError(f"no default network in {folder}; make it with: {repair()}, or name another with --weights")
    told = read_json(folder / "files.json", repair())
    due = (
        dict.fromkeys(needed_files(folder), "") | told["sha256_of"]
    )  # of a needed one that is not told no hash is right
    if (path := first_changed(folder, due)) is not None:
        raise damaged(path, repair())
    return told


def repair() -> str:
    """The command that makes it."""
    return command_of("make_default_network")
