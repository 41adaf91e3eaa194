"""Laws of find_files.py: whoever has the key and the files finds the file of every line, and nobody else does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import read_parquet, write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.find_files import FindOptions, find_files
from models.phantom.dicom import write_phantom
from models.preprocessing.dicom import read_slices
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.store import Series

SIZE = 32
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A working folder with the cache and made-up predictions of a tree of files, one of them damaged."""
    folder = tmp_path_factory.mktemp("own")
    write_phantom(folder / "data", 2, 1, SIZE, layout="tree", jobs=1)
    damaged = sorted(path for path in (folder / "data").rglob("IM-*"))[5]
    damaged.write_bytes(b"no DICOM")
    prepare(PrepareOptions(data=folder / "data", work=folder, image_size=(SIZE,), jobs=1))
    table = read_parquet(Work(folder).metadata("test"), "")
    predictions = table[["image_id"]].assign(**dict.fromkeys(LABELS, np.float32(0.5)))
    write_parquet(folder / "test.parquet", predictions)
    return folder, table, damaged


def test_every_prediction_is_traced_to_the_file_of_its_slice(own, tmp_path):
    folder, table, _ = own
    find_files(FindOptions(folder / "test.parquet", tmp_path / "out.csv", data=folder / "data", work=folder, jobs=1))
    traced = pd.read_csv(tmp_path / "out.csv")
    assert list(traced.columns) == ["file", "image_id", *LABELS]
    assert list(traced["image_id"]) == list(table["image_id"])
    for row in traced.merge(table, on="image_id").iloc[::9].itertuples():
        (hounsfield,) = read_slices(folder / "data" / row.file)
        assert np.array_equal(hounsfield, Series(Work(folder).series(SIZE, row.series_id)).read(row.chunk))


def test_a_file_that_could_not_be_read_is_traced_too(own, tmp_path):
    folder, _, damaged = own
    find_files(FindOptions(Work(folder).problems, tmp_path / "out.csv", data=folder / "data", work=folder, jobs=1))
    traced = pd.read_csv(tmp_path / "out.csv")
    lines = traced[traced["problem"] == "not a DICOM file"]
    assert str(damaged.relative_to(folder / "data")) in set(lines["file"])


def test_a_series_is_traced_to_its_folder(own, tmp_path):
    folder, _, _ = own
    find_files(FindOptions(Work(folder).series_list, tmp_path / "out.csv", data=folder / "data", work=folder, jobs=1))
    traced = set(pd.read_csv(tmp_path / "out.csv")["file"])
    assert traced == {str(path.parent.relative_to(folder / "data")) for path in (folder / "data").rglob("IM-*")}


def test_without_the_key_nothing_is_traced(own, tmp_path):
    folder, _, _ = own
    options = FindOptions(folder / "test.parquet", tmp_path / "out.csv", data=folder / "data", work=tmp_path, jobs=1)
    with pytest.raises(InputError, match=r"pseudonyms\.key"):
        find_files(options)
    (tmp_path / "pseudonyms.key").write_text("00" * 32)
    find_files(options)
    assert pd.read_csv(tmp_path / "out.csv")["file"].isna().all()


def test_a_frame_is_traced_to_its_file(tmp_path):
    write_phantom(tmp_path / "data", 2, 1, SIZE, traps=("enhanced",), jobs=1)
    tree = tmp_path / "own"
    shutil.copytree(tmp_path / "data" / "stage_2_train", tree / "one")
    shutil.copytree(tmp_path / "data" / "stage_2_test", tree / "two")
    prepare(PrepareOptions(data=tree, work=tmp_path, image_size=(SIZE,), jobs=1))
    write_parquet(tmp_path / "test.parquet", read_parquet(Work(tmp_path).metadata("test"), "")[["image_id"]])
    find_files(FindOptions(tmp_path / "test.parquet", tmp_path / "out.csv", data=tree, work=tmp_path, jobs=1))
    assert pd.read_csv(tmp_path / "out.csv")["file"].notna().all()


def test_names_that_are_not_utf_8_are_prepared_and_traced(own, tmp_path):
    folder, table, _ = own
    data = shutil.copytree(folder / "data", tmp_path / os.fsdecode(b"gro\xdf"))
    first = next(path for path in sorted(data.iterdir()) if path.is_dir())
    first.rename(data / os.fsdecode(b"M\xfcller"))
    assert run(tmp_path, "prepare.py", "--image-size", SIZE, data=data) == 0
    assert run(tmp_path, "find_files.py", "work/cache/metadata_test.parquet", data=data) == 0
    traced = pd.read_csv(tmp_path / "by_file.csv")
    assert len(traced) == len(table)
    assert traced["file"].str.startswith("M\\xfcller/").any()
    assert run(tmp_path, "prepare.py", "--image-size", SIZE, data=data / os.fsdecode(b"\xff")) == 1


def run(folder: Path, script: str, *words: object, data: Path) -> int:
    """Run a script in a folder, which gets the subfolder work; returns the exit code of a run without a traceback."""
    command = [sys.executable, REPOSITORY / "models" / script, *map(str, words), "--data", data, "--work", "work"]
    done = subprocess.run([*command, "--jobs", "1"], capture_output=True, cwd=folder, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode


@pytest.mark.parametrize("place", ["same", "above"])
def test_data_may_lie_where_the_work_is_done(own, tmp_path, place):
    folder, table, _ = own
    data = shutil.copytree(folder / "data", tmp_path / "data")
    work = data if place == "same" else data / "own"
    options = PrepareOptions(data=data, work=work, image_size=(SIZE,), jobs=1)
    prepare(options)
    stored = {path: path.stat().st_mtime_ns for path in Work(work).slices(SIZE).iterdir()}
    write_parquet(tmp_path / "test.parquet", read_parquet(Work(work).metadata("test"), "")[["image_id"]])
    find_files(FindOptions(tmp_path / "test.parquet", work / "by_file.csv", data=data, work=work, jobs=1))
    assert pd.read_csv(work / "by_file.csv")["file"].notna().all()
    prepare(options)
    assert {path: path.stat().st_mtime_ns for path in Work(work).slices(SIZE).iterdir()} == stored
    assert len(read_parquet(Work(work).metadata("test"), "")) == len(table)
