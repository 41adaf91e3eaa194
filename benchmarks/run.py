"""All benchmarks beside their peers: one table, printed and written to benchmarks/results.json.

    python benchmarks/run.py                      # make bench
    python benchmarks/run.py --only d4            # some of them, printed and not written

Takes some ten minutes on two cores, on a phantom at 512 pixels unless RSNA_DATA or --data names real slices. Each row
is measured in one run, taking turns with its peer; a ratio above 1 means that this project's way is the better one.
"""

import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comparison import Row, default_data, scratch, separately, table

from models.common.cli import command
from models.common.files import write_text

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
# Modules of this folder, each with a function `rows`.
BENCHMARKS = ("input_path", "prepare", "radam_step", "learner_step", "d4")
# Others, which have no peer and are run by themselves.
EXPERIMENTS = (
    *("ablation", "blending", "choosing", "context", "context_picture", "full_size", "gpu", "heat", "realism"),
    *("listing", "realism_verdicts", "sequence", "startup"),
)


@dataclass(frozen=True)
class RunOptions:
    """The command line of all benchmarks."""

    data: Path | None = field(default_factory=default_data)
    """folder in Kaggle's layout (or set RSNA_DATA); none: a phantom of some 200 slices"""
    only: tuple[str, ...] = ()
    """names of some benchmarks, whose rows are printed and not written"""


def main(options: RunOptions) -> None:
    """Measure, print the table and, if all are measured, write it."""
    results = measure(options.only or BENCHMARKS, options.data)
    print(f"\n{json.dumps(results['machine'])}\ncommit {results['commit']}, {results['data']}\n")
    print(table(results["rows"]))
    if not options.only:
        write_text(RESULTS, json.dumps(results, indent=1) + "\n")
        print(f"\n{RESULTS}: {len(results['rows'])} rows")


def measure(names: tuple[str, ...], data: Path | None) -> dict[str, Any]:
    """The content of results.json: the machine, the commit, the kind of data, and the rows of the named benchmarks."""
    results = {"machine": separately(describe_machine), "commit": commit(), "data": "slices of a phantom"}
    if data:
        results["data"] = f"slices of {data.resolve().name}"
    rows = []
    with scratch(data) as (slices, _):
        for name in names:
            print(f"{name} ...", flush=True)
            rows += separately(rows_of, name, slices)
    return {**results, "rows": rows}


def rows_of(name: str, data: Path) -> list[Row]:
    """The rows of a benchmark, by the name of its module."""
    return import_module(name).rows(data)


def describe_machine() -> dict[str, Any]:
    """What a measurement depends on: processor, cores, GPU, and the versions of Python and torch."""
    import torch  # here, for the benchmarks' processes import this module

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def cpu_model() -> str:
    """The name of the processor."""
    file = Path("/proc/cpuinfo")  # elsewhere than on Linux `platform` knows more
    lines = file.read_text().splitlines() if file.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is measured, "-dirty" if a file but the results differs from it; "unknown" without git."""
    try:
        head = git("rev-parse", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--", ".", f":!{RESULTS}") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*words: str) -> str:
    """What git answers here. Raises CalledProcessError where it fails, OSError where it is not installed."""
    done = subprocess.run(["git", *words], cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    command(main, RunOptions)
