"""What is to be seen of each trap in the files of a phantom, with plain pydicom: see_<trap>(folder, plain).

`folder` holds a phantom with this trap alone, `plain` the same phantom without traps; both are in the layout stage_2.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import EnhancedCTImageStorage

from models.phantom.layouts import LAYOUTS
from models.phantom.pixels import outside_circle
from models.preprocessing import jpeg_plugin

SIZE = 32
SLICES = 6  # of a series
COMPRESSED = {
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
    "jpeg_lossless": "1.2.840.10008.1.2.4.70",
    "deflated": "1.2.840.10008.1.2.1.99",
}


def record(folder: Path, trap: str | None = None) -> pd.DataFrame:
    rows = pd.read_csv(folder / "phantom_traps.csv")
    return rows if trap is None else rows[rows["trap"] == trap]


def slices(folder: Path) -> dict[Path, pydicom.Dataset]:
    paths = sorted(path for path in folder.rglob("I[DM]*") if path.is_file() and b"DICM" in path.read_bytes()[:132])
    return {path: pydicom.dcmread(path) for path in paths}


def items(folder: Path, trap: str) -> list[str]:
    return record(folder, trap)["item"].tolist()


def images(folder: Path, trap: str) -> list[pydicom.Dataset]:
    """The images that the record names."""
    found = {data.SOPInstanceUID: data for data in slices(folder).values()}
    return [found[item] for item in items(folder, trap)]


def series(folder: Path, trap: str) -> list[list[pydicom.Dataset]]:
    """The series that the record names, each in the order of the plain phantom's positions."""
    found = slices(folder).values()
    return [
        sorted((data for data in found if item == data.SeriesInstanceUID), key=lambda data: str(data.SOPInstanceUID))
        for item in items(folder, trap)
    ]


def hounsfield(data: pydicom.Dataset) -> np.ndarray:
    return data.pixel_array.astype(int) + int(float(data.RescaleIntercept))


def original(folder: Path, data: pydicom.Dataset) -> pydicom.Dataset:
    """The image as the plain phantom has it."""
    (path,) = folder.rglob(f"{data.SOPInstanceUID}.dcm")
    return pydicom.dcmread(path)


def rows_of(folder: Path, table: str, image: str) -> list[str]:
    return [row for row in (folder / table).read_text().splitlines() if row.startswith(f"{image}_")]


def heights(data: list[pydicom.Dataset]) -> np.ndarray:
    return np.sort([float(d.ImagePositionPatient[2]) for d in data])


# What is to be seen of each trap: folder with the trap, folder without.


def see_duplicate_labels(folder, plain):
    assert len(items(folder, "duplicate_labels")) == 4
    for image in items(folder, "duplicate_labels"):
        rows = Counter(rows_of(folder, "stage_2_train.csv", image))
        assert list(rows.values()) == [2] * 6


def see_contradicting_labels(folder, plain):
    (image,) = items(folder, "contradicting_labels")
    rows = rows_of(folder, "stage_2_train.csv", image)
    assert len(set(rows)) == len(rows) == 12
    assert len({row.split(",")[0] for row in rows}) == 6


def see_labels_without_files(folder, plain):
    for image in items(folder, "labels_without_files"):
        assert len(rows_of(folder, "stage_2_train.csv", image)) == 6
        assert not list(folder.rglob(f"{image}*"))


def see_files_without_labels(folder, plain):
    for image in items(folder, "files_without_labels"):
        assert (folder / "stage_2_train" / f"{image}.dcm").is_file()
        assert not rows_of(folder, "stage_2_train.csv", image)


def see_train_and_test_patient(folder, plain):
    (patient,) = items(folder, "train_and_test_patient")
    splits = {path.parent.name for path, data in slices(folder).items() if patient == data.PatientID}
    assert splits == {"stage_2_train", "stage_2_test"}
    assert {path.parent.name for path, data in slices(plain).items() if patient == data.PatientID} == {"stage_2_train"}


def see_stray_newline(folder, plain):
    (image,) = items(folder, "stray_newline")
    assert [path.name for path in folder.rglob(f"{image}*")] == [f"{image}.dcm\n"]


def see_text_file(folder, plain):
    (image,) = items(folder, "text_file")
    (path,) = folder.rglob(f"{image}.dcm")
    assert path.read_text().startswith("<html>")


def see_empty_file(folder, plain):
    (image,) = items(folder, "empty_file")
    (path,) = folder.rglob(f"{image}.dcm")
    assert path.stat().st_size == 0


def see_truncated(folder, plain):
    (data,) = images(folder, "truncated")
    due = SIZE * SIZE * 2
    assert len(data.PixelData) / due == pytest.approx(153_710 / 524_288, abs=2 / due)
    assert original(plain, data).PixelData.startswith(data.PixelData)
    with pytest.raises(ValueError, match="less than expected"):
        data.pixel_array  # noqa: B018


def see_constant(folder, plain):
    assert [np.ptp(data.pixel_array) for data in images(folder, "constant")] == [0, 0]


def see_wrapped(folder, plain):
    for intercept, data in zip((0, 1), series(folder, "wrapped"), strict=True):
        for d in data:
            assert (d.BitsStored, d.PixelRepresentation, d.RescaleIntercept) == (12, 0, intercept)
            stored = d.pixel_array.astype(int)
            assert 4096 - 1000 <= stored.max() < 4096  # air
            shifted = stored + 1000  # the repair that section 4 of the design tells
            shifted[shifted >= 4096] -= 4096
            assert np.array_equal(shifted - 1000, np.maximum(hounsfield(original(plain, d)), -1000))


def see_signed_zero_intercept(folder, plain):
    for bits, data in zip((16, 12), series(folder, "signed_zero_intercept"), strict=True):
        for d in data:
            assert (d.BitsStored, d.PixelRepresentation, d.RescaleIntercept) == (bits, 1, 0)
            expected = np.clip(hounsfield(original(plain, d)), -1024, 2**bits // 2 - 1)
            assert np.array_equal(d.pixel_array, expected)


def see_beyond_12_bits(folder, plain):
    (data,) = images(folder, "beyond_12_bits")
    metal = hounsfield(data) == 26_452
    assert metal.any()
    assert (data.BitsStored, data.PixelRepresentation) == (16, 1)
    assert np.array_equal(hounsfield(data)[~metal], hounsfield(original(plain, data))[~metal])


def see_padding(folder, plain, trap="padding", padding=(-2000,)):
    outside = outside_circle(SIZE)
    for value, data in zip(padding, series(folder, trap), strict=True):
        for d in data:
            assert (d.BitsStored, d.PixelRepresentation, d.RescaleIntercept) == (16, 1, -1024)
            assert (d.pixel_array[outside] == value).all()
            expected = hounsfield(original(plain, d))
            assert np.array_equal(hounsfield(d)[~outside], np.maximum(expected, -1024)[~outside])
            assert d.get("PixelPaddingValue") == (value if trap == "padding_tag" else None)


def see_padding_tag(folder, plain):
    see_padding(folder, plain, "padding_tag", (-2000, -32768))


def see_two_windows(folder, plain):
    for data in series(folder, "two_windows")[0]:
        assert [value.original_string for value in data.WindowCenter] == ["00036"] * 2
        assert [value.original_string for value in data.WindowWidth] == ["00080"] * 2


def see_not_square(folder, plain):
    for data in series(folder, "not_square")[0]:
        assert (data.Rows, data.Columns) == (SIZE - 3, SIZE)
        assert np.array_equal(data.pixel_array, original(plain, data).pixel_array[:-3])


def see_mixed_sizes(folder, plain):
    (data,) = images(folder, "mixed_sizes")
    assert np.array_equal(data.pixel_array, original(plain, data).pixel_array[::2, ::2])
    assert data.PixelSpacing[0] * data.Rows == pytest.approx(original(plain, data).PixelSpacing[0] * SIZE)


def see_mixed_orientation(folder, plain):
    tilts = Counter()
    for data in series(folder, "mixed_orientation")[0]:
        before = original(plain, data)
        old, new = (np.reshape(np.array(d.ImageOrientationPatient, float), (2, 3)) for d in (before, data))
        assert new @ new.T == pytest.approx(np.eye(2), abs=1e-5)
        tilts[round(np.degrees(np.arccos(np.clip(old[1] @ new[1], -1, 1))))] += 1
        half = (SIZE - 1) / 2 * data.PixelSpacing[0]
        middle = [np.array(d.ImagePositionPatient, float) + half * o.sum(0) for d, o in ((before, old), (data, new))]
        assert middle[0] == pytest.approx(middle[1], abs=1e-3)
    assert tilts == {0: SLICES // 2, 8: SLICES - SLICES // 2}


def see_duplicate_positions(folder, plain):
    changed = images(folder, "duplicate_positions")
    whole = [d for d in slices(folder).values() if d.SeriesInstanceUID == changed[0].SeriesInstanceUID]
    assert len(set(heights(whole))) == len(whole) - len(changed) == SLICES - 3
    assert len(set(heights([original(plain, data) for data in whole]))) == SLICES


def see_uneven_spacing(folder, plain):
    gaps = np.diff(heights(series(folder, "uneven_spacing")[0]))
    assert (gaps > 25).sum() == 1
    assert np.median(gaps) < 8


def see_no_position(folder, plain, trap="no_position"):
    data = series(folder, trap)[0]
    assert sorted(d.InstanceNumber for d in data) == list(range(1, SLICES + 1))
    assert not any("ImagePositionPatient" in d or "ImageOrientationPatient" in d for d in data)
    z = [float(original(plain, d).ImagePositionPatient[2]) for d in sorted(data, key=lambda d: d.InstanceNumber)]
    assert z == sorted(z)
    assert [d.get("SliceLocation") for d in data] == [
        float(original(plain, d).ImagePositionPatient[2]) if trap == "no_position" else None for d in data
    ]


def see_instance_number_only(folder, plain):
    see_no_position(folder, plain, "instance_number_only")


def see_enhanced(folder, plain):
    ((data,),) = series(folder, "enhanced")
    assert data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == EnhancedCTImageStorage
    assert data.NumberOfFrames == len(data.PerFrameFunctionalGroupsSequence) == SLICES
    before = [d for d in slices(plain).values() if d.SeriesInstanceUID == data.SeriesInstanceUID]
    by_height = {float(d.ImagePositionPatient[2]): d for d in before}
    shared = data.SharedFunctionalGroupsSequence[0]
    z = [float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in data.PerFrameFunctionalGroupsSequence]
    assert z not in (sorted(z), sorted(z, reverse=True))
    split = record(folder, "enhanced")["split"].iloc[0]
    tables = LAYOUTS["stage_2"].tables(split)
    for number, (frame, height) in enumerate(zip(data.pixel_array, z, strict=True), start=1):
        old = by_height[height]
        assert np.array_equal(frame, old.pixel_array)
        assert shared.PixelMeasuresSequence[0].PixelSpacing == old.PixelSpacing
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == old.ImageOrientationPatient
        assert shared.PixelValueTransformationSequence[0].RescaleIntercept == old.RescaleIntercept
        for table in tables:
            new = rows_of(folder, table, f"{data.SOPInstanceUID}_{number:04d}")
            assert [r.split("_")[-1] for r in new] == [
                r.split("_")[-1] for r in rows_of(plain, table, old.SOPInstanceUID)
            ]
            assert len(new) == 6
    assert not {"ImagePositionPatient", "PixelSpacing", "RescaleSlope", "WindowCenter"} & set(data.dir())


def see_compressed(trap: str):
    def see(folder, plain):
        (data,) = series(folder, trap)
        assert len(data) == SLICES
        assert {d.file_meta.TransferSyntaxUID for d in data} == {COMPRESSED[trap]}
        jpeg_plugin.register()
        for d in data:
            before = original(plain, d)
            assert np.array_equal(d.pixel_array, before.pixel_array)
            assert d.pixel_array.dtype == before.pixel_array.dtype
            assert {e.keyword for e in d} == {e.keyword for e in before}

    return see


def see_private_text(folder, plain):
    for data in slices(folder).values():
        for keyword in ("PatientName", "PatientBirthDate", "AccessionNumber", "InstitutionName", "OperatorsName"):
            assert str(data[keyword].value) == "CANARY^private_text"
        assert "CANARY^private_text" in str(data.private_block(0x0009, "CANARY^private_text")[0x01].value)
        assert data.RequestAttributesSequence[0].RequestedProcedureDescription == "CANARY^private_text"
        assert data.PatientID.startswith("ID_")
        assert data.PixelData == original(plain, data).PixelData
    assert len(record(folder)) == 8


SEE = {name.removeprefix("see_"): function for name, function in globals().items() if name.startswith("see_")}
SEE = {name: see for name, see in SEE.items() if name != "compressed"} | {c: see_compressed(c) for c in COMPRESSED}
