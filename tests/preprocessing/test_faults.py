"""Laws of errors of the system: wherever one comes, it passes, or ends in one line, and the same command completes."""

import contextlib
import errno
import io
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tyro
from faults import ERRORS, READING, Call, Faults, injected
from layout_files import Format, file_of
from layout_parts import NAMES, Recipe, draw_part
from written import contents

from models.common import patience
from models.common.cli import command
from models.common.labels import SUBTYPES
from models.preprocessing.preparation import PrepareOptions, prepare

SIZE = 40
KEY = "5e" * 32


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(patience, "WAITS", (0, 0, 0))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with `data`, a tree of a series and a zip of two, a table of labels, and what there was before.

    `old` holds the cache of the zip alone, `whole` that of all.
    """
    folder = tmp_path_factory.mktemp("faults")
    for number in (1, 2):
        draw_series(folder / "packed" / str(number), f"1.2.{number}", "deflated")
    (folder / "data").mkdir()
    shutil.make_archive(str(folder / "data" / "packed"), "zip", folder / "packed")
    rows = [f"1.2.{number},0,1,0,0,0" for number in (1, 2)]
    (folder / "labels.csv").write_text("\n".join([",".join(["StudyInstanceUID", *SUBTYPES]), *rows]))
    prepare(options_of(folder))
    (folder / "work").rename(folder / "old")
    draw_series(folder / "data" / "0", "1.2.0", "explicit")
    shutil.copy(folder / "data" / "0" / "0", folder / "data" / "0" / "again")
    prepare(options_of(folder))
    (folder / "work").rename(folder / "whole")
    return folder


def draw_series(folder: Path, name: str, syntax: str) -> None:
    folder.mkdir(parents=True)
    recipe = Recipe(dict.fromkeys(NAMES, name), Format(syntax), number=3)
    slices, _ = draw_part(np.random.default_rng(0), recipe, [f"{name}.{number}" for number in range(3)])
    for number, item in enumerate(slices):
        (folder / str(number)).write_bytes(file_of(item.stored, item.form, item.elements))


def options_of(place: Path, start: str = "") -> PrepareOptions:
    """Options for a working folder that is new, but for the key, or a copy of another one."""
    work = place / "work"
    shutil.rmtree(work, ignore_errors=True)
    if start:
        shutil.copytree(place / start, work)
    else:
        work.mkdir()
        (work / "pseudonyms.key").write_text(KEY)
    return PrepareOptions(
        data=place / "data", work=work, image_size=(SIZE,), folds=2, jobs=1, labels=place / "labels.csv"
    )


def run(options: PrepareOptions, faults: Faults) -> str | int | None:
    """What the command ends with: None where all is well, a line, or an exit code."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(tyro, "cli", lambda *_, **__: options)
        patch.setattr(sys, "stderr", io.StringIO())
        with injected(faults):
            try:
                command(prepare, PrepareOptions)
            except SystemExit as end:
                return end.code
    return None


def calls_of(place: Path, start: str) -> list[Call]:
    """The calls of an undisturbed run."""
    faults = Faults(place)
    assert run(options_of(place, start), faults) is None
    return faults.calls


def outcome(place: Path, start: str, number: int, error: int, for_ever: bool) -> str:
    """What came of a fault: passed, or one line; fails unless the same command then completes to the same cache."""
    options, faults = options_of(place, start), Faults(place, number, error, for_ever)
    end = run(options, faults)
    assert faults.failed is not None
    told = f"{faults.failed.what} {faults.failed.path.relative_to(place)}, {errno.errorcode[error]}: {end}"
    if end is not None:
        require_true_line(end, faults, told)
        assert run(options, Faults(place)) is None, told
    assert contents(options.work / "cache") == contents(place / "whole" / "cache"), told
    if not for_ever and faults.failed.what in READING and (place / "data") in faults.failed.path.parents:
        assert end is None, f"did not pass: {told}"
    return "passed" if end is None else "one line"


def require_true_line(end: str | int, faults: Faults, told: str) -> None:
    """Fail unless a command ended with one line that names the file, or its folder, and says why."""
    assert isinstance(end, str), told
    assert end.startswith("error: "), told
    assert "\n" not in end, told
    assert faults.failed.path.name in end or faults.failed.path.parent.name in end, told
    is_held = faults.failed.what == "lock" and faults.error == errno.EACCES  # so some systems say that another has it
    assert is_held or os.strerror(faults.error) in end or "not enough memory" in end, told


def outcomes(place: Path, start: str, step: int, errors: int) -> Counter:
    """How often what came of faults at every `step`-th call, by so many errors each, once and for ever."""
    calls, found = len(calls_of(place, start)), Counter()
    for number in range(0, calls, step):
        for turn in range(errors):
            error = ERRORS[(number + turn) % len(ERRORS)]
            found.update(outcome(place, start, number, error, for_ever) for for_ever in (False, True))
    print(f"{calls} calls: {dict(found)}")
    return found


every_start = pytest.mark.parametrize("start", ["", "old"], ids=["new", "grown"])


@every_start
def test_an_error_of_the_system_anywhere_passes_or_is_one_line_and_then_the_same_command_completes(place, start):
    found = outcomes(place, start, step=49, errors=1)
    assert found["passed"] > 0
    assert found["one line"] > 0


@pytest.mark.torture
@every_start
def test_errors_of_the_system_at_every_call_pass_or_are_one_line_and_then_the_same_command_completes(place, start):
    outcomes(place, start, step=1, errors=2)
