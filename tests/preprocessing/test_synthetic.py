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
from models.preprocessing.raw import NESTED
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


@pytest.fixture(scope="module")
def person(tmp_path_factory) -> Path:
    """Drawings of another seed without a mark, which stand for people: as the challenge's, as a tree, and packed."""
    folder = tmp_path_factory.mktemp("person")
    write_phantom(folder / "data", studies=4, test_studies=1, image_size=SIZE, seed=7, jobs=1)
    write_phantom(folder / "tree", studies=1, test_studies=0, image_size=SIZE, seed=8, jobs=1, layout="tree")
    for name in ("data", "tree"):
        (folder / name / DRAWN).unlink()
    shutil.make_archive(str(folder / "tree"), "zip", folder / "tree")
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


def unpacked(data: Path, person: Path) -> Path:
    """The challenge's zip, unpacked into the folder of a phantom."""
    shutil.copytree(person / "data", data / NESTED)
    return data


def added(data: Path, person: Path) -> Path:
    """A folder of somebody's files among a phantom's, which is named with them."""
    shutil.copytree(person / "tree", data / "export")
    return data


def below(data: Path, person: Path) -> Path:
    """The same, named alone."""
    return added(data, person) / "export"


def packed(data: Path, person: Path) -> Path:
    """A zip of somebody's files, laid beside a phantom and named alone."""
    return Path(shutil.copy(person / "tree.zip", data / "export.zip"))


def merged(data: Path, person: Path) -> Path:
    """One slice of a person in the very folder of the drawn ones."""
    slice_of_person = next((person / "data" / "stage_2_train").iterdir())
    for folder in (data, data / "stage_2_train"):
        if folder.is_dir():
            shutil.copy(slice_of_person, folder / "ID_person.dcm")
    return data


@pytest.mark.parametrize("layout", ["data", "tree"])
@pytest.mark.parametrize("lay", [unpacked, added, below, packed, merged])
def test_people_whose_files_lie_in_a_phantoms_folder_are_people(layout, lay, drawn, person, tmp_path):
    data = Path(shutil.copytree(drawn / layout, tmp_path / "data"))
    prepare(options(data, tmp_path / "before"))
    assert is_synthetic(Work(tmp_path / "before"))
    is_read = (layout, lay) != ("data", added)  # in the challenge's layout nothing else is looked at
    prepare(options(lay(data, person), tmp_path / "after"))
    assert is_synthetic(Work(tmp_path / "after")) == (not is_read)
    told = (tmp_path / "after" / "cache" / "prepare.json").read_text()
    assert (str(tmp_path) in told) == ((layout == "data" and lay in (added, merged)) or lay == unpacked)


def test_tables_and_text_beside_drawings_are_nobody(drawn, tmp_path):
    data = Path(shutil.copytree(drawn / "tree", tmp_path / "data"))
    for name in ("labels.csv", "notes.txt"):
        (data / name).write_text("study,any\n")
    prepare(options(data, tmp_path))
    assert is_synthetic(Work(tmp_path))


def test_a_phantom_that_lists_no_files_is_drawn_as_before(drawn, tmp_path):
    data = Path(shutil.copytree(drawn / "tree", tmp_path / "data"))
    write_json(data / DRAWN, {"version": 4})
    prepare(options(data, tmp_path))
    assert is_synthetic(Work(tmp_path))


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
