"""In CI a skipped test is an error, but for the skips that are listed here with a reason."""

import os
from collections.abc import Generator

import pytest

# Text of a test's name, or of the reason that its skip gives -> why CI may go without that test.
ALLOWED = {"lets nobody mount a disk of his own": "few containers let a test mount; others fill up a disk without that"}

Report = pytest.TestReport | pytest.CollectReport


def refuse_skip(report: Report) -> None:
    """Make a failure of a skip that CI may not have; an expected failure is no skip."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    file, line, reason = report.longrepr
    if not is_allowed(f"{report.nodeid} {reason}"):
        report.outcome = "failed"
        report.longrepr = f"{file}:{line}: CI may not skip this. {reason} (tests/skips.py lists what it may)"


def is_allowed(skip: str) -> bool:
    """Whether the list above has it, or the environment's: ALLOWED_SKIPS="no real data; no chromium"."""
    texts = [*ALLOWED, *os.environ.get("ALLOWED_SKIPS", "").split(";")]
    return any(text.strip() in skip for text in texts if text.strip())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    report = yield
    refuse_skip(report)
    return report
