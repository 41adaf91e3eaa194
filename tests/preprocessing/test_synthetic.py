"""Laws of telling drawings from people: a phantom is marked at birth, and all that is made of it says so."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import models.phantom.dicom
from models.common.files import read_json, write_json
from models.common.folders import Work
from models.phantom.dicom import write_phantom
from models.preprocessing import report
from models.preprocessing.origin import DRAWN, SYNTHETIC, describe_synthetic, is_synthetic, synthetic_title
from models.preprocessing.pictures import contact_sheet
from models.preprocessing.preparation import PrepareOptions, prepare
from models.score import ScoreOptions, score

SIZE = 32


@pytest.fixture
def titles(monkeypatch) -> list[str | None]:
    """What stands above the contact sheets that are drawn from now on."""
    drawn = []

    def draw(*arguments, title=None):
        drawn.append(title)
        return contact_sheet(*arguments, title=title)

    monkeypatch.setattr(report, "contact_sheet", draw)
    monkeypatch.setattr(models.phantom.dicom, "contact_sheet", draw)
    return drawn


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_phantom(folder / "data", studies=4, test_studies=1, image_size=SIZE, jobs=1)
    shutil.make_archive(str(folder / "data"), "zip", folder / "data")
    shutil.make_archive(str(folder / "folder"), "zip", folder, "data")
    write_phantom(folder / "nested", studies=4, test_studies=1, image_size=SIZE, jobs=1, layout="zip")
    write_phantom(folder / "tree", studies=2, test_studies=1, image_size=SIZE, jobs=1, layout="tree")
    return folder


def options(data: Path, work: Path) -> PrepareOptions:
    return PrepareOptions(data=data, work=work, image_size=(SIZE,), folds=2, jobs=1)


@pytest.mark.parametrize("data", ["data", "nested", "tree", "data.zip", "folder.zip", "data/stage_2_test"])
def test_a_cache_of_drawings_says_so_wherever_they_lie(data, drawn, tmp_path, titles, capsys):
    prepare(options(drawn / data, tmp_path))
    work = Work(tmp_path)
    assert is_synthetic(work)
    assert titles == [SYNTHETIC]
    assert SYNTHETIC in capsys.readouterr().out
    assert pd.read_parquet(work.metadata("test")).attrs == {"synthetic": True}
    for file in (work.affines(SIZE), work.series_list):
        assert pd.read_csv(file)["synthetic"].all()


def test_slices_that_nobody_has_marked_are_peoples(drawn, tmp_path, titles, capsys):
    data = Path(shutil.copytree(drawn / "data", tmp_path / "data"))
    (data / DRAWN).unlink()
    prepare(options(data, tmp_path))
    assert not is_synthetic(Work(tmp_path))
    assert describe_synthetic(Work(tmp_path)) == ""
    assert synthetic_title(Work(tmp_path)) is None
    assert titles == [None]
    assert "synthetic" not in capsys.readouterr().out
    assert pd.read_parquet(Work(tmp_path).metadata("train")).attrs == {}
    for file in (Work(tmp_path).affines(SIZE), Work(tmp_path).series_list):
        assert "synthetic" not in pd.read_csv(file)


def test_the_mark_counts_for_all_stages(drawn, tmp_path):
    prepare(replace(options(drawn / "data", tmp_path), stage=2))
    assert is_synthetic(Work(tmp_path))
    assert is_synthetic(Work(tmp_path, 2))
    assert is_synthetic(Work(tmp_path, 1))


def test_a_cache_of_an_older_version_is_marked_by_the_same_command(drawn, tmp_path):
    prepare(options(drawn / "data", tmp_path))
    work = Work(tmp_path)
    older = {name: value for name, value in read_json(work.prepared, "").items() if name not in ("synthetic", "data")}
    write_json(work.prepared, older)
    stored = {path: path.stat().st_mtime_ns for path in work.slices(SIZE).iterdir()}
    assert not is_synthetic(work)
    prepare(options(drawn / "data", tmp_path))
    assert is_synthetic(work)
    assert {path: path.stat().st_mtime_ns for path in work.slices(SIZE).iterdir()} == stored


def test_a_phantom_says_it_on_its_own_contact_sheet(tmp_path, titles):
    write_phantom(tmp_path / "data", studies=4, test_studies=1, image_size=SIZE, jobs=1)
    assert titles == [SYNTHETIC]


def test_a_title_stands_above_all_and_changes_no_slice():
    slices = np.random.default_rng(0).normal(40, 30, (3, 32, 32))
    plain = contact_sheet(slices, ["one", "two", "three"], tile=64)
    titled = contact_sheet(slices, ["one", "two", "three"], tile=64, title=SYNTHETIC)
    line = len(titled) - len(plain)
    assert 0 < line < 40
    np.testing.assert_array_equal(titled[line + 4 :], plain[4:])  # below the rim
    assert (titled[4 : 4 + line] > 100).any()


def test_scores_of_drawings_say_so(drawn, tmp_path, capsys):
    prepare(options(drawn / "data", tmp_path))
    answers = drawn / "data" / "phantom_test_labels.csv"
    capsys.readouterr()
    score(ScoreOptions((answers,), answers, tmp_path))
    assert re.search(f"^{re.escape(SYNTHETIC)}$", capsys.readouterr().out, re.MULTILINE)
