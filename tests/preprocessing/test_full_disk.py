"""Laws of a full disk: what cannot be written whole is not there, the message says why, and the next call mends it.

The system refuses to let a file grow beyond a limit, as a full disk does, at any byte that a test chooses.
"""

import contextlib
import io
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from once import HANG
from torture import (
    ENVIRONMENT,
    FOLDS,
    SIZES,
    command,
    large,
    require_one_line,
    require_same_cache,
    run_prepare,
    small,
    temporaries,
    undisturbed,
)
from written import contents

from models.common.errors import InputError
from models.common.files import read_parquet, write_csv, write_parquet, write_text
from models.common.folders import Work
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.report import write_contact_sheet
from models.preprocessing.store import Series, compress_slice, write_series

COUNT = 20  # positions
TABLE = pd.DataFrame({"image_id": [f"ID_{n:09x}" for n in range(3000)], "z": np.arange(3000) / 3})
Writer = Callable[[Path], None]


@contextlib.contextmanager
def room_for(length: int) -> Iterator[None]:
    """Within the block no file of this process grows beyond so many bytes; nothing is printed meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def spread(count: int, length: int) -> list[int]:
    """So many different positions in a file, the first and the last byte among them."""
    return sorted({int(position) for position in np.linspace(0, length - 1, count)})


# ---- each writer ----


def series_writer(work: Path) -> Writer:
    """A writer of the slices and notes of a series in a working folder."""
    size = SIZES[0]
    series = Series(next(iter(sorted(Work(work).slices(size).iterdir()))))
    chunks = [compress_slice(series.read(index)) for index in range(len(series))]
    return lambda path: write_series(path, chunks, (size, size), series.notes())


def sheet_writer(work: Path) -> Writer:
    table = read_parquet(Work(work).metadata("train"), "")
    return lambda path: write_contact_sheet(path, Work(work), table, SIZES[0])


WRITERS: dict[str, Callable[[Path], Writer]] = {
    "store": series_writer,
    "contact sheet": sheet_writer,
    "csv": lambda _: partial(write_csv, table=TABLE),
    "parquet": lambda _: partial(write_parquet, table=TABLE),
    "text": lambda _: partial(write_text, text="A line.\n" * 5000),
}
every_writer = pytest.mark.parametrize("kind", WRITERS)


def require_whole_or_nothing(write: Writer, folder: Path, length: int) -> None:
    """Fail unless a write that runs out of room says so and leaves nothing, and an old file as it was."""
    for old in (None, b"old"):
        path = folder / "file"
        if old:
            path.write_bytes(old)
        with room_for(length), pytest.raises(InputError) as caught:
            write(path)
        message = str(caught.value)
        assert message.startswith(f"cannot write {path}: ")
        assert "File too large" in message
        assert "\n" not in message
        assert contents(folder) == ({"file": old} if old else {})
    path.unlink()


@every_writer
def test_a_file_without_room_is_not_there_and_the_old_one_stays(kind, tmp_path_factory, tmp_path):
    data = small(tmp_path_factory)
    write = WRITERS[kind](undisturbed(tmp_path_factory, data))
    write(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").unlink()
    for length in spread(COUNT, len(whole)):
        require_whole_or_nothing(write, tmp_path, length)
        write(tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == whole
        (tmp_path / "file").unlink()


# ---- the whole of prepare.py ----


def sizes_of_files(cache: Path) -> list[int]:
    """Bytes that each file of a cache takes, from the smallest, all different."""
    return sorted({len(content) for content in contents(cache).values()})


def require_no_half_file(work: Path, other: Path) -> None:
    """Fail unless what a call has left that ended early are whole files of the cache, and not the mark of its end."""
    assert temporaries(work) == []
    found, expected = contents(work / "cache"), contents(other / "cache")
    assert found.items() <= expected.items()
    assert "prepare.json" not in found


def require_mended(data: Path, work: Path, other: Path, length: int) -> None:
    """Fail unless prepare says that it has no room, leaves no half file, and is done when there is room."""
    options = PrepareOptions(data=data, work=work, image_size=SIZES, folds=FOLDS, jobs=1)
    with room_for(length), pytest.raises(InputError, match=r"cannot write .*: File too large; make room") as caught:
        prepare(options)
    assert "\n" not in str(caught.value)
    require_no_half_file(work, other)
    prepare(options)
    require_same_cache(work, other)


def limits(cache: Path, count: int) -> list[int]:
    """Limits to the length of a file, each one byte less than some file of the cache has."""
    sizes = sizes_of_files(cache)
    return [sizes[index] - 1 for index in spread(count, len(sizes))]


def test_prepare_without_room_says_so_and_goes_on_when_there_is_room(tmp_path_factory, tmp_path):
    data = small(tmp_path_factory)
    other = undisturbed(tmp_path_factory, data)
    for length in limits(other / "cache", 3):
        require_mended(data, tmp_path / str(length), other, length)


@pytest.mark.torture
def test_prepare_without_room_for_any_file_goes_on_when_there_is_room(tmp_path_factory, tmp_path):
    data = large(tmp_path_factory)
    other = undisturbed(tmp_path_factory, data)
    lengths = sorted({*limits(other / "cache", COUNT), 0, 63})  # 63: the key
    for length in lengths:
        require_mended(data, tmp_path / str(length), other, length)
    print(f"{len(lengths)} limits, {lengths[0]} to {lengths[-1]} bytes")


@pytest.mark.torture
@pytest.mark.parametrize("place", [0, 0.3, 0.6, 0.9, 1])
def test_workers_without_room_say_so_in_one_line(place, tmp_path_factory, tmp_path):
    data = large(tmp_path_factory)
    other = undisturbed(tmp_path_factory, data)
    possible = [length for length in sizes_of_files(other / "cache") if length > 4096]  # joblib needs some bytes too
    length = possible[int(place * (len(possible) - 1))] - 1
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (length, resource.RLIM_INFINITY))
    work = tmp_path / "work"
    require_one_line(run_prepare(data, work, preexec_fn=limit), "cannot write", "File too large; make room")
    require_no_half_file(work, other)
    assert run_prepare(data, work).returncode == 0
    require_same_cache(work, other)


# ---- a disk that is really full ----

# $1 a place to mount on, $2 where copies go; then the command line. The disk is filled when the first series is stored.
SCRIPT = """
mount -t tmpfs -o size=40m tmpfs "$1"
place="$1" copies="$2"; shift 2
"$@" > /dev/null 2> "$copies/errors" & process=$!
until ls "$place"/work/cache/slices_*/*.slices > /dev/null 2>&1; do sleep 0.02; done
dd if=/dev/zero of="$place/filler" bs=1k > /dev/null 2>&1 || true
wait $process && code=0 || code=$?
echo $code > "$copies/code"
cp -a "$place/work" "$copies/first"
rm "$place/filler"
"$@" > /dev/null 2>&1
cp -a "$place/work" "$copies/second"
"""


def unshare(*words: object) -> subprocess.CompletedProcess:
    """Run a command that may mount what nobody else sees."""
    options = ["--user", "--map-root-user", "--mount"]
    command = ["unshare", *options, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=HANG)


@pytest.mark.torture
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_disk_that_fills_up_meanwhile_is_named_and_the_next_call_goes_on(jobs, tmp_path_factory, tmp_path):
    if shutil.which("unshare") is None or unshare("true").returncode != 0:
        pytest.skip("this system lets nobody mount a disk of his own")
    data = large(tmp_path_factory)
    other = undisturbed(tmp_path_factory, data)
    place = tmp_path / "disk"
    place.mkdir()
    words = command(data, place / "work", "--jobs", jobs)
    done = unshare("sh", "-e", "-c", SCRIPT, "sh", place, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    code, errors = (tmp_path / "code").read_text(), (tmp_path / "errors").read_text()
    require_one_line(
        subprocess.CompletedProcess(words, int(code), "", errors), "cannot write", "No space left on device; make room"
    )
    require_no_half_file(tmp_path / "first", other)
    require_same_cache(tmp_path / "second", other)
