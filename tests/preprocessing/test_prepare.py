"""Laws of step 1: a raw folder becomes one consistent cache, and what is wrong with a file is a line, not an end."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from written import contents

from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.phantom.dicom import write_phantom
from models.preprocessing import dicom, tables
from models.preprocessing.challenge_csv import read_labels
from models.preprocessing.dicom import read_slices
from models.preprocessing.elements import Reason
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.store import Series, fit_to_square
from models.preprocessing.tables import UNREADABLE

SIZE = 48


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> PrepareOptions:
    """Options for a small phantom; prepare has run with them."""
    folder = tmp_path_factory.mktemp("prepare")
    write_phantom(folder / "data", studies=6, test_studies=1, image_size=SIZE, jobs=1)
    done = PrepareOptions(data=folder / "data", work=folder, image_size=(SIZE,), folds=3, jobs=1)
    prepare(done)
    return done


@pytest.fixture
def copied(options, tmp_path) -> PrepareOptions:
    """The same with a copy of the cache, to be changed."""
    shutil.copytree(Work(options.work).cache, tmp_path / "cache")
    return replace(options, work=tmp_path)


def metadata(options: PrepareOptions, split: str) -> pd.DataFrame:
    return tables.read_slices(Work(options.work), split)


def problems(options: PrepareOptions) -> pd.DataFrame:
    return pd.read_csv(Work(options.work).problems)


def drop_lines(path: Path, start: str) -> None:
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(start)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_slice_has_a_row_in_anatomical_order_and_its_place_in_the_store(options, split):
    table = metadata(options, split)
    assert sorted(table["image_id"]) == sorted(path.stem for path in (options.data / f"stage_2_{split}").iterdir())
    for series_id, series in table.groupby("series_id"):
        assert series["z"].is_monotonic_increasing
        assert list(series["chunk"]) == list(range(len(series)))
        stored = Series(Work(options.work).series(SIZE, series_id))
        assert len(stored) == len(series)
        for image_id, chunk in zip(series["image_id"], series["chunk"], strict=True):
            (hounsfield,) = read_slices(options.data / f"stage_2_{split}" / f"{image_id}.dcm")
            assert np.array_equal(stored.read(chunk), fit_to_square(hounsfield, SIZE))


def test_the_labels_stand_beside_their_slices(options):
    truth = read_labels(options.data / "stage_2_train.csv")[0].set_index("image_id")
    table = metadata(options, "train").set_index("image_id")
    pd.testing.assert_frame_equal(table[list(LABELS)], truth.loc[table.index], check_index_type=False)
    assert not set(LABELS) & set(metadata(options, "test"))


def test_every_patient_has_a_fold(options):
    folds = pd.read_csv(Work(options.work).folds)
    assert sorted(folds["patient_id"]) == sorted(metadata(options, "train")["patient_id"].unique())
    assert set(folds["fold"]) == {0, 1, 2}


def test_a_whole_folder_has_no_problem_but_the_padding_and_spacing_of_its_scanners(options):
    assert list(problems(options).columns) == ["item", "problem", "treatment"]
    assert set(problems(options)["problem"]) <= {Problem.BELOW_AIR.value[0], Problem.UNEVEN_SPACING.value[0]}


def test_the_cache_holds_these_files_and_no_others(options):
    series = {name for split in ("train", "test") for name in metadata(options, split)["series_id"]}
    stores = [f"slices_48/{name}.slices" for name in series]
    tables = [
        f"affine_{SIZE}.csv",
        "folds.csv",
        "metadata_test.parquet",
        "metadata_train.parquet",
        "problems.csv",
        "series.csv",
    ]
    records = [f"manifest/{name}.json" for name in series]
    assert sorted(contents(Work(options.work).cache)) == sorted(
        [*tables, *stores, *records, "contact_sheet.png", "prepare.json"]
    )


def test_the_raw_folder_is_never_written_to(options):
    assert sorted(path.name for path in options.data.iterdir()) == [
        "contact_sheet.png",
        "phantom.json",
        "phantom_test_labels.csv",
        "stage_2_sample_submission.csv",
        "stage_2_test",
        "stage_2_train",
        "stage_2_train.csv",
    ]


def test_the_number_of_processes_changes_no_byte(options, tmp_path):
    prepare(replace(options, work=tmp_path, jobs=2))
    assert contents(tmp_path / "cache") == contents(Work(options.work).cache)


def test_a_second_call_does_nothing(copied, capsys):
    files = [path for path in Work(copied.work).cache.rglob("*") if path.is_file()]
    times = [path.stat().st_mtime_ns for path in files]
    prepare(copied)
    assert "nothing to do" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in files] == times


def test_an_added_size_keeps_every_other_slice_and_table(copied):
    cache = Work(copied.work).cache
    before = contents(cache)
    prepare(replace(copied, image_size=(32,)))
    after = contents(cache)
    added = {name for name in after if name.startswith("slices_32/")}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"prepare.json", *(name for name in before if name.startswith("manifest/"))}
    assert set(after) == set(before) | added | {"affine_32.csv"}
    assert len(added) == len([name for name in before if name.startswith("slices_48/")])
    prepare(replace(copied, image_size=(32, SIZE)))  # both are there
    assert contents(cache) == after


def test_a_series_that_was_deleted_as_damaged_is_made_anew(copied, options):
    cache = Work(copied.work).cache
    stores = sorted((cache / "slices_48").iterdir())
    stores[2].unlink()
    times = [path.stat().st_mtime_ns for path in stores if path.exists()]
    prepare(copied)
    assert [path.stat().st_mtime_ns for path in stores if path != stores[2]] == times
    assert contents(cache) == contents(Work(options.work).cache)


def test_a_call_that_was_interrupted_is_completed(copied, options):
    cache = Work(copied.work).cache
    (cache / "prepare.json").unlink()
    (cache / "metadata_test.parquet").unlink()
    next((cache / "slices_48").iterdir()).unlink()
    prepare(copied)
    assert contents(cache) == contents(Work(options.work).cache)


@pytest.mark.parametrize(("changes", "named"), [({"folds": 2}, "--folds 3"), ({"seed": 1}, "--seed 0")])
def test_other_folds_are_refused_and_the_difference_is_named(copied, changes, named):
    before = contents(Work(copied.work).cache)
    with pytest.raises(InputError, match=named):
        prepare(replace(copied, **changes))
    assert contents(Work(copied.work).cache) == before


def test_another_raw_folder_is_refused(copied, tmp_path):
    write_phantom(tmp_path / "data", studies=6, test_studies=1, image_size=SIZE // 2, jobs=1)
    with pytest.raises(InputError, match="another raw folder"):
        prepare(replace(copied, data=tmp_path / "data"))


@pytest.fixture(scope="module")
def damaged(options, tmp_path_factory):
    """Options for a copy of the raw folder in which one thing of each kind is wrong, and which slice has what."""
    folder = tmp_path_factory.mktemp("damaged")
    data = shutil.copytree(options.data, folder / "data")
    train, test = metadata(options, "train")["image_id"], metadata(options, "test")["image_id"]
    wrong = dict(zip(["text", "cut", "unlabelled", "deleted", "repeated"], train[3:28:5], strict=True))
    wrong["test deleted"] = test[5]
    slices = data / "stage_2_train"
    (slices / f"{wrong['text']}.dcm").write_text("no DICOM")
    cut = slices / f"{wrong['cut']}.dcm"
    cut.write_bytes(cut.read_bytes()[:-500])
    (slices / f"{wrong['deleted']}.dcm").unlink()
    (data / "stage_2_test" / f"{wrong['test deleted']}.dcm").unlink()
    labels = data / "stage_2_train.csv"
    drop_lines(labels, wrong["unlabelled"])
    rows = [line for line in labels.read_text().splitlines(True) if line.startswith(wrong["repeated"])]
    labels.write_text(labels.read_text() + "".join(rows))
    done = replace(options, data=data, work=folder)
    prepare(done)
    return done, wrong


def test_empty_files_of_kaggles_layout_were_slices(options, tmp_path, capsys):
    """A disk that was full when the files were unpacked."""
    data = shutil.copytree(options.data, tmp_path / "data")
    for path in sorted(data.glob("stage_2_*/*.dcm"))[::2]:
        path.write_bytes(b"")
    (data / "stage_2_train" / "notes.txt").write_bytes(b"")
    count = len(list(data.glob("stage_2_*/*.dcm")))
    assert prepare(replace(options, data=data, work=tmp_path)) == 3
    assert f"{(count + 1) // 2} of {count} CT slices cannot be read, more than --min" in capsys.readouterr().out


def test_each_thing_that_is_wrong_is_a_line_and_nothing_else_is(damaged):
    options, wrong = damaged
    lines = problems(options).set_index("item")["problem"]
    lines = lines[~lines.isin([Problem.BELOW_AIR.value[0], Problem.UNEVEN_SPACING.value[0]])]
    assert lines.index.is_unique
    words = {
        f"{wrong['text']}.dcm": "not a DICOM file",
        f"{wrong['cut']}.dcm": "pixels are cut off",
        wrong["text"]: "a label without a slice",
        wrong["deleted"]: "a label without a slice",
        wrong["unlabelled"]: "a slice without a label",
        wrong["repeated"]: "more than once",
        wrong["test deleted"]: "there is no slice",
    }
    assert set(lines.index) == set(words)
    assert all(word in lines[item] for item, word in words.items())


def test_the_other_slices_are_prepared_all_the_same(damaged, options):
    damaged_options, wrong = damaged
    table = metadata(damaged_options, "train")
    whole = metadata(options, "train").set_index("image_id")
    assert set(whole.index) - set(table["image_id"]) == {wrong["text"], wrong["deleted"]}
    assert list(table.loc[table["chunk"] == UNREADABLE, "image_id"]) == [wrong["cut"]]
    assert list(table.loc[table["any"].isna(), "image_id"]) == [wrong["unlabelled"]]
    for series_id, series in table[table["chunk"] != UNREADABLE].groupby("series_id"):
        stored = Series(Work(damaged_options.work).series(SIZE, series_id))
        original = Series(Work(options.work).series(SIZE, series_id))
        assert list(series["chunk"]) == list(range(len(stored)))
        for image_id, chunk in zip(series["image_id"], series["chunk"], strict=True):
            assert np.array_equal(stored.read(chunk), original.read(whole.loc[image_id, "chunk"]))


def test_a_test_slice_without_a_file_has_a_row_to_be_predicted(damaged, options):
    damaged_options, wrong = damaged
    table = metadata(damaged_options, "test").set_index("image_id")
    row = table.loc[wrong["test deleted"]]
    assert row["chunk"] == UNREADABLE
    assert pd.isna(row["series_id"])
    assert sorted(table.index) == sorted(metadata(options, "test")["image_id"])


def test_a_series_without_one_readable_slice_has_no_store(options, tmp_path):
    data = shutil.copytree(options.data, tmp_path / "data")
    table = metadata(options, "train")
    series = table[table["series_id"] == table["series_id"].iloc[0]]
    for image_id in series["image_id"]:
        path = data / "stage_2_train" / f"{image_id}.dcm"
        path.write_bytes(path.read_bytes()[:-100])
    changed = replace(options, data=data, work=tmp_path)
    prepare(changed)
    assert (problems(changed)["problem"] == Reason.TRUNCATED.value).sum() == len(series)
    assert not Work(tmp_path).series(SIZE, series["series_id"].iloc[0]).exists()
    assert (metadata(changed, "train")["chunk"] == UNREADABLE).sum() == len(series)


def test_a_label_file_that_cannot_be_used_stops_before_any_work(options, tmp_path):
    data = shutil.copytree(options.data, tmp_path / "data")
    (data / "stage_2_train.csv").write_text("ID,Value\n")
    with pytest.raises(InputError, match="Label"):
        prepare(replace(options, data=data, work=tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_fewer_patients_than_folds_are_refused(options, tmp_path):
    with pytest.raises(InputError, match="--folds"):
        prepare(replace(options, work=tmp_path, folds=50))
    assert not (tmp_path / "cache" / "prepare.json").exists()


def test_an_interrupted_cache_of_another_raw_folder_is_refused(copied):
    (Work(copied.work).cache / "prepare.json").unlink()  # as if prepare had been killed before its end
    write_phantom(copied.work / "other", studies=6, test_studies=1, image_size=SIZE // 2, jobs=1)
    with pytest.raises(InputError, match="another raw folder"):
        prepare(replace(copied, data=copied.work / "other"))
    prepare(copied)  # the same folder goes on
    assert (Work(copied.work).cache / "prepare.json").is_file()


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_cache_whose_store_was_made_of_frames_of_blosc2_is_refused(copied, is_whole):
    work = Work(copied.work)
    for store in work.cache.glob("slices_*/*.slices"):
        store.rename(store.with_suffix(".b2nd"))
    if not is_whole:
        work.prepared.unlink()
    with pytest.raises(InputError, match="an older version of this project, whose caches cannot be added to; delete"):
        prepare(copied)


def test_check_reports_the_same_and_stores_nothing(damaged, tmp_path, capsys):
    options, _ = damaged
    prepare(replace(options, work=tmp_path, check=True))
    cache = Work(tmp_path).cache
    assert sorted(contents(cache)) == ["problems.csv", "series.csv"]
    for name in ("problems.csv", "series.csv"):
        assert (cache / name).read_bytes() == (Work(options.work).cache / name).read_bytes()
    assert "pixels are cut off" in capsys.readouterr().out
    prepare(replace(options, work=tmp_path))  # and nothing stands in the way of the work itself
    assert contents(cache) == contents(Work(options.work).cache)


def test_the_summary_counts_slices_series_patients_labels_and_problems(damaged, tmp_path, capsys):
    options, _ = damaged
    prepare(replace(options, work=tmp_path))
    printed = capsys.readouterr().out
    table = metadata(options, "train")
    series, patients = table["series_id"].nunique(), table["patient_id"].nunique()
    assert f"train: {len(table):,} slices, {series:,} series, {patients:,} patients; 1 without an image" in printed
    assert f"any {table['any'].sum():,.0f} ({table['any'].mean():.1%})" in printed
    for problem, count in problems(options)["problem"].value_counts().items():
        assert re.search(rf"^ +{count}  {re.escape(problem)} -> ", printed, re.MULTILINE)
    assert f"{len(problems(options))} lines in" in printed


def test_the_disk_that_is_needed_is_told_before_the_work(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"about 0\.00 GB more of .*; 0\.00 GB are free: make room"):
        prepare(replace(options, work=tmp_path))
    assert not (Work(tmp_path).cache / f"slices_{SIZE}").exists()


def test_the_contact_sheet_shows_the_slices(options):
    sheet = cv2.imread(str(Work(options.work).cache / "contact_sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.std() > 20


@pytest.fixture
def both_stages(options, add_stage_1, tmp_path) -> Path:
    """A raw folder of both stages: the last training series of the second was the test series of the first."""
    data = tmp_path / "data"
    for name in ("stage_2_train", "stage_2_test"):
        shutil.copytree(options.data / name, data / name)
    for table in ("train", "sample_submission"):
        shutil.copy(options.data / f"stage_2_{table}.csv", data)
    add_stage_1(data, set(metadata(options, "train").groupby("series_id")["image_id"].apply(list).iloc[-1]))
    return data


def test_both_stages_share_one_store(options, both_stages, tmp_path):
    prepare(replace(options, data=both_stages, work=tmp_path, stage=1, folds=2))
    store = tmp_path / "cache" / f"slices_{SIZE}"
    times = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    prepare(replace(options, data=both_stages, work=tmp_path, stage=2))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(store.iterdir())) == len(times) + 1
    one, two = Work(tmp_path, stage=1), Work(tmp_path, stage=2)
    tables = {work: read_parquet(work.metadata("train"), "") for work in (one, two)}
    tested = read_parquet(one.metadata("test"), "")
    assert tested["series_id"].nunique() == 1
    assert set(tables[two]["image_id"]) == set(tables[one]["image_id"]) | set(tested["image_id"])
    whole = metadata(options, "train")
    pd.testing.assert_frame_equal(tables[two], whole)


def test_a_second_process_on_the_same_cache_refuses(options, tmp_path):
    with (
        only_process(tmp_path / ".prepare.lock", "prepare.py"),
        pytest.raises(InputError, match=r"another prepare\.py"),
    ):
        prepare(replace(options, work=tmp_path))


def test_each_file_is_parsed_once_and_peeked_into_once(options, tmp_path, monkeypatch):
    opened = Counter()
    original = dicom.open_bounded
    monkeypatch.setattr(dicom, "open_bounded", lambda path: opened.update([path]) or original(path))
    prepare(replace(options, work=tmp_path, image_size=(32, SIZE), jobs=1))
    files = [path for split in ("train", "test") for path in (options.data / f"stage_2_{split}").iterdir()]
    assert opened == Counter({path: 2 for path in files})
