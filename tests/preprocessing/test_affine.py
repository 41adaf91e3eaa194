"""Laws of the one frame and of the affine: a stored element is the same tissue at the same mm, however it was stored.

The oracle is PS3.3 C.7.6.2.1.1 as it stands there, on every file as it was written.
"""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset
from reading import prepare_tree

from models.common.folders import Work
from models.export_nifti import ExportOptions, export
from models.preprocessing.affine import AFFINE, affine_table, place_series, to_ras
from models.preprocessing.dicom import read_file
from models.preprocessing.geometry import USUAL_GAP
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.orientation import UNTURNED, Turn, nearest_turn, to_one_frame
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.store import Series

ROWS, COLUMNS, SLICES, GAP = 40, 48, 5, 5.0
FIRST = np.array([-12.0, -15.0, 30.0])  # mm, the middle of the first pixel of the lowest slice
SLOPE, ORIGIN = np.array([11.0, 17.0, 9.0]), 200  # Hounsfield units a mm: the tissue that is drawn
TURNS = [Turn(*flags) for flags in product((False, True), repeat=3)]


class Drawing(NamedTuple):
    """How the patient is laid on slices."""

    tilt: float = 0.0  # of the gantry, degrees
    spacing: tuple[float, float] = (0.75, 0.5)  # between rows, between columns, mm
    heights: tuple[float, ...] = tuple(GAP * number for number in range(SLICES))  # of the table, mm

    @property
    def right(self) -> np.ndarray:
        return np.array([1.0, 0, 0])

    @property
    def down(self) -> np.ndarray:
        return np.array([0, np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))])


def tissue(mm: np.ndarray) -> np.ndarray:
    """Hounsfield units (...) at mm (..., 3), the same for every way to lay slices through them."""
    return ORIGIN + (mm - FIRST) @ SLOPE


def pixel_mm(position, right, down, spacing, shape) -> np.ndarray:
    """Where the pixels of a slice lie (rows, columns, 3), mm (PS3.3 C.7.6.2.1.1)."""
    row, column = np.indices(shape)
    return np.asarray(position) + column[..., None] * spacing[1] * right + row[..., None] * spacing[0] * down


def draw(folder: Path, write_dicom: Callable, drawing: Drawing, turn: Turn = UNTURNED, from_head: bool = False) -> None:
    """Write the series as a scanner does that turns its slices, and counts them from the head."""
    right, down, spacing, shape = drawing.right, drawing.down, np.array(drawing.spacing), np.array((ROWS, COLUMNS))
    for number, height in enumerate(drawing.heights):
        position = FIRST + np.array([0, 0, height])
        values, first, axes, steps = (
            tissue(pixel_mm(position, right, down, spacing, shape)),
            position,
            (right, down),
            spacing,
        )
        if turn.columns_reversed:
            values, first, axes = values[:, ::-1], first + (COLUMNS - 1) * spacing[1] * right, (-axes[0], axes[1])
        if turn.rows_reversed:
            values, first, axes = values[::-1], first + (ROWS - 1) * spacing[0] * down, (axes[0], -axes[1])
        if turn.transposed:
            values, axes, steps = values.T, axes[::-1], spacing[::-1]
        name = f"ID_{len(drawing.heights) - number if from_head else number:03d}"
        elements = {
            "ImagePositionPatient": [f"{value:.9f}" for value in first],
            "ImageOrientationPatient": [f"{value:.9f}" for value in np.concatenate(axes)],
            "PixelSpacing": list(map(str, steps)),
        }
        write_dicom(folder / f"{name}.dcm", np.rint(values + 1024).astype(np.int16), **elements)


def prepare_one(folder: Path, work: Path, sizes: tuple[int, ...]) -> SeriesNotes:
    (part,) = prepare_tree(folder, work, sizes)
    return part


def stored(work: Path, size: int, notes: SeriesNotes) -> np.ndarray:
    series = Series(Work(work).series(size, notes.table["series_id"].iloc[0]))
    return np.stack([series.read(number) for number in range(len(series))])


def mm_of(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Where an affine puts the elements of a stored series (slices, rows, columns, 3)."""
    number, row, column = np.indices(shape)
    return np.stack([column, row, number, np.ones_like(row)], axis=-1) @ affine[:3].T


def differences(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Hounsfield units between stored slices (slices, rows, columns) and the tissue at the same place: (elements,).

    Of elements that are neither padding nor beside it, where resizing mixes both.
    """
    inside = np.zeros(values.shape, bool)
    side, size = max(ROWS, COLUMNS), values.shape[1]
    margin = [int(np.ceil(((side - length) // 2 + 2) * size / side)) + 1 for length in (ROWS, COLUMNS)]
    inside[:, margin[0] : size - margin[0], margin[1] : size - margin[1]] = True
    assert inside.mean() > 0.3
    return (values - tissue(mm_of(affine, values.shape)))[inside]


@pytest.mark.parametrize("from_head", [False, True])
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_all_symmetries_and_orders_are_stored_alike(turn, from_head, write_dicom, tmp_path):
    draw(tmp_path / "plain", write_dicom, Drawing(tilt=-20))
    draw(tmp_path / "turned", write_dicom, Drawing(tilt=-20), turn, from_head)
    plain, turned = (
        prepare_one(tmp_path / name, tmp_path / f"{name} work", (COLUMNS,)) for name in ("plain", "turned")
    )
    assert np.array_equal(
        stored(tmp_path / "turned work", COLUMNS, turned), stored(tmp_path / "plain work", COLUMNS, plain)
    )
    same = [name for name in plain.table if name not in ("image_id", "series_id")]
    pd.testing.assert_frame_equal(turned.table[same], plain.table[same], rtol=0, atol=1e-6)
    placed, expected = place_series(turned.table, COLUMNS), place_series(plain.table, COLUMNS)
    assert np.allclose(placed.affine, expected.affine, rtol=0, atol=1e-6)
    said = {problem for _, problem, _ in turned.problems}
    assert said - {problem for _, problem, _ in plain.problems} == (
        {Problem.TURNED.value[0]} if turn != UNTURNED else set()
    )


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_every_pixel_of_a_file_is_where_dicom_says(turn, write_dicom, tmp_path):
    """The affine takes each pixel's mm to the element that holds its value."""
    draw(tmp_path / "raw", write_dicom, Drawing(tilt=15), turn)
    notes = prepare_one(tmp_path / "raw", tmp_path, (COLUMNS,))
    values, placed = stored(tmp_path, COLUMNS, notes), place_series(notes.table, COLUMNS)
    for path in sorted((tmp_path / "raw").iterdir()):
        file = pydicom.dcmread(path)
        axes = np.reshape(np.array(file.ImageOrientationPatient, float), (2, 3))
        position, spacing = np.array(file.ImagePositionPatient, float), np.array(file.PixelSpacing, float)
        mm = pixel_mm(position, *axes, spacing, (file.Rows, file.Columns)).reshape(-1, 3)
        indices = np.linalg.solve(placed.affine, np.column_stack([mm, np.ones(len(mm))]).T)[:3]
        assert np.allclose(indices, np.rint(indices), rtol=0, atol=1e-4)
        column, row, number = np.rint(indices).astype(int)
        assert np.array_equal(values[number, row, column], file.pixel_array.ravel().astype(int) - 1024)


@pytest.mark.parametrize("tilt", [0, 20, -12.5])
@pytest.mark.parametrize("size", [20, 24, 32, COLUMNS, 64, 100])
def test_tissue_is_where_the_affine_says_at_every_size(size, tilt, write_dicom, tmp_path):
    draw(tmp_path / "raw", write_dicom, Drawing(tilt=tilt), Turn(True, False, True), from_head=True)
    notes = prepare_one(tmp_path / "raw", tmp_path, (size,))
    placed = place_series(notes.table, size)
    assert np.abs(differences(stored(tmp_path, size, notes), placed.affine)).max() <= 1.01  # rounded twice
    assert placed.departure < 1e-5
    assert np.allclose(placed.pixel, (0.5 * COLUMNS / size, 0.75 * COLUMNS / size))
    assert np.isclose(placed.step, GAP)
    assert np.isclose(placed.shear, abs(tilt), atol=1e-3)


def test_frames_of_one_file_are_turned_each(write_dicom, tmp_path):
    draw(tmp_path / "raw", write_dicom, Drawing(), Turn(False, True, True), from_head=True)
    files = [pydicom.dcmread(path) for path in sorted((tmp_path / "raw").iterdir())]
    frames = []
    for file in files:
        place, plane, measures, frame = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient, plane.ImageOrientationPatient = (
            file.ImagePositionPatient,
            file.ImageOrientationPatient,
        )
        measures.PixelSpacing = file.PixelSpacing
        frame.PlanePositionSequence, frame.PlaneOrientationSequence, frame.PixelMeasuresSequence = (
            [place],
            [plane],
            [measures],
        )
        frames.append(frame)
    pixels = np.stack([file.pixel_array for file in files])
    nothing = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    groups = {
        "NumberOfFrames": len(files),
        "PerFrameFunctionalGroupsSequence": frames,
        "Rows": ROWS,
        "Columns": COLUMNS,
    }
    write_dicom(tmp_path / "frames" / "ID_0.dcm", pixels, **nothing, **groups)
    notes = prepare_one(tmp_path / "frames", tmp_path, (COLUMNS,))
    assert (
        np.abs(differences(stored(tmp_path, COLUMNS, notes), place_series(notes.table, COLUMNS).affine)).max() <= 0.51
    )


def test_a_slice_of_the_one_frame_is_left_as_it_is(write_dicom, tmp_path):
    path = write_dicom(tmp_path / "ID_0.dcm", np.arange(12, dtype=np.int16).reshape(3, 4))
    (item,) = read_file(path)
    same, problems = to_one_frame(item)
    assert same is item
    assert problems == []


@pytest.mark.parametrize(
    "orientation",
    [
        (1, 0, 0, 0, np.cos(np.radians(30)), -np.sin(np.radians(30))),
        (np.cos(0.3), np.sin(0.3), 0, -np.sin(0.3), np.cos(0.3), 0),  # the head lies askew
        (1, 0, 0, 0, 0, -1),  # coronal
        (1, 0, 0, 0, 0, 1),
        (0, -1, 0, 0, 0, -1),  # sagittal
        (np.nan,) * 6,
        (0,) * 6,
        (-1, 0, 0, -1, 0, 0),
    ],
)
def test_what_is_near_the_frame_or_not_axial_or_unknown_is_not_turned(orientation):
    assert nearest_turn(orientation) == UNTURNED


def test_the_slices_of_the_challenge_stay_as_they_are(write_dicom, tmp_path, real_labels):
    """One of 2,214 series of its first test lies on its side: the networks have learnt from such as they are."""
    file = real_labels / "labels_plus_metadata_stage1test_78545.csv.gz"
    headers = pd.read_csv(file, usecols=["ImageOrientationPatient", "SeriesInstanceUID"]).drop_duplicates()
    vectors = headers["ImageOrientationPatient"].str.findall(r"-?[\d.]+").map(lambda texts: [*map(float, texts)])
    turned = headers[[nearest_turn(vector) != UNTURNED for vector in vectors]]
    assert turned["SeriesInstanceUID"].nunique() == 1
    orientation = list(map(str, vectors[turned.index[0]]))
    for name, problems in (("ID_0123456789", []), ("1.2.3", [Problem.TURNED])):
        values = np.arange(12, dtype=np.int16).reshape(3, 4)
        path = write_dicom(tmp_path / f"{name}.dcm", values, SOPInstanceUID=name, ImageOrientationPatient=orientation)
        item, found = to_one_frame(next(read_file(path)))
        assert found == problems
        assert np.array_equal(item.stored, values if not problems else values.T[::-1])


def test_a_prone_slice_without_spacing_is_turned_and_keeps_its_height(write_dicom, tmp_path):
    prone = {"ImageOrientationPatient": ["-1", "0", "0", "0", "-1", "0"], "ImagePositionPatient": ["9", "9", "5"]}
    path = write_dicom(tmp_path / "ID_0.dcm", np.arange(12, dtype=np.int16).reshape(3, 4), PixelSpacing=None, **prone)
    item, _ = to_one_frame(next(read_file(path)))
    assert np.array_equal(item.stored, np.arange(12).reshape(3, 4)[::-1, ::-1])
    assert item.row["image_position_2"] == 5
    assert [item.row[f"image_orientation_{i}"] for i in range(6)] == [1, 0, 0, 0, 1, 0]


def table_of(heights, z=None, **columns) -> pd.DataFrame:
    """The metadata of a series in anatomical order, all slices readable."""
    rows = pd.DataFrame({"series_id": "ID_series", "chunk": range(len(heights)), "z": heights if z is None else z})
    names = [f"image_position_{i}" for i in range(3)]
    rows[names] = [(-10.0, -20.0, height) for height in heights]
    rows[[f"image_orientation_{i}" for i in range(6)]] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    rows[["pixel_spacing_0", "pixel_spacing_1", "rows", "columns"]] = 0.5, 0.5, 64, 64
    return rows.assign(**columns)


def test_uneven_spacing_is_told_as_the_largest_departure():
    placed = place_series(table_of([0, 5, 10, 20]), 64)
    fitted = np.polyval(np.polyfit(range(4), [0, 5, 10, 20], 1), range(4))
    assert np.isclose(placed.departure, np.abs(fitted - [0, 5, 10, 20]).max())
    assert np.isclose(placed.step, 6.5)
    assert place_series(table_of([0, 5, 10, 15]), 64).departure < 1e-9


def test_a_slice_that_is_wider_than_the_others_is_a_departure_too():
    placed = place_series(table_of([0, 5, 10], pixel_spacing_1=[0.5, 0.5, 0.6]), 64)
    assert placed.departure > 1


@pytest.mark.parametrize(
    "columns",
    [
        {"image_position_0": np.nan},
        {"pixel_spacing_0": np.nan},
        {"image_position_0": [np.nan, np.nan, 0]},
        {"pixel_spacing_1": 0.0},
        {"image_position_2": 0.0, "z": 0.0},
    ],
)
def test_what_nobody_knows_is_nan(columns):
    placed = place_series(table_of([0, 5, 10], **columns), 64)
    assert not placed.is_known
    assert np.isnan([placed.affine[:3].sum(), placed.departure, placed.step, placed.shear]).all()
    row = affine_table(table_of([0, 5, 10], **columns), 64).iloc[0]
    assert row[AFFINE].isna().all()
    assert row["mm_per_row"] == 0.5 or "pixel_spacing_0" in columns  # what is known is told all the same


def test_an_orientation_that_lacks_is_upright_and_one_position_gives_way_to_slice_location():
    expected = place_series(table_of([0, 5, 10]), 64).affine
    nothing = {f"image_orientation_{i}": np.nan for i in range(6)}
    assert np.allclose(place_series(table_of([0, 5, 10], **nothing), 64).affine, expected)
    assert np.allclose(place_series(table_of([0, 0, 0], z=[100, 105, 110]), 64).affine, expected)


def test_a_slice_whose_place_is_unknown_or_that_cannot_be_read_changes_nothing():
    expected = place_series(table_of([0, 5, 10, 15]), 64).affine
    assert np.allclose(
        place_series(table_of([0, 5, 10, 15], image_position_1=[-20, np.nan, -20, -20]), 64).affine, expected
    )
    unreadable = table_of([0, 5, 7, 10, 15], chunk=[0, 1, -1, 2, 3])
    assert np.allclose(place_series(unreadable, 64).affine, expected)


def test_a_single_slice_has_the_usual_step():
    placed = place_series(table_of([7]), 64)
    assert np.allclose(placed.affine, [[0.5, 0, 0, -10], [0, 0.5, 0, -20], [0, 0, USUAL_GAP, 7], [0, 0, 0, 1]])


def test_the_table_has_a_row_for_each_stored_series():
    lost = table_of([0, 5], chunk=-1, series_id="ID_lost")
    absent = pd.DataFrame({"image_id": ["ID_absent"], "chunk": [-1]})
    metadata = pd.concat([table_of([0, 5, 11], series_id="ID_b"), lost, absent, table_of([3, 6], series_id="ID_a")])
    table = affine_table(metadata, 32).set_index("series_id")
    assert list(table.index) == ["ID_a", "ID_b"]
    assert list(table["slices"]) == [2, 3]
    assert (table["mm_per_column"] == 1).all()
    for name in table.index:
        placed = place_series(metadata[metadata["series_id"] == name], 32)
        assert np.array_equal(table.loc[name, AFFINE].to_numpy(float).reshape(3, 4), placed.affine[:3])
        assert np.isclose(table.loc[name, "mm_per_slice"], placed.step)
        assert np.isclose(table.loc[name, "departure"], placed.departure, atol=1e-6)
    assert affine_table(lost, 32).empty


def test_nifti_counts_to_the_right_and_to_the_front():
    assert np.array_equal(to_ras(np.eye(4)) @ [1, 2, 3, 1], [-1, -2, 3, 1])


def real_series(folder: Path) -> Iterator[pd.DataFrame]:
    rows = pd.DataFrame([item.row for path in folder.glob("stage_2_*/*.dcm") for item in read_file(path)])
    for _, series in rows.groupby("series_id"):
        ordered = series.sort_values("image_position_2", ignore_index=True)
        yield ordered.assign(chunk=range(len(ordered)), z=ordered["image_position_2"])


def test_real_series_lie_where_their_files_say(real_sample):
    for series in real_series(real_sample):
        placed = place_series(series, 512)
        assert placed.is_known
        assert np.allclose(placed.affine[:3, 0], (series["pixel_spacing_1"].iloc[0], 0, 0), atol=1e-6)
        corner = series[[f"image_position_{i}" for i in range(3)]].to_numpy()
        found = (placed.affine @ np.array([(0, 0, number, 1) for number in range(len(series))]).T)[:3].T
        assert np.linalg.norm(found - corner, axis=1).max() <= placed.departure + 1e-6


@pytest.mark.parametrize("size", [32, 64])
def test_a_viewer_sees_tissue_where_it_was(size, write_dicom, tmp_path):
    """From the files of a turned, tilted series that is not square to what nibabel reads."""
    draw(tmp_path / "data", write_dicom, Drawing(tilt=18), Turn(True, True, False), from_head=True)
    prepare(PrepareOptions(data=tmp_path / "data", work=tmp_path, image_size=(size,), jobs=1))
    export(ExportOptions(image_size=size, output=tmp_path, work=tmp_path))
    (path,) = tmp_path.glob("*.nii.gz")
    image = nibabel.load(path)
    values = np.asanyarray(image.dataobj).transpose(2, 1, 0)
    assert np.abs(differences(values, np.diag([-1, -1, 1, 1]) @ image.affine)).max() <= 1.1  # NIfTI keeps float32
