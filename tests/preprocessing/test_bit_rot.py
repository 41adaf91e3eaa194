"""Laws of bit rot: a file of the cache with one flipped bit is refused, or read as if nothing had happened.

The files are read in a process of their own: a flipped bit that crashes it is seen, and fails the test.
"""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torture import ENVIRONMENT, drawn
from written import contents

from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.store import Series

PREPARE = "python models/prepare.py"
SIZE = 48
HARMLESS = ("refused", "the same")


def options(work: Path) -> PrepareOptions:
    return PrepareOptions(data=work / "data", work=work, image_size=(SIZE,), folds=2, jobs=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A working folder that holds the cache of three series, with the raw data inside it."""
    work = tmp_path_factory.mktemp("whole")
    shutil.copytree(drawn(tmp_path_factory, 2, 1, "stage_2", "truncated", "constant"), work / "data")
    prepare(options(work))
    return work


# ---- the readers: each raises InputError, or fails if it got anything but what was written ----


def store(work: Path) -> tuple[Path, Callable[[], None]]:
    path = next(iter(sorted(Work(work).slices(SIZE).iterdir())))
    series = Series(path)
    slices, notes = [series.read(index) for index in range(len(series))], series.notes()

    def read() -> None:
        found = Series(path)
        assert len(found) == len(slices)
        for index, expected in enumerate(slices):
            np.testing.assert_array_equal(found.read(index), expected, strict=True)
        assert found.notes() == notes

    return path, read


def metadata(work: Path) -> tuple[Path, Callable[[], None]]:
    path = Work(work).metadata("train")
    table = read_parquet(path, PREPARE)
    return path, lambda: pd.testing.assert_frame_equal(read_parquet(path, PREPARE), table, check_exact=True)


def folds(work: Path) -> tuple[Path, Callable[[], None]]:
    from models.preprocessing.tables import split_fold

    expected = split_fold(Work(work), 0, skip_low_information=False)

    def read() -> None:
        for table, same in zip(split_fold(Work(work), 0, skip_low_information=False), expected, strict=True):
            pd.testing.assert_frame_equal(table, same, check_exact=True)

    return Work(work).folds, read


def second_call(pattern: str) -> Callable[[Path], tuple[Path, Callable[[], None]]]:
    """What nothing else reads is read by the next call of prepare, which may also mend it."""

    def reader(work: Path) -> tuple[Path, Callable[[], None]]:
        before = cache_of(work)

        def read() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                prepare(options(work))
            assert cache_of(work) == before

        return named(work, pattern), read

    return reader


def cache_of(work: Path) -> dict[str, bytes | dict]:
    """The files of a cache, but where its data lie, which are here in the folder that is copied."""
    files = contents(work / "cache")
    told = json.loads(files["prepare.json"])
    return {**files, "prepare.json": {name: value for name, value in told.items() if name not in ("data", "sha256")}}


def named(work: Path, pattern: str) -> Path:
    return min((work / "cache").glob(pattern))


READERS = {
    "store": store,
    "metadata": metadata,
    "folds.csv": folds,
    **{pattern: second_call(pattern) for pattern in ("problems.csv", "prepare.json", "manifest/*")},
}


# ---- the process that reads ----


def positions(length: int, count: int) -> list[int]:
    """Bits of a file, all different: a third of them near its start, a third near its end, the others anywhere."""
    generator, bits = np.random.default_rng(length), 8 * length
    first, last = min(bits, 8 * 400), max(0, bits - 8 * 4000)
    ranges = [(0, first), (last, bits), (0, bits)] if count < bits else []
    chosen = {int(bit) for low, high in ranges for bit in generator.integers(low, high, size=count // 3)}
    others = (int(bit) for bit in generator.permutation(bits))
    while len(chosen) < min(count, bits):
        chosen.add(next(others))
    return sorted(chosen)


def judge(path: Path, read: Callable[[], None]) -> str:
    """What came of reading a damaged file: "the same", "refused", or what is wrong."""
    try:
        read()
    except InputError as error:
        message = str(error)
        if "\n" in message or str(path) not in message or PREPARE not in message or "damaged" not in message:
            return f"refused by a message that does not help: {message}"
        return "refused"
    except AssertionError:
        return "another value"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too, is no refusal
        return f"{type(error).__name__}: {error}"
    return "the same"


def serve(kind: str, work: Path, count: int) -> Iterator[tuple[str, int, str]]:
    """Flip one bit of a file at a time, and judge how it is read; whatever the reader has changed is put back."""
    path, read = READERS[kind](work)
    sound = contents(work / "cache")
    content = path.read_bytes()
    for bit in positions(len(content), count):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield kind, bit, judge(path, read)
        put_back(work / "cache", sound)


def put_back(cache: Path, sound: dict[str, bytes]) -> None:
    found = contents(cache)
    for name, content in sound.items():
        if found.get(name) != content:
            (cache / name).write_bytes(content)


def flip(counts: dict[str, int], work: Path) -> None:
    """Flip so many bits of each kind of file. Fails if one crashed the process that reads, or was not seen."""
    words = [sys.executable, __file__, json.dumps(counts), str(work)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended with {done.returncode} after {verdicts[-1:]}: {done.stderr}"
    table = Counter((kind, verdict) for kind, _, verdict in verdicts)
    print("\n".join(f"{number:5} {kind}: {verdict}" for (kind, verdict), number in sorted(table.items())))
    assert {kind for kind, _ in table} == set(counts)
    wrong = [f"{number} of {kind}: {verdict}" for (kind, verdict), number in table.items() if verdict not in HARMLESS]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    """A copy of the working folder, to be damaged."""
    return shutil.copytree(whole, tmp_path / "work")


def test_a_flipped_bit_is_refused_or_harmless(damaged):
    flip({kind: 60 if kind in ("store", "metadata", "folds.csv") else 30 for kind in READERS}, damaged)


@pytest.mark.torture
@pytest.mark.parametrize("kind", READERS)
def test_a_thousand_flipped_bits_are_refused_or_harmless(kind, damaged):
    flip({kind: 1000}, damaged)


@pytest.mark.parametrize(
    "pattern",
    [
        "folds.csv",
        "problems.csv",
        "metadata_train.parquet",
        "contact_sheet.png",
        "prepare.json",
        "manifest/*",
        "slices_*/*",
    ],
)
def test_what_is_deleted_as_damaged_is_made_anew(pattern, damaged, whole):
    for path in (damaged / "cache").glob(pattern):
        path.unlink()
    prepare(options(damaged))
    assert cache_of(damaged) == cache_of(whole)


if __name__ == "__main__":
    for kind, count in json.loads(sys.argv[1]).items():
        for verdict in serve(kind, Path(sys.argv[2]), count):
            print(json.dumps(verdict), flush=True)
