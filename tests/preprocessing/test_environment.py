"""Laws of the environment: what a machine does to a run is no property of a slice, and the same command mends it."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGExtended12Bit, JPEGLosslessSV1
from torture import (
    ENVIRONMENT,
    FOLDS,
    SIZES,
    command,
    compressed,
    require_same_cache,
    run_prepare,
    small,
    undisturbed,
)

from models.common import patience
from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.phantom.draft import edited
from models.phantom.jpeg import encode_jpeg_lossless
from models.preprocessing import decoding, dicom, elements, raw, slices
from models.preprocessing.dicom import peek, read_slices
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.store import Series

SIZE = SIZES[0]
SYSTEM = [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES]
every_error = pytest.mark.parametrize("number", SYSTEM, ids=lambda number: errno.errorcode[number])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(patience, "WAITS", (0, 0, 0))


@pytest.fixture
def data(tmp_path_factory) -> Path:
    return small(tmp_path_factory)


@pytest.fixture
def packed(data, tmp_path) -> Path:
    """The first training slice, RLE-compressed."""
    return sorted((compressed(data, tmp_path / "packed") / "stage_2_train").iterdir())[0]


def options(data: Path, work: Path) -> PrepareOptions:
    return PrepareOptions(data=data, work=work, image_size=SIZES, folds=FOLDS, jobs=1)


def failing(function: Callable, number: int, name: str, times: int) -> Callable:
    """The function, which for a path with this name raises an error of the system, so many times."""
    left = iter(range(times))

    def fails(path: object, *arguments: object, **named: object) -> object:
        if str(path).endswith(name) and next(left, None) is not None:
            raise OSError(number, os.strerror(number), str(path))
        return function(path, *arguments, **named)

    return fails


# ---- errors of the system ----


def inject(monkeypatch, place: str, number: int, name: str, times: int) -> None:
    """Let the opening, the reading of, or the listing of this file or folder fail so many times."""
    if place == "open":
        monkeypatch.setattr(elements.os, "open", failing(os.open, number, name, times))
    elif place == "list":
        monkeypatch.setattr(raw.os, "scandir", failing(os.scandir, number, name, times))
    else:
        left = iter(range(times))

        class Failing(elements.BoundedReader):
            def __init__(self, file: object) -> None:
                super().__init__(file)
                self.is_it = str(os.readlink(f"/proc/self/fd/{file.fileno()}")).endswith(name) if place else False

            def read(self, size: int | None = -1, /) -> bytes:
                self.fail()
                return super().read(size)

            def whole(self) -> bytes:
                self.fail()
                return super().whole()

            def fail(self) -> None:
                if self.is_it and next(left, None) is not None:
                    raise OSError(number, os.strerror(number))

        real = elements.open_bounded

        def open_failing(path: Path) -> elements.BoundedReader:
            file = real(path)
            return Failing(file.detach())

        monkeypatch.setattr(dicom, "open_bounded", open_failing)


@every_error
@pytest.mark.parametrize("place", ["open", "read", "list"])
def test_an_error_of_the_system_that_stays_is_one_line_that_names_the_file(
    place, number, data, tmp_path_factory, tmp_path
):
    file = sorted((data / "stage_2_train").iterdir())[3]
    name = "stage_2_train" if place == "list" else file.name
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, place, number, name, times=10**6)
        with pytest.raises(InputError) as caught:
            prepare(options(data, tmp_path))
    assert name in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert prepare(options(data, tmp_path)) == 0
    require_same_cache(tmp_path, undisturbed(tmp_path_factory, data))


@every_error
@pytest.mark.parametrize("place", ["open", "read", "list"])
def test_an_error_of_the_system_that_passes_changes_nothing(
    place, number, data, tmp_path_factory, tmp_path, monkeypatch
):
    file = sorted((data / "stage_2_train").iterdir())[3]
    inject(monkeypatch, place, number, "stage_2_train" if place == "list" else file.name, times=2)
    assert prepare(options(data, tmp_path)) == 0
    require_same_cache(tmp_path, undisturbed(tmp_path_factory, data))


def test_a_file_that_vanishes_after_it_was_listed_ends_the_run(data, tmp_path, monkeypatch):
    copy = shutil.copytree(data, tmp_path / "data")
    real = raw.RawFolder.files

    def files(self: raw.RawFolder, split: str) -> list[Path]:
        return [*real(self, split), self.test / "ID_vanished.dcm"]

    monkeypatch.setattr(raw.RawFolder, "files", files)
    with pytest.raises(InputError, match=r"ID_vanished\.dcm: No such file"):
        prepare(options(copy, tmp_path / "work"))


def test_no_memory_for_a_file_ends_the_run(data, tmp_path, monkeypatch):
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(slices, "to_hounsfield", no_memory)
    with pytest.raises(InputError, match=r"cannot read .*\.dcm: not enough memory"):
        prepare(options(data, tmp_path))


def test_a_length_that_no_file_has_asks_for_no_memory():
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with Path(__file__).open("rb", buffering=0) as file:
        reader = elements.BoundedReader(file)
        resource.setrlimit(resource.RLIMIT_AS, (2 << 32, hard))
        try:
            assert reader.read(1 << 40) == Path(__file__).read_bytes()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            reader.detach()


def test_a_defect_of_this_project_is_no_damaged_header_and_names_the_file(data, tmp_path, monkeypatch):
    def defect(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(dicom, "_header_row", defect)
    with pytest.raises(KeyError) as caught:
        prepare(options(data, tmp_path))
    assert re.search(r"while reading .*\.dcm", " ".join(caught.value.__notes__))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unexpected_error_names_its_file_on_the_screen(jobs, data, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import cv2\ndef defect(*_): raise RuntimeError('a defect')\ncv2.sumElems = defect\n"
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{site}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    done = run_prepare(data, tmp_path / "work", "--jobs", jobs, env=environment)
    assert done.returncode == 1
    assert re.search(r"while reading .*ID_\w+\.dcm", done.stderr)


# ---- decoders ----


def reason(path: Path) -> Reason | None:
    try:
        read_slices(path)
    except UnreadableSliceError as error:
        return error.reason
    return None


@pytest.fixture
def fresh() -> Iterator[None]:
    """The test's decoders are its own."""
    forget_decoder()
    yield
    forget_decoder()


def forget_decoder() -> None:
    if hasattr(decoding._own, "decoder"):
        decoding._own.decoder.stop()


def replace_decoder(monkeypatch, tmp_path: Path, before: str) -> None:
    """Let the decoder's process begin with these lines of Python."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(before)
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")


SLOW = """
import pydicom.encaps, time
real = pydicom.encaps.generate_frames
def slow(*a, **k):
    {what}
    return real(*a, **k)
import pydicom.pixels.decoders.base as base
base.generate_frames = slow
"""


def test_a_decoder_that_waits_longer_than_it_may_compute_loses_no_slice(packed, tmp_path, monkeypatch, fresh):
    monkeypatch.setattr(decoding, "SECONDS", 1)
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what=f"time.sleep({decoding.SECONDS + 3})"))
    assert reason(packed) is None


def test_a_decoder_that_computes_longer_than_it_may_is_ended(packed, tmp_path, monkeypatch, fresh):
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what="while True: pass"))
    before = time.process_time()
    assert reason(packed) is Reason.DECODING
    assert time.process_time() - before < 1


def test_a_decoder_that_is_stopped_and_continued_loses_no_slice(packed, fresh, monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0.1)
    process = decoding._decoder().process
    process.send_signal(signal.SIGSTOP)
    helper = subprocess.Popen(["sh", "-c", f"sleep 5; kill -CONT {process.pid}"])
    assert reason(packed) is None
    helper.wait()


def test_a_decoder_that_hangs_is_asked_again_and_then_ends_the_run(packed, tmp_path, monkeypatch, fresh):
    started = []
    real = decoding.Decoder.__init__
    monkeypatch.setattr(decoding.Decoder, "__init__", lambda self: (started.append(1), real(self))[1])
    monkeypatch.setattr(decoding, "HANG", 1)
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what="time.sleep(100)"))
    with pytest.raises(InputError, match=f"{packed.name}: the decoder has not answered"):
        patience.patiently(lambda: read_slices(packed), packed)
    assert len(started) > 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGBUS])
def test_a_decoder_that_is_killed_from_outside_ends_the_run(number, packed, tmp_path, monkeypatch, fresh):
    what = f"import os; os.kill(os.getpid(), {int(number)})"
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what=what))
    with pytest.raises(OSError, match=f"killed by {number.name}"):
        read_slices(packed)


def test_a_decoder_that_crashes_once_loses_no_slice_and_twice_is_a_reason(packed, tmp_path, monkeypatch, fresh):
    mark = tmp_path / "crashed"
    what = f"import os, pathlib; m = pathlib.Path({str(mark)!r}); m.exists() or (m.touch(), os.abort())"
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what=what))
    assert reason(packed) is None
    forget_decoder()
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what="import os; os.abort()"))
    assert reason(packed) is Reason.DECODING


def test_a_decoder_that_does_not_start_is_no_property_of_the_data(packed, monkeypatch, fresh):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="the decoder was ended with code 1"):
        read_slices(packed)
    monkeypatch.setattr(sys, "executable", "/absent")
    with pytest.raises(FileNotFoundError):
        read_slices(packed)


def test_a_system_without_memory_for_a_decoder_is_no_property_of_the_data(packed, tmp_path, monkeypatch, fresh):
    lines = "import mmap\nclass No(mmap.mmap):\n    def __new__(*_): raise OSError(12, 'none')\nmmap.mmap = No\n"
    replace_decoder(monkeypatch, tmp_path, lines + SLOW.format(what="raise RuntimeError('a decoder fails')"))
    with pytest.raises(ChildProcessError, match="a decoder fails"):
        read_slices(packed)
    forget_decoder()
    replace_decoder(monkeypatch, tmp_path, SLOW.format(what="raise RuntimeError('a decoder fails')"))
    assert reason(packed) is Reason.DECODING


def test_undecodable_files_leave_no_descriptor_and_no_process(packed, fresh):
    with edited(packed) as dataset:
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless

    def left() -> Counter[str]:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        return Counter([*map(os.path.realpath, Path("/proc/self/fd").iterdir()), *children])

    assert reason(packed) is Reason.DECODING
    before = left()
    for _ in range(5):
        assert reason(packed) is Reason.DECODING
    assert left() <= before  # by name: what other tests have begun may end meanwhile


def test_a_fork_has_a_decoder_of_its_own(packed, fresh):
    assert reason(packed) is None
    child = os.fork()
    if child == 0:
        os._exit(0 if reason(packed) is None else 1)
    assert reason(packed) is None
    assert os.waitpid(child, 0)[1] == 0


# ---- JPEG ----


@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_exact(bits, is_signed, write_dicom, tmp_path):
    rng = np.random.default_rng(bits)
    kind = f"{'i' if is_signed else 'u'}{1 if bits == 8 else 2}"
    stored = rng.integers(0, 1 << (bits - is_signed), (31, 17)).astype(kind)
    if is_signed and bits in (8, 16):
        stored = -stored - stored.dtype.type(1)
    stream = encode_jpeg_lossless(stored.view(kind.replace("i", "u")).astype("u2"), bits)
    path = write_dicom(
        tmp_path / "a.dcm", stored, bits, BitsAllocated=8 * stored.itemsize, PixelData=encapsulate([stream])
    )
    with edited(path) as dataset:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    found, _ = dicom.read_stored(path)
    assert np.array_equal(found, stored)
    assert found.dtype == stored.dtype


def test_jpeg_of_twelve_bits_is_read(write_dicom, tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    rows, columns = np.mgrid[:64, :64]
    stored = (1000 + 10 * rows + 20 * columns).astype("u2")
    stream = imagecodecs.jpeg8_encode(stored, level=98, bitspersample=12)
    path = write_dicom(tmp_path / "a.dcm", stored, 12, PixelData=encapsulate([stream]))
    with edited(path) as dataset:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    found, _ = dicom.read_stored(path)
    assert np.abs(found.astype(int) - stored).max() < 10


# ---- a decoder that is not installed ----


def series_of(path: Path) -> str:
    return peek(path)[0][1]


@pytest.fixture
def lossless(data, tmp_path) -> tuple[Path, str]:
    """A raw folder whose first series is lossless JPEG, and what its series is called."""
    copy = shutil.copytree(data, tmp_path / "data")
    files = sorted((copy / "stage_2_train").iterdir())
    name = series_of(files[0])
    for path in (path for path in files if series_of(path) == name):
        with edited(path) as dataset:
            values = dataset.pixel_array.astype("<u2")
            dataset.PixelData = encapsulate([encode_jpeg_lossless(values, 16)])
            dataset["PixelData"].VR = "OB"
            dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    return copy, name


def lack(monkeypatch, packages: set[str]) -> None:
    """Let these packages not be installed."""
    decoding.missing_decoder.cache_clear()
    monkeypatch.setattr(decoding, "find_spec", lambda name: None if name in packages else True)


@pytest.fixture(autouse=True)
def all_decoders() -> Iterator[None]:
    yield
    decoding.missing_decoder.cache_clear()


def test_what_waits_for_a_decoder_is_said_before_and_made_when_it_is_there(
    lossless, data, tmp_path_factory, tmp_path, monkeypatch, capsys
):
    copy, name = lossless
    work = tmp_path / "work"
    count = sum(series_of(path) == name for path in (copy / "stage_2_train").iterdir())
    with monkeypatch.context() as patch:
        lack(patch, {"imagecodecs"})
        assert prepare(options(copy, work)) == 3
        said = capsys.readouterr().out
        total = len(list(copy.glob("stage_2_*/*.dcm")))
        assert f"{count:,} of {total:,} files cannot be decoded without imagecodecs" in said.splitlines()[1]
        assert "pip install imagecodecs" in said
        table = read_parquet(Work(work).metadata("train"), "")
        assert (table.loc[table["series_id"] == name, "chunk"] == -1).all()
        problems = pd.read_csv(Work(work).problems)
        waiting = problems[problems["problem"] == Reason.NO_DECODER.value]
        assert len(waiting) == count
        assert waiting["treatment"].str.contains("run the same command again").all()
        assert not Work(work).prepared.exists(), "it is not finished"
        assert prepare(options(copy, work)) == 3
    decoding.missing_decoder.cache_clear()
    stored = {path: path.stat().st_mtime_ns for path in work.glob("cache/slices_*/*")}
    assert len(stored) == 2 * 3
    assert prepare(options(copy, work)) == 0
    assert {path: path.stat().st_mtime_ns for path in stored} == stored, "what was there is made again"
    for path in undisturbed(tmp_path_factory, data).glob("cache/slices_*/*"):
        ours, theirs = (
            Series(one / path.relative_to(path.parent.parent)) for one in (work / "cache", path.parent.parent)
        )
        assert np.array_equal([ours.read(i) for i in range(len(ours))], [theirs.read(i) for i in range(len(theirs))])


def test_a_series_that_waits_in_part_is_made_anew(lossless, tmp_path, monkeypatch):
    copy, name = lossless
    members = [path for path in sorted((copy / "stage_2_train").iterdir()) if series_of(path) == name]
    with edited(members[0]) as dataset:
        values = np.zeros((dataset.Rows, dataset.Columns), "<u2")
        dataset.PixelData, dataset.file_meta.TransferSyntaxUID = values.tobytes(), "1.2.840.10008.1.2.1"
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = False
    with monkeypatch.context() as patch:
        lack(patch, {"imagecodecs"})
        assert prepare(options(copy, tmp_path / "work")) == 3
        assert not list((tmp_path / "work").glob(f"cache/slices_*/{name}.slices"))
    decoding.missing_decoder.cache_clear()
    assert prepare(options(copy, tmp_path / "work")) == 0
    assert prepare(options(copy, tmp_path / "other")) == 0
    shutil.copy(tmp_path / "work" / "pseudonyms.key", tmp_path / "other")
    require_same_cache(tmp_path / "work", tmp_path / "other")


# ---- how much is readable ----


def spoil(data: Path, folder: Path, count: int) -> Path:
    copy = shutil.copytree(data, folder)
    for path in sorted((copy / "stage_2_train").iterdir())[:count]:
        path.write_bytes(path.read_bytes()[:-1000])
    return copy


def test_the_exit_code_tells_that_too_little_is_readable_and_the_summary_what_to_do(data, tmp_path):
    total = len(list(data.glob("stage_2_*/*.dcm")))
    copy = spoil(data, tmp_path / "data", count := total // 100 + 2)
    work = tmp_path / "work"
    for flags in (["--check"], [], []):  # the last finds a finished cache
        done = run_prepare(copy, work, "--jobs", 1, *flags)
        assert done.returncode == 3, done.stderr
        assert f"{count} of {total} CT slices cannot be read" in done.stdout
        assert "--min-readable" in done.stdout
    assert run_prepare(copy, work, "--jobs", 1, "--min-readable", 0.9).returncode == 0


def test_a_slice_in_a_hundred_may_be_unreadable(data, tmp_path):
    copy = spoil(data, tmp_path / "data", 1)
    assert run_prepare(copy, tmp_path / "work", "--jobs", 1).returncode == 0


# ---- Ctrl-C ----


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_is_one_line(jobs, tmp_path_factory, data, tmp_path):
    copy = compressed(data, tmp_path / "data")
    # What a shell starts in the background ignores Ctrl-C, and so would what these tests start there.
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", heed, *map(str, command(copy, tmp_path / "work", "--jobs", jobs))],
        start_new_session=True,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not list(tmp_path.glob("work/cache/slices_*/*.slices")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    lines = [line for line in errors.splitlines() if line and "it/s" not in line and "%|" not in line]
    assert lines == ["stopped; the same command goes on where it was"]
    assert run_prepare(copy, tmp_path / "work").returncode == 0
