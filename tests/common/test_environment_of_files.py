"""Laws of file systems: without locks, modes or a flush they do as well, and nothing is deleted that is another's."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.common import files, locks, patience
from models.common.errors import InputError
from models.common.files import read_parquet, remove_temporaries, replacing, write_parquet, write_text
from models.common.locks import only_process

REPAIR = "python models/train_example.py --fold 0"

HALF = """
import os, pathlib, sys, time
from models.common.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
    os._exit(7)
"""


def writer(path: Path) -> subprocess.Popen:
    """A process in the middle of a write."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HALF, path], **pipes)
    process.stdout.readline()
    return process


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


def test_what_a_killed_process_has_left_is_removed_what_a_living_one_writes_is_not(tmp_path):
    living, dead = writer(tmp_path / "a" / "living.csv"), writer(tmp_path / "a" / "dead.csv")
    dead.communicate()
    assert len(hidden(tmp_path)) == 2
    remove_temporaries(tmp_path)
    assert [name.split(".")[1] for name in hidden(tmp_path)] == ["living"]
    living.communicate()
    remove_temporaries(tmp_path)
    assert hidden(tmp_path) == []


def test_what_another_machine_writes_is_removed_after_a_day(tmp_path, monkeypatch):
    writer(tmp_path / "file").communicate()
    monkeypatch.setattr(files, "_this_machine", lambda: "0" * 8)
    remove_temporaries(tmp_path)
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    remove_temporaries(tmp_path)
    assert hidden(tmp_path) == []


def test_hidden_files_and_folders_of_others_stay(tmp_path):
    names = [".gitignore", ".nfs000000000123", ".DS_Store", ".metadata_train.parquet.abcdefgh.parquet", "._a.dcm"]
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".a.writing-00000000-1-abcdefgh").mkdir()
    remove_temporaries(tmp_path)
    assert hidden(tmp_path) == sorted([*names, ".ipynb_checkpoints", ".a.writing-00000000-1-abcdefgh"])


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_modes_will_do(tmp_path, monkeypatch, number):
    def chmod(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "chmod", chmod)
    write_text(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_flush_will_do(tmp_path, monkeypatch, number):
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_disk_that_fails_while_flushing_is_told(tmp_path, monkeypatch):
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="Input/output error"):
        write_text(tmp_path / "file", "new")


# ---- locks ----

NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]
LOCKED = """
import errno, fcntl, os, pathlib, sys
def no(*_): raise OSError(int(sys.argv[2]), "no locks")
fcntl.flock = no
from models.common.locks import only_process
with only_process(pathlib.Path(sys.argv[1]), "prepare.py"):
    print("locked", flush=True)
    sys.stdin.read()
    os._exit(7)
"""


@pytest.fixture(params=NO_LOCKS, ids=errno.errorcode.get)
def no_locks(request, monkeypatch) -> int:
    def flock(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", flock)
    return request.param


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_locks_will_do(tmp_path, no_locks):
    for _ in range(2):
        with only_process(tmp_path / ".lock", "prepare.py"):
            pass


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_locks_one_works_at_a_time_and_a_killed_one_is_gone(tmp_path, no_locks):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", LOCKED, tmp_path / ".lock", str(no_locks)], **pipes)
    other.stdout.readline()
    with (
        pytest.raises(InputError, match=r"another prepare\.py works in"),
        only_process(tmp_path / ".lock", "prepare.py"),
    ):
        pass
    other.communicate()  # it dies with its lock
    with only_process(tmp_path / ".lock", "prepare.py"):
        pass


def test_an_error_of_a_lock_that_is_none_of_a_file_system_without_locks_stays_one(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output error"), only_process(tmp_path / ".lock", "prepare.py"):
        pass
    assert locks._NO_LOCKS


# ---- what cannot be read is not damaged ----


def test_a_table_of_the_cache_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setattr(patience, "WAITS", (0,))
    path = tmp_path / "file"
    write_parquet(path, pd.DataFrame({"a": [1]}))

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("cannot be opened")

    monkeypatch.setattr("pandas.read_parquet", refuse)
    with pytest.raises(InputError, match="damaged"):
        read_parquet(path, REPAIR)
    real = Path.open

    def no_more_files(self: Path, *arguments: object, **named: object) -> object:
        if self == path:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(self))
        return real(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", no_more_files)
    with pytest.raises(InputError, match=f"cannot read {path}: Too many open files"):
        read_parquet(path, REPAIR)


def test_a_write_in_this_process_is_not_removed_by_it(tmp_path):
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        remove_temporaries(tmp_path)
        temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "new"
