"""How long prepare.py looks at as many files as the challenge has: when it says its first word, seconds and memory.

    python benchmarks/listing.py                       # draws 752,803 files of 1 KB, with made-up names: 4 GB of disk
    python benchmarks/listing.py --files 20000 --jobs 2

Each file is the header of a slice alone. They are listed, their series told by the first bytes of each, and grouped, as
prepare.py does it before the work begins. Prints what it took; the folder is deleted at the end.
"""

import io
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian

from models.common.cli import command
from models.common.errors import InputError
from models.common.labels import LABELS
from models.preprocessing.raw import NESTED

ROOT = Path(__file__).parent.parent
SLICES = 34.6  # a series of the challenge, on average
POLL = 0.02  # seconds


@dataclass(frozen=True)
class ListingOptions:
    """How much is listed."""

    files: int = 752_803
    """names in stage_2_train"""
    jobs: int = 4
    """processes; a session of Kaggle has four cores"""
    folder: Path | None = None
    """where to draw them; none: a temporary folder"""


def main(options: ListingOptions) -> None:
    """Draw the files, and look at them in a process of its own. Raises InputError if that fails."""
    scratch = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        began = time.monotonic()
        draw(scratch / "data" / NESTED, options.files)
        print(f"{options.files:,} files drawn in {time.monotonic() - began:.0f} s")
        seconds = look(scratch, options.jobs)
        print(
            f"{options.files:,} files, {options.jobs} processes: first line after {seconds['line']:.1f} s, first bar "
            f"after {seconds['bar']:.1f} s, all grouped after {seconds['end']:.0f} s, {seconds['cpu']:.0f} s of CPU; "
            f"{seconds['own']:.2f} GB in the main process, {seconds['all']:.2f} GB in all"
        )
    finally:
        shutil.rmtree(scratch)


def draw(folder: Path, count: int) -> None:
    """Write headers of slices in the challenge's layout, each series whole though its files lie anywhere."""
    for split, files in (("train", count), ("test", 35)):
        (folder / f"stage_2_{split}").mkdir(parents=True)
        header = template()
        marks = {name: header.index(name.encode()) for name in ("ID_image0000", "ID_series000", "ID_study0000")}
        for number in range(files):
            series = f"{split}{int(number / SLICES):07x}".encode()[-12:].rjust(12, b"0")
            image = f"ID_{secrets.token_hex(5)[:9]}".encode()
            data = bytearray(header)
            for name, value in zip(marks, (image, b"ID_" + series[-9:], b"ID_" + series[-9:]), strict=True):
                data[marks[name] : marks[name] + 12] = value
            (folder / f"stage_2_{split}" / f"{image.decode()}.dcm").write_bytes(data)
    rows = "".join(f"ID_000000000_{label},0\n" for label in LABELS)
    (folder / "stage_2_train.csv").write_text("ID,Label\n" + rows)
    (folder / "stage_2_sample_submission.csv").write_text("ID,Label\n" + rows)


def template() -> bytes:
    """A header as the challenge's files have it, without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPInstanceUID, dataset.Modality, dataset.PatientID = "ID_image0000", "CT", "ID_study0000"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "ID_study0000", "ID_series000"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    dataset.Rows = dataset.Columns = 512
    written = io.BytesIO()
    pydicom.dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def look(scratch: Path, jobs: int) -> dict[str, float]:
    """Seconds to the first line, to the first bar and to the end of the grouping, and gigabytes of memory.

    It is prepare.py itself, which ends where it counts the disk: more is asked for than there is.
    """
    flags = ["--image-size", 224, "--jobs", jobs, "--keep-free-gb", 1e9]
    words = [sys.executable, ROOT / "models/prepare.py", "--data", scratch / "data", "--work", scratch / "work", *flags]
    log, bars, found = scratch / "log", scratch / "bars", {"own": 0.0, "all": 0.0}
    began = time.monotonic()
    with log.open("wb") as said, bars.open("wb") as drawn:
        process = subprocess.Popen(list(map(str, words)), stdout=said, stderr=drawn)
        main_process = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(POLL)
            now = time.monotonic() - began
            found |= {name: now for name, file in (("line", log), ("bar", bars)) if file.stat().st_size} | found
            found["own"] = max(found["own"], memory([main_process]))
            found["all"] = max(found["all"], memory([main_process, *children(main_process)]))
    last = bars.read_text().splitlines()[-1]
    if "the store will take about" not in last:
        raise InputError(f"prepare.py ended otherwise: {last}; mend that")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # where others work on the machine, what it would take alone
    return found | {"end": time.monotonic() - began, "cpu": used.ru_utime + used.ru_stime}


def children(process: psutil.Process) -> list[psutil.Process]:
    """The processes that one has started, and those that these have."""
    with suppress(psutil.Error):  # it has ended by now
        return process.children(recursive=True)
    return []


def memory(processes: list[psutil.Process]) -> float:
    """GB of some processes that are each one's own."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):  # it has ended by now
            used = process.memory_info()
            total += used.rss - used.shared
    return total / 1e9


if __name__ == "__main__":
    command(main, ListingOptions)
