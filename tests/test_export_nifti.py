"""Laws of export_nifti.py: a viewer finds the stored values at their mm, and what was predicted is a picture."""

import gzip
import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest

from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.export_nifti import ExportOptions, export
from models.preprocessing.affine import place_series, to_ras
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE, read_slices
from models.reporting import export as exporting
from models.reporting.figures import draw_along_z, plot_along_z
from models.reporting.nifti import to_nifti

SIZE = 64  # of the prepared phantom
PNG = b"\x89PNG"


@pytest.fixture
def work(prepared, tmp_path) -> Work:
    """A working folder with the shared cache, and predictions of the test slices."""
    (tmp_path / "cache").symlink_to(prepared.cache)
    table = read_slices(prepared, "test")[["image_id"]].assign(**dict.fromkeys(LABELS, np.float32(0.25)))
    write_parquet(Work(tmp_path).prediction("b2", 0, "test"), table)
    return Work(tmp_path)


def sheared(tilt: float) -> np.ndarray:
    """An affine (4, 4) whose slices are tilted while the table moves along the body."""
    lean = np.radians(tilt)
    axes = np.array([(0.5, 0, 0), (0, 0.7 * np.cos(lean), 0.7 * np.sin(lean)), (0, 0, 5)]).T
    return np.vstack([np.column_stack([axes, (-12, 8, 30)]), (0, 0, 0, 1)])


@pytest.mark.parametrize("tilt", [0, 25, -15])
def test_nibabel_reads_every_value_at_its_mm(tilt, tmp_path):
    affine = sheared(tilt)
    values = np.random.default_rng(0).integers(-1000, 2000, (5, 7, 9)).astype(np.int16)
    (tmp_path / "one.nii.gz").write_bytes(to_nifti(values, affine))
    image = nibabel.load(tmp_path / "one.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asanyarray(image.dataobj), values.transpose(2, 1, 0))
    assert np.allclose(image.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-5)  # NIfTI keeps float32
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_xyzt_units()[0] == "mm"
    assert b"research software" in image.header["descrip"].item()


def test_software_that_knows_no_shear_finds_an_affine_without_one():
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(to_nifti(np.zeros((3, 4, 4), np.int16), sheared(20))))
    (qform, code), axes = image.get_qform(coded=True), image.get_qform()[:3, :3]
    assert code > 0
    directions = axes / np.linalg.norm(axes, axis=0)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    assert np.abs(qform - image.get_sform()).max() < 3  # of 5 mm: as near as it can be


def test_the_same_slices_give_the_same_bytes():
    values = np.zeros((3, 4, 4), np.int16)
    content = to_nifti(values, sheared(5))
    assert content == to_nifti(values, sheared(5))
    assert content[4:8] == bytes(4)  # of gzip: no time


def test_all_series_of_the_test_are_written_as_they_are_stored(work, capsys):
    export(ExportOptions(image_size=SIZE, run="b2", output=work.root / "volumes", work=work.root))
    slices = read_slices(work, "test")
    said = capsys.readouterr().out
    assert slices["series_id"].nunique() == 6
    for series_id, rows in slices.groupby("series_id"):
        image = nibabel.load(work.root / "volumes" / f"{series_id}.nii.gz")
        store = Series(work.series(SIZE, series_id))
        for number in range(len(store)):
            assert np.array_equal(np.asanyarray(image.dataobj)[:, :, number].T, store.read(number))
        placed = place_series(rows, SIZE)
        assert np.allclose(image.affine, to_ras(placed.affine), atol=1e-4)
        assert (work.root / "volumes" / f"{series_id}.png").read_bytes().startswith(PNG)
        line = next(line for line in said.splitlines() if f"{series_id}.nii.gz" in line)
        assert ("sheared" in line) == (placed.shear > 0.1)
        assert ("evenly spaced" in line) == (placed.departure > 0.1)
    assert "sheared" in said
    assert len(list((work.root / "volumes").iterdir())) == 12


def test_volumes_and_pictures_of_drawings_say_so_and_those_of_people_do_not(work, monkeypatch, capsys):
    titles = []
    monkeypatch.setattr(exporting, "draw_along_z", lambda *drawn: titles.append(drawn[-1]) or PNG)
    series_id = read_slices(work, "test")["series_id"].iloc[0]
    marks = {}
    for name in ("drawn", "people"):
        own = Work(work.root / name)
        shutil.copytree(work.cache, own.cache)
        shutil.copytree(work.runs, own.runs)
        if name == "people":
            own.prepared.unlink()
        export(ExportOptions((series_id,), SIZE, run="b2", output=own.root, work=own.root))
        image = nibabel.load(own.root / f"{series_id}.nii.gz")
        marks[name] = image.header["descrip"].item(), titles[-1], capsys.readouterr().out
    assert all("synthetic" in str(text) and "nobody was scanned" in str(text) for text in marks["drawn"])
    assert all("synthetic" not in str(text) for text in marks["people"])
    assert all(b"Hounsfield units" in descrip and b"research software" in descrip for descrip, *_ in marks.values())


def test_a_series_of_the_training_has_a_picture_where_the_fold_was_validated_on_it(work, capsys):
    slices = read_slices(work, "train")
    one, other = slices["series_id"].unique()[:2]
    seen = slices.loc[slices["series_id"] == one, ["image_id"]].assign(**dict.fromkeys(LABELS, np.float32(0.5)))
    write_parquet(work.prediction("b2", 0, "valid"), seen)
    export(ExportOptions((one, other), SIZE, run="b2", output=work.root / "out", work=work.root))
    assert {path.name for path in (work.root / "out").iterdir()} == {f"{one}.nii.gz", f"{one}.png", f"{other}.nii.gz"}
    assert f"{other}: no picture" in capsys.readouterr().out


def test_what_has_no_place_gets_no_volume_and_is_said(work, capsys):
    slices = read_slices(work, "test")
    one = slices["series_id"].iloc[0]
    slices.loc[slices["series_id"] == one, ["image_position_0", "z"]] = np.nan
    own = Work(work.root / "own")
    write_parquet(own.metadata("test"), slices[slices["series_id"] == one])
    export(ExportOptions(image_size=SIZE, output=own.root / "out", work=own.root))
    assert f"{one}: no volume" in capsys.readouterr().out
    assert not (own.root / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"series": ("ID_nobody",)}, "no stored series ID_nobody; .*series.csv holds the keys"),
        ({"image_size": 48}, r"no .*slices_48.*--image-size 48"),
        ({"run": "b5"}, r"no .*runs/b5/fold0/test.parquet; make it with: python models/infer_b5.py --fold 0"),
        ({"run": "../b5"}, "is not the name of a run"),
    ],
)
def test_what_lacks_is_one_line_that_says_what_to_do(work, options, message):
    with pytest.raises(InputError, match=message):
        export(ExportOptions(**({"image_size": SIZE, "output": work.root / "out", "work": work.root} | options)))


def test_without_a_cache_the_repair_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metadata_test.parquet; make it with: python models/prepare.py"):
        export(ExportOptions(work=tmp_path))


@pytest.fixture
def series(prepared) -> pd.DataFrame:
    slices = read_slices(prepared, "test")
    return slices[(slices["series_id"] == slices["series_id"].iloc[0]) & (slices["chunk"] != UNREADABLE)]


def test_the_picture_shows_each_label_over_z_with_the_head_at_the_right(series):
    probability = np.random.default_rng(0).uniform(size=(len(series), len(LABELS)))
    axes, above = plot_along_z(series, probability, "a series").axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == list(LABELS)
    for number, label in enumerate(LABELS):
        assert np.array_equal(lines[label].get_xdata(), series["z"])
        assert np.array_equal(lines[label].get_ydata(), probability[:, number])
    assert axes.get_xlim()[0] < series["z"].min() < series["z"].max() < axes.get_xlim()[1]
    assert axes.get_xlabel().startswith("feet")
    assert axes.get_xlabel().endswith("head")
    assert "mm" in axes.get_xlabel()
    assert above.get_xlim() == axes.get_xlim()
    numbered = dict(zip([text.get_text() for text in above.get_xticklabels()], above.get_xticks(), strict=True))
    assert numbered["0"] == series["z"].iloc[0]
    assert 2 < len(numbered) <= 12


def test_the_picture_says_what_it_is(series):
    figure = plot_along_z(series, np.zeros((len(series), len(LABELS))), "ID_series: b2, fold 0")
    assert "not a medical device" in figure.get_supxlabel()
    assert figure.get_suptitle() == "ID_series: b2, fold 0"
    unknown = plot_along_z(series.assign(z=np.nan), np.zeros((len(series), len(LABELS))), "").axes[0]
    assert "unknown" in unknown.get_xlabel()
    coronal = series.assign(image_orientation_4=0.0, image_orientation_5=-1.0)
    assert plot_along_z(coronal, np.zeros((len(series), len(LABELS))), "").axes[0].get_xlabel().startswith("front")
    assert draw_along_z(series.iloc[:1], np.zeros((1, len(LABELS))), "") == draw_along_z(
        series.iloc[:1], np.zeros((1, len(LABELS))), ""
    )
