"""Laws of the manifest: of data that grows or changes what is new is made, once, and nothing else is touched."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from once import made_once
from written import contents

from models.common.earlier import go_on_from
from models.common.errors import InputError
from models.common.folders import Work
from models.common.session import Session
from models.phantom.dicom import write_phantom
from models.preprocessing import cache, dicom, manifest, preparation, series
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.origin import noted
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.store import Series
from models.preprocessing.tables import read_folds

SIZE = 48


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> PrepareOptions:
    """Options for the data of a dozen series, and its cache; to be copied."""

    def make(folder: Path) -> None:
        write_phantom(folder / "data", studies=9, test_studies=3, image_size=SIZE, jobs=1)
        prepare(PrepareOptions(data=folder / "data", work=folder / "work", image_size=(SIZE,), folds=3, jobs=1))

    folder = made_once(tmp_path_factory, "manifest", make)
    return PrepareOptions(data=folder / "data", work=folder / "work", image_size=(SIZE,), folds=3, jobs=1)


@pytest.fixture
def copied(whole, tmp_path) -> PrepareOptions:
    """The same of this test alone."""
    shutil.copytree(whole.data, tmp_path / "data")
    shutil.copytree(whole.work, tmp_path / "work")
    return replace(whole, data=tmp_path / "data", work=tmp_path / "work")


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files whose slices are read from now on."""
    files: list[Path] = []
    original = series.read_file
    monkeypatch.setattr(series, "read_file", lambda path, root: files.append(path) or original(path, root))
    return files


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The files that are opened from now on, be it for their first bytes."""
    files: list[Path] = []
    original = dicom.open_bounded
    monkeypatch.setattr(dicom, "open_bounded", lambda path: files.append(path) or original(path))
    return files


def table_of(options: PrepareOptions, split: str = "train") -> pd.DataFrame:
    return pd.read_parquet(Work(options.work).metadata(split))


def files_of(options: PrepareOptions, series_id: str, split: str = "train") -> list[Path]:
    table = table_of(options, split)
    return [
        options.data / f"stage_2_{split}/{name}.dcm" for name in table.loc[table["series_id"] == series_id, "image_id"]
    ]


def take_out(options: PrepareOptions, series_id: str, folder: Path) -> list[Path]:
    """Move the files of a series out of the data; returns where they were."""
    files = files_of(options, series_id)
    folder.mkdir()
    for path in files:
        shutil.move(path, folder)
    return files


def made_anew(options: PrepareOptions, work: Path) -> dict[str, bytes]:
    """The cache that these files give without another before it."""
    work.mkdir()
    shutil.copy(options.work / "pseudonyms.key", work)
    prepare(replace(options, work=work))
    return contents(work / "cache")


def test_an_added_study_is_the_only_one_that_is_read(copied, read, opened, tmp_path):
    added = table_of(copied)["series_id"].iloc[0]
    files = take_out(copied, added, tmp_path / "later")
    work = tmp_path / "grown"
    prepare(replace(copied, work=work))
    before = {path: path.stat().st_mtime_ns for path in (work / "cache").glob("*/*")}
    folds = pd.read_csv(Work(work).folds).set_index("patient_id")["fold"]
    for path in (tmp_path / "later").iterdir():
        shutil.move(path, files[0].parent)
    read.clear()
    opened.clear()
    prepare(replace(copied, work=work))
    assert sorted(read) == sorted(files)
    assert set(opened) == set(files)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    now = pd.read_csv(Work(work).folds).set_index("patient_id")["fold"]
    assert now[folds.index].equals(folds), "a network has seen whom it is validated on"
    grown = contents(work / "cache")
    fresh = made_anew(replace(copied, work=work), tmp_path / "fresh")
    assert set(grown) == set(fresh)
    assert {name for name in fresh if grown[name] != fresh[name]} <= {"folds.csv", "prepare.json"}


def test_a_pixel_that_changes_far_from_the_beginning_is_seen(copied, read):
    path = files_of(copied, table_of(copied)["series_id"].iloc[-1])[3]
    data = bytearray(path.read_bytes())
    data[-2:] = b"\x00\x04"
    path.write_bytes(data)
    prepare(copied)
    assert {file.parent / file.name for file in read} == set(files_of(copied, table_of(copied)["series_id"].iloc[-1]))
    row = table_of(copied).set_index("image_id").loc[path.stem]
    expected = pydicom.dcmread(path).pixel_array
    stored = Series(Work(copied.work).series(SIZE, row["series_id"])).read(row["chunk"])
    assert stored[-1, -1] == np.clip(expected[-1, -1] * row["rescale_slope"] + row["rescale_intercept"], -1000, 2000)


def test_files_that_are_copied_anew_are_read_for_their_checksums_alone(copied, read):
    before = contents(copied.work / "cache")
    for path in copied.data.glob("stage_2_*/*.dcm"):
        os.utime(path, ns=(1, 1_000_000_000))
    prepare(copied)
    assert read == []
    assert {name for name in before if contents(copied.work / "cache")[name] != before[name]} == {"prepare.json"}


def test_a_study_that_is_gone_leaves_the_tables(copied, tmp_path, read):
    gone = table_of(copied)["series_id"].iloc[0]
    take_out(copied, gone, tmp_path / "gone")
    prepare(copied)
    assert read == []
    assert gone not in set(table_of(copied)["series_id"])


def record_of(options: PrepareOptions, name: str) -> manifest.Record:
    record = manifest.read_record(Work(options.work).manifest / f"{name}.json")
    assert record is not None
    return record


def test_after_a_stop_what_is_finished_is_not_read_again(whole, read, monkeypatch, tmp_path):
    options, original = replace(whole, work=tmp_path / "work"), series.write_record
    done: list[str] = []

    def stopped(work, record):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(record.series)
        original(work, record)

    monkeypatch.setattr(series, "write_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(options)
    monkeypatch.setattr(series, "write_record", original)
    read_before = len(read)
    prepare(options)
    finished = {mark.image_id for name in done for mark in record_of(options, name).files.values()}
    assert len(done) == 5
    assert not {path.stem for path in read[read_before:]} & finished, "a file is read twice"
    assert contents(options.work / "cache") == contents(whole.work / "cache")


def test_a_record_of_another_format_is_made_anew(copied, read):
    victim = sorted(Work(copied.work).manifest.iterdir())[2]
    record = manifest.read_record(victim)
    manifest.write_record(Work(copied.work), replace(record, format=record.format - 1))
    Work(copied.work).prepared.unlink()
    prepare(copied)
    assert {path.stem for path in read} == {mark.image_id for mark in record.files.values()}


@pytest.fixture
def once_failed(copied, monkeypatch, tmp_path) -> tuple[PrepareOptions, str]:
    """Options for a cache in which a slice could not be decoded that now can be, and which one."""
    options, image = replace(copied, work=tmp_path / "failed", min_readable=0.5), table_of(copied)["image_id"].iloc[4]
    original = series.read_file

    def read_file(path, root):
        if path.stem == image:
            raise UnreadableSliceError(Reason.DECODING)
        return original(path, root)

    with monkeypatch.context() as patch:
        patch.setattr(series, "read_file", read_file)
        prepare(options)
    assert table_of(options).set_index("image_id").loc[image, "chunk"] == -1
    return options, image


def test_what_failed_stays_until_it_is_to_be_tried_again(once_failed, read):
    options, image = once_failed
    prepare(options)
    assert read == []
    prepare(replace(options, retry=True))
    assert len({path.parent for path in read}) == 1
    name = table_of(options).set_index("image_id").loc[image, "series_id"]
    assert set(read) == set(files_of(options, name))
    assert table_of(options).set_index("image_id").loc[image, "chunk"] >= 0


def test_what_failed_is_tried_again_with_other_decoders(once_failed, read, monkeypatch):
    options, image = once_failed
    for module in (series, cache):
        monkeypatch.setattr(module, "decoder_set", lambda: {"imagecodecs": "another"})
    prepare(options)
    assert table_of(options).set_index("image_id").loc[image, "chunk"] >= 0
    assert set(read) == set(files_of(options, table_of(options).set_index("image_id").loc[image, "series_id"]))


def test_other_decoders_read_nothing_anew_where_nothing_failed(copied, read, monkeypatch, capsys):
    prepare(copied)
    for module in (series, cache):
        monkeypatch.setattr(module, "decoder_set", lambda: {"imagecodecs": "another"})
    capsys.readouterr()
    prepare(copied)
    assert "nothing to do" in capsys.readouterr().out
    assert read == []


def test_no_table_is_left_that_tells_of_other_slices(copied, monkeypatch):
    """A killed process must not leave the old metadata beside a new store."""
    path = files_of(copied, table_of(copied)["series_id"].iloc[0])[0]
    path.write_bytes(path.read_bytes()[:-2])
    original = series.write_series

    def killed(*words):
        original(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(series, "write_series", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(copied)
    assert not list(copied.work.glob("cache/**/metadata_*.parquet"))


@pytest.mark.parametrize("last", ["write_csv", "write_contact_sheet", "write_parquet", "mark_complete"])
def test_a_cache_that_grows_goes_on_after_a_stop_in_its_last_moments(copied, monkeypatch, tmp_path, last):
    """Patients keep their folds, and stores of sizes that were not asked for this time stay in it."""
    files = take_out(copied, table_of(copied)["series_id"].iloc[0], tmp_path / "later")
    options = replace(copied, work=tmp_path / "grown")
    prepare(replace(options, image_size=(SIZE, 2 * SIZE)))
    folds = pd.read_csv(Work(options.work).folds)
    for path in (tmp_path / "later").iterdir():
        shutil.move(path, files[0].parent)
    original = getattr(preparation, last)

    def stopped(*words, **more):
        original(*words, **more)
        raise KeyboardInterrupt

    def never(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, last, never if last == "mark_complete" else stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(options)
    with pytest.raises(InputError, match=r"is not finished; go on with|no .*folds\.csv; make it with"):
        read_folds(Work(options.work))
    assert prepare(options) == 0
    grown = read_folds(Work(options.work))
    assert len(grown) == len(folds) + 1
    assert len(grown.merge(folds, on=["patient_id", "fold"])) == len(folds)
    assert noted(Work(options.work))["image_size"] == [SIZE, 2 * SIZE]


def test_a_check_leaves_the_lists_of_a_finished_cache_alone(copied, capsys):
    before = contents(copied.work / "cache")
    name = table_of(copied)["series_id"].iloc[0]
    files_of(copied, name)[0].write_bytes(b"no slice")
    prepare(replace(copied, check=True, take=(name,)))
    assert "in " + str(Work(copied.work).tables / "checked_problems.csv") in capsys.readouterr().out
    after = contents(copied.work / "cache")
    assert after.keys() - before.keys() == {"checked_problems.csv", "checked_series.csv"}
    assert {name: after[name] for name in before} == before


def test_what_was_begun_in_a_later_session_does_not_take_tables_of_the_earlier_one(copied, monkeypatch, tmp_path):
    """A series has changed, its store is made anew, and the session ends: the old tables tell of another store."""
    path = files_of(copied, table_of(copied)["series_id"].iloc[0])[0]
    path.write_bytes(path.read_bytes()[:-2])
    session = Session(work_from=(copied.work,))
    later = replace(copied, work=tmp_path / "later", session=session)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "join_tables", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(later)
    go_on_from(session, Work(later.work))
    assert not list(later.work.glob("cache/**/metadata_*.parquet"))
    assert prepare(later) == 0
    folds = pd.read_csv(Work(copied.work).folds)
    assert len(folds.merge(read_folds(Work(later.work)), on=["patient_id", "fold"])) == len(folds)


def test_a_store_whose_link_leads_nowhere_is_made_again(copied, tmp_path):
    later = replace(copied, work=tmp_path / "later", session=Session(work_from=(copied.work,)))
    prepare(later)
    stores = sorted(Work(later.work).slices(SIZE).iterdir())
    before = [path.read_bytes() for path in stores]
    shutil.rmtree(Work(copied.work).slices(SIZE))  # to make room
    assert prepare(replace(later, session=Session())) == 0
    assert [path.read_bytes() for path in stores] == before


def test_a_series_in_both_splits_is_refused(copied):
    path = files_of(copied, table_of(copied)["series_id"].iloc[0])[0]
    shutil.move(path, copied.data / "stage_2_test")
    with pytest.raises(InputError, match="has files in both"):
        prepare(copied)


def test_a_second_look_opens_no_file(copied, opened, capsys):
    prepare(copied)
    assert opened == []
    assert "nothing to do" in capsys.readouterr().out


def test_the_first_line_comes_before_any_file_is_looked_at(whole, tmp_path, monkeypatch, capsys):
    def find_raw(*_):
        raise InputError(f"said before: {capsys.readouterr().out}")

    monkeypatch.setattr(preparation, "find_raw", find_raw)
    with pytest.raises(InputError, match="said before: looking for slices in"):
        prepare(replace(whole, work=tmp_path))
