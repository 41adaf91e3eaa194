"""In CI a skip fails the run, however a test skips; a listed one, and an expected failure, do not."""

from pathlib import Path
from shutil import copy

import pytest

SKIPS = {
    "body": "def test(): pytest.skip('no tool')",
    "mark": "@pytest.mark.skip(reason='no tool')\ndef test(): pass",
    "condition": "@pytest.mark.skipif(True, reason='no tool')\ndef test(): pass",
    "fixture": "@pytest.fixture\ndef tool(): pytest.skip('no tool')\ndef test(tool): pass",
    "module": "pytest.skip('no tool', allow_module_level=True)",
    "package": "pytest.importorskip('no_such_tool', reason='no tool')",
}
UNMENDED = "@pytest.mark.xfail\ndef test(): raise ValueError"


@pytest.fixture
def run(pytester, monkeypatch):
    """Run these files of tests under the hook, in CI or outside."""
    monkeypatch.delenv("ALLOWED_SKIPS", raising=False)
    copy(Path(__file__).with_name("skips.py"), pytester.path)
    pytester.makeconftest("pytest_plugins = ['skips']")

    def run(sources: dict[str, str], *words: str, ci: str = "true") -> pytest.RunResult:
        monkeypatch.setenv("CI", ci)
        pytester.makepyfile(**{f"test_{name}": f"import pytest\n{source}" for name, source in sources.items()})
        return pytester.runpytest_inprocess("--continue-on-collection-errors", *words)

    return run


def test_a_skip_fails_the_run_in_ci_alone(run):
    run(SKIPS, ci="").assert_outcomes(skipped=len(SKIPS))
    result = run(SKIPS)
    result.assert_outcomes(failed=1, errors=len(SKIPS) - 1)  # pytest calls an error what fails outside a test's body
    assert result.stdout.str().count("CI may not skip this. Skipped: no tool") >= len(SKIPS)


def test_a_skip_in_another_process_fails_the_run(run):
    run(SKIPS, "-n1").assert_outcomes(failed=1, errors=len(SKIPS) - 1)


def test_a_listed_skip_and_an_expected_failure_pass(run):
    listed = "def test(): pytest.skip('this system lets nobody mount a disk of his own')"
    run({"listed": listed, "unmended": UNMENDED}).assert_outcomes(skipped=1, xfailed=1)


@pytest.mark.parametrize("allowed", ["no tool", "no network; no tool; ", "test_body.py::test"])
def test_the_environment_can_allow_a_skip(run, monkeypatch, allowed):
    monkeypatch.setenv("ALLOWED_SKIPS", allowed)
    other = "def test(): pytest.skip('no paper')"
    run({"body": SKIPS["body"], "other": other}).assert_outcomes(skipped=1, failed=1)
