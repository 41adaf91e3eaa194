"""Laws of the challenge's tables: one checked row an image, and an error that names what is wrong."""

import itertools
import random

import numpy as np
import pandas as pd
import pytest

from models.errors import InputError
from models.labels import LABELS
from models.preprocessing.cleaning import add_missing, image_ids, join_labels, read_labels, read_sample_submission
from models.preprocessing.metadata import PROBLEM_COLUMNS
from models.preprocessing.series import UNREADABLE

TRUTH = {"ID_b": (0, 0, 0, 0, 0, 0), "ID_a": (1, 0, 0, 0, 0, 1), "ID_c": (0, 1, 0, 1, 1, 1)}


def lines(truth: dict[str, tuple] = TRUTH) -> list[str]:
    """The rows of a label file, in its order of subtypes."""
    return [
        f"{image_id}_{label},{value}"
        for image_id, values in truth.items()
        for label, value in zip(LABELS, values, strict=True)
    ]


@pytest.fixture
def write(tmp_path):
    def write_lines(rows: list[str], header: str = "ID,Label"):
        path = tmp_path / "stage_2_train.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write_lines


@pytest.fixture
def labels(write):
    return read_labels(write(lines()))[0]


def test_a_label_file_becomes_one_row_an_image(write):
    table, repeated = read_labels(write(lines()))
    assert list(table.columns) == ["image_id", *LABELS]
    assert list(table["image_id"]) == sorted(TRUTH)
    assert (table[list(LABELS)].dtypes == np.float32).all()
    for row in table.itertuples(index=False):
        assert tuple(row)[1:] == TRUTH[row.image_id]
    assert repeated == []


def test_the_order_of_rows_changes_nothing(write, labels):
    rows = lines()
    random.Random(0).shuffle(rows)
    pd.testing.assert_frame_equal(read_labels(write(rows))[0], labels)


def test_an_id_is_split_at_the_last_underscore(write):
    table, _ = read_labels(write(lines({"ID_any_epidural_a": (0,) * 6})))
    assert list(table["image_id"]) == ["ID_any_epidural_a"]
    assert list(image_ids(pd.Series(["ID_any_epidural_a_any", "ID_b_epidural"]))) == ["ID_any_epidural_a", "ID_b"]


def test_equal_rows_that_stand_twice_are_dropped_and_reported(write, labels):
    rows = lines()
    table, repeated = read_labels(write(rows + rows[6:12] + rows[:1]))
    pd.testing.assert_frame_equal(table, labels)
    assert repeated == ["ID_a", "ID_b"]


def test_the_real_labels_are_read_whole(real_sample):
    table, repeated = read_labels(real_sample / "stage_2_train.csv")
    assert set(table["image_id"]) == {path.stem for path in (real_sample / "stage_2_train").glob("*.dcm")}
    assert table["any"].sum() == 62
    assert (table[list(LABELS)].max(axis=1) == table["any"]).all()
    assert repeated == []


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["ID_a_epidural,0"], ["ID_a_epidural", "both 0 and 1"]),
        (["ID_d_epidural,2"], ["ID_d_epidural", "0 or 1", "2"]),
        (["ID_d_epidural,0.5"], ["ID_d_epidural", "0 or 1"]),
        (["ID_d_epidural,"], ["ID_d_epidural", "0 or 1"]),
        (["ID_d_epidural,yes"], ["ID_d_epidural", "0 or 1", "yes"]),
        (["ID_d_epidrual,1"], ["ID_d_epidrual", *LABELS]),
        (["nothing,1"], ["nothing", *LABELS]),
        ([",1"], list(LABELS)),
        ([f"ID_d_{label},0" for label in LABELS[:-1]], ["ID_d", "any"]),
    ],
    ids=["contradicting", "two", "half", "empty", "word", "subtype", "no underscore", "no ID", "five of six"],
)
def test_what_is_wrong_in_a_label_file_is_named(write, extra, words):
    path = write(lines() + extra)
    with pytest.raises(InputError) as caught:
        read_labels(path)
    assert all(word in str(caught.value) for word in [str(path), *words])


@pytest.mark.parametrize("read", [read_labels, read_sample_submission])
@pytest.mark.parametrize(("header", "missing"), [("ID,label", "Label"), ("id,Label", "ID"), ("a,b", "ID")])
def test_a_missing_column_is_named(write, read, header, missing):
    with pytest.raises(InputError, match=f"lacks the column '{missing}'"):
        read(write(lines(), header))


@pytest.mark.parametrize("read", [read_labels, read_sample_submission])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01" * 20, b'ID,Label\n"'], ids=["empty", "bytes", "quote"])
def test_a_file_that_is_no_table_is_named(tmp_path, read, content):
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.csv"):
        read(path)


def test_the_sample_submission_keeps_its_order(write):
    rows = lines()
    random.Random(1).shuffle(rows)
    submission = read_sample_submission(write(rows))
    assert list(submission) == [row.split(",")[0] for row in rows]
    assert list(image_ids(submission)) == [row.rsplit("_", 1)[0] for row in rows]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lines() + lines()[:1], ["ID_b_epidural", "twice"]),
        (lines()[:-1], ["ID_c", "any"]),
        ([*lines(), "ID_c_all,0.5"], ["ID_c_all"]),
    ],
    ids=["twice", "five of six", "subtype"],
)
def test_what_is_wrong_in_a_sample_submission_is_named(write, rows, words):
    with pytest.raises(InputError) as caught:
        read_sample_submission(write(rows))
    assert all(word in str(caught.value) for word in words)


def test_labels_join_the_slices_in_their_order(labels):
    table = pd.DataFrame({"image_id": ["ID_c", "ID_b", "ID_a"], "z": [0.0, 1.0, 2.0]})
    joined, problems = join_labels(table, labels, "labels.csv")
    assert problems == []
    assert list(joined["image_id"]) == ["ID_c", "ID_b", "ID_a"]
    assert [tuple(row) for row in joined[list(LABELS)].to_numpy()] == [TRUTH[name] for name in joined["image_id"]]


def test_a_slice_without_a_label_stays_as_nan_and_a_label_without_a_slice_goes(labels):
    table = pd.DataFrame({"image_id": ["ID_x", "ID_a", "ID_b"]})
    joined, problems = join_labels(table, labels, "labels.csv")
    assert list(joined["image_id"]) == ["ID_x", "ID_a", "ID_b"]
    assert joined[list(LABELS)].isna().all(axis=1).tolist() == [True, False, False]
    assert [line["item"] for line in problems] == ["ID_x", "ID_c"]
    assert "without a label in labels.csv" in problems[0]["problem"]
    assert "labels.csv without a slice" in problems[1]["problem"]


def test_an_expected_image_without_a_file_gets_a_row_and_a_line():
    table = pd.DataFrame({"image_id": ["ID_b"], "series_id": ["ID_s"], "chunk": [0]})
    expected = pd.Series(list(itertools.chain(*(["ID_c"] * 6, ["ID_b"] * 6, ["ID_a"] * 6))))
    whole, problems = add_missing(table, expected, "sample.csv")
    assert list(whole["image_id"]) == ["ID_b", "ID_c", "ID_a"]
    assert list(whole["chunk"]) == [0, UNREADABLE, UNREADABLE]
    assert whole["series_id"].isna().tolist() == [False, True, True]
    assert [line["item"] for line in problems] == ["ID_c", "ID_a"]
    assert all(list(line) == PROBLEM_COLUMNS and "sample.csv" in line["problem"] for line in problems)


def test_a_complete_table_is_left_as_it_is():
    table = pd.DataFrame({"image_id": ["ID_b", "ID_a"], "chunk": [0, 1]})
    whole, problems = add_missing(table, pd.Series(["ID_a"]), "sample.csv")
    pd.testing.assert_frame_equal(whole, table)
    assert problems == []
