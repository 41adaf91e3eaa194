"""Laws of NIfTI volumes: elements keep value and mm, what a file cannot tell is said, and no file does harm.

The oracle is nibabel: its affine, and its values.
"""

import gzip
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from reading import PSEUDONYMS, prepare_tree
from test_hostile import Watch, listed

from models.common.folders import Work
from models.common.labels import SUBTYPES
from models.export_nifti import ExportOptions, export
from models.find_files import FindOptions, find_files
from models.preprocessing.affine import place_series, to_ras
from models.preprocessing.formats import peek, read_file
from models.preprocessing.hounsfield import clip, to_hounsfield
from models.preprocessing.nifti import identifiers_of
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.reasons import Reason, UnreadableSliceError
from models.preprocessing.selection import NIFTI
from models.preprocessing.store import Series

SHAPE = (12, 16, 9)  # of a volume as scanners have it: columns, rows, slices
SIDE = 16
LIMITS = (-1000, 2000)


def affine_of(lean: tuple[float, float, float] = (0, 0, 0), tilt: float = 0, spacing=(0.5, 0.75, 5.0)) -> np.ndarray:
    """An affine (4, 4) of NIfTI: turned by degrees about each axis, sheared by the tilt of a gantry, off the origin."""
    turn = np.eye(3)
    for axis, degrees in enumerate(lean):
        one, (first, second) = np.eye(3), [other for other in range(3) if other != axis]
        sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        one[[first, first, second, second], [first, second, first, second]] = cosine, -sine, sine, cosine
        turn = one @ turn
    axes = turn * np.array(spacing)
    if tilt:  # rows lean, the table moves along the body
        axes[:, 1] = spacing[1] * np.array([0, np.cos(np.radians(tilt)), np.sin(np.radians(tilt))])
    return np.vstack([np.column_stack([axes, (-31.5, 8.25, 40)]), (0, 0, 0, 1)])


def tissue(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Hounsfield units of a volume, half of it air."""
    values = np.random.default_rng(seed).integers(-50, 1900, shape).astype(np.int16)
    values[: shape[0] // 2] = -1000 + values[: shape[0] // 2] % 7
    return values


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None, kind=nibabel.Nifti1Image, **header) -> Path:
    """Write a volume; fields of its header as they are told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(values, affine_of() if affine is None else affine, dtype=values.dtype)
    nibabel.save(image, path)
    if header:
        packed = path.name.endswith(".gz")
        data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
        fields = kind.header_class(bytes(data[: kind.header_class.sizeof_hdr]))
        for name, value in header.items():
            fields[name] = value
        data[: kind.header_class.sizeof_hdr] = fields.binaryblock
        path.write_bytes(gzip.compress(data) if packed else data)
    return path


def one(folder: Path, work: Path, sizes: tuple[int, ...] = (SIDE,)) -> SeriesNotes:
    (part,) = prepare_tree(folder, work, sizes)
    return part


def stored(work: Path, size: int, notes: SeriesNotes) -> np.ndarray:
    series = Series(Work(work).series(size, notes.series_id))
    return np.stack([series.read(number) for number in range(len(series))])


def require_same_place(image: nibabel.Nifti1Image, values: np.ndarray, affine: np.ndarray) -> None:
    """Every element of the image is among `values` (slices, rows, columns) where an affine (4, 4) of LPS says."""
    indices = np.indices(image.shape).reshape(3, -1)
    mm = image.affine @ np.vstack([indices, np.ones(indices.shape[1])])
    place = np.linalg.solve(to_ras(affine), mm)[:3]
    assert np.abs(place - np.rint(place)).max() < 1e-3
    column, row, number = np.rint(place).astype(int)
    expected = clip(np.asarray(image.dataobj, np.float32))[tuple(indices)]
    assert np.array_equal(values[number, row, column], expected)


def read(path: Path, root: Path | None = None) -> list[np.ndarray]:
    """The slices of a file in Hounsfield units."""
    return [clip(to_hounsfield(item.stored, item.rescale)) for item in read_file(path, root or path.parent)]


def reason_of(path: Path) -> Reason:
    """Why a file is refused at the first look."""
    with pytest.raises(UnreadableSliceError) as caught:
        peek(path, path.parent)
    return caught.value.reason


# ---- where elements lie ----


AFFINES = {
    "straight": affine_of(),
    "oblique": affine_of((12, -7, 20)),
    "very oblique": affine_of((30, 25, -35)),
    "tilted": affine_of(tilt=25),
    "left-handed": affine_of((5, 0, 0)) @ np.diag([-1, 1, 1, 1]),
    "head first": affine_of() @ np.diag([1, 1, -1, 1]),
    "skew in the plane": affine_of() @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_each_element_is_stored_at_its_mm(name, tmp_path):
    path = save(tmp_path / "raw" / "a.nii.gz", tissue(), AFFINES[name])
    notes = one(tmp_path / "raw", tmp_path)
    placed = place_series(notes.table, SIDE)
    require_same_place(nibabel.load(path), stored(tmp_path, SIDE, notes), placed.affine)
    assert placed.departure < 1e-4
    assert len(notes.table) == SHAPE[2]
    directions = placed.affine[:3, :3] / np.linalg.norm(placed.affine[:3, :3], axis=0)
    assert (directions.diagonal() > 0.5).all()  # columns to the left, rows to the back, slices to the head
    assert notes.problems == [(notes.series_id, *Problem.NOT_SQUARE.value)]


def reoriented() -> Iterator[np.ndarray]:
    """All orders and directions of the axes of a volume, as nibabel writes them (3, 2)."""
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        yield np.column_stack([order, flips])


def test_all_48_orders_of_the_axes_are_stored_alike(tmp_path):
    affine, expected = affine_of((9, -4, 15), spacing=(0.5, 0.75, 5)), None
    for number, orientation in enumerate(reoriented()):
        image = nibabel.Nifti1Image(tissue(), affine, dtype=np.int16).as_reoriented(orientation)
        folder = tmp_path / str(number)
        save(folder / "raw" / "a.nii", np.ascontiguousarray(image.dataobj), image.affine)
        notes = one(folder / "raw", folder)
        found = stored(folder, SIDE, notes), place_series(notes.table, SIDE).affine
        expected = expected or found
        assert np.array_equal(found[0], expected[0]), orientation
        assert np.allclose(found[1], expected[1], rtol=0, atol=1e-4), orientation
        assert notes.problems == [(notes.series_id, *Problem.NOT_SQUARE.value)]
    assert number == 47


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_exported_again_agrees_in_mm_and_hounsfield_units(name, suffix, tmp_path):
    path = save(tmp_path / "raw" / f"a{suffix}", tissue(shape=(SIDE, SIDE, 9)), AFFINES[name])
    prepare(PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(SIDE,), jobs=1))
    export(ExportOptions(image_size=SIDE, output=tmp_path / "out", work=tmp_path))
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    again = nibabel.load(written)
    affine = to_ras(again.affine)
    require_same_place(nibabel.load(path), np.asarray(again.dataobj).transpose(2, 1, 0), affine)


def test_a_scan_of_another_plane_stays_what_it_is(tmp_path):
    """Coronal slices of 5 mm are left out; of isotropic elements, and of thin slices, the axial ones are taken."""
    kinds = {
        "coronal": ((0.5, 5, 0.5), (16, 9, 16)),
        "sagittal": ((5, 0.5, 0.5), (9, 16, 16)),
        "isotropic": ((1, 1, 1), (16, 16, 16)),
        "thin": ((0.9, 0.9, 0.3), (16, 16, 16)),
    }
    for name, (spacing, shape) in kinds.items():
        save(tmp_path / "raw" / name / "a.nii", tissue(shape=shape), affine_of(spacing=spacing))
    prepare(PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(SIDE,), jobs=1))
    table = listed_series(tmp_path, {name: f"{name}/a.nii" for name in kinds})
    assert table["plane"].to_dict() == dict.fromkeys(kinds, "axial") | {"coronal": "coronal", "sagittal": "sagittal"}
    assert table["slices"].to_dict() == {"coronal": 9, "sagittal": 9, "isotropic": 16, "thin": 16}
    for name in ("coronal", "sagittal"):
        assert table.loc[name, ["taken", "why"]].tolist() == ["left out", Problem.NOT_AXIAL.value[0]]


@pytest.mark.parametrize("kind", ["no code", "no affine", "flat", "not a number"])
def test_an_orientation_that_is_not_told_is_said(kind, tmp_path):
    flat = {"srow_x": (0.5, 0, 0, 1), "srow_y": (0, 0, 0, 2), "srow_z": (0, 0, 5, 3)}
    header = {
        "no code": {"sform_code": 0, "qform_code": 0},
        "no affine": {},
        "flat": flat,
        "not a number": flat | {"srow_y": (np.nan,) * 4},
    }[kind]
    affine = np.diag([0.5, 0.5, 5, 1]) if kind == "no affine" else None
    save(tmp_path / "raw" / "a.nii", tissue(), affine, **header)
    prepare(PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(SIDE,), jobs=1))
    row = pd.read_csv(Work(tmp_path).series_list, keep_default_na=False).iloc[0]
    assert (row["plane"], row["taken"], row["spacing"]) == ("unknown", "yes", 5)
    assert "plane unknown" in row["states"]
    problems = pd.read_csv(Work(tmp_path).problems)
    assert Problem.BY_LOCATION.value[0] in set(problems["problem"])
    metadata = pd.read_parquet(Work(tmp_path).metadata("test"))
    assert metadata[[f"image_position_{i}" for i in range(3)]].isna().all(axis=None)
    assert not place_series(metadata, SIDE).is_known


# ---- values ----


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f4", ">u2"])
@pytest.mark.parametrize(("slope", "intercept"), [(np.nan, np.nan), (1, -1024), (0.7, -1000.25), (-2, 100)])
def test_values_are_those_of_nibabel(kind, suffix, dtype, slope, intercept, tmp_path):
    dtype = np.dtype(dtype)
    low, high = (-1500, 2500) if dtype.kind == "f" else (np.iinfo(dtype).min, min(np.iinfo(dtype).max, 1 << 40))
    values = np.random.default_rng(0).uniform(max(low, -1500), min(high, 2500), SHAPE).astype(dtype)
    values[0, 0, 0], values[0, 1, 0] = low, high
    path = save(tmp_path / f"a{suffix}", values, None, kind)
    header = kind.header_class(endianness=">" if dtype.byteorder == ">" else "<")
    image = kind(values, affine_of(), header, dtype=dtype)
    image.header.set_slope_inter(slope, intercept)
    data = image.to_bytes()
    header = kind.header_class(data[: kind.header_class.sizeof_hdr])
    header["scl_slope"], header["scl_inter"] = slope, intercept
    data = header.binaryblock + data[kind.header_class.sizeof_hdr :]
    path.write_bytes(gzip.compress(data) if "gz" in suffix.lower() else data)
    expected = np.clip(np.asarray(kind.from_bytes(data).dataobj, np.float64), *LIMITS)
    found = np.stack(read(path))  # (slices, rows, columns), to the left and to the back
    assert found.dtype == np.int16
    difference = np.abs(found - expected.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert difference.max() <= 0.501
    if not np.isnan(slope) and slope != 0.7 and dtype.kind in "iu":
        assert difference.max() == 0


def test_integers_go_on_as_they_are_with_their_rescale(tmp_path):
    path = save(tmp_path / "a.nii", (tissue() + 1024).astype(np.uint16), scl_slope=1, scl_inter=-1024)
    item = next(read_file(path, tmp_path))
    assert item.stored.dtype == np.uint16
    assert (item.row["rescale_slope"], item.row["rescale_intercept"]) == (1, -1024)
    assert (item.row["bits_stored"], item.row["pixel_representation"]) == (16, 0)
    item = next(read_file(save(tmp_path / "b.nii", tissue().astype(np.float64)), tmp_path))
    assert (item.row["rescale_slope"], item.row["rescale_intercept"]) == (1, 0)


def test_what_is_no_number_is_air(tmp_path):
    values = tissue().astype(np.float32)
    values[8, 0, 0], values[9, 0, 0], values[10, 0, 0] = np.nan, np.inf, -np.inf
    path = save(tmp_path / "a.nii", values)
    assert all(np.isfinite(item.stored).all() for item in read_file(path, tmp_path))
    found = read(path)[0]
    assert found[-1, ::-1][[8, 9, 10]].tolist() == [-1000, 2000, -1000]


@pytest.mark.parametrize(("slope", "intercept"), [(1, np.nan), (1e-9, 0), (1, 1e9), (1e9, 0)])
def test_a_rescale_that_is_no_use_is_a_reason(slope, intercept, tmp_path):
    assert reason_of(save(tmp_path / "a.nii", tissue(), scl_slope=slope, scl_inter=intercept)) is Reason.RESCALE


# ---- what a file cannot tell ----


def listed_series(work: Path, names: dict[str, str]) -> pd.DataFrame:
    """cache/series.csv by the names of files."""
    keys = Pseudonyms(read_key(work / "pseudonyms.key"))
    table = pd.read_csv(Work(work).series_list, keep_default_na=False).set_index("series_id")
    return table.rename({keys.hash(place): name for name, place in names.items()})


def test_what_shows_no_air_is_left_out_unless_it_is_asked_for(tmp_path):
    noise = np.random.default_rng(0)
    kinds = {
        "ct": tissue(),
        "mask": (tissue() > 0).astype(np.uint8),
        "probability": noise.uniform(0, 1, SHAPE).astype(np.float32),
        "mr": noise.integers(0, 1500, SHAPE).astype(np.int16),
        "phase": noise.integers(-4096, 4096, SHAPE).astype(np.int16),
        "offset": (tissue() + 1024).astype(np.int16),  # its intercept is lost
        "brain": np.where(tissue() < -500, 0, tissue()).astype(np.int16),
    }
    for name, values in kinds.items():
        save(tmp_path / "raw" / f"{name}.nii.gz", values)
    options = {"data": tmp_path / "raw", "work": tmp_path, "image_size": (SIDE,), "jobs": 1}
    prepare(PrepareOptions(**options))
    table = listed_series(tmp_path, {name: f"{name}.nii.gz" for name in kinds})
    assert table["taken"].to_dict() == dict.fromkeys(kinds, "left out") | {"ct": "yes"}
    assert set(table["why"].drop("ct")) == {Problem.NO_UNIT.value[0]}
    assert table["rescale"].to_dict() == dict.fromkeys(kinds, "not told") | {"ct": "HU by air"}
    assert (table[["kernel", "contrast"]] == "unknown").all(axis=None)
    assert (table["thickness"] == "").all()
    assert table["states"].str.contains(NIFTI).all()
    key = Pseudonyms(read_key(tmp_path / "pseudonyms.key")).hash("offset.nii.gz")
    prepare(PrepareOptions(**options, take=(key,)))
    assert set(pd.read_parquet(Work(tmp_path).metadata("test"))["series_id"]) >= {key}


def test_one_slice_that_shows_air_vouches_for_its_volume(tmp_path):
    values = np.full(SHAPE, 40, np.int16)
    values[:, :1, 4] = -950
    save(tmp_path / "raw" / "a.nii", values)
    assert one(tmp_path / "raw", tmp_path).facts["unit"] == "HU by air"
    values[2:, :1, 4] = 40  # less than a twentieth of it
    save(tmp_path / "other" / "a.nii", values)
    assert one(tmp_path / "other", tmp_path).facts["unit"] == "not told"


# ---- names ----


@pytest.mark.parametrize(
    ("place", "study", "patient"),
    [
        ("sub-01/ses-1/ct/sub-01_ct.nii.gz", "sub-01/ses-1", "sub-01"),
        ("set/sub-01/ct/sub-01_ct.nii.gz", "set/sub-01", "set/sub-01"),
        ("all/sub-01_ses-2_ct.nii.gz", "all/sub-01/ses-2", "all/sub-01"),
        ("sub-01_ct.nii", "sub-01", "sub-01"),
        ("study.zip/sub-01/ses-1/a.nii", "study.zip/sub-01/ses-1", "study.zip/sub-01"),
        ("one/two/a.nii.gz", "one/two", "one/two"),
        ("a.nii.gz", "a.nii.gz", "a.nii.gz"),
        ("subject/a.nii", "subject", "subject"),
    ],
)
def test_identifiers_come_from_the_place(place, study, patient):
    assert identifiers_of(place) == [place, place, study, patient]


def test_slices_are_frames_of_a_hashed_place(tmp_path):
    save(tmp_path / "raw" / "sub-01" / "ses-1" / "a.nii", tissue())
    table = one(tmp_path / "raw", tmp_path).table
    name = PSEUDONYMS.hash("sub-01/ses-1/a.nii")
    assert sorted(table["image_id"]) == [f"{name}_{number:04d}" for number in range(1, SHAPE[2] + 1)]
    assert set(table["series_id"]) == {name}
    assert set(table["study_id"]) == {PSEUDONYMS.hash("sub-01/ses-1")}
    assert set(table["patient_id"]) == {PSEUDONYMS.hash("sub-01")}


def tree(folder: Path) -> Path:
    """A folder, a zip and a tar with volumes."""
    save(folder / "sub-01" / "ses-1" / "a.nii.gz", tissue(1))
    save(folder / "packed" / "sub-02" / "b.nii", tissue(2))
    save(folder / "packed" / "c.nii.gz", tissue(3))
    with zipfile.ZipFile(folder / "two.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "packed" / "sub-02" / "b.nii", "sub-02/b.nii")
        archive.write(folder / "packed" / "c.nii.gz", "c.nii.gz")
    with tarfile.open(folder / "one.tar", "w") as archive:
        archive.add(folder / "packed" / "c.nii.gz", "d.nii.gz")
    shutil.rmtree(folder / "packed")
    return folder


def test_members_of_archives_are_volumes_and_every_line_is_traced(tmp_path):
    data = tree(tmp_path / "raw")
    prepare(PrepareOptions(data=data, work=tmp_path, image_size=(SIDE,), jobs=1))
    files = {"sub-01/ses-1/a.nii.gz": 1, "two.zip/sub-02/b.nii": 2, "two.zip/c.nii.gz": 3, "one.tar/d.nii.gz": 3}
    for table, column in ((Work(tmp_path).series_list, "series_id"), (Work(tmp_path).metadata("test"), "image_id")):
        find_files(FindOptions(table, tmp_path / "by_file.csv", data=data, work=tmp_path, jobs=1))
        traced = pd.read_csv(tmp_path / "by_file.csv")
        assert set(traced["file"]) == set(files)
        assert traced[column].notna().all()
    for row in traced.itertuples():
        expected = clip(tissue(files[row.file]))[::-1, ::-1, int(row.image_id[-4:]) - 1].T
        whole = Series(Work(tmp_path).series(SIDE, row.series_id)).read(row.chunk)
        assert np.array_equal(whole[:, 2:-2], expected)
        assert (whole[:, :2] == -1000).all()


def test_nothing_of_the_path_is_in_the_cache(tmp_path):
    save(tmp_path / "raw" / "sub-Miller" / "Miller.nii", tissue())
    prepare(PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(SIDE,), jobs=1))
    for path in Work(tmp_path).cache.rglob("*"):
        assert not path.is_file() or b"Miller" not in path.read_bytes(), path


def test_a_second_run_reads_nothing_and_a_changed_volume_is_made_anew(tmp_path, monkeypatch):
    from models.preprocessing import formats

    path = save(tmp_path / "raw" / "a.nii.gz", tissue())
    options = PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(SIDE,), jobs=1)
    prepare(options)
    with monkeypatch.context() as patch:
        patch.setattr(formats, "_place", None)
        prepare(options)
        save(tmp_path / "raw" / "b.nii.gz", tissue())
        with pytest.raises(TypeError):
            prepare(options)
    prepare(options)
    save(path, tissue(5))
    prepare(options)
    key = Pseudonyms(read_key(tmp_path / "pseudonyms.key")).hash("a.nii.gz")
    found = Series(Work(tmp_path).series(SIDE, key)).read(0)
    assert np.array_equal(found[:, 2:-2], clip(tissue(5))[::-1, ::-1, 0].T)


def test_labels_name_a_volume_by_its_key_or_its_path(tmp_path):
    save(tmp_path / "raw" / "sub-01" / "a.nii", tissue(1))
    save(tmp_path / "raw" / "sub-02" / "b.nii", tissue(2))
    key = Pseudonyms(read_key(tmp_path / "pseudonyms.key")).hash("sub-02/b.nii")
    labels = pd.DataFrame({"series_id": ["sub-01/a.nii", key]}).assign(**{name: [0, 1] for name in SUBTYPES})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    options = {"image_size": (SIDE,), "folds": 2, "jobs": 1, "labels": tmp_path / "labels.csv"}
    prepare(PrepareOptions(data=tmp_path / "raw", work=tmp_path, **options))
    found = pd.read_parquet(Work(tmp_path).metadata("train"))
    assert found.groupby(found["series_id"] == key)["any"].agg(["min", "max", "size"]).to_numpy().tolist() == [
        [0, 0, SHAPE[2]],
        [1, 1, SHAPE[2]],
    ]


# ---- what is refused ----


def test_what_is_no_single_volume_of_grey_values_has_its_reason(tmp_path):
    colours = np.zeros(SHAPE, [(name, "u1") for name in "RGB"])
    several = np.stack([tissue()] * 2, axis=-1)
    pair = tmp_path / "pair" / "a.hdr"
    save(tmp_path / "pair" / "a.img", tissue(), None, nibabel.Nifti1Pair)
    (tmp_path / "photo.hdr").write_bytes(b"#?RADIANCE\n")
    renamed = tmp_path / "renamed.nii"
    renamed.write_bytes(pair.read_bytes())
    gone = {
        Reason.PIXEL_FORMAT: [
            save(tmp_path / "colours.nii", colours),
            save(tmp_path / "complex.nii.gz", tissue().astype(np.complex64)),
            save(tmp_path / "bits.nii", tissue(), datatype=1),
            save(tmp_path / "unknown.nii", tissue(), datatype=99),
        ],
        Reason.VOLUMES: [save(tmp_path / "4d.nii.gz", several), save(tmp_path / "5d.nii", several[..., None])],
        Reason.PAIR: [pair, renamed],
        Reason.NOT_DICOM: [tmp_path / "photo.hdr", tmp_path / "pair" / "a.img"],
        Reason.UNREASONABLE: [
            save(tmp_path / "wide.nii", tissue(shape=(5000, 4, 4)), affine_of(spacing=(1, 1, 1))),
            save(tmp_path / "long.nii", tissue(shape=(4, 4, 5000)), affine_of(spacing=(1, 1, 1))),
            save(tmp_path / "far.nii", tissue(), vox_offset=1e9),
            save(  # 800 MiB, of which all would have to be held
                tmp_path / "aside.nii", tissue(), affine_of()[:, [2, 1, 0, 3]], dim=(3, 1600, 512, 512, 1, 1, 1, 1)
            ),
        ],
        Reason.HEADER: [
            save(tmp_path / "empty.nii", tissue(), dim=(3, 0, 16, 9, 1, 1, 1, 1)),
            save(tmp_path / "negative.nii", tissue(), dim=(3, -5, 16, 9, 1, 1, 1, 1)),
            save(tmp_path / "line.nii", tissue(), dim=(1, 5, 1, 1, 1, 1, 1, 1)),
            save(tmp_path / "nowhere.nii", tissue(), vox_offset=np.nan),
            save(tmp_path / "magic.nii", tissue(), magic=b"abc"),
        ],
    }
    for reason, paths in gone.items():
        for path in paths:
            assert reason_of(path) is reason, path


def test_a_pair_may_have_been_slices_and_counts_as_lost(tmp_path):
    save(tmp_path / "raw" / "a.nii", tissue())
    save(tmp_path / "raw" / "several.nii", np.stack([tissue()] * 2, axis=-1))
    options = PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(SIDE,), jobs=1)
    assert prepare(options) == 0
    save(tmp_path / "raw" / "b.img", tissue(), None, nibabel.Nifti1Pair)
    assert prepare(options) == 3


@pytest.mark.parametrize("count", [0, 1, 3, 100, 347])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_is_cut_off_is_a_reason(count, packed, tmp_path):
    data = save(tmp_path / "whole.nii", tissue()).read_bytes()[:count]
    (tmp_path / "a.nii").write_bytes(gzip.compress(data) if packed else data)
    assert reason_of(tmp_path / "a.nii") is Reason.HEADER


def test_one_volume_of_four_dimensions_and_one_slice_of_two_are_read(tmp_path):
    assert len(read(save(tmp_path / "4d.nii", tissue()[..., None]))) == SHAPE[2]
    assert len(read(save(tmp_path / "2d.nii", tissue()[..., 0]))) == 1


def test_a_name_that_is_wrong_about_gzip_does_not_matter(tmp_path):
    plain, packed = save(tmp_path / "a.nii", tissue()), save(tmp_path / "b.nii.gz", tissue())
    expected = read(plain)
    plain.rename(tmp_path / "c.nii.gz")
    packed.rename(tmp_path / "d.nii")
    for name in ("c.nii.gz", "d.nii"):
        assert np.array_equal(read(tmp_path / name), expected)


def unreadable_rows(folder: Path, work: Path) -> tuple[list[bool], set[str]]:
    """Whether each slice of a series lacks, from the feet up, and what is said of it."""
    notes = one(folder, work)
    return list(notes.table["chunk"] < 0), {problem for _, problem, _ in notes.problems}


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_volume_that_is_cut_off_the_slices_before_that_are_read(packed, tmp_path):
    path = save(tmp_path / "raw" / "a.nii", tissue())
    data = path.read_bytes()[: 352 + 2 * 12 * 16 * 5 + 7]
    path.write_bytes(gzip.compress(data) if packed else data)
    lacking, said = unreadable_rows(tmp_path / "raw", tmp_path)
    assert lacking == [False] * 5 + [True] * 4
    assert Reason.TRUNCATED.value in said


@pytest.mark.parametrize("damage", ["cut off", "flipped", "checksum", "tail"])
def test_what_is_packed_and_damaged_gives_no_slice_and_keeps_its_rows(damage, tmp_path):
    path = save(tmp_path / "raw" / "a.nii.gz", tissue(shape=(64, 64, 9)))
    data = bytearray(path.read_bytes())
    if damage == "cut off":
        data = data[: len(data) // 2]
    elif damage == "tail":  # more than the header says
        data = gzip.compress(gzip.decompress(data) + bytes(3 << 20))
    else:
        data[-6 if damage == "checksum" else len(data) * 3 // 4] ^= 4
    path.write_bytes(data)
    lacking, said = unreadable_rows(tmp_path / "raw", tmp_path)
    assert lacking == [True] * 9
    assert said & {Reason.TRUNCATED.value, Reason.DECODING.value, Reason.HEADER.value}


def test_a_little_behind_the_last_slice_is_no_harm(tmp_path):
    path = save(tmp_path / "a.nii.gz", tissue())
    expected = read(path)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1000)))
    assert np.array_equal(read(path), expected)


def test_a_header_that_nibabel_mends_says_nothing(tmp_path, caplog):
    path = save(tmp_path / "a.nii", tissue(), pixdim=(0, -0.5, 0.75, 0, 0, 0, 0, 0))
    with caplog.at_level(0, "nibabel.global"):
        assert len(read(path)) == 9
    assert caplog.records == []


def test_values_begin_behind_the_header_where_nothing_says_where(tmp_path):
    expected = read(save(tmp_path / "a.nii", tissue()))
    assert np.array_equal(read(save(tmp_path / "b.nii", tissue(), vox_offset=0)), expected)


# ---- large and hostile ones ----


def bomb(path: Path, shape: tuple[int, int, int], code: int = 4, real: int | None = None, affine=None) -> Path:
    """A packed volume of zeros, of so many MiB in place of what it claims."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(code)
    header["dim"][:4] = 3, *shape
    header.set_sform(affine_of() if affine is None else affine, code=1)
    header["vox_offset"] = 352
    claimed = 352 + int(np.prod(shape)) * header.get_data_dtype().itemsize
    with gzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + bytes(4))
        left = claimed - 352 if real is None else real << 20
        while left > 0:
            file.write(bytes(min(left, 1 << 20)))
            left -= 1 << 20
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    aside = affine_of()[:, [2, 1, 0, 3]]  # the slices lie along the first axis
    files = {
        "claims 4 GiB, holds 1 MiB": bomb(folder / "a.nii.gz", (4096, 4096, 128), real=1),
        "claims 4 GiB, plain": folder / "b.nii",
        "holds 1 GiB, claims little": bomb(folder / "c.nii.gz", (512, 512, 8), real=1024),
        "390 MiB of zeros": bomb(folder / "d.nii.gz", (512, 512, 780)),
        "the same aside": bomb(folder / "e.nii.gz", (780, 512, 512), affine=aside),
        "one wide slice": bomb(folder / "f.nii.gz", (3584, 3584, 2), 64),
        "4096 slices": bomb(folder / "g.nii.gz", (1, 1, 4096)),
        "a packed bomb": folder / "h.nii.gz",
    }
    files["claims 4 GiB, plain"].write_bytes(gzip.decompress(files["claims 4 GiB, holds 1 MiB"].read_bytes()))
    files["a packed bomb"].write_bytes(gzip.compress(files["holds 1 GiB, claims little"].read_bytes()))
    return files


def test_a_hostile_volume_gives_slices_or_a_reason_and_does_no_harm(hostile):
    with Watch("volume") as watch:
        verdicts = {name: watch.read(path) for name, path in hostile.items()}
    assert not [name for name, verdict in verdicts.items() if verdict["outcome"] == "broken"], listed(verdicts)
    outcomes = {name: verdict["why"] for name, verdict in verdicts.items()}
    print(listed(verdicts))
    assert outcomes["claims 4 GiB, holds 1 MiB"] == "UNREASONABLE"
    assert outcomes["claims 4 GiB, plain"] == "TRUNCATED"
    assert outcomes["holds 1 GiB, claims little"] == outcomes["a packed bomb"] == "HEADER"
    assert outcomes["4096 slices"] == "4096 slices"


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of which some are flipped, gone, zero or extreme, half of the time in the header."""
    changed, way = bytearray(data), rng.integers(4)
    place = int(rng.integers(348 if rng.random() < 0.5 else len(data)))
    if way == 0:
        changed[place] ^= 1 << rng.integers(8)
    elif way == 1:
        del changed[place:]
    else:
        extremes = (bytes(4), b"\xff" * 4, b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\xff\x7f", b"\0\x80", b"\1", b"\x10\0")
        changed[place : place + 4] = extremes[rng.integers(len(extremes))]
    return bytes(changed)


def mutated(folder: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Damaged volumes: plain ones, packed ones, and packed ones of damaged ones, whose checksum is right."""
    seeds = [
        save(folder / "plain.nii", tissue()),
        save(folder / "real.nii", tissue().astype(np.float32), affine_of((9, 8, 7)), nibabel.Nifti2Image),
        save(folder / "aside.nii", np.ascontiguousarray(tissue().transpose(2, 1, 0)), affine_of()[:, [2, 1, 0, 3]]),
    ]
    for number in range(count):
        rng, data = np.random.default_rng([7, number]), seeds[number % 3].read_bytes()
        yield f"{number}.nii", damaged(data, rng)
        yield f"{number} packed.nii.gz", gzip.compress(damaged(data, rng), 1)
        yield f"{number} damaged.nii.gz", damaged(gzip.compress(data, 1), rng)


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.torture)])
def test_damaged_volumes_do_no_harm(count, tmp_path):
    verdicts = {}
    with Watch("volume") as watch:
        for name, data in mutated(tmp_path / "seeds", count):
            (tmp_path / name).write_bytes(data)
            verdicts[name] = watch.read(tmp_path / name)
            if verdicts[name]["outcome"] != "broken":
                (tmp_path / name).unlink()
    broken = {name: verdict for name, verdict in verdicts.items() if verdict["outcome"] == "broken"}
    assert not broken, listed(broken)
    assert {verdict["outcome"] for verdict in verdicts.values()} == {"accepted", "rejected"}


def test_a_large_volume_is_read_slice_by_slice(tmp_path):
    """Of 600 MB, sparse on disk; the last slice alone holds something."""
    path = save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16), dim=(3, 512, 512, 1144, 1, 1, 1, 1))
    with path.open("r+b") as file:
        file.truncate(352 + 512 * 512 * 1144 * 2)
        file.seek(-2, 2)
        file.write(struct.pack("<h", 77))
    with Watch("volume", megabytes=100) as watch:
        assert watch.read(path)["why"] == "1144 slices"
    assert read(path)[-1][0, 0] == 77


# ---- real slices ----


def test_a_real_series_comes_back_as_it_was(real_sample, tmp_path):
    source = Work(tmp_path / "dicom")
    prepare(PrepareOptions(data=real_sample, work=source.root, image_size=(512,), folds=2))
    export(ExportOptions(image_size=512, output=tmp_path / "raw", work=source.root))
    prepare(PrepareOptions(data=tmp_path / "raw", work=tmp_path, image_size=(512,), jobs=2))
    before, after = (pd.read_parquet(work.metadata("test")) for work in (source, Work(tmp_path)))
    keys = Pseudonyms(read_key(tmp_path / "pseudonyms.key"))
    assert before["series_id"].nunique() == after["series_id"].nunique() == 2
    for name, slices in before.groupby("series_id"):
        other = after[after["series_id"] == keys.hash(f"{name}.nii.gz")]
        stores = Series(source.series(512, name)), Series(Work(tmp_path).series(512, other["series_id"].iloc[0]))
        assert len(stores[0]) == len(stores[1])
        for number in range(len(stores[0])):
            assert np.array_equal(stores[0].read(number), stores[1].read(number))
        assert np.allclose(place_series(slices, 512).affine, place_series(other, 512).affine, rtol=0, atol=1e-3)
    table = pd.read_csv(Work(tmp_path).series_list)
    assert (table["taken"] == "yes").all()
    assert (table["rescale"] == "HU by air").all()
