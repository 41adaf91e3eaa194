"""What it costs to ask a script for its flags: CPU seconds of `--help`, for this checkout and for others beside it.

    python benchmarks/startup.py
    git worktree add ../old 032d62a && python benchmarks/startup.py ../old

A script a row, of those that all checkouts have, and a checkout a column, all run by this Python. The median of
`--rounds`, which take turns.
"""

import os
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from models.common.cli import command
from models.common.errors import InputError

HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class StartupOptions:
    """The command line of this benchmark."""

    checkouts: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """folders of other checkouts"""
    rounds: int = 3
    """of each script in each checkout"""


def main(options: StartupOptions) -> None:
    """Print the seconds of each script that all checkouts have, then their median and the largest.

    Raises InputError for a folder without any script.
    """
    checkouts = [HERE, *(path.resolve() for path in options.checkouts)]
    there = [scripts_of(checkout) for checkout in checkouts]
    scripts = set.intersection(*there)
    if others := set.union(*there) - scripts:
        print(f"left out, for not all checkouts have them: {', '.join(sorted(others))}")
    rows = {}
    for script in sorted(scripts):
        taken = {checkout: [] for checkout in checkouts}
        for _ in range(options.rounds):
            for checkout, seconds in taken.items():
                seconds.append(cpu_seconds(checkout, script))
        rows[script] = {checkout.name: statistics.median(seconds) for checkout, seconds in taken.items()}
        print(script, *(f"{value:.2f}" for value in rows[script].values()), flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index")
    print(pd.DataFrame({"median": table.median(), "largest": table.max()}).to_string(float_format="{:.2f}".format))


def scripts_of(checkout: Path) -> set[str]:
    """The names of its scripts. Raises InputError if it has none."""
    names = {path.name for path in (checkout / "models").glob("*.py") if path.stem != "__init__"}
    if not names:
        raise InputError(f"no script in {checkout / 'models'}; name the folder of a checkout of this project")
    return names


def cpu_seconds(checkout: Path, script: str) -> float:
    """User and system time of `--help`. Raises InputError if the checkout has no such script, or it fails."""
    path = checkout / "models" / script
    if not path.is_file():
        raise InputError(f"no {path}; name the folder of a checkout of this project")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    result = subprocess.run([sys.executable, path, "--help"], capture_output=True, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise InputError(f"{path} --help fails: {result.stderr.decode().strip()[-300:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    command(main, StartupOptions)
