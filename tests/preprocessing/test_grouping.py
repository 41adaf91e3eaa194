"""Laws of what belongs together: patients, studies, orientations, sizes, reconstructions and copies of files."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reading import PSEUDONYMS, prepare_tree

from models.common.folders import Work
from models.find_files import FindOptions, find_files
from models.preprocessing.elements import Reason
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import COPY_IS_READ, NO_SLICE_OF_FILE, Problem
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE

SIZE, SLICES = 8, 9
SERIES = PSEUDONYMS.hash("1.2.4")


def image(number: int) -> np.ndarray:
    """Stored values (SIZE, SIZE) that tell which slice it is."""
    return np.arange(1000, 1000 + SIZE**2, dtype=np.int16).reshape(SIZE, SIZE) + np.int16(100 * number)


def number_of(hounsfield: np.ndarray) -> int:
    """The number that `image` was given."""
    return round((int(hounsfield[0, 0]) + 24) / 100)


@pytest.fixture
def write(write_dicom):
    """A file of somebody's own series, by default slice `number` of 1.2.4, 5 mm apart."""

    def written(path: Path, number: int, values: np.ndarray | None = None, **elements) -> Path:
        defaults = {
            "SOPInstanceUID": f"1.2.3.{number}",
            "SeriesInstanceUID": "1.2.4",
            "StudyInstanceUID": "1.2.5",
            "PatientID": "one",
            "ImagePositionPatient": ["0", "0", str(5 * number)],
            "InstanceNumber": number + 1,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_dicom(path, image(number) if values is None else values, **defaults | elements)

    return written


def numbers(work: Path, part) -> list[int | None]:
    """Which slices a part holds, in its order; None for one that cannot be read."""
    series = Series(Work(work).series(SIZE, part.series_id))
    return [None if chunk == UNREADABLE else number_of(series.read(chunk)) for chunk in part.table["chunk"]]


def told(part) -> set[str]:
    return {problem for _, problem, _ in part.problems}


# ---- patients, studies ----


@pytest.mark.parametrize("element", ["PatientID", "StudyInstanceUID"])
def test_whom_one_series_uid_serves_are_not_interleaved(write, tmp_path, element):
    for number in range(SLICES):
        for who in range(2):
            other = {element: f"9.{who}", "SOPInstanceUID": f"1.{who}.{number}"}
            write(tmp_path / f"data/{number}-{who}", number + 10 * who, **other)
    parts = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    found = sorted(numbers(tmp_path, part) for part in parts)
    assert found == [list(range(SLICES)), list(range(10, 10 + SLICES))]
    assert len({part.series_id for part in parts}) == 2
    assert all(part.table[column].nunique() == 1 for part in parts for column in ("patient_id", "study_id"))


def test_a_file_that_names_no_patient_belongs_to_the_others(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/{number}", number, **({"PatientID": ""} if number == 4 else {}))
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert (part.series_id, numbers(tmp_path, part)) == (SERIES, list(range(SLICES)))


# ---- orientations, sizes, reconstructions ----


def two_kinds(write, folder: Path, **second) -> None:
    """Nine slices, and five more of 1.2.4 that differ."""
    for number in range(SLICES):
        write(folder / f"a{number}", number)
    for number in range(5):
        write(
            folder / f"b{number}",
            number,
            **{"SOPInstanceUID": f"1.2.9.{number}", "InstanceNumber": 50 + number} | second,
        )


TILTED = [1, 0, 0, 0, 0.95, 0.3122499]
CORONAL = [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize("orientation", [TILTED, CORONAL], ids=["tilted", "coronal"])
def test_what_is_turned_is_a_series_of_its_own(write, tmp_path, orientation):
    two_kinds(write, tmp_path / "data", ImageOrientationPatient=orientation)
    first, second = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert (first.series_id, len(first.table), len(second.table)) == (SERIES, SLICES, 5)
    assert Problem.PARTS.value[0] in told(first)
    assert numbers(tmp_path, first) == list(range(SLICES))
    assert Work(tmp_path).series(SIZE, second.series_id).is_file() is (orientation is TILTED)  # the coronal is left out


def test_what_has_another_size_is_a_series_of_its_own(write, tmp_path):
    two_kinds(write, tmp_path / "data", values=np.full((6, 6), 3000, np.int16))
    first, second = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert [list(set(part.table["rows"])) for part in (first, second)] == [[SIZE], [6]]
    assert not {Problem.MIXED_SIZES.value[0], Problem.DUPLICATE_POSITIONS.value[0]} & (told(first) | told(second))


def test_of_the_challenges_series_nothing_is_taken_apart(write, tmp_path):
    for number in range(4):
        turned = {"ImageOrientationPatient": TILTED} if number > 1 else {}
        write(tmp_path / f"data/{number}", number, SOPInstanceUID=f"ID_00000000{number}", **turned)
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert len(part.table) == 4
    assert Problem.MIXED_ORIENTATION.value[0] in told(part)


RECONSTRUCTIONS = {
    "by kernel": ({"ConvolutionKernel": "STANDARD"}, {"ConvolutionKernel": "BONE"}),
    "by ImageType": ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}),
    "by order": ({}, {}),
}


def test_one_position_for_all_takes_nothing_apart(write, tmp_path):
    for number in range(SLICES):
        one = {"ImagePositionPatient": ["0", "0", "0"], "SliceLocation": str(5 * number), "InstanceNumber": 99 - number}
        write(tmp_path / f"data/{number}", number, **one)
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert numbers(tmp_path, part) == list(range(SLICES))
    assert told(part) == {Problem.ONE_POSITION.value[0]}


OTHER_VIEW = {"PixelSpacing": ["0.3", "0.3"]}
MATERIAL = OTHER_VIEW | {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}


@pytest.mark.parametrize(
    ("other", "corner", "gap", "count"),
    [
        (OTHER_VIEW | {"ConvolutionKernel": "BONE"}, -20, 5, SLICES),  # smaller, and so with another corner
        (OTHER_VIEW, -20, 5, SLICES),
        (MATERIAL, -20, 5, SLICES),
        ({"SliceThickness": "1"}, 0, 1, 40),
        ({"SliceThickness": "1", "ConvolutionKernel": "BONE"}, 0, 1, 40),
        ({"ContrastBolusAgent": "Ultravist"}, 0, 5, SLICES),
    ],
    ids=["kernel and view", "view", "material", "thickness", "kernel and thickness", "contrast"],
)
def test_what_an_export_has_mixed_is_taken_apart(write, tmp_path, other, corner, gap, count):
    """Two reconstructions, or a scan without contrast agent and one with it, whose slices lie over each other."""
    mixed(write, tmp_path / "data", other, corner, gap, count, 0.3)
    parts = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert sorted(len(part.table) for part in parts) == sorted([SLICES, count])
    for part in parts:
        assert len(set(part.table["img_min"] < 6000)) == 1
        assert np.ptp(np.diff(part.table["z"])) < 0.01


def test_a_native_series_that_lacks_a_slice_does_not_get_one_with_contrast_agent(write, tmp_path):
    mixed(write, tmp_path / "data", {"ContrastBolusAgent": "Ultravist"}, 0, 5, SLICES, 0)
    (tmp_path / "data/a4").unlink()
    contrast, native = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert (len(contrast.table), len(native.table)) == (SLICES, SLICES - 1)
    assert (contrast.table["img_min"] == 6000).all()


@pytest.mark.parametrize("start", [SLICES * 5, 3])
def test_parts_that_follow_each_other_or_differ_by_chance_are_one_series(write, tmp_path, start):
    """The base in thin slices and the vertex in thick ones; or a tag that some slices have and others have not."""
    if start == 3:
        for number in range(2 * SLICES):
            odd = {"SliceThickness": "1"} if number in (0, 3, 4, 9, 10, 16) else {}
            write(tmp_path / f"data/a{number}", number, **placed(number, 5 * number), **odd)
    else:
        for number in range(SLICES):
            write(tmp_path / f"data/a{number}", number, **placed(number, 5 * number))
            thin = placed(number + SLICES, start + 1.0 * number) | {"SliceThickness": "1"}
            write(tmp_path / f"data/b{number}", number, **thin)
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert len(part.table) == 2 * SLICES


def placed(number: int, height: float, corner: float = 0) -> dict:
    """The elements of a slice that say which it is, and where."""
    position = [str(corner), str(corner), f"{height:.2f}"]
    return {"SOPInstanceUID": f"1.7.{number}", "InstanceNumber": number, "ImagePositionPatient": position}


def mixed(write, folder: Path, other: dict, corner: float, gap: float, count: int, apart: float) -> None:
    """Nine slices 5 mm apart, and so many others over them, `apart` from these in mm."""
    for number in range(SLICES):
        write(folder / f"a{number}", number, **placed(number, 5 * number))
    for number in range(count):
        write(folder / f"b{number}", 50, **placed(50 + number, gap * number + apart, corner), **other)


@pytest.mark.parametrize("torn", [0, 1])
def test_a_slice_that_cannot_be_read_stays_with_its_reconstruction(write, tmp_path, torn):
    for number, which in itertools.product(range(SLICES), range(2)):
        elements = {"SOPInstanceUID": f"1.{which}.{number}", "ConvolutionKernel": ["STANDARD", "BONE"][which]}
        elements |= {"ImagePositionPatient": ["0", "0", str(5 * number)]}
        write(tmp_path / f"data/{number}-{which}", number + 10 * which, **elements)
    spoil(tmp_path / f"data/4-{torn}")
    parts = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    due = [
        [None if (number, which) == (4, torn) else number + 10 * which for number in range(SLICES)] for which in (0, 1)
    ]
    assert sorted((numbers(tmp_path, part) for part in parts), key=str) == sorted(due, key=str)


@pytest.mark.parametrize("kind", RECONSTRUCTIONS)
@pytest.mark.parametrize("is_interleaved", [False, True])
def test_two_reconstructions_in_one_series_become_two(write, tmp_path, kind, is_interleaved):
    for number, which in itertools.product(range(SLICES), range(2)):
        place = 2 * number + which if is_interleaved else number + SLICES * which
        elements = {"SOPInstanceUID": f"1.{which}.{number}", "InstanceNumber": place + 1}
        elements |= {"ImagePositionPatient": ["0", "0", str(5 * number)]} | RECONSTRUCTIONS[kind][which]
        write(tmp_path / f"data/{number}-{1 - which}", number + 10 * which, **elements)
    parts = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    found = sorted(numbers(tmp_path, part) for part in parts)
    assert found == [list(range(SLICES)), list(range(10, 10 + SLICES))]
    assert Problem.DUPLICATE_POSITIONS.value[0] not in told(parts[0]) | told(parts[1])


def test_a_few_slices_at_one_position_take_nothing_apart(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/{number}", number)
    write(tmp_path / "data/x", 20, ImagePositionPatient=["0", "0", "10"])
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert len(part.table) == SLICES + 1
    assert Problem.DUPLICATE_POSITIONS.value[0] in told(part)


def test_a_slice_that_cannot_be_read_stays_with_the_others_however_they_lie(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/{number}", number, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    path = tmp_path / "data/4"
    path.write_bytes(path.read_bytes()[:-20])
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert list(part.table["chunk"]) == [0, 1, 2, 3, UNREADABLE, 4, 5, 6, 7]


# ---- copies ----


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("bad", ["a", "b"])
def test_of_several_copies_the_readable_one_counts(write, tmp_path, bad):
    for number in range(3):
        for folder in "ab":
            write(tmp_path / f"data/{folder}/{number}", number)
    spoil(tmp_path / f"data/{bad}/1")
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert numbers(tmp_path, part) == [0, 1, 2]
    assert {line[1:] for line in part.problems} == {(Reason.TRUNCATED.value, COPY_IS_READ), Problem.COPY.value}


def test_a_slice_of_which_no_copy_can_be_read_is_lost_once(write, tmp_path):
    for number in range(3):
        for folder in "ab":
            write(tmp_path / f"data/{folder}/{number}", number)
    for folder in "ab":
        spoil(tmp_path / f"data/{folder}/1")
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert list(part.table["chunk"]) == [0, UNREADABLE, 1]
    treatments = sorted(line[2] for line in part.problems if line[1] == Reason.TRUNCATED.value)
    assert treatments == ["left out", NO_SLICE_OF_FILE]


def test_one_sop_uid_on_all_files_loses_nothing(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/{number}", number, SOPInstanceUID="1.2.3")
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert numbers(tmp_path, part) == list(range(SLICES))
    assert part.table["image_id"].is_unique
    assert told(part) == {Problem.SHARED_NAME.value[0]}


def test_one_sop_uid_on_all_files_keeps_the_row_of_one_that_cannot_be_read(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/{number}", number, SOPInstanceUID="1.2.3")
    spoil(tmp_path / "data/4")
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert list(part.table["chunk"]) == [0, 1, 2, 3, UNREADABLE, 4, 5, 6, 7]


def test_one_sop_uid_on_all_files_keeps_the_row_of_one_that_shares_its_place(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/{number}", number, SOPInstanceUID="1.2.3")
    place = {"SOPInstanceUID": "1.2.3", "ImagePositionPatient": ["0", "0", "20"], "InstanceNumber": 99}
    spoil(write(tmp_path / "data/99", 30, **place))
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert list(part.table["chunk"]) == [0, 1, 2, 3, 4, UNREADABLE, 5, 6, 7, 8]


def test_a_contradicting_copy_is_told_from_an_equal_one(write, tmp_path):
    for number in range(3):
        write(tmp_path / f"data/a/{number}", number)
    write(tmp_path / "data/equal", 1)
    write(tmp_path / "data/other", 1, image(15))
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert sorted(numbers(tmp_path, part)) == [0, 1, 2, 15]
    assert {Problem.COPY.value[0], Problem.SHARED_NAME.value[0]} <= told(part)
    assert sum(line[1:] == Problem.COPY.value for line in part.problems) == 1


def test_names_are_unique_where_series_share_their_images_uids_and_each_is_traced(write, tmp_path):
    for which, number in itertools.product(range(2), range(SLICES)):
        path = tmp_path / f"data/{which}/{number}"
        write(path, number + 10 * which, SOPInstanceUID="1.2.3", SeriesInstanceUID=f"1.2.{which}")
    assert prepare(PrepareOptions(data=tmp_path / "data", work=tmp_path, image_size=(SIZE,), jobs=1)) == 0
    work = Work(tmp_path)
    table = pd.read_parquet(work.metadata("test"))
    assert len(table) == 2 * SLICES
    assert table["image_id"].is_unique
    find_files(FindOptions(work.metadata("test"), tmp_path / "out.csv", data=tmp_path / "data", work=tmp_path, jobs=1))
    for row in pd.read_csv(tmp_path / "out.csv").itertuples():
        which, number = map(int, row.file.split("/"))
        assert number_of(Series(work.series(SIZE, row.series_id)).read(row.chunk)) == number + 10 * which


def test_copies_of_a_whole_series_are_one(write, tmp_path):
    for number in range(SLICES):
        write(tmp_path / f"data/a/{number}", number)
    shutil.copytree(tmp_path / "data/a", tmp_path / "data/b")
    (part,) = prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    assert numbers(tmp_path, part) == list(range(SLICES))
    assert sum(line[1:] == Problem.COPY.value for line in part.problems) == SLICES


def test_a_transfer_syntax_that_nobody_knows_is_written_nowhere(write, tmp_path):
    for number in range(3):
        path = write(tmp_path / f"data/{number}", number)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.CANARY^8.1.2.1\0\0"))
    prepare_tree(tmp_path / "data", tmp_path, [SIZE])
    (record,) = Work(tmp_path).manifest.iterdir()
    assert "CANARY" not in record.read_text()
