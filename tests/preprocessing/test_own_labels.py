"""Laws of labels for any tree: a row an image, a series or a study, and what it names can be trained on."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from once import made_once

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS, SUBTYPES
from models.phantom.dicom import write_phantom
from models.preprocessing.given import find_given
from models.preprocessing.origin import DRAWN
from models.preprocessing.own_labels import read_own_labels
from models.preprocessing.own_studies import find_studies
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.tables import read_slices, split_fold

SIZE = 32
UIDS = {"image_id": "SOPInstanceUID", "series_id": "SeriesInstanceUID", "study_id": "StudyInstanceUID"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A hospital's tree of seven studies, and the identifiers of its slices."""

    def draw(folder: Path) -> None:
        write_phantom(folder / "data", studies=6, test_studies=1, image_size=SIZE, layout="tree", jobs=1)

    data = made_once(tmp_path_factory, "own_labels", draw) / "data"
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(data.rglob("IM-*"))]
    return data, pd.DataFrame({name: [str(header[uid].value) for header in headers] for name, uid in UIDS.items()})


def labelled(names: pd.Series, column: str) -> pd.DataFrame:
    """Labels for some names: by their number."""
    numbers = np.arange(len(names))
    table = pd.DataFrame({name: numbers >> place & 1 for place, name in enumerate(SUBTYPES)})
    table.insert(0, column, list(names))
    return table


def prepared(data: Path, work: Path, table: pd.DataFrame | Path, **more) -> Work:
    if isinstance(table, pd.DataFrame):
        work.mkdir(exist_ok=True)
        table.to_csv(work / "labels.csv", index=False)
        table = work / "labels.csv"
    assert prepare(PrepareOptions(data=data, work=work, image_size=(SIZE,), folds=2, jobs=1, labels=table, **more)) == 0
    return Work(work)


def test_a_patient_whom_some_files_do_not_name_is_in_one_fold(tree, tmp_path):
    """The last slice of one series and all of another: an export in which the identifier was lost on the way."""
    data = shutil.copytree(tree[0], tmp_path / "data")
    studies: dict[str, list[Path]] = {}
    for path in sorted(data.rglob("IM-*")):
        studies.setdefault(str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID), []).append(path)
    for number, files in enumerate(studies.values()):
        for path in files[:1] + files[len(files) // 2 :]:
            slice_ = pydicom.dcmread(path)
            slice_.PatientID = ""
            if path is not files[0]:
                slice_.SeriesInstanceUID = f"1.2.3.{number}"
            slice_.save_as(path)
    work = prepared(data, tmp_path, labelled(pd.Series(list(studies)), "StudyInstanceUID"))
    table = pd.read_parquet(work.metadata("train"))
    assert table["series_id"].nunique() == 2 * len(studies)
    assert set(table.groupby("study_id")["patient_id"].nunique()) == {1}
    assert not set(table["patient_id"]) & set(table["study_id"])
    found, _ = find_studies(find_given([data], []), Pseudonyms(read_key(work.key)), 1)
    assert len(found) == len(studies)


def test_a_cache_with_labels_is_not_made_anew_without_them(tree, tmp_path):
    drawn, names = tree
    data = shutil.copytree(drawn, tmp_path / "data", ignore=shutil.ignore_patterns(DRAWN))  # nobody knows what it is
    work = prepared(data, tmp_path, labelled(names["study_id"].drop_duplicates(), "StudyInstanceUID"))
    work.metadata("train").unlink()
    with pytest.raises(InputError, match=r"python models/prepare.py .*--labels LABELS.csv"):
        read_slices(work, "train")
    options = PrepareOptions(data=data, work=tmp_path, image_size=(SIZE,), folds=2, jobs=1)
    with pytest.raises(InputError, match="was made with --labels; name that table again, or choose another folder"):
        prepare(options)
    assert prepare(replace(options, labels=tmp_path / "labels.csv")) == 0
    assert work.metadata("train").is_file()
    assert str(tmp_path) not in work.prepared.read_text()


@pytest.mark.parametrize("column", UIDS)
def test_each_slice_has_the_labels_of_its_image_series_or_study(tree, tmp_path, column):
    data, names = tree
    table = labelled(names[column].drop_duplicates(), UIDS[column])
    work = prepared(data, tmp_path, table)
    pseudonyms = Pseudonyms(read_key(tmp_path / "pseudonyms.key"))
    found = pd.read_parquet(work.metadata("train")).set_index("image_id")
    assert len(found) == len(names)
    assert not work.metadata("test").exists()
    expected = table.set_index(UIDS[column])[list(SUBTYPES)]
    for row in names.itertuples():
        labels = found.loc[pseudonyms.hash(row.image_id), list(LABELS)]
        assert list(labels[list(SUBTYPES)]) == list(expected.loc[getattr(row, column)])
        assert labels["any"] == max(labels[list(SUBTYPES)])
    for fold in range(2):
        train, valid = split_fold(work, fold, skip_low_information=False)
        assert len(train) + len(valid) == len(names)
        assert not set(train["patient_id"]) & set(valid["patient_id"])


def test_what_no_row_names_is_predicted(tree, tmp_path):
    data, names = tree
    studies = names["study_id"].drop_duplicates()
    work = prepared(data, tmp_path, labelled(studies[:-2], "StudyInstanceUID"))
    pseudonyms = Pseudonyms(read_key(tmp_path / "pseudonyms.key"))
    train, test = (pd.read_parquet(work.metadata(split)) for split in ("train", "test"))
    assert set(test["study_id"]) == set(map(pseudonyms.hash, studies[-2:]))
    assert len(train) + len(test) == len(names)
    assert not set(LABELS) & set(test)
    splits = pd.read_csv(work.series_list).set_index("series_id")["split"]
    assert all(splits[test["series_id"].unique()] == "test")
    assert all(splits[train["series_id"].unique()] == "train")
    prepare(
        PrepareOptions(data=data, work=tmp_path, image_size=(SIZE,), folds=2, jobs=1, labels=tmp_path / "labels.csv")
    )


def test_the_keys_of_the_cache_name_as_well(tree, tmp_path):
    data, _ = tree
    prepare(PrepareOptions(data=data, work=tmp_path, image_size=(SIZE,), folds=2, jobs=1))
    keys = pd.read_csv(Work(tmp_path).series_list)["series_id"]
    work = prepared(data, tmp_path, labelled(keys, "series_id"))
    assert set(pd.read_parquet(work.metadata("train"))["series_id"]) == set(keys)


def test_a_part_of_a_series_is_labelled_as_the_whole_or_by_its_own_key(write_dicom, tmp_path):
    for number, kernel in itertools.product(range(9), ("STANDARD", "BONE")):
        uid, place = f"1.2.{number}.{len(kernel)}", ["0", "0", str(5 * number)]
        more = {"SeriesInstanceUID": "1.2.4", "ConvolutionKernel": kernel, "SOPInstanceUID": uid}
        write_dicom(tmp_path / f"data/{uid}", np.full((8, 8), 1050, np.int16), ImagePositionPatient=place, **more)
    for number in range(9):  # a second patient: folds need two
        more = {"SeriesInstanceUID": "1.2.5", "PatientID": "other", "StudyInstanceUID": "1.9"}
        more |= {"SOPInstanceUID": f"1.3.{number}", "ImagePositionPatient": ["0", "0", str(5 * number)]}
        write_dicom(tmp_path / f"data/other{number}", np.full((8, 8), 1060, np.int16), **more)
    both = labelled(pd.Series(["1.2.4", "1.2.5"]), "SeriesInstanceUID").assign(epidural=1)
    work = prepared(tmp_path / "data", tmp_path / "whole", both)
    assert len(pd.read_parquet(work.metadata("train"))) == 27
    series = pd.read_csv(work.series_list)
    part = series.loc[series["series_id"] != series["part_of"], "series_id"].item()
    whole = series.loc[series["series_id"] == part, "part_of"].item()
    other = (set(series["series_id"]) - {part, whole}).pop()
    table = labelled(pd.Series([part, other]), "series_id")
    train = pd.read_parquet(prepared(tmp_path / "data", tmp_path / "whole", table).metadata("train"))
    assert set(train["series_id"]) == {part, other}


def test_a_series_that_stands_under_its_key_too_is_refused(tree, tmp_path):
    data, names = tree
    prepare(PrepareOptions(data=data, work=tmp_path, image_size=(SIZE,), folds=2, jobs=1))
    uid = names["series_id"].iloc[0]
    key = Pseudonyms(read_key(tmp_path / "pseudonyms.key")).hash(uid)
    with pytest.raises(InputError, match="by its key, too"):
        prepared(data, tmp_path, labelled(pd.Series([uid, key]), "series_id"))


def test_labels_that_change_change_the_tables_and_read_no_slice_again(tree, tmp_path, monkeypatch):
    from models.preprocessing import series

    data, names = tree
    table = labelled(names["series_id"].drop_duplicates(), "SeriesInstanceUID")
    prepared(data, tmp_path, table)
    monkeypatch.setattr(series, "read_file", None)
    work = prepared(data, tmp_path, table.assign(epidural=1))
    assert (pd.read_parquet(work.metadata("train"))["epidural"] == 1).all()


def test_slices_and_rows_without_each_other_are_told(tree, tmp_path):
    data, names = tree
    first = names[names["series_id"] == names["series_id"].iloc[0]]["image_id"]
    table = pd.concat([labelled(first[3:], UIDS["image_id"]), labelled(pd.Series(["1.2.3"]), UIDS["image_id"])])
    table = pd.concat([table, table[:1], labelled(names["image_id"].iloc[60:], UIDS["image_id"])])
    table = table.drop_duplicates(UIDS["image_id"], keep="last")
    work = prepared(data, tmp_path, pd.concat([table, table[-1:]]))
    told = pd.read_csv(work.problems).groupby("problem").size()
    assert told[Problem.NO_LABEL.value[0]] >= 3
    assert told[Problem.NO_SLICE.value[0]] == 1
    assert told[Problem.REPEATED_LABEL.value[0]] == 1
    assert "1.2.3" not in work.problems.read_text()


def columns_of(*values: object) -> dict[str, list[object]]:
    """The columns of all subtypes, with the same values."""
    return {name: list(values) for name in SUBTYPES}


FAULTS = {
    "no name": ({"name": ["a"], **columns_of(0)}, "must have one of the columns SOPInstanceUID"),
    "two names": ({"SOPInstanceUID": ["a"], "series_id": ["b"], **columns_of(0)}, "must have one of"),
    "a subtype lacks": ({"SOPInstanceUID": ["a"], "any": [0]}, "lacks the column epidural"),
    "no number": ({"SOPInstanceUID": ["a"], **columns_of("yes")}, "holds 'yes' for epidural of a"),
    "half": ({"SOPInstanceUID": ["a"], **columns_of(0.5)}, "a label is 0 or 1"),
    "any": ({"SOPInstanceUID": ["a"], **columns_of(1), "any": [0]}, "any is 0 for a"),
    "contradiction": ({"SOPInstanceUID": ["a", "a"], **columns_of(0, 1)}, "different labels for a"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, fault):
    columns, words = FAULTS[fault]
    pd.DataFrame(columns).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match=words):
        read_own_labels(tmp_path / "labels.csv")


def test_a_table_that_is_not_there_or_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="--labels"):
        read_own_labels(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="--labels"):
        read_own_labels(tmp_path / "empty.csv")


def test_labels_that_name_nothing_here_are_refused(tree, tmp_path):
    with pytest.raises(InputError, match=r"none of the 2 rows of .*labels\.csv names an image"):
        prepared(tree[0], tmp_path, labelled(pd.Series(["1.2.3", "1.2.4"]), "SeriesInstanceUID"))


def test_the_challenges_layout_has_labels_of_its_own(phantom, tmp_path):
    with pytest.raises(InputError, match="leave out --labels"):
        prepared(phantom, tmp_path, labelled(pd.Series(["1.2.3"]), "SOPInstanceUID"))
