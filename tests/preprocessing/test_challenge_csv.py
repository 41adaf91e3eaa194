"""Laws of the challenge's tables: one checked row an image, and an error that names what is wrong."""

import gzip
import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import compute, csv

from models.common.errors import InputError
from models.common.labels import LABELS
from models.preprocessing.challenge_csv import image_ids, read_labels, read_sample_submission, read_submission
from models.preprocessing.metadata import add_missing, join_labels
from models.preprocessing.problems import Problem, problem_rows
from models.preprocessing.tables import UNREADABLE

TRUTH = {"ID_b": (0, 0, 0, 0, 0, 0), "ID_a": (1, 0, 0, 0, 0, 1), "ID_c": (0, 1, 0, 1, 1, 1)}

READERS = [read_labels, read_sample_submission, read_submission]

# The images whose six rows stand twice in the challenge's own stage_2_train.csv.
TWICE = ["ID_489ae4179", "ID_854fba667", "ID_921490062", "ID_a64d5deed"]

# Reads argv[1], writes the table to argv[2], prints what it took. VmHWM, not ru_maxrss: that begins at the peak of the
# process that started this one.
MEASURED = """
import json, re, sys, time
from pathlib import Path
from models.preprocessing.challenge_csv import read_labels
started = time.process_time()  # another's load does not count
table, repeated = read_labels(Path(sys.argv[1]))
seconds = time.process_time() - started
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
table.to_parquet(sys.argv[2])
print(json.dumps({"seconds": seconds, "peak": peak, "repeated": repeated}))
"""


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


def write_whole(wide: pd.DataFrame, path) -> None:
    """The challenge's label file: a wide table (`Image`, LABELS) in another order, with the rows that stand twice."""
    wide = pd.concat([wide.sample(frac=1, random_state=0), wide[wide["Image"].isin(TWICE)]])
    names = pa.array(wide["Image"]).cast(pa.string()).take(pa.array(np.repeat(np.arange(len(wide)), len(LABELS))))
    subtypes = pa.array(np.tile(LABELS, len(wide)).astype(object), pa.string())
    ids = compute.binary_join_element_wise(names, subtypes, "_")
    values = pa.array(wide[list(LABELS)].to_numpy().ravel())
    with path.open("wb") as file:
        file.write(b"ID,Label\n")
        csv.write_csv(
            pa.table({"ID": ids, "Label": values}), file, csv.WriteOptions(include_header=False, quoting_style="none")
        )


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


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in text.split("\n") if row),
        lambda text: "\n".join(f"\t{row} " if row.startswith("ID_") else row for row in text.split("\n")),
        lambda text: "\n".join(row.replace(",", " , ") if row.startswith("ID_") else row for row in text.split("\n")),
        lambda text: text.replace("ID_a_epidural", '"ID_a_epidural\n"'),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace(",1", ",1.0"),
        lambda text: "\n".join(f"\u00e9,{row}" for row in text.split("\n") if row),
    ],
    ids=[
        "CRLF",
        "BOM",
        "quotes",
        "outer space",
        "inner space",
        "newline in an ID",
        "blank lines",
        "no last newline",
        "1.0",
        "column",
    ],
)
def test_the_way_that_a_file_is_written_changes_nothing(tmp_path, labels, rewrite):
    path = tmp_path / "labels.csv"
    path.write_bytes(rewrite("\n".join(["ID,Label", *lines()]) + "\n").encode())
    pd.testing.assert_frame_equal(read_labels(path)[0], labels)
    pd.testing.assert_frame_equal(read_submission(path).astype(np.float32), labels.set_index("image_id"))
    assert list(read_sample_submission(path)) == [row.split(",")[0] for row in lines()]


def test_a_gzipped_file_is_read(tmp_path, write, labels):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(write(lines()).read_bytes()))
    pd.testing.assert_frame_equal(read_labels(path)[0], labels)


def test_the_whole_label_file_is_read_within_20_seconds_and_3_gigabytes(real_labels, tmp_path):
    wide = pd.read_csv(real_labels / "labels_stage2_train_wide_752803.csv.gz").sort_values("Image", ignore_index=True)
    file, result = tmp_path / "stage_2_train.csv", tmp_path / "labels.parquet"
    write_whole(wide, file)
    assert len(wide) == 752_803
    assert file.read_bytes().count(b"\n") == 1 + 4_516_842
    program = [sys.executable, "-c", MEASURED, file, result]
    measured = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert measured["seconds"] < 20
    assert measured["peak"] < 3e9
    assert measured["repeated"] == TWICE
    table = pd.read_parquet(result)
    assert list(table.columns) == ["image_id", *LABELS]
    assert (table["image_id"].to_numpy() == wide["Image"].to_numpy()).all()
    assert np.array_equal(table[list(LABELS)].to_numpy(), wide[list(LABELS)].to_numpy(np.float32))


def test_the_real_labels_are_read_whole(real_sample):
    table, repeated = read_labels(real_sample / "stage_2_train.csv")
    assert set(table["image_id"]) == {path.stem for path in (real_sample / "stage_2_train").glob("*.dcm")}
    assert table["any"].sum() == 62
    assert (table[list(LABELS)].max(axis=1) == table["any"]).all()
    assert repeated == []


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["ID_a_epidural,0"], ["'ID_a_epidural'", "both 0 and 1"]),
        (lines({"ID_b": (1,) * 6}), ["'ID_b_epidural', 'ID_b_intraparenchymal'", "(6 in all)", "both 0 and 1"]),
        (lines({"ID_b": (1,) * 6}) + lines(), ["'ID_b_epidural'", "(6 in all)", "both 0 and 1"]),
        (["ID_d_epidural,2"], ["ID_d_epidural", "0 or 1", "2"]),
        (["ID_d_epidural,0.5"], ["ID_d_epidural", "0 or 1"]),
        (["ID_d_epidural,"], ["ID_d_epidural", "0 or 1"]),
        (["ID_d_epidural,yes"], ["ID_d_epidural", "0 or 1", "yes"]),
        (["ID_d_epidural, "], ["ID_d_epidural", "0 or 1"]),
        (["ID_d_epidural,nan", "ID_d_any,2"], ["ID_d_epidural", "0 or 1", "nan", "2 such rows"]),
        (["ID_d_epidural,True"], ["ID_d_epidural", "0 or 1", "True"]),
        (["ID_d_epidrual,1"], ["ID_d_epidrual", *LABELS]),
        ([f"ID_d-{label},1" for label in LABELS], ["'ID_d-epidural'", "(6 in all)"]),
        (["nothing,1"], ["nothing", *LABELS]),
        ([",1"], list(LABELS)),
        (["_any,1"], ["'_any'", *LABELS]),
        ([f"{'ID_d' * 1000}_epidrual,1"], ["ID_dID_d", *LABELS]),
        ([f"ID_d_{label},0" for label in LABELS[:-1]], ["'ID_d_any'"]),
        (["ID_d_any,0", "ID_e_any,0"], ["'ID_d_epidural'", "(10 in all)"]),
    ],
    ids=[
        "contradicting",
        "six of them",
        "thrice",
        "two",
        "half",
        "empty",
        "word",
        "blank",
        "nan",
        "True",
        "subtype",
        "six of those",
        "no underscore",
        "no ID",
        "no image",
        "long",
        "five of six",
        "one of six",
    ],
)
def test_what_is_wrong_in_a_label_file_is_named(write, extra, words):
    path = write(lines() + extra)
    with pytest.raises(InputError) as caught:
        read_labels(path)
    message = str(caught.value)
    assert all(word in message for word in [str(path), *words])
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("header", "missing"), [("ID,label", "Label"), ("id,Label", "ID"), ("a,b", "ID")])
def test_a_missing_column_is_named(write, read, header, missing):
    with pytest.raises(InputError, match=f"lacks the column '{missing}'"):
        read(write(lines(), header))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["Empty"]),
        (b"ID,Label", ["csv"]),
        (b"ID,Label\n", ["no rows"]),
        (b"\xff\xfe\x00\x01" * 20, ["csv"]),
        (b'ID,Label\n"', ["csv"]),
        (b'ID,Label\n"ID_a_any,0\n' + b"ID_b_any,0\n" * 1000, ["csv", "ID_a_any"]),
        (b"<!doctype html>\n<p>Hello, world\n", ["csv"]),
        (b"ID,Label\nID_a_any\n", ["csv", "ID_a_any"]),
        (b"PK\x03\x04\x14\x00,\x1b[2J\nID_a_any", ["csv"]),
        ("\n".join(["ID,Label", *lines()]).encode("utf-16"), ["UTF-8"]),
        ("\n".join(["ID,Label", *lines({"ID_\u00e9": (0,) * 6})]).encode("latin-1"), ["UTF-8", "column #0"]),
        ("\u00e9,ID,Label\n1,ID_a_any,0\n".encode("latin-1"), ["UTF-8"]),
    ],
    ids=[
        "empty",
        "no newline",
        "header",
        "bytes",
        "quote",
        "open quote",
        "web page",
        "cut",
        "packed",
        "UTF-16",
        "Latin-1",
        "Latin-1 header",
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, read, content, words):
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    repair = "write it again" if read is read_submission else "download it again"
    assert all(word in message for word in [str(path), repair, *words])
    assert message.isprintable()


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(InputError, match=path.name):
            read(path)


def test_the_sample_submission_keeps_its_order(write):
    rows = lines()
    random.Random(1).shuffle(rows)
    submission = read_sample_submission(write(rows))
    assert list(submission) == [row.split(",")[0] for row in rows]
    assert list(image_ids(submission)) == [row.rsplit("_", 1)[0] for row in rows]


@pytest.mark.parametrize("read", [read_sample_submission, read_submission])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lines() + lines()[:1], ["'ID_b_epidural'", "twice"]),
        (lines() + lines(), ["'ID_b_epidural'", "twice", "(18 in all)"]),
        (lines()[:-1], ["'ID_c_any'"]),
        ([*lines(), "ID_c_all,0.5"], ["ID_c_all"]),
    ],
    ids=["twice", "all twice", "five of six", "subtype"],
)
def test_what_is_wrong_in_a_submission_is_named(write, read, rows, words):
    with pytest.raises(InputError) as caught:
        read(write(rows))
    assert all(word in str(caught.value) for word in words)


PROBABILITIES = {"ID_b": (0.1, 1 / 3, 0, 1, 1e-300, 1 - 1e-16), "ID_a": (0.5, 0.125, 0.0, 1.0, 0.25, 0.75)}


def test_a_submission_becomes_one_row_an_image_with_its_very_numbers(write):
    rows = lines(PROBABILITIES)
    random.Random(2).shuffle(rows)
    table = read_submission(write(rows))
    assert list(table.index) == ["ID_a", "ID_b"]
    assert list(table.columns) == list(LABELS)
    assert table.index.name == "image_id"
    for image_id, values in PROBABILITIES.items():
        assert tuple(table.loc[image_id]) == values


@pytest.mark.parametrize("value", ["1.01", "-0.1", "1e999", "nan", "", "yes", "0,5"])
def test_a_value_that_is_no_probability_is_named_with_its_row(write, value):
    path = write([*lines(PROBABILITIES), f'ID_c_epidural,"{value}"', *lines({"ID_c": (0.5,) * 6})[1:]])
    with pytest.raises(InputError, match="but a probability is a number from 0 to 1") as caught:
        read_submission(path)
    assert all(word in str(caught.value) for word in [str(path), f"'{value}'", "'ID_c_epidural'", "write it again"])


def test_labels_join_the_slices_in_their_order(labels):
    table = pd.DataFrame({"image_id": ["ID_c", "ID_b", "ID_a"], "z": [0.0, 1.0, 2.0]})
    joined, problems = join_labels(table, labels)
    assert problems == []
    assert list(joined["image_id"]) == ["ID_c", "ID_b", "ID_a"]
    assert [tuple(row) for row in joined[list(LABELS)].to_numpy()] == [TRUTH[name] for name in joined["image_id"]]


def test_a_slice_without_a_label_stays_as_nan_and_a_label_without_a_slice_goes(labels):
    table = pd.DataFrame({"image_id": ["ID_x", "ID_a", "ID_b"]})
    joined, problems = join_labels(table, labels)
    assert list(joined["image_id"]) == ["ID_x", "ID_a", "ID_b"]
    assert joined[list(LABELS)].isna().all(axis=1).tolist() == [True, False, False]
    assert problems == problem_rows(Problem.NO_LABEL, ["ID_x"]) + problem_rows(Problem.NO_SLICE, ["ID_c"])


def test_an_expected_image_without_a_file_gets_a_row_and_a_line():
    table = pd.DataFrame({"image_id": ["ID_b"], "series_id": ["ID_s"], "chunk": [0]})
    expected = pd.Series(list(itertools.chain(*(["ID_c"] * 6, ["ID_b"] * 6, ["ID_a"] * 6))))
    whole, problems = add_missing(table, expected)
    assert list(whole["image_id"]) == ["ID_b", "ID_c", "ID_a"]
    assert list(whole["chunk"]) == [0, UNREADABLE, UNREADABLE]
    assert whole["series_id"].isna().tolist() == [False, True, True]
    assert problems == problem_rows(Problem.EXPECTED, ["ID_c", "ID_a"])


def test_a_complete_table_is_left_as_it_is():
    table = pd.DataFrame({"image_id": ["ID_b", "ID_a"], "chunk": [0, 1]})
    whole, problems = add_missing(table, pd.Series(["ID_a"]))
    pd.testing.assert_frame_equal(whole, table)
    assert problems == []
