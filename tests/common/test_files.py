"""Laws of writing: whole or not at all, and a flipped bit is seen."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import hash_file, read_notes, read_parquet, replacing, write_csv, write_parquet, write_text

REPAIR = "python models/train_example.py --fold 0"
TABLE = pd.DataFrame(
    {
        "image_id": [f"ID_{number:09x}" for number in range(200)],
        "any": np.linspace(0, 1, 200, dtype=np.float32),
        "z": np.arange(200) / 3,
    }
)
WRITERS = {
    "text": lambda path: write_text(path, "new"),
    "csv": lambda path: write_csv(path, TABLE),
    "parquet": lambda path: write_parquet(path, TABLE),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@every_writer
def test_a_written_file_stands_alone_in_its_new_folder_and_others_may_read_it(tmp_path, write):
    path = tmp_path / "a" / "b" / "file"
    write(path)
    assert names(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_exception_while_writing_leaves_the_old_file(tmp_path):
    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise ZeroDivisionError

    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_process_that_dies_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    program = """
import os, pathlib, sys
from models.common.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half of the n")
    os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == 7
    assert path.read_text() == "old"


@every_writer
@pytest.mark.parametrize("obstacle", ["a file in place of the folder", "a folder in place of the file"])
def test_what_cannot_be_written_is_named(tmp_path, write, obstacle):
    if obstacle.startswith("a file"):
        (tmp_path / "cache").write_text("in the way")
        path = tmp_path / "cache" / "file"
    else:
        path = tmp_path / "file"
        (path / "inside").mkdir(parents=True)
    before = names(tmp_path)
    with pytest.raises(InputError, match="--work") as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert names(tmp_path) == before


def test_a_table_comes_back_as_it_was(tmp_path):
    write_parquet(tmp_path / "table.parquet", TABLE)
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "table.parquet", REPAIR), TABLE)


def test_a_table_of_no_rows_comes_back_too(tmp_path):
    write_parquet(tmp_path / "table.parquet", TABLE[:0])
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "table.parquet", REPAIR), TABLE[:0])


def test_notes_of_a_table_are_read_from_the_end_of_its_file(tmp_path):
    path = tmp_path / "table.parquet"
    write_parquet(path, TABLE)
    assert read_notes(path, REPAIR) == {}  # as of files that older versions wrote
    noted = TABLE.copy()
    noted.attrs = {"tta": "d4", "runs": ["b2", "b5"]}
    write_parquet(path, noted)
    content = bytearray(path.read_bytes())
    content[4] ^= 255  # the first value
    path.write_bytes(content)
    assert read_notes(path, REPAIR) == noted.attrs
    path.write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"table.parquet is damaged"):
        read_notes(path, REPAIR)
    path.unlink()
    with pytest.raises(InputError, match=r"no .*table.parquet; make it with"):
        read_notes(path, REPAIR)


def test_a_missing_table_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=REPAIR) as caught:
        read_parquet(tmp_path / "table.parquet", REPAIR)
    assert str(tmp_path / "table.parquet") in str(caught.value)


def test_a_flipped_bit_of_a_table_is_seen_or_harmless(tmp_path):
    path = tmp_path / "table.parquet"
    write_parquet(path, TABLE)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    seen = []
    for position in generator.integers(len(whole), size=400):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            table = read_parquet(path, REPAIR)
        except InputError as error:
            seen.append(str(error))
        else:
            pd.testing.assert_frame_equal(table, TABLE)
    assert len(seen) > 200
    assert all(str(path) in message and REPAIR in message for message in seen)


@pytest.mark.parametrize("length", [0, 1, 100, -100, -1])
def test_a_table_that_is_cut_off_is_seen(tmp_path, length):
    path = tmp_path / "table.parquet"
    write_parquet(path, TABLE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=REPAIR):
        read_parquet(path, REPAIR)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_the_hash_of_a_file_is_its_sha256(tmp_path, size):
    content = bytes(index % 251 for index in range(size))
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
