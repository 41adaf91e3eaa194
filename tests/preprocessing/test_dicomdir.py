"""Laws of DICOMDIR: a CD's table of contents is no image, means its folder, and tells of files that are not there."""

import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hostile import DICOMDIR, EXPLICIT, UNDEFINED, element, meta, sequence, u32

from models.common import patience
from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.find_files import FindOptions, find_files
from models.phantom.dicom import write_phantom
from models.preprocessing import dicomdir
from models.preprocessing.dicom import peek
from models.preprocessing.dicomdir import absent_files
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem, count_lost_files
from models.preprocessing.raw import find_raw
from models.preprocessing.reasons import Reason, UnreadableSliceError

SIZE = 32


def directory(*names: str) -> bytes:
    """A DICOMDIR that names these files."""
    records = [
        element(0x00041400, "UL", u32(0)) + element(0x00041500, "CS", name.replace("/", "\\").encode())
        for name in names
    ]
    return meta(EXPLICIT, DICOMDIR) + sequence(0x00041220, *records)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_phantom(folder, 2, 1, SIZE, layout="tree", jobs=1)
    return folder


@pytest.fixture
def disc(drawn, tmp_path) -> Path:
    """A copied CD, of which one file is lacking."""
    data = shutil.copytree(drawn, tmp_path / "data")
    names = [str(path.relative_to(data)) for path in sorted(data.rglob("IM-*"))]
    (data / "DICOMDIR").write_bytes(directory(*names, "LOST/IM-0001", names[0].upper()))
    return data


def prepared(data: Path, work: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    assert prepare(PrepareOptions(data=data, work=work, image_size=(SIZE,), jobs=1)) == 0
    return read_parquet(Work(work).metadata("test"), ""), pd.read_csv(Work(work).problems)


@pytest.mark.parametrize("named", ["folder", "DICOMDIR"])
def test_it_is_no_image_and_no_loss_and_what_it_names_in_vain_is_told(disc, drawn, tmp_path, named):
    data = disc if named == "folder" else disc / "DICOMDIR"
    table, problems = prepared(data, tmp_path / "work")
    due, _ = prepared(drawn, tmp_path / "other")
    assert len(table) == len(due)
    assert list(problems["problem"]).count(Reason.NOT_CT.value) == 1
    assert list(problems["problem"]).count(Problem.ABSENT.value[0]) == 1
    assert count_lost_files(problems) == 0
    work = tmp_path / "work"
    find_files(FindOptions(Work(work).problems, tmp_path / "out.csv", data=data, work=work, jobs=1))
    found = pd.read_csv(tmp_path / "out.csv")
    assert set(found["file"].dropna()) >= {"DICOMDIR", "LOST/IM-0001"}


def test_one_in_an_archive_is_read_there(disc, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for path in disc.rglob("*"):
            packed.write(path, f"cd/{path.relative_to(disc)}")
    (absent,) = absent_files(find_raw(tmp_path / "a.zip").files("test"))
    assert absent == tmp_path / "a.zip" / "cd" / "LOST" / "IM-0001"


@pytest.mark.parametrize("name", ["IM0001", "im0001", "IM0001.;1", "im0001."])
def test_files_are_found_by_the_names_that_file_systems_give_them(tmp_path, name):
    (tmp_path / "dicomdir").write_bytes(directory("A/IM0001"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(b"")
    assert absent_files(find_raw(tmp_path).files("test")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        meta(EXPLICIT, DICOMDIR),
        directory() + b"\x04\x00\x00\x15CS",
        directory() + b"\x04\x00\x00\x15CS\xff\xff",
        meta(EXPLICIT, DICOMDIR) + element(0x00041220, "SQ", b"", UNDEFINED),
        directory("../../etc/passwd", "", "\0") + directory("a").replace(b"CS\x02\0a ", b"CS\x04\0/etc"),
    ],
)
def test_a_damaged_one_ends_nothing(tmp_path, content):
    (tmp_path / "DICOMDIR").write_bytes(content)
    absent = absent_files(find_raw(tmp_path).files("test"))
    assert len(absent) <= 4
    assert all(path.relative_to(tmp_path) for path in absent)
    with pytest.raises(UnreadableSliceError):
        peek(tmp_path / "DICOMDIR")


def test_a_system_that_does_not_let_it_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "DICOMDIR").write_bytes(directory("A"))

    def broken(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(patience, "WAITS", ())
    monkeypatch.setattr(dicomdir, "open_bounded", broken)
    with pytest.raises(InputError, match="Input/output error"):
        absent_files([tmp_path / "DICOMDIR"])
