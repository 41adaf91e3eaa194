"""Laws of the raw folder: every layout that Kaggle has used is found, and what is missing is named."""

import errno
import itertools
import os
from pathlib import Path

import pytest

from models.common import patience
from models.common.errors import InputError
from models.preprocessing.cache import source_of
from models.preprocessing.grouping import look_at, named_files
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import find_raw

NESTED = "rsna-intracranial-hemorrhage-detection"


def lay_out(root: Path, stage: int = 2, suffix: str = "") -> Path:
    for split in ("train", "test"):
        folder = root / f"stage_{stage}_{split}{suffix}"
        folder.mkdir(parents=True)
        for name in "ba":
            (folder / f"ID_{split}{name}.dcm").write_bytes(name.encode())
    for table in ("train", "sample_submission"):
        (root / f"stage_{stage}_{table}.csv").write_text("ID,Label\n")
    return root


@pytest.mark.parametrize("nested", ["", NESTED], ids=["plain", "nested"])
@pytest.mark.parametrize("suffix", ["", "_images"])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_layout_of_kaggle_is_found(tmp_path, stage, suffix, nested):
    root = lay_out(tmp_path / nested, stage, suffix)
    raw = find_raw(tmp_path)
    assert raw.stage == stage
    assert (raw.train, raw.test) == (root / f"stage_{stage}_train{suffix}", root / f"stage_{stage}_test{suffix}")
    assert raw.labels == root / f"stage_{stage}_train.csv"
    assert raw.sample_submission == root / f"stage_{stage}_sample_submission.csv"


def test_the_second_stage_counts_where_both_are_there(tmp_path):
    for stage in (1, 2):
        lay_out(tmp_path, stage)
    assert find_raw(tmp_path).stage == 2


def test_slices_are_sorted_by_name_and_other_files_are_none(tmp_path):
    raw = find_raw(lay_out(tmp_path))
    (raw.train / "notes.txt").write_text("")
    assert [path.name for path in raw.files("train")] == ["ID_traina.dcm", "ID_trainb.dcm"]
    assert [path.name for path in raw.files("test")] == ["ID_testa.dcm", "ID_testb.dcm"]


def test_the_real_sample_has_the_layout(real_sample):
    raw = find_raw(real_sample)
    assert raw.stage == 2
    assert (len(raw.files("train")), len(raw.files("test"))) == (236, 66)


def test_a_missing_data_folder_is_named_with_the_ways_out(tmp_path):
    with pytest.raises(InputError) as caught:
        find_raw(tmp_path / "absent")
    assert all(word in str(caught.value) for word in (str(tmp_path / "absent"), "--data", "RSNA_DATA", "make_phantom"))


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("name", ["train", "test", "train.csv", "sample_submission.csv"])
def test_a_missing_part_is_named(tmp_path, stage, name):
    part = lay_out(tmp_path, stage) / f"stage_{stage}_{name}"
    part.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"stage_{stage}_{name}"):
        find_raw(tmp_path)


def test_an_empty_data_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="holds no files"):
        find_raw(tmp_path)


def test_a_file_in_place_of_a_folder_is_not_taken_for_it(tmp_path):
    lay_out(tmp_path)
    (tmp_path / "stage_2_test").rename(tmp_path / "elsewhere")
    (tmp_path / "stage_2_test").write_text("")
    with pytest.raises(InputError, match="stage_2_test"):
        find_raw(tmp_path)


def source(data: Path) -> str:
    """What tells the content of a raw folder from another."""
    raw, pseudonyms = find_raw(data), Pseudonyms(b"key", challenge=True)
    looks = {}
    for split in raw.splits:
        looks[split] = look_at(pseudonyms, named_files(raw.files(split), raw.root, pseudonyms, {}))
    return source_of(raw, None, looks)


def test_the_source_of_a_cache_changes_with_every_file_and_not_with_the_place(tmp_path):
    train, test = "stage_2_train", "stage_2_test"
    changes = {
        "original": lambda root: None,
        "place": lambda root: None,
        "added": lambda root: (root / test / "ID_new.dcm").write_bytes(b"a"),
        "removed": lambda root: (root / train / "ID_traina.dcm").unlink(),
        "renamed": lambda root: (root / train / "ID_traina.dcm").rename(root / train / "ID_x.dcm"),
        "moved": lambda root: (root / train / "ID_traina.dcm").rename(root / test / "ID_traina.dcm"),
        "grown": lambda root: (root / train / "ID_traina.dcm").write_bytes(b"longer"),
        "labels": lambda root: (root / "stage_2_train.csv").write_text("ID,Label\nID_a_any,1\n"),
        "sample": lambda root: (root / "stage_2_sample_submission.csv").write_text("ID,Label\nID_a_any,1\n"),
    }
    sources = {}
    for name, change in changes.items():
        change(lay_out(tmp_path / name / "data"))
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (1, 1))
        sources[name] = source(tmp_path / name / "data")
    os.utime(tmp_path / "place/data" / train / "ID_traina.dcm", (2, 2))
    assert source(tmp_path / "place/data") != sources["original"]
    assert sources.pop("place") == sources["original"]
    assert all(one != other for one, other in itertools.combinations(sources.values(), 2))


# ---- a tree ----


def names(data: Path, work: Path | None = None) -> list[str]:
    return [str(path.relative_to(data)) for path in find_raw(data, work=work).files("test")]


def tree(root: Path, *paths: str) -> Path:
    for name in paths:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"a")
    return root


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch, number):
    tree(tmp_path, "a/1", "b/2")
    real = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("/b"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(patience, "WAITS", (0,))
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=f"cannot read {tmp_path}/b: {os.strerror(number)}"):
        find_raw(tmp_path)


def test_hidden_files_are_no_data_in_any_layout(tmp_path):
    hidden = (".nfs00000012", "._1.dcm", ".DS_Store", ".ipynb_checkpoints/1.dcm")
    assert names(tree(tmp_path / "tree", "a/1.dcm", *(f"a/{name}" for name in hidden))) == ["a/1.dcm"]
    raw = find_raw(lay_out(tmp_path / "kaggle"))
    tree(raw.train, "._ID_traina.dcm", ".nfs01.dcm")
    assert [path.name for path in raw.files("train")] == ["ID_traina.dcm", "ID_trainb.dcm"]


def test_links_are_followed_once_and_circles_end(tmp_path):
    tree(tmp_path / "data", "a/1", "b/2")
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "b")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data" / "self")
    (tmp_path / "data" / "broken").symlink_to(tmp_path / "absent")
    files = set(names(tmp_path / "data")) - {"self", "broken"}
    resolved = {(tmp_path / "data" / name).resolve() for name in files}
    assert resolved == {tmp_path / "data" / "a" / "1", tmp_path / "data" / "b" / "2"}
    assert len(names(tmp_path / "data")) == 4


OWN = ["cache/a.parquet", "runs/b2/fold0/b", "blend/c", "pseudonyms.key"]
OWN += ["submission.csv", "by_file.csv", "report_b2.html"]


def test_what_this_project_has_written_is_no_data_wherever_it_lies(tmp_path):
    tree(tmp_path, "runs/1", "x/cache/2", *(f"own/{name}" for name in OWN))
    assert names(tmp_path, work=tmp_path / "own") == ["runs/1", "x/cache/2"]
    tree(tmp_path / "same", "3", *OWN)
    assert names(tmp_path / "same", work=tmp_path / "same") == ["3"]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "same")
    assert names(tmp_path / "same", work=link) == ["3"]


def test_work_that_is_not_there_yet_is_none(tmp_path):
    assert names(tree(tmp_path, "1"), work=tmp_path / "absent") == ["1"]
