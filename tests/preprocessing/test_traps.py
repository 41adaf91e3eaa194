"""Every trap of the real data, planted in a phantom: prepare.py sees it, says so, and keeps what can be kept."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.phantom.dicom import write_phantom
from models.preprocessing.elements import Reason
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE

SIZE = 32
STUDIES, TEST_STUDIES = 30, 8  # enough for every trap to have a series of its own

REPORTED = {
    "duplicate_labels": Problem.REPEATED_LABEL,
    "truncated": Reason.TRUNCATED,
    "constant": Problem.CONSTANT,
    "wrapped": Problem.WRAPPED,
    "padding": Problem.BELOW_AIR,
    "not_square": Problem.NOT_SQUARE,
    "mixed_orientation": Problem.MIXED_ORIENTATION,
    "uneven_spacing": Problem.UNEVEN_SPACING,
    "stray_newline": Problem.STRAY_NAME,
    "labels_without_files": Problem.NO_SLICE,
    "files_without_labels": Problem.NO_LABEL,
    "train_and_test_patient": Problem.BOTH_SPLITS,
    "text_file": Reason.NOT_DICOM,
    "empty_file": Reason.NOT_DICOM,
    "no_position": Problem.BY_LOCATION,
    "instance_number_only": Problem.BY_NUMBER,
    # said of the series in which the slice lies
    "beyond_12_bits": Problem.BEYOND_BONE,
    "mixed_sizes": Problem.MIXED_SIZES,
    "duplicate_positions": Problem.DUPLICATE_POSITIONS,
}
OTHER_PIXELS = {"truncated", "constant", "not_square", "mixed_sizes", "beyond_12_bits"}
SAME_PIXELS = [
    "wrapped",
    "signed_zero_intercept",
    "padding",
    "padding_tag",
    "mixed_orientation",
    "no_position",
    "rle",
    "jpeg_ls",
    "jpeg_2000",
    "jpeg_lossless",
    "deflated",
]


class Prepared:
    """A phantom's cache and what was planted in it."""

    def __init__(self, folder: Path, traps=(), layout="stage_2", studies=STUDIES, test_studies=TEST_STUDIES) -> None:
        write_phantom(folder / "data", studies, test_studies, SIZE, traps=traps, layout=layout, jobs=1)
        prepare(PrepareOptions(data=folder / "data", work=folder, image_size=(SIZE,), folds=2, jobs=1))
        self.work = Work(folder)
        names = ["train", "test"] if layout != "tree" else ["test"]
        self.table = pd.concat([read_parquet(self.work.metadata(name), "") for name in names]).set_index("image_id")
        self.problems = pd.read_csv(self.work.problems)
        record = folder / "data" / "phantom_traps.csv"
        self.planted = pd.read_csv(record).groupby("trap")["item"].apply(list) if record.is_file() else {}

    def slice(self, image_id: str) -> np.ndarray:
        row = self.table.loc[image_id]
        return Series(self.work.series(SIZE, row["series_id"])).read(int(row["chunk"]))

    def images(self, trap: str) -> list[str]:
        """The images that a trap is about."""
        items = self.planted[trap]
        return [item for item in items if item in self.table.index] + list(
            self.table.index[self.table["series_id"].isin(items)]
        )


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def trapped(tmp_path_factory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("trapped"), ("all",))


@pytest.mark.parametrize("trap", REPORTED)
def test_a_trap_is_a_line_that_names_it(trapped, trap):
    what = REPORTED[trap].value if isinstance(REPORTED[trap], Reason) else REPORTED[trap].value[0]
    named = set(trapped.problems.loc[trapped.problems["problem"] == what, "item"].str.removesuffix(".dcm"))
    for item in trapped.planted[trap]:
        series = trapped.table["series_id"].get(item)
        assert item in named or series in named


@pytest.mark.parametrize("trap", SAME_PIXELS)
def test_what_is_stored_in_another_way_is_the_same_slice(trapped, plain, trap):
    images = trapped.images(trap)
    assert len(images) >= 20
    for image_id in images:
        assert np.array_equal(trapped.slice(image_id), plain.slice(image_id))


def test_what_has_no_trap_is_untouched(trapped, plain):
    changed = {image for trap in OTHER_PIXELS for image in trapped.images(trap)}
    common = (
        trapped.table.index[trapped.table["chunk"] != UNREADABLE].intersection(plain.table.index).difference(changed)
    )
    assert len(common) > 800
    for image_id in common:
        assert np.array_equal(trapped.slice(image_id), plain.slice(image_id))


def test_a_multi_frame_file_is_a_series_of_slices(trapped, plain):
    (series_id,) = trapped.planted["enhanced"]
    frames = trapped.table[trapped.table["series_id"] == series_id]
    single = plain.table[plain.table["series_id"] == series_id]
    assert np.allclose(frames["z"], single["z"], atol=1e-3)
    assert frames[list(LABELS)].notna().all(axis=None)
    for frame, image in zip(frames.index, single.index, strict=True):
        assert np.array_equal(trapped.slice(frame), plain.slice(image))


def test_a_slice_that_cannot_be_read_keeps_its_row_and_place(trapped, plain):
    for image_id in trapped.planted["truncated"]:
        assert trapped.table.loc[image_id, "chunk"] == UNREADABLE
        assert trapped.table.loc[image_id, "z"] == plain.table.loc[image_id, "z"]


def test_values_beyond_12_bits_are_cut_where_the_store_ends(trapped, plain):
    for image_id in trapped.planted["beyond_12_bits"]:
        assert trapped.slice(image_id).max() == 2000
        assert plain.slice(image_id).max() < 2000


def test_slices_that_are_not_square_are_padded_with_air_and_not_stretched(trapped, plain):
    for image_id in trapped.images("not_square"):
        rows, columns = trapped.table.loc[image_id, ["rows", "columns"]]
        assert rows != columns
        assert (trapped.slice(image_id)[0] == -1000).all()


def test_order_survives_what_the_headers_lack(trapped, plain):
    for trap in ("no_position", "instance_number_only", "duplicate_positions"):
        for series_id in set(trapped.table.loc[trapped.images(trap), "series_id"]):
            names = list(trapped.table.index[trapped.table["series_id"] == series_id])
            expected = list(plain.table.index[plain.table["series_id"] == series_id])
            assert names == expected or trap == "duplicate_positions"
            assert sorted(names) == sorted(expected)


def test_of_two_valued_windows_the_first_is_kept(trapped):
    assert (trapped.table.loc[trapped.images("two_windows"), "window_center"] == 36).all()


def test_contradicting_labels_stop_before_any_work(tmp_path):
    write_phantom(tmp_path / "data", 3, 1, 32, traps=("contradicting_labels",), jobs=1)
    item = pd.read_csv(tmp_path / "data" / "phantom_traps.csv")["item"].iloc[0]
    with pytest.raises(InputError, match=f"both 0 and 1 for .*{item}"):
        prepare(PrepareOptions(data=tmp_path / "data", work=tmp_path / "work", image_size=(32,), folds=2, jobs=1))
    assert not (tmp_path / "work").exists()


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("few"), studies=4, test_studies=1)


@pytest.mark.parametrize("layout", ["stage_1", "zip"])
def test_every_layout_gives_the_same_cache(few, tmp_path, layout):
    other = Prepared(tmp_path, layout=layout, studies=4, test_studies=1)
    for name in ("metadata_train.parquet", "metadata_test.parquet", "folds.csv", "problems.csv"):
        assert (other.work.cache / name).read_bytes() == (few.work.cache / name).read_bytes()


def test_a_tree_without_tables_is_read_as_test_slices_under_pseudonyms(few, tmp_path):
    tree = Prepared(tmp_path, layout="tree", studies=4, test_studies=1)
    assert len(tree.table) == len(few.table)
    assert tree.table["series_id"].nunique() == few.table["series_id"].nunique()
    assert not set(tree.table.index) & set(few.table.index)
    assert not set(tree.table["patient_id"]) & set(few.table["patient_id"])
    shape = ["z", "gap_above", "img_mean", "img_pct_window"]
    assert np.allclose(*(np.sort(one.table[shape].fillna(-1), axis=0) for one in (tree, few)))
    assert not tree.work.folds.exists()
