"""Laws of a machine that has other work: load and stops change no byte of the cache and lose no slice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from once import made_once
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from torture import ENVIRONMENT, command, require_same_cache, run_prepare

from models.common.files import read_parquet
from models.common.folders import Work
from models.phantom.dicom import write_phantom
from models.phantom.draft import edited
from models.phantom.jpeg import encode_jpeg_lossless

SLICES = 500  # compressed, and as many that are not
STOPS, STOPPED = 10, 4  # times, and seconds each: longer than a decoder may compute
BESIDE = 8  # processes that compute
SYNTAXES = (RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A raw folder of a thousand slices, every second one compressed in one of four ways."""

    def draw(folder: Path) -> None:
        write_phantom(folder, studies=45, test_studies=3, image_size=64, jobs=2)
        files = sorted(folder.glob("stage_2_*/*.dcm"))
        for path in files[2 * SLICES :]:
            path.unlink()
        for path, syntax in zip(files[1 : 2 * SLICES : 2], cycle(SYNTAXES), strict=False):
            compress(path, syntax)

    return made_once(tmp_path_factory, "load", draw)


def compress(path: Path, syntax: str) -> None:
    with edited(path) as dataset:
        if syntax != JPEGLosslessSV1:
            dataset.compress(syntax, generate_instance_uid=False)
            return
        values = dataset.pixel_array.astype("<u2") & ((1 << dataset.BitsStored) - 1)
        dataset.PixelData = encapsulate([encode_jpeg_lossless(values, dataset.BitsStored)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax


@contextmanager
def load() -> Iterator[None]:
    """Processes that compute, beside the block."""
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BESIDE)]
    try:
        yield
    finally:
        for process in beside:
            process.kill()
            process.wait()


def run_with_stops(data: Path, work: Path, series: int) -> int:
    """Prepare, and stop all its processes so many times on the way, by what is stored; returns how often."""
    process = subprocess.Popen(
        command(data, work),
        start_new_session=True,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stops = 0
    try:
        while process.poll() is None:
            stored = len(list(work.glob("cache/slices_*/*.slices")))
            if stops < STOPS and stored >= 2 * series * stops // STOPS and (work / "cache").is_dir():
                os.killpg(process.pid, signal.SIGSTOP)
                time.sleep(STOPPED)
                os.killpg(process.pid, signal.SIGCONT)
                stops += 1
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    return stops


@pytest.mark.torture
def test_load_and_stops_change_no_byte(data, tmp_path):
    start = time.monotonic()
    assert run_prepare(data, tmp_path / "idle").returncode == 0
    idle = time.monotonic() - start
    work = Work(tmp_path / "idle")
    tables = [read_parquet(work.metadata(split), "") for split in ("train", "test")]
    assert sum(map(len, tables)) == 2 * SLICES
    assert all((table["chunk"] >= 0).all() for table in tables)
    with load():
        start = time.monotonic()
        assert run_prepare(data, tmp_path / "busy").returncode == 0
        busy = time.monotonic() - start
    stops = run_with_stops(data, tmp_path / "stopped", sum(table["series_id"].nunique() for table in tables))
    assert stops == STOPS
    for name in ("busy", "stopped"):
        require_same_cache(tmp_path / name, tmp_path / "idle")
    print(f"{idle:.0f} s idle, {busy:.0f} s under load, {stops} stops; {2 * SLICES} slices read")
