"""The tests of benchmarks/gpu.py: those that need a GPU, by pytest in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
TESTS = REPOSITORY / "tests" / "training" / "test_gpu.py"
_OUTCOME = re.compile(r"^\S+::(.+?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)", flags=re.MULTILINE)
_SUMMARY = re.compile(r"^=+ .*\b(?:passed|failed|skipped|errors?|deselected)\b.* in [\d.]+s.* =+$", flags=re.MULTILINE)


def tested(file: Path, device: str, log: Path, limit: float) -> dict[str, Any]:
    """Run the tests of a file on a device, within so many seconds; what they say goes to `log`.

    Gives the outcome of each by its name, their counts, and the last lines of what was said if not all have passed.
    """
    # Without the tests' conftest.py, whose packages a machine with a GPU need not have; each file brings its own data.
    words = ["--noconftest", "-p", "no:cacheprovider", "-o", "addopts=", "-v", "-ra", "--tb=short", "--durations=0"]
    command = [sys.executable, "-m", "pytest", *words, "-m", "gpu", str(file)]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "GPU_TESTS_DEVICE": device, "COLUMNS": "200"}
    began, ending = time.monotonic(), None
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    # Once the summary is there it is done; the end of so large a process takes seconds.
    while process.poll() is None and not _SUMMARY.search(log.read_text(errors="replace")):
        if time.monotonic() - began > limit:
            ending = f"left out: time, not done after {limit:.0f} s"
            break
        time.sleep(0.2)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    said = log.read_text(errors="replace")
    outcomes = {name: outcome.lower() for name, outcome in _OUTCOME.findall(said)}
    if not outcomes and ending is None:
        ending = "error: no test was begun"
    counts = {outcome: list(outcomes.values()).count(outcome) for outcome in sorted(set(outcomes.values()))}
    well = ending is None and set(counts) <= {"passed", "skipped", "xfail"}
    return {
        "outcomes": outcomes,
        "counts": counts,
        "seconds": round(time.monotonic() - began, 1),
        "why": ending,
        "well": well,
        "said": [] if well else said.splitlines()[-60:],
    }
