"""Laws of archives: a zip or tar is as good as the folder that it holds, and what cannot be read in place is told."""

import gzip
import io
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile import EXPLICIT, body, meta
from hostile_archives import ENCRYPTED, LINK, STORED, entry, packed, sound, stored, tar_of, zip_of
from layout_files import Format, due_values, file_of
from layout_parts import NAMES, Recipe, draw_part
from written import contents

from models.common import patience
from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.find_files import FindOptions, find_files
from models.phantom.dicom import write_phantom
from models.preprocessing import archives, series
from models.preprocessing.archives import members
from models.preprocessing.dicom import peek, read_file, read_slices
from models.preprocessing.elements import open_bounded, stamp
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import count_lost_files
from models.preprocessing.raw import NESTED, find_raw
from models.preprocessing.reasons import Reason, UnreadableSliceError

SIZE = 32
KEY = "00" * 32


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kaggle") / "data"
    write_phantom(folder, 4, 2, SIZE, jobs=1)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "data"
    write_phantom(folder, 2, 1, SIZE, seed=1, layout="tree", jobs=1)  # 116 slices: one in a hundred may be lost
    return folder


def pack(archive: Path, folder: Path, below: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip or tar, by its name, of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".tar":
        with tarfile.open(archive, "w") as packed:
            for path in files:
                packed.add(path, f"{below}{path.relative_to(folder)}")
    else:
        with zipfile.ZipFile(archive, "w", method) as packed:
            for path in files:
                packed.write(path, f"{below}{path.relative_to(folder)}")
    return archive


def cache_of(data: Path, work: Path) -> dict[str, bytes]:
    """Every file of the cache that is made of some data, with a key that is always the same.

    What tells one file of a name from another, a time or a checksum, is not of the data.
    """
    work.mkdir(exist_ok=True)
    (work / "pseudonyms.key").write_text(KEY)
    assert prepare(PrepareOptions(data=data, work=work, image_size=(SIZE,), folds=2, jobs=1)) == 0
    cache = Work(work).cache
    return {
        name: data
        for name, data in contents(cache).items()
        if not name.startswith("manifest/") and name != "prepare.json"
    }


# ---- as good as the folder ----


@pytest.fixture(scope="module")
def expected(kaggle, tmp_path_factory) -> dict[str, bytes]:
    return cache_of(kaggle, tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("below", ["", f"{NESTED}/", "./"], ids=["plain", "nested", "dotted"])
@pytest.mark.parametrize("kind", ["stored.zip", "deflated.zip", "a.tar", "A.ZIP"])
def test_an_archive_in_kaggles_layout_gives_the_cache_of_the_folder(kaggle, expected, tmp_path, kind, below):
    method = zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED
    archive = pack(tmp_path / kind, kaggle, below, method)
    assert cache_of(archive, tmp_path / "work") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kind, "work"])  # nothing is extracted


def test_kaggles_zip_is_found_in_the_folder_that_it_was_loaded_into(kaggle, expected, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pack(data / f"{NESTED}.zip", kaggle, f"{NESTED}/")
    (data / "notes.txt").write_text("mine")
    assert cache_of(data, tmp_path / "work") == expected
    (tmp_path / "zip").mkdir()
    pack(tmp_path / "zip" / "again.zip", kaggle)
    shutil.move(data / f"{NESTED}.zip", tmp_path / "zip")
    with pytest.raises(InputError, match="name one with --data"):
        find_raw(tmp_path / "zip")


def test_a_finished_cache_of_a_folder_is_one_of_its_zip(kaggle, tmp_path, capsys, monkeypatch):
    expected = cache_of(kaggle, tmp_path / "work")
    monkeypatch.setattr(series, "read_file", None)  # no slice is read again
    assert cache_of(pack(tmp_path / "a.zip", kaggle), tmp_path / "work") == expected
    cache_of(tmp_path / "a.zip", tmp_path / "work")
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize(
    "form",
    [
        *(Format(syntax) for syntax in ("implicit", "explicit", "big endian", "deflated", "RLE")),
        *(Format("explicit", beginning=beginning) for beginning in ("no preamble", "no meta")),
        *(Format("implicit", beginning=beginning) for beginning in ("no preamble", "no meta")),
    ],
    ids=lambda form: f"{form.syntax}, {form.beginning}",
)
def test_a_member_is_read_as_the_file_that_it_is_however_that_is_written(tmp_path, form, ending):
    (item, *_), _ = draw_part(np.random.default_rng(0), Recipe(dict.fromkeys(NAMES, "1.2"), form), ["1.2.3"] * 8)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(file_of(item.stored, form, item.elements))
    (member,) = members(pack(tmp_path / f"a.{ending}", tmp_path / "data"))
    assert peek(member) == peek(tmp_path / "data" / "a")
    assert np.array_equal(read_slices(member), [due_values(item.stored, form)])


def test_tables_that_are_packed_alone_are_read(kaggle, expected, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(kaggle, data)
    for name in ("stage_2_train.csv", "stage_2_sample_submission.csv"):
        with zipfile.ZipFile(data / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(data / name, name)
        (data / name).unlink()
    found = cache_of(data, tmp_path / "work")
    assert {name: found[name] for name in found if name != "raw.json"} == {
        name: expected[name] for name in expected if name != "raw.json"
    }
    (data / "stage_2_train.csv.zip").unlink()
    with pytest.raises(InputError, match=r"no .*stage_2_train\.csv"):
        find_raw(data)


def test_stages_are_found_in_a_zip(kaggle, tmp_path, add_stage_1):
    data = shutil.copytree(kaggle, tmp_path / "data")
    add_stage_1(data, {next((data / "stage_2_train").iterdir()).stem})
    archive = pack(tmp_path / "a.zip", data, f"{NESTED}/")
    assert find_raw(archive).stage == 2
    raw = find_raw(archive, stage=1)
    assert len(raw.files("test")) == 1
    assert [file.name for file in raw.files("train")] == [file.name for file in find_raw(data, stage=1).files("train")]


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_an_archive_of_own_files_gives_the_cache_of_the_tree(own, tmp_path, kind):
    assert cache_of(pack(tmp_path / kind, own), tmp_path / "work") == cache_of(own, tmp_path / "other")


def test_archives_among_own_files_are_read_and_their_members_are_named(own, tmp_path):
    data = tmp_path / "data"
    folders = sorted(path for path in own.iterdir() if path.is_dir())
    (data / "deep").mkdir(parents=True)
    pack(data / "deep" / "first.zip", folders[0], "a/")
    pack(data / "second.tar", folders[1], "./b/")
    for folder in folders[2:]:
        shutil.copytree(folder, data / folder.name)
    work = tmp_path / "work"
    cache_of(data, work), cache_of(own, tmp_path / "other")
    table, due = (read_parquet(Work(place).metadata("test"), "") for place in (work, tmp_path / "other"))
    pd.testing.assert_frame_equal(table, due)
    find_files(FindOptions(Work(work).metadata("test"), tmp_path / "out.csv", data=data, work=work, jobs=1))
    names = pd.read_csv(tmp_path / "out.csv")["file"]
    assert names.str.startswith("deep/first.zip/a/").any()
    assert names.str.startswith("second.tar/b/").any()
    assert names.notna().all()


def test_files_of_an_archive_that_is_the_data_are_named_with_it(own, tmp_path):
    archive, work = pack(tmp_path / "a.zip", own), tmp_path / "work"
    cache_of(archive, work)
    find_files(FindOptions(Work(work).metadata("test"), tmp_path / "out.csv", data=archive, work=work, jobs=1))
    names = pd.read_csv(tmp_path / "out.csv")["file"]
    assert names.str.startswith("a.zip/").all()
    assert (own / names[0].removeprefix("a.zip/")).is_file()


def test_the_real_sample_zipped_gives_the_same_cache(real_sample, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "data" / f"stage_2_{split}").mkdir(parents=True)
        for path in sorted((real_sample / f"stage_2_{split}").iterdir())[:: 12 if split == "train" else 8]:
            shutil.copy(path, tmp_path / "data" / f"stage_2_{split}")
    for path in real_sample.glob("*.csv"):
        shutil.copy(path, tmp_path / "data")
    found = cache_of(pack(tmp_path / "a.zip", tmp_path / "data", f"{NESTED}/"), tmp_path / "work")
    assert found == cache_of(tmp_path / "data", tmp_path / "other")


# ---- a member is like a path ----


def test_files_come_in_the_order_of_those_of_the_folder(tmp_path):
    names = ["a/b/1", "a/b-2", "a-b/3", "a.b", "B/4", "a/b.c/5", "a/\u00e9"]
    for name in names:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"")
    due = [path.relative_to(tmp_path / "data") for path in find_raw(tmp_path / "data").files("test")]
    assert due == sorted(map(Path, names))
    for kind in ("a.zip", "a.tar"):
        archive = pack(tmp_path / kind, tmp_path / "data")
        assert [file.relative_to(archive) for file in find_raw(archive).files("test")] == due


def test_what_lies_deeper_than_kaggles_slices_or_is_named_otherwise_is_none(kaggle, tmp_path):
    data = shutil.copytree(kaggle, tmp_path / "data")
    (data / "stage_2_train" / "deep").mkdir()
    for name in ("deep/ID_0.dcm", "notes.txt", "ID_1.DCM"):
        (data / "stage_2_train" / name).write_bytes(b"")
    due = [path.name for path in find_raw(data).files("train")]
    assert "ID_1.DCM" in due
    assert "ID_0.dcm" not in due
    assert [file.name for file in find_raw(pack(tmp_path / "a.zip", data)).files("train")] == due


def test_a_member_answers_like_the_path_of_its_file(own, tmp_path):
    archive = pack(tmp_path / "a.zip", own)
    for member, path in zip(find_raw(archive).files("test"), find_raw(own).files("test"), strict=True):
        assert (member.name, member.stem) == (path.name, path.stem)
        assert member.relative_to(archive) == path.relative_to(own)
        assert str(member) == f"{archive}/{path.relative_to(own)}"
        with open_bounded(member) as file:
            assert file.read() == path.read_bytes()


def test_a_stamp_tells_the_size_and_changes_with_the_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert stamp(path) == (3, path.stat().st_mtime_ns)
    stamps = []
    for content in (b"one", b"two"):
        with zipfile.ZipFile(tmp_path / f"{content}.zip", "w") as packed:
            packed.writestr("a", content)
        stamps.append(stamp(members(tmp_path / f"{content}.zip")[0]))
    assert stamps[0][0] == stamps[1][0] == 3
    assert stamps[0][1] != stamps[1][1]
    os.utime(path, ns=(0, 0))  # as packers write it that give the same bytes whenever they are asked
    for changed in (5_000_000_000, 6_000_000_000):
        with tarfile.open(tmp_path / "a.tar", "w") as packed:
            packed.add(path, "a")
        os.utime(tmp_path / "a.tar", ns=(0, changed))
        assert stamp(members(tmp_path / "a.tar")[0]) == (3, changed)
    (tmp_path / "broken").symlink_to(tmp_path / "absent")
    with pytest.raises(UnreadableSliceError):
        stamp(tmp_path / "broken")


def test_the_directory_is_read_once_and_again_when_the_archive_has_changed(own, tmp_path, monkeypatch):
    archive, reads = pack(tmp_path / "a.zip", own), []
    real = zipfile.ZipFile
    monkeypatch.setattr(archives.zipfile, "ZipFile", lambda *words: reads.append(words) or real(*words))
    raw = find_raw(archive)
    raw.files("test"), raw.files("test")
    assert len(reads) == 1
    with real(archive, "a") as packed:
        packed.writestr("new", "content")
    assert len(find_raw(archive).files("test")) == len(raw.files("test")) == len(members(archive))
    assert len(reads) == 2


def test_a_system_that_fails_while_it_reads_an_archive_ends_the_run_and_blames_no_file(own, tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.zip", own)
    files = find_raw(archive).files("test")
    monkeypatch.setattr(patience, "WAITS", (0,))
    real = os.pread

    def pread(*words: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(OSError, match="Input/output error"):
        read_slices(files[0])
    with pytest.raises(InputError, match=r"a\.zip.*: Input/output error"):
        cache_of(archive, tmp_path / "work")
    monkeypatch.setattr(os, "pread", real)
    assert cache_of(archive, tmp_path / "work") == cache_of(own, tmp_path / "other")


@pytest.mark.parametrize("place", ["folder", "archive"])
@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize("function", ["open", "read"])
def test_a_directory_that_the_system_does_not_let_be_read_ends_the_run(
    own, tmp_path, monkeypatch, place, kind, function
):
    archive = pack(tmp_path / kind, own)

    class Broken(io.FileIO):
        def __init__(self, *words: object) -> None:
            if function == "open":
                raise OSError(5, "Input/output error")
            super().__init__(*words)

        def readinto(self, *_: object) -> int:
            raise OSError(5, "Input/output error")

        readall = readinto

    monkeypatch.setattr(patience, "WAITS", ())
    monkeypatch.setattr(archives.io, "FileIO", Broken)
    with pytest.raises(InputError, match=r"cannot read .*: Input/output error"):
        find_raw(archive if place == "archive" else tmp_path)


# ---- what cannot be read in place ----


def reasons_of(archive: Path) -> dict[str, Reason | None]:
    """Why each member gives no slice, None for those that do."""
    reasons = {}
    for member in members(archive):
        try:
            list(read_file(member))
            reasons[member.inner] = None
        except UnreadableSliceError as error:
            reasons[member.inner] = error.reason
    return reasons


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


MEMBERS = {
    "encrypted": (packed(flags=ENCRYPTED), Reason.PACKED),
    "bzip2": (packed(method=12), Reason.PACKED),
    "deflate64": (packed(method=9), Reason.PACKED),
    "another method in its header": (packed(local_method=STORED), Reason.DAMAGED_MEMBER),
    "absolute": (packed(name=b"/etc/passwd"), Reason.NOT_A_MEMBER),
    "above": (packed(name=b"a/../../b"), Reason.NOT_A_MEMBER),
    "above in windows": (packed(name=b"a\\..\\..\\b"), Reason.NOT_A_MEMBER),
    "of a drive": (packed(name=b"C:\\b"), Reason.NOT_A_MEMBER),
    "a link": (packed(mode=LINK), Reason.NOT_A_MEMBER),
    "overlapping": (packed(name=b"b.dcm", offset=0), Reason.NOT_A_MEMBER),
    "flipped": (stored()._replace(data=flip(sound())), Reason.DAMAGED_MEMBER),
    "flipped and deflated": (packed()._replace(data=flip(packed().data)), Reason.DAMAGED_MEMBER),
    "cut off": (packed()._replace(data=packed().data[:-2000]), Reason.DAMAGED_MEMBER),
    "said to be longer": (packed(size=len(sound()) + 2), Reason.DAMAGED_MEMBER),
    "said to be shorter": (packed(size=len(sound()) - 2), Reason.DAMAGED_MEMBER),
    "without its header": (packed(header=b"PK\1\1"), Reason.DAMAGED_MEMBER),
    "a zip": (stored(zip_of(packed()), name=b"inner.zip"), Reason.ARCHIVE),
    "a packed tar": (stored(b"\x1f\x8b" + bytes(500), name=b"inner.tar.gz"), Reason.ARCHIVE),
    "a text": (packed(b"hello" * 50, name=b"notes.txt"), Reason.NOT_DICOM),
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_a_member_that_cannot_be_read_has_a_reason_and_the_others_are_read(tmp_path, kind):
    member, reason = MEMBERS[kind]
    good = stored(name=b"good.dcm")
    name = member.name.decode()
    (tmp_path / "a.zip").write_bytes(zip_of(good, member) if member.offset is None else zip_of(member, good))
    found = reasons_of(tmp_path / "a.zip")
    assert found == {name: reason, "good.dcm": None}


def test_a_reason_of_an_archive_says_what_to_do():
    for reason in (Reason.ARCHIVE, Reason.PACKED, Reason.NOT_A_MEMBER, Reason.DAMAGED_MEMBER):
        assert re.search("unpack|pack|download", reason.value)


def test_of_two_members_of_a_name_the_last_one_counts_and_the_other_is_told(tmp_path):
    other = meta(EXPLICIT) + body({"SOPInstanceUID": b"2.25.9"})
    (tmp_path / "a.zip").write_bytes(zip_of(packed(), packed(other)))
    (tmp_path / "a.tar").write_bytes(tar_of(entry(), end=False) + tar_of(entry(), content=other))
    for name in ("a.zip", "a.tar"):
        first, last = sorted(members(tmp_path / name), key=lambda member: member.offset)
        assert (first.flaw, last.flaw) == (Reason.NOT_A_MEMBER, None)
        assert next(read_file(last)).row["image_id"] == "2.25.9"


LINKS = {
    "symbolic link": entry("b", tarfile.SYMTYPE, 0, linkname="/etc/passwd"),
    "hard link": entry("b", tarfile.LNKTYPE, 0, linkname="a.dcm"),
    "device": entry("b", tarfile.CHRTYPE, 0),
    "fifo": entry("b", tarfile.FIFOTYPE, 0),
    "sparse": entry("b", tarfile.GNUTYPE_SPARSE, 0),
    "absolute": entry("/b", size=0),
    "above": entry("../b", size=0),
}


@pytest.mark.parametrize("kind", LINKS)
def test_what_is_no_plain_file_in_a_tar_is_told(tmp_path, kind):
    (tmp_path / "a.tar").write_bytes(tar_of(entry(), end=False) + tar_of(LINKS[kind], content=b""))
    assert sorted(reasons_of(tmp_path / "a.tar").items()) == [
        *sorted({LINKS[kind].name: Reason.NOT_A_MEMBER, "a.dcm": None}.items())
    ]


ARCHIVES = {
    "cut off.zip": (zip_of(stored(), stored(name=b"b"))[:-30], "download or pack it again"),
    "split.zip": (zip_of(stored(disk=1)), "zip -s 0"),
    "garbage.zip": (b"PK\3\4" + bytes(500), "download or pack it again"),
    "cut off.tar": (tar_of(entry(), entry("b"))[:-5000], "download or pack it again"),
    "no end.tar": (tar_of(entry(), end=False), "download or pack it again"),
    "packed.tar": (gzip.compress(tar_of(entry())), "pack it again"),
    "packed.tar.gz": (gzip.compress(tar_of(entry())), "gunzip"),
    "packed.tgz": (gzip.compress(tar_of(entry())), "gunzip"),
    "a.7z": (b"7z", "pack it as a zip"),
    "a.dcm": (sound(), "no folder, zip or tar"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_cannot_be_read_says_how_to_mend_it_and_is_listed_among_others(own, tmp_path, name):
    content, advice = ARCHIVES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{re.escape(name)}.*{advice}"):
        find_raw(tmp_path / name)
    if name != "a.dcm":
        data = shutil.copytree(own, tmp_path / "data")
        shutil.move(tmp_path / name, data / name)
        cache_of(data, tmp_path / "work")
        table = pd.read_csv(Work(tmp_path / "work").problems)
        assert list(table["problem"]).count(Reason.ARCHIVE.value) == 1
        assert count_lost_files(table) == 1


def test_kaggles_zip_that_is_cut_off_ends_the_run(kaggle, tmp_path):
    archive = pack(tmp_path / f"{NESTED}.zip", kaggle)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{NESTED}\.zip.*download"):
        find_raw(tmp_path)


def test_hidden_members_are_no_data(tmp_path):
    names = (b"__MACOSX/a/._1.dcm", b".DS_Store", b"a/.hidden/2.dcm", b"a/1.dcm")
    (tmp_path / "a.zip").write_bytes(zip_of(*(packed(name=name) for name in names)))
    assert [member.inner for member in members(tmp_path / "a.zip")] == ["a/1.dcm"]


def test_a_slice_that_is_named_like_an_archive_is_read(tmp_path):
    (tmp_path / "a.zip").write_bytes(sound())
    (file,) = find_raw(tmp_path).files("test")
    assert len(read_slices(file)) == 1


def test_a_zip64_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed_, packed_.open("a.dcm", "w", force_zip64=True) as file:
        file.write(sound())
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as packed_:
        packed_.start_dir = (1 << 32) + 4096  # a hole before the second one
        packed_.writestr("b.dcm", sound())
    assert reasons_of(tmp_path / "a.zip") == {"a.dcm": None, "b.dcm": None}
    assert members(tmp_path / "a.zip")[1].offset > 1 << 32
    os.truncate(tmp_path / "a.zip", 0)


def test_a_deflated_member_can_be_read_anywhere_but_not_back_for_ever(tmp_path):
    content = np.random.default_rng(0).integers(0, 9, 1 << 20, np.uint8).tobytes()
    (tmp_path / "a.zip").write_bytes(zip_of(packed(content)))
    with open_bounded(members(tmp_path / "a.zip")[0]) as file:
        for place in (900_000, 5, 300_000, 1 << 20, 7):
            file.seek(place)
            assert file.read(1000) == content[place : place + 1000]
        file.verify()

        def go_back() -> None:
            file.seek(500_000)
            file.read(1)
            file.seek(0)
            file.read(1)

        with pytest.raises(UnreadableSliceError):
            [go_back() for _ in range(50)]
