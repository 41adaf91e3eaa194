"""What is an axial head CT in Hounsfield units: every kind of series has its row, its state and its treatment."""

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset
from written import contents

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS
from models.preprocessing.dicom import read_file
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.header_facts import body_class, kernel_class
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.problems import Problem
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.report import count_clipped
from models.preprocessing.selection import COLUMNS
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE

SIZE = 32
CORONAL, SAGITTAL = ["1", "0", "0", "0", "0", "-1"], ["0", "1", "0", "0", "0", "-1"]
TILTED = ["1", "0", "0", "0", "0.9063", "-0.4226"]  # 25 degrees
SLICES = 9
TABLE = Dataset()
TABLE.LUTDescriptor, TABLE.ModalityLUTType = [4096, 0, 16], "HU"
TABLE.add_new("LUTData", "US", [value % 65536 for value in range(-1024, 3072)])
OTHER_TABLE = Dataset()
OTHER_TABLE.LUTDescriptor, OTHER_TABLE.ModalityLUTType = [4096, 0, 16], "OD"
OTHER_TABLE.add_new("LUTData", "US", list(range(4096)))
OF_CT = {"SOPClassUID": pydicom.uid.CTImageStorage, "Modality": "CT"}
BARE = {"RescaleIntercept": None, "RescaleSlope": None}

# name of the series: its elements, and how many slices it has if not nine
KINDS: dict[str, tuple[dict, int]] = {
    "plain": ({}, SLICES),
    "tilted": ({"ImageOrientationPatient": TILTED}, SLICES),
    "reformat": ({"ImageOrientationPatient": CORONAL}, SLICES),
    "sagittal": ({"ImageOrientationPatient": SAGITTAL}, SLICES),
    "scout": ({"ImageOrientationPatient": CORONAL}, 2),
    "iodine": ({"RescaleType": "MGML"}, SLICES),
    "modified": ({"RescaleType": "HU_MOD"}, SLICES),
    "atomic": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"]}, SLICES),
    "units": ({"RescaleType": "HU"}, SLICES),
    "bare": (BARE, SLICES),
    "table": (BARE | {"ModalityLUTSequence": [TABLE]}, SLICES),
    "density": (BARE | {"ModalityLUTSequence": [OTHER_TABLE]}, SLICES),
    "secondary": ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, SLICES),
    "chest": ({"BodyPartExamined": "CHEST"}, SLICES),
    "brain": ({"BodyPartExamined": "BRAIN"}, SLICES),
    "flat": ({"PixelSpacing": ["0.5", "0.6"]}, SLICES),
    "short": ({}, 7),
    "contrast": ({"ContrastBolusAgent": "Ultravist 300"}, SLICES),
    "native": ({"ContrastBolusAgent": "NONE"}, SLICES),
    "lossy": ({"LossyImageCompression": "01"}, SLICES),
    "bone": ({"ConvolutionKernel": ["H60s", "3"], "SliceThickness": "1.25"}, SLICES),
    "soft": ({"ConvolutionKernel": "STANDARD"}, SLICES),
    "unplaced": ({"ImageOrientationPatient": None, "ImagePositionPatient": None, "SliceLocation": "3"}, SLICES),
}
LEFT = {
    "reformat": Problem.NOT_AXIAL,
    "sagittal": Problem.NOT_AXIAL,
    "scout": Problem.SCOUT,
    "iodine": Problem.OTHER_UNIT,
    "modified": Problem.OTHER_UNIT,
    "atomic": Problem.OTHER_UNIT,
    "density": Problem.OTHER_UNIT,
    "bare": Problem.NO_UNIT,
    "secondary": Problem.SECONDARY,
    "chest": Problem.NOT_HEAD,
}
STATES = {
    "flat": "pixels that are not square",
    "short": "fewer than 8 slices",
    "scout": "fewer than 8 slices",
    "contrast": "contrast agent",
    "lossy": "lossy compression",
    "bone": "bone kernel",
    "table": "a table in place of a rescale",
    "unplaced": "plane unknown",
}


def draw(folder: Path, write_dicom: Callable, name: str, elements: dict, count: int = SLICES) -> None:
    """A series: half of each slice is air, the other tissue; every slice has another height."""
    values = np.random.default_rng(len(name)).integers(1000, 1100, (SIZE, SIZE)).astype(np.int16)
    values[: SIZE // 2] = 0
    for number in range(count):
        along = {"ImagePositionPatient": ["0", str(5 * number), str(5 * number)], "InstanceNumber": number}
        common = {
            "SOPClassUID": pydicom.uid.CTImageStorage,
            "Modality": "CT",
            "PatientID": name,
            "StudyInstanceUID": name,
        }
        own = common | along | {"SeriesInstanceUID": name, "SOPInstanceUID": f"{name}.{number}"} | elements
        write_dicom(folder / f"{name} {number}", values, **own)


def prepared(data: Path, work: Path, **more) -> Work:
    prepare(PrepareOptions(data=data, work=work, image_size=(SIZE,), folds=2, jobs=1, **more))
    return Work(work)


def keys_of(work: Work, *names: str) -> list[str]:
    pseudonyms = Pseudonyms(read_key(work.root / "pseudonyms.key"), challenge=False)
    return [pseudonyms.hash(name) for name in names]


def rows_of(work: Work) -> pd.DataFrame:
    """cache/series.csv with the names that the series have here."""
    table = pd.read_csv(work.series_list, keep_default_na=False).set_index("series_id")
    return table.loc[keys_of(work, *KINDS)].set_axis(list(KINDS))


@pytest.fixture(scope="module")
def kinds(write_dicom, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "data"
    for name, (elements, count) in KINDS.items():
        draw(folder, write_dicom, name, elements, count)
    return folder


@pytest.fixture(scope="module")
def own(kinds, tmp_path_factory) -> Work:
    return prepared(kinds, tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("name", KINDS)
def test_a_series_that_is_no_axial_head_ct_in_hounsfield_units_is_left_out_and_listed(own, name):
    row, (key,) = rows_of(own).loc[name], keys_of(own, name)
    expected = [LEFT[name].value] if name in LEFT else []
    problems = pd.read_csv(own.problems).set_index("item")
    listed = problems[problems["treatment"] == Problem.NOT_AXIAL.value[1]]
    assert [tuple(line) for line in listed[listed.index == key].to_numpy()] == expected
    assert Problem.BEYOND_BONE.value[0] not in set(problems["problem"])
    assert row["taken"] == ("left out" if expected else "yes")
    assert row["why"] == "".join(reason for reason, _ in expected)
    table = pd.read_parquet(own.metadata("test"))
    assert (table["series_id"] == key).sum() == (0 if expected else KINDS[name][1])
    assert own.series(SIZE, key).is_file() is not bool(expected)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_odd_about_a_series_is_a_state_of_it(own, name):
    assert rows_of(own).loc[name, "states"] == STATES.get(name, "")


def test_the_table_tells_what_a_series_is(own):
    rows = rows_of(own)
    assert list(pd.read_csv(own.series_list)) == COLUMNS
    assert (rows["slices"] == [count for _, count in KINDS.values()]).all()
    assert rows["plane"].value_counts().to_dict() == {"axial": 19, "coronal": 2, "sagittal": 1, "unknown": 1}
    assert rows.loc[["bone", "soft", "plain"], "kernel"].to_list() == ["bone", "soft", "unknown"]
    assert rows.loc[["bone", "plain"], "thickness"].to_list() == ["1.25", ""]
    assert rows.loc[["plain", "reformat", "unplaced"], "spacing"].to_list() == [5, 5, 0]
    told = rows.loc[["plain", "units", "iodine", "bare", "table"], "rescale"].to_list()
    assert told == ["HU", "HU", "other", "not told", "HU by table"]
    assert rows.loc[["plain", "contrast", "native"], "contrast"].to_list() == ["no", "yes", "no"]


def test_pixel_spacing_that_changes_within_a_series_is_told(write_dicom, tmp_path):
    draw(tmp_path / "data", write_dicom, "some", {})
    draw(tmp_path / "data", write_dicom, "some", {"PixelSpacing": ["0.6", "0.6"]}, 4)
    work = prepared(tmp_path / "data", tmp_path)
    assert pd.read_csv(work.series_list)["states"].to_list() == ["pixel spacing that changes"]


def test_the_words_of_a_header_do_not_reach_the_table(own):
    written = b"".join(content for name, content in contents(own.cache).items() if name.endswith((".csv", ".json")))
    assert not any(word in written for word in (b"Ultravist", b"H60s", b"STANDARD", b"CHEST", b"MGML"))


def test_check_prints_the_table_in_short(kinds, own, tmp_path, capsys):
    work = prepared(kinds, tmp_path, check=True)
    text = capsys.readouterr().out
    assert f"{len(KINDS)} series, {len(KINDS) - len(LEFT)} of them taken" in text
    assert "4  left out: values of another unit than Hounsfield's" in text
    assert "1  bone kernel" in text
    assert all(key in text for key in keys_of(work, *KINDS))
    assert list(pd.read_csv(work.series_list)["slices"].sort_values()) == list(
        pd.read_csv(own.series_list)["slices"].sort_values()
    )


def test_a_finished_cache_is_not_made_again(kinds, own, capsys):
    prepared(kinds, own.root)
    assert "nothing to do" in capsys.readouterr().out


# ---- taken all the same ----


def test_what_is_asked_for_by_its_key_is_taken_whatever_it_is(kinds, own, tmp_path):
    work = Work(shutil.copytree(own.root, tmp_path / "work"))
    before = contents(work.cache)
    asked = keys_of(work, "reformat", "bare", "secondary")
    prepared(kinds, work.root, take=tuple(asked))
    rows = rows_of(work)
    assert (rows.loc[["reformat", "bare", "secondary"], "taken"] == "by --take").all()
    assert (rows.loc[list(set(LEFT) - {"reformat", "bare", "secondary"}), "taken"] == "left out").all()
    table = pd.read_parquet(work.metadata("test"))
    assert (table.loc[table["series_id"].isin(asked), "chunk"] != UNREADABLE).sum() == 3 * SLICES
    assert not set(pd.read_csv(work.problems)["item"]) & set(asked)
    prepared(kinds, work.root)  # and back
    after = contents(work.cache)
    assert {name: after[name] for name in before} == before


def test_a_key_that_no_series_has_is_refused(kinds, own, tmp_path):
    with pytest.raises(InputError, match="--take ID_none: there is no series of this key"):
        prepared(kinds, tmp_path, take=("ID_none",))


def test_where_nothing_is_left_the_lists_say_why(write_dicom, tmp_path):
    draw(tmp_path / "data", write_dicom, "bare", BARE)
    with pytest.raises(InputError, match=r"none of 1 series .*series.csv says why; .* --take KEY"):
        prepared(tmp_path / "data", tmp_path)
    work = Work(tmp_path)
    assert pd.read_csv(work.series_list)["taken"].to_list() == ["left out"]
    assert pd.read_csv(work.problems)["problem"].to_list() == [Problem.NO_UNIT.value[0]]
    prepared(tmp_path / "data", tmp_path, take=tuple(keys_of(work, "bare")))
    assert len(pd.read_parquet(work.metadata("test"))) == SLICES


def test_a_series_of_which_no_slice_can_be_read_is_not_judged(write_dicom, tmp_path):
    draw(tmp_path / "data", write_dicom, "some", {})
    draw(tmp_path / "data", write_dicom, "torn", {})
    for path in (tmp_path / "data").glob("torn*"):
        path.write_bytes(path.read_bytes()[:-2])
    work = prepared(tmp_path / "data", tmp_path)
    assert pd.read_csv(work.series_list)["taken"].to_list() == ["yes", "yes"]
    assert (pd.read_parquet(work.metadata("test"))["chunk"] == UNREADABLE).sum() == SLICES


# ---- the challenge's layout ----


@pytest.mark.parametrize("of_challenge", [True, False])
def test_every_series_of_the_challenge_is_taken_and_no_other_for_its_layout(write_dicom, tmp_path, of_challenge):
    for split in ("train", "test"):
        folder = tmp_path / f"data/stage_2_{split}"
        folder.mkdir(parents=True)
        for name in ("reformat", "bare", "secondary", "chest", "iodine"):
            elements, _ = KINDS[name]
            draw(folder, write_dicom, f"{split}-{name}", elements)
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            if of_challenge:
                data.SOPInstanceUID = f"ID_{hashlib.sha256(path.name.encode()).hexdigest()[:9]}"
            data.save_as(folder / f"{path.name}.dcm")
            path.unlink()
    for split, name in (("train", "train"), ("test", "sample_submission")):
        rows = [(f"{split}-bare.{number}_{label}", 0) for number in range(SLICES) for label in LABELS]
        pd.DataFrame(rows, columns=["ID", "Label"]).to_csv(tmp_path / f"data/stage_2_{name}.csv", index=False)
    with contextlib.nullcontext() if of_challenge else pytest.raises(InputError, match="none of 5 series"):
        prepared(tmp_path / "data", tmp_path, check=True)
    rows = pd.read_csv(Work(tmp_path).series_list)
    assert len(rows) == 10
    assert (rows["taken"] == ("yes" if of_challenge else "left out")).all()


# ---- text in pixels ----

PICTURES = {
    "a dose sheet": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None},
    "multi-frame secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.3"},
    "a positron image": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"},
    "burned in": {"BurnedInAnnotation": "YES"},
    "a screen": {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    "without a place": {"ImageType": ["DERIVED", "SECONDARY", "OTHER"], "ImagePositionPatient": None},
    "a scout": {"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"]},
    "reformatted": {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]},
}


def written_on(image: np.ndarray) -> np.ndarray:
    """The image with bars as bright as text."""
    image = image.copy()
    image[4:28:3, 2:30] = 3000
    return image


def test_text_in_pixels_reaches_neither_a_picture_nor_a_prediction(write_dicom, tmp_path):
    for folder in ("plain", "written"):
        draw(tmp_path / folder, write_dicom, "some", {})
    for number, (name, elements) in enumerate(PICTURES.items()):
        image = written_on(np.full((SIZE, SIZE), 1050, np.int16))
        own = {
            "SOPClassUID": pydicom.uid.CTImageStorage,
            "Modality": "CT",
            "StudyInstanceUID": "some",
            "PatientID": "some",
        }
        names = {"SeriesInstanceUID": f"9{number}", "SOPInstanceUID": f"8{number}"}
        write_dicom(tmp_path / "written" / name, image, **(own | names | elements))
    one, other = prepared(tmp_path / "plain", tmp_path / "one"), tmp_path / "other"
    other.mkdir()
    shutil.copy(one.root / "pseudonyms.key", other)
    other = prepared(tmp_path / "written", other)
    for path in (one.contact_sheet, one.metadata("test"), *one.slices(SIZE).iterdir()):
        assert (other.root / path.relative_to(one.root)).read_bytes() == path.read_bytes()
    assert len(list(other.slices(SIZE).iterdir())) == 1
    problems = pd.read_csv(other.problems)
    assert len(problems) == len(PICTURES)
    taken = prepared(tmp_path / "written", other.root, take=tuple(keys_of(other, f"9{len(PICTURES) - 1}")))
    assert len(pd.read_parquet(taken.metadata("test"))) == SLICES + 1
    assert taken.contact_sheet.read_bytes() == one.contact_sheet.read_bytes()


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "reformatted"])
def test_a_picture_is_no_slice_in_any_layout(write_dicom, tmp_path, name):
    path = write_dicom(tmp_path / "a.dcm", np.full((8, 8), 1050, np.int16), **PICTURES[name])
    with pytest.raises(UnreadableSliceError) as caught:
        list(read_file(path))
    assert caught.value.reason in (Reason.NOT_CT, Reason.PICTURE, Reason.LOCALIZER)


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"]
)
def test_the_classes_of_ct_are_slices(write_dicom, tmp_path, uid):
    assert list(read_file(write_dicom(tmp_path / "a.dcm", np.full((8, 8), 1050, np.int16), SOPClassUID=uid)))


def test_overlays_in_unused_bits_reach_no_picture(write_dicom, tmp_path):
    draw(tmp_path / "plain", write_dicom, "some", {"BitsStored": 12, "HighBit": 11})
    shutil.copytree(tmp_path / "plain", tmp_path / "written")
    for path in (tmp_path / "written").iterdir():
        data = pydicom.dcmread(path)
        cells = np.frombuffer(data.PixelData, "<u2").reshape(SIZE, SIZE)
        text = written_on(np.zeros_like(cells)) > 0
        data.PixelData = (cells | np.where(text, 0x7000, 0).astype("<u2")).tobytes()
        data.save_as(path)
    one, other = prepared(tmp_path / "plain", tmp_path / "one"), tmp_path / "other"
    other.mkdir()
    shutil.copy(one.root / "pseudonyms.key", other)
    other = prepared(tmp_path / "written", other)
    assert other.contact_sheet.read_bytes() == one.contact_sheet.read_bytes()


def test_a_store_of_what_was_asked_for_once_is_not_read_when_it_is_asked_for_again(write_dicom, tmp_path):
    """In between its files have changed, and nobody has asked for it."""
    draw(tmp_path / "data", write_dicom, "chest", {"BodyPartExamined": "CHEST"})
    draw(tmp_path / "data", write_dicom, "plain", {})
    work = prepared(tmp_path / "data", tmp_path / "work")
    listed = pd.read_csv(work.series_list).set_index("taken")
    asked = (listed.loc["left out", "series_id"],)
    prepared(tmp_path / "data", work.root, take=asked)
    for path in (tmp_path / "data").glob("chest *"):
        data = pydicom.dcmread(path)
        data.PixelData = np.full((SIZE, SIZE), 1200, np.int16).tobytes()
        data.save_as(path)
    prepared(tmp_path / "data", work.root)
    prepared(tmp_path / "data", work.root, take=asked)
    assert (Series(work.series(SIZE, asked[0])).read(0) == 176).all()


# ---- older caches ----


def test_an_older_cache_is_refused_with_a_true_sentence(kinds, own, tmp_path):
    work = Work(shutil.copytree(own.root, tmp_path / "work"))
    shutil.rmtree(work.manifest)  # as it was before there was one
    with pytest.raises(InputError, match="was made with an older version of this project, whose caches cannot be"):
        prepared(kinds, work.root)
    work.prepared.unlink()  # cut short
    with pytest.raises(InputError, match="was made with an older version of this project, whose caches cannot be"):
        prepared(kinds, work.root)


# ---- classes of words ----


@pytest.mark.parametrize(
    ("kernel", "names"),
    [
        ("soft", ["STANDARD", "SOFT", "STND", "H31S", "HR40F", "J40S", "H10S", "B30F", "QR40D", "FC21", "UB", "UC"]),
        ("bone", ["BONE", "BONEPLUS", "EDGE", "LUNG", "H60S", "HR68H", "J70H", "B70F", "FC30", "FC81", "YB", "D"]),
        ("unknown", ["", "H50S", "FC64", "CANARY", "Z", "1"]),
    ],
)
def test_kernels_of_the_vendors_have_a_class(kernel, names):
    assert {name: kernel_class(name) for name in names} == dict.fromkeys(names, kernel)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("head", ["HEAD", "BRAIN", "SKULL", "HEADNECK", "HEAD AND NECK"]),
        ("other", ["CHEST", "ABDOMEN", "CSPINE", "NECK", "PELVIS", "KNEE"]),
        ("unknown", ["", "CANARY", "CARMEN", "UNKNOWN"]),
    ],
)
def test_parts_of_the_body_have_a_class(body, names):
    assert {name: body_class(name) for name in names} == dict.fromkeys(names, body)


def test_an_enhanced_file_tells_its_kernel_in_a_group_of_its_own(write_dicom, tmp_path):
    reconstruction, kind, shared = Dataset(), Dataset(), Dataset()
    reconstruction.ConvolutionKernel = "BONE"
    kind.FrameType = ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]
    shared.CTReconstructionSequence, shared.CTImageFrameTypeSequence = [reconstruction], [kind]
    more = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "SharedFunctionalGroupsSequence": [shared]}
    facts = next(read_file(write_dicom(tmp_path / "a.dcm", np.full((8, 8), 1050, np.int16), **more))).facts
    assert (facts.kernel, facts.unit) == ("bone", "other")


# ---- beyond the range ----


def test_slices_with_values_above_the_range_are_counted(write_dicom, tmp_path, capsys):
    draw(tmp_path / "data", write_dicom, "some", {})
    for number, value in enumerate((3024, 3025, 4000)):  # 2000, 2001 and 2976 HU
        image = np.full((SIZE, SIZE), 1050, np.int16)
        image[0, 0] = value
        path = tmp_path / f"data/some {number}"
        data = pydicom.dcmread(path)
        data.PixelData = image.tobytes()
        data.save_as(path)
    work = prepared(tmp_path / "data", tmp_path)
    assert count_clipped(pd.read_parquet(work.metadata("test"))) == 2
    assert "test: 2 slices hold values above 2,000 HU, which are stored as that" in capsys.readouterr().out
