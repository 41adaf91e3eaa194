"""What one answer of models/predict.py takes, start included: seconds, CPU seconds and memory of the whole command.

    python benchmarks/own_ct.py                  # writes benchmarks/own_ct.json
    python benchmarks/own_ct.py --work scratch   # keeps the drawings and the run of B2, which takes minutes to make

A drawn study at 512 px is answered by the default network and by EfficientNet-B2 at 512 px, which has learnt from a few
drawings for an epoch, so that its speed is true and its answer is not; half of that study is refused. The same study is
answered as NIfTI, too: the last line is the largest difference of all probabilities from those of the DICOM files.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from comparison import quiet, separately
from experiment import working_folder
from run import commit, describe_machine

from models import train_b2
from models.common.cli import command
from models.common.files import write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import Machine, TrainOptions
from models.export_nifti import ExportOptions, export
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_slices
from models.training.run import train

RESULTS = Path(__file__).parent / "own_ct.json"
PREDICT = Path(__file__).parents[1] / "models" / "predict.py"
SIZE = 512  # pixels
ANSWERED, REFUSED = 0, 3  # exit codes


@dataclass(frozen=True)
class OwnOptions:
    """The command line of this benchmark."""

    output: Path = RESULTS
    """the table as JSON"""
    rounds: int = 3
    """of each command, of which the median counts"""
    work: Path | None = None
    """folder for the drawings and the run of B2, which are kept; none: a temporary one"""


class Cost(NamedTuple):
    """What a command has taken."""

    seconds: float
    cpu: float
    mebibytes: float


def main(options: OwnOptions) -> None:
    """Draw and train what is missing, run each command, print the table and write it."""
    with working_folder(options.work) as folder:
        slices = draw(folder)
        b2 = separately(train_b2_for_an_epoch, folder)  # what is measured begins with the memory of this process
        asked: dict[str, tuple[list[str | Path], int]] = {
            "the default network": ([folder / "one"], ANSWERED),
            "EfficientNet-B2 at 512 px": ([folder / "one", "--weights", b2], ANSWERED),
            "half a head, refused": ([folder / "half"], REFUSED),
            "NIfTI, the default network": ([next((folder / "volumes").glob("*.nii.gz"))], ANSWERED),
        }
        rows = {}
        for number, (name, (words, code)) in enumerate(asked.items()):
            costs = [cost(words, folder / f"answers{number}", code) for _ in range(options.rounds)]
            median = Cost(*(round(statistics.median(values), 2) for values in zip(*costs, strict=True)))
            rows[name] = median._asdict()
            print(f"{name:28}{median.seconds:8.1f} s{median.cpu:8.1f} s CPU{median.mebibytes:8.0f} MiB")
        apart = float((probabilities(folder / "answers0") - probabilities(folder / "answers3")).abs().max().max())
    print(f"{slices} slices; NIfTI and DICOM are {apart:.1e} apart at most")
    results = {"machine": describe_machine(), "commit": commit(), "slices": slices, "apart": apart, "rows": rows}
    write_text(options.output, json.dumps(results, indent=1) + "\n")


def draw(folder: Path) -> int:
    """A study as DICOM (one/), the lower half of it (half/), and as NIfTI (volumes/); how many slices it has."""
    with quiet():
        write_phantom(folder / "data", studies=4, test_studies=1, image_size=SIZE)
        prepare(PrepareOptions(folder / "data", folder, image_size=(SIZE,), folds=2))
        export(ExportOptions(image_size=SIZE, output=folder / "volumes", work=folder))
    slices = read_slices(Work(folder), "test")
    for name, rows in (("one", slices), ("half", slices.head(len(slices) // 2))):
        (folder / name).mkdir(exist_ok=True)
        for image_id in rows["image_id"]:
            (file,) = (folder / "data").rglob(f"{image_id}.dcm")
            shutil.copy(file, folder / name)
    return len(slices)


def train_b2_for_an_epoch(folder: Path) -> Path:
    """The folder of a fold of B2; there is no time to teach it anything."""
    config = replace(train_b2.CONFIG, pretrained=False, epochs=1, batch_size=4)
    with quiet():
        train(TrainOptions(config, 0, tta="none", machine=Machine(folder, device="cpu")))
    return Work(folder).run(config.name, 0)


def cost(words: list[str | Path], output: Path, code: int) -> Cost:
    """What an answer takes that is written to a new folder.

    Raises RuntimeError where it ends otherwise than it should.
    """
    shutil.rmtree(output, ignore_errors=True)
    began = time.perf_counter()
    line = [sys.executable, PREDICT, *words, "--output", output, "--device", "cpu"]
    process = subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(map(str, words))} ends with {process.returncode}, not {code}: {told[-500:]}")
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def probabilities(folder: Path) -> pd.DataFrame:
    """What was answered of the slices of a study, from the feet to the head, columns LABELS."""
    (file,) = folder.glob("*/slices.csv")
    return pd.read_csv(file)[list(LABELS)]


if __name__ == "__main__":
    command(main, OwnOptions)
