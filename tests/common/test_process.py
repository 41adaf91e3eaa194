"""What a process sets for itself and for those that it starts."""

import subprocess
import sys

import pytest

BEHIND = {"loky": "joblib.externals.loky.backend", "Python": "multiprocessing"}


@pytest.mark.parametrize("whose", BEHIND)
def test_a_semaphore_that_is_left_behind_is_no_line_on_the_screen(whose):
    """A run that Ctrl-C ends gives some back while Python ends, and whoever counts them warns now and then."""
    lines = f"""
        from {BEHIND[whose]} import resource_tracker
        from models.common.process import start_process
        start_process()
        resource_tracker.register("/absent", "{"semlock" if whose == "loky" else "semaphore"}")
    """
    code = "\n".join(line.strip() for line in lines.splitlines())
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_that_a_user_asks_for_stay():
    code = """
import subprocess, sys
from models.common.process import start_process
start_process()
start_process()
subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('heard', ResourceWarning)"], check=True)
"""
    asked = {"PYTHONWARNINGS": "default::ResourceWarning"}
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=True)
    assert "heard" in done.stderr
