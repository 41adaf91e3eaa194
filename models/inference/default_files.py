"""How the files of a default network are made of two finished runs: their weights as float16, in half the bytes."""

from pathlib import Path
from typing import Any

from models.common.errors import InputError
from models.common.files import hash_file, remove_temporaries, require_writable, write_json, write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.blending import fit_calibrations
from models.inference.calibration import Calibration
from models.inference.default import CARD, LARGEST, SLICES, STUDIES, repair, run_folder
from models.inference.default_card import Measured, card
from models.inference.halving import halve
from models.inference.runs import read_out_of_fold
from models.inference.scoring import in_common, score_table
from models.preprocessing.tables import read_slices
from models.training.run_record import require_run
from models.training.scoring import WEIGHTED


def write_default(folder: Path, slices: Work, studies: Work, made: dict[str, Any]) -> None:
    """Write a default network from the fold of its two runs in two working folders; `made` is noted with it.

    What calibrates it is fitted on the slices that the recurrent layers have validated on. Raises InputError if the
    folder cannot be written to, the files are too large for a repository, a run is not finished, or the recurrent
    layers were trained on another network of slices.
    """
    require_writable(folder)
    (folder / "files.json").unlink(missing_ok=True)
    remove_temporaries(folder)
    for name, work in ((SLICES, slices), (STUDIES, studies)):
        halve(work.run(name, 0), run_folder(folder, name))
    network, layers = (require_run(run_folder(folder, name), repair()) for name in (SLICES, STUDIES))
    if layers.sources[SLICES] != network.weights_sha256:
        raise InputError(f"{studies.run(STUDIES, 0)} was trained on another {SLICES}; delete it to train it again")
    calibrations = calibrate(studies)
    write_json(folder / "calibration.json", dict(zip(LABELS, calibrations, strict=True)))
    drawings = {name: scores_of_drawings(work, name) for name, work in ((SLICES, slices), (STUDIES, studies))}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    if (size := sum(path.stat().st_size for path in files)) > LARGEST:
        raise InputError(f"the files have {size:,} bytes, more than {LARGEST:,}; choose a smaller --network")
    sha256_of = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
    told = {"made": made, "drawings": drawings, "sha256_of": sha256_of}
    write_card(folder, told, None)
    write_json(folder / "files.json", told)


def calibrate(studies: Work) -> tuple[Calibration, ...]:
    """What calibrates the recurrent layers on what they have validated on. Raises InputError if that is damaged."""
    labels = read_slices(studies, "train").set_index("image_id")
    _, target, probability = in_common(labels, read_out_of_fold(studies, STUDIES, [0]))
    return fit_calibrations(probability, target)


def scores_of_drawings(work: Work, name: str) -> dict[str, float]:
    """What the fold of a run reaches on what it has validated on. Raises InputError if that is damaged."""
    labels = read_slices(work, "train").set_index("image_id")
    table = score_table(labels, {name: read_out_of_fold(work, name, [0])})
    columns = ["slices", WEIGHTED, "prior", "AUC any"]
    return dict(zip(columns, table[columns].to_numpy(float)[0].round(4).tolist(), strict=True))


def write_card(folder: Path, told: dict[str, Any], measured: Measured | None) -> None:
    """Write the card of a default network. Raises InputError if it cannot be written, or a record is damaged."""
    runs = {name: require_run(run_folder(folder, name), repair()) for name in (SLICES, STUDIES)}
    sizes = {name: (folder / name).stat().st_size for name in told["sha256_of"]}
    write_text(folder / CARD, card(told, runs, sizes, measured))
