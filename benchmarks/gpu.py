"""All that a GPU has to show, in under nine minutes: its tests, and slices a second of the presets, beside published.

    python benchmarks/gpu.py --output FOLDER                                     # make gpu
    python benchmarks/gpu.py --output FOLDER --device cpu --quick --presets small    # a rehearsal without a GPU

Writes gpu.json, anew after each row, gpu.log, and gpu_tests.log to the folder, and prints a table. Copied to
benchmarks/gpu.json it is what models/plan.py plans by.

Slices come from a small phantom, whose series stand in the store under 2,000 names: so many files are opened. Of each
preset, in the precision of a training on that card (--precision auto) and channels-last, from random weights, by the
steps, the loader and the predictions of a real run:

loader       batches that nobody uses
alone        a training on one batch, which is on the device already
both         a training with its loader; efficiency is both / min(loader, alone)
d4           predictions under the eight symmetries, of one batch

then compiled, in fp16, and without channels-last, as far as there is time.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else whoever asks for a GPU before a fork breaks it there

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import gpu_rows
import gpu_tests
import pandas as pd
import run
import torch
from comparison import separately

from models.common.cli import command
from models.common.errors import InputError
from models.common.files import write_parquet, write_text
from models.common.folders import Work
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.anchors import ANCHORS
from models.training.device import choose_device

REPOSITORY = Path(__file__).parent.parent
SERIES = 2000  # in the store: of the challenge's 21,744, a loader has a series open by chance only


@dataclass(frozen=True)
class GpuOptions:
    """The command line of this benchmark."""

    output: Path
    """folder for gpu.json and the logs"""
    presets: tuple[str, ...] = ("b0_224", "b0", "b2", "b5", "resnext101")
    """training scripts that look at images, without their train_"""
    minutes: float = 8.0
    """for all of it; what does not fit is left out, and said"""
    test_minutes: float = 2.5
    """of them for the tests"""
    seconds: float = 5.0
    """for each number, after its warm-up"""
    device: str = "cuda:0"
    """cuda:0 or another; cpu with --quick"""
    workers: int = -1
    """processes that load slices; -1: as in training"""
    tests: Path | None = gpu_tests.TESTS
    """file of tests; none: no tests"""
    compile: bool = True
    """with rows that are compiled"""
    commit: str | None = None
    """of what is measured, where there is no git to tell"""
    quick: bool = False
    """a rehearsal with pictures of 32 pixels, whose numbers mean nothing"""


def main(options: GpuOptions) -> int:
    """Measure, print the table and write gpu.json; 1 if a test has failed or a number could not be measured.

    Raises InputError where there is no GPU.
    """
    end = time.monotonic() + 60 * options.minutes
    options.output.mkdir(parents=True, exist_ok=True)
    machine = separately(describe_machine, options.device)
    if machine["gpu"] is None and options.device != "cpu":
        raise InputError("no CUDA device here; --device cpu --quick rehearses without one")
    results: dict[str, Any] = {**described(machine, options), "tests": None, "rows": []}
    print(json.dumps({name: value for name, value in results.items() if name not in ("rows", "tests", "anchors")}))
    with tempfile.TemporaryDirectory() as scratch:
        work = Work(Path(scratch))
        began = time.monotonic()
        make_store(work, options)
        print(f"phantom and store: {time.monotonic() - began:.0f} s", flush=True)
        if options.tests is not None:
            limit = min(60 * options.test_minutes, end - time.monotonic())
            results["tests"] = gpu_tests.tested(options.tests, options.device, options.output / "gpu_tests.log", limit)
            write(results, options)
            print_tests(results["tests"])
        measure_rows(results, work, options, end)
    print(f"\n{table(results['rows'])}\n\n{options.output / 'gpu.json'}")
    return 0 if went_well(results) else 1


def describe_machine(device: str) -> dict[str, Any]:
    """As run.describe_machine, of a device that is measured: a CPU has no card. In a process of its own.

    Raises InputError for a card that is not there, where there are others.
    """
    machine = run.describe_machine()
    if machine["gpu"] is None:
        return machine
    measured = choose_device(device)
    return machine | {"gpu": torch.cuda.get_device_name(measured) if measured.type == "cuda" else None}


def described(machine: dict[str, Any], options: GpuOptions) -> dict[str, Any]:
    """What was measured, where and when; None for what there is not."""
    commit = options.commit or run.commit()
    return {
        "card": machine["gpu"],
        "driver": driver(),
        "cpu": machine["cpu"],
        "cores": len(os.sched_getaffinity(0)),
        "python": machine["python"],
        "torch": machine["torch"],
        "cuda": torch.version.cuda,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "quick": options.quick,
        "anchors": [anchor._asdict() for anchor in ANCHORS],
    }


def driver() -> str | None:
    """The version of NVIDIA's driver."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def make_store(work: Work, options: GpuOptions) -> None:
    """A phantom and its store, each series of which stands there under many names.

    Raises InputError if one of the two scripts fails, and, before any work, for a preset that is not there.
    """
    configs = [setting.config(options.quick) for setting in gpu_rows.settings(options.presets)]
    sizes = sorted({config.image_size for config in configs})
    size, studies = (32, 3) if options.quick else (512, 16)
    script("make_phantom.py", work.root / "data", "--studies", studies, "--test-studies", 1, "--image-size", size)
    script("prepare.py", "--data", work.root / "data", "--work", work.root, "--image-size", *sizes, "--folds", 2)
    shutil.rmtree(work.root / "data")
    separately(multiply, work, sizes, 6 if options.quick else SERIES)


def script(name: str, *words: object) -> None:
    """Run one of models/. Raises InputError, with the end of what it said, if it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(REPOSITORY / "models" / name), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{name} has ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def multiply(work: Work, sizes: list[int], count: int) -> None:
    """Give the series of the store so many names in all, and each of them its slices in the table."""
    slices = read_slices(work, "train")
    slices = slices[slices["chunk"] != UNREADABLE]
    series = slices["series_id"].unique()
    tables = []
    for number in range(count // len(series)):
        names = {name: f"{name}_{number}" for name in series}
        for size, (name, other) in product(sizes, names.items()):
            os.link(work.series(size, name), work.series(size, other))
        tables.append(slices.assign(series_id=slices["series_id"].map(names)))
    write_parquet(work.metadata("train"), pd.concat(tables, ignore_index=True))


def measure_rows(results: dict[str, Any], work: Work, options: GpuOptions, end: float) -> None:
    """Add a row for each setting, and write the results after each."""
    rows = results["rows"]
    how = gpu_rows.RowOptions(work, options.device, options.workers, options.seconds, options.quick)
    print(f"\n{heading()}", flush=True)
    for setting in gpu_rows.settings(options.presets):
        if setting.compile and not options.compile:
            continue
        loaders = {row["preset"]: row["loader"] for row in rows if row["loader"]}
        left = end - time.monotonic()
        limit = left if options.quick else min(3 * setting.needs(options.seconds), left)
        rows.append(gpu_rows.measured_row(setting, how, limit, loaders.get(setting.preset)))
        write(results, options)
        print(line(rows[-1]), flush=True)


def write(results: dict[str, Any], options: GpuOptions) -> None:
    """Write gpu.json, whole or not at all."""
    write_text(options.output / "gpu.json", json.dumps(results, indent=1) + "\n")


def went_well(results: dict[str, Any]) -> bool:
    """Whether all tests have passed that there was time for, and no number is missing because of an error."""
    reasons = [reason for row in results["rows"] for reason in row["why"].values()]
    return (results["tests"] is None or results["tests"]["well"]) and not any("error" in one for one in reasons)


def print_tests(tests: dict[str, Any]) -> None:
    """The outcome of the tests, and what they said if they have failed."""
    print(f"tests: {tests['counts']} in {tests['seconds']} s{'' if tests['why'] is None else ', ' + tests['why']}")
    for text in (*(f"  {outcome:8}{name}" for name, outcome in tests["outcomes"].items()), *tests["said"]):
        print(text)
    sys.stdout.flush()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as lines to print, below a heading; then what is missing, and why."""
    missing = [
        f"{row['preset']} {way(row)}: no {', no '.join(names)}: {reason}"
        for row in rows
        for reason, names in reasons(row).items()
    ]
    return "\n".join([heading(), *map(line, rows), *(["", *missing] if missing else [])])


def reasons(row: dict[str, Any]) -> dict[str, list[str]]:
    """Which numbers are missing for which reason, but those that nobody has asked for."""
    found: dict[str, list[str]] = {}
    for name, reason in row["why"].items():
        if not reason.startswith(("not asked", "no GPU")):
            found.setdefault(reason, []).append(name)
    return found


def heading() -> str:
    """The names of the columns."""
    columns = f"{'loader':>9}{'alone':>9}{'both':>9}{'effic.':>8}{'d4':>8}{'peak GiB':>10}"
    return f"{'slices/s':12}{'size':>5}{'batch':>6}  {'way':20}{columns}   published, scaled by pixels"


def line(row: dict[str, Any]) -> str:
    """A row as a line to print."""
    numbers = [
        ("loader", 9, 0),
        ("alone", 9, 0),
        ("both", 9, 0),
        ("efficiency", 8, 2),
        ("d4", 8, 0),
        ("peak_gib", 10, 1),
    ]
    texts = [
        f"{'-' if row[name] is None else format(row[name], f',.{digits}f'):>{width}}" for name, width, digits in numbers
    ]
    published = ", ".join(f"{card} {rate:,}" for card, rate in row["published"].items())
    return f"{row['preset']:12}{row['size']:5}{row['batch']:6}  {way(row):20}{''.join(texts)}   {published}"


def way(row: dict[str, Any]) -> str:
    """What is special about a row."""
    return (
        row["precision"]
        + ("" if row["channels_last"] else ", channels first")
        + (", compiled" if row["compile"] else "")
    )


if __name__ == "__main__":
    command(main, GpuOptions)
