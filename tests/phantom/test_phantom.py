"""Laws of the synthetic studies: anatomy, blood, determinism, and headers like the RSNA's."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from models.common.errors import InputError
from models.common.labels import ANY, LABELS, SUBTYPES
from models.phantom.anatomy import draw_head, paint_vault, skull_depth
from models.phantom.bleeds import draw_bleeds, mass_effect, paint_bleeds
from models.phantom.brain import paint_brain
from models.phantom.dicom import FAMILIES, VERSION, identify, stored_values, to_dicom, write_phantom
from models.phantom.points import Points
from models.phantom.study import SHARE_WITH_BLOOD, PhantomStudy, draw_study, stream
from models.preprocessing.pictures import WINDOWS, contact_sheet

# The RSNA's identifiers are not valid UIDs, and pydicom says so for every one.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")

STUDIES = 36  # as many as the statistical laws need

# What stands in a file of the challenge, and nothing else does.
RSNA_ELEMENTS = {
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
    "PixelData",
}


@pytest.fixture(scope="module")
def studies() -> list[PhantomStudy]:
    return [draw_study(seed, 32) for seed in range(STUDIES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(folder, studies=14, test_studies=3, image_size=24, seed=5, jobs=2)
    return folder


@pytest.fixture(scope="module")
def headers(folder) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.glob("stage_2_*/*.dcm"))]


def bleeding_brains(count: int):
    """Random points of the cavity of `count` heads with blood: the brain, its bleeds and where they lie."""
    for seed in range(count):
        rng = stream(seed, 9)
        head = draw_head(rng)
        bleeds = draw_bleeds(rng, head, share_with_blood=1.0)
        p = Points(*rng.uniform([[-75], [-92], [-50]], [[75], [92], [90]], (3, 60_000)).astype(np.float32))
        depth = paint_vault(head, p, skull_depth(head, p), np.zeros_like(p.x))
        inside = np.flatnonzero(depth > 0)
        q = p.take(inside)
        brain = paint_brain(head, q, depth[inside], *mass_effect(bleeds, q))
        yield brain, bleeds, paint_bleeds(bleeds, brain, q.y)


def middles(study: PhantomStudy) -> np.ndarray:
    """Where the middle of each slice lies, mm. # (slices, 3)"""
    half = (study.hounsfield.shape[-1] - 1) / 2 * study.pixel_spacing
    return study.positions + half * (study.orientation[:3] + study.orientation[3:])


def test_a_seed_gives_the_same_study():
    first, second, other = draw_study(3, 32), draw_study(3, 32), draw_study(4, 32)
    assert np.array_equal(first.hounsfield, second.hounsfield)
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.positions, second.positions)
    assert not np.array_equal(first.hounsfield[:10], other.hounsfield[:10])


def test_a_seed_is_one_patient_at_every_image_size(studies):
    for seed in (0, 1, 5, 11):  # one with metal, one with projections, one with motion
        small, large = studies[seed], draw_study(seed, 64)
        assert len(small.labels) == len(large.labels)
        assert (small.labels != large.labels).mean() < 0.03
        assert small.pixel_spacing == pytest.approx(2 * large.pixel_spacing)
        assert middles(small) == pytest.approx(middles(large))
        reduced = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in large.hounsfield]
        brain = (small.hounsfield > 0) & (small.hounsfield < 80)
        difference = np.abs(np.stack(reduced).astype(float) - small.hounsfield)
        assert np.median(difference[brain]) < 5


@pytest.mark.parametrize("seed", [3, 5])
def test_what_is_left_out_for_speed_changes_no_pixel(seed, monkeypatch):
    quick = draw_study(seed, 32)
    for limit in (
        "study.REACH",
        "study.AROUND",
        "study.BASE_TOP",
        "face.TOP",
        "face.ROUNDING",
        "points.ROUNDING",
    ):
        monkeypatch.setattr(f"models.phantom.{limit}", 1e3)
    whole = draw_study(seed, 32)
    assert np.array_equal(quick.hounsfield, whole.hounsfield)
    assert np.array_equal(quick.labels, whole.labels)


def test_a_patient_keeps_the_head_and_not_the_pose():
    def bone(study):  # mm3 above the base
        volume = (study.hounsfield[-18:] > 400).sum() * study.pixel_spacing**2
        return volume * np.linalg.norm(study.positions[-1] - study.positions[-2])

    first, again = draw_study(1, 32, patient_seed=7), draw_study(2, 32, patient_seed=7)
    assert not np.array_equal(first.positions[:5], again.positions[:5])
    assert bone(first) == pytest.approx(bone(again), rel=0.35)


def test_tissues_have_their_hounsfield_values(studies):
    for study in studies[:10]:
        middle = study.hounsfield[len(study.hounsfield) // 2]
        soft = middle[(middle > 0) & (middle < 90)]
        assert study.hounsfield.dtype == np.int16
        assert middle[:3, 0].mean() == pytest.approx(-1000, abs=20)  # air
        assert 16 < np.median(soft) < 45  # brain
        assert middle.max() > 600  # bone
        assert (middle > 300).mean() > 0.03
        assert study.hounsfield[-1].max() < 900 or (study.hounsfield[-1] > 0).mean() < 0.2  # over the vertex


def test_blood_has_38_to_92_hounsfield_units_and_lies_where_anatomy_puts_it():
    seen = Counter()
    for brain, bleeds, blood in bleeding_brains(50):
        where = dict(zip(SUBTYPES, blood, strict=True))
        mixed = [SUBTYPES.index(bleed.kind) for bleed in bleeds if np.isfinite(bleed.level)]
        values = brain.hounsfield[np.delete(blood, mixed, axis=0).any(axis=0)]
        assert values.min(initial=38) >= 38
        assert brain.hounsfield[blood.any(axis=0)].max(initial=92) <= 92
        assert brain.hounsfield[blood.any(axis=0)].min(initial=38) > 8  # thin blood is no fluid
        assert (blood.sum(axis=0) <= 1).all()
        assert brain.depth[where["epidural"]].max(initial=0) < 26
        assert np.quantile(brain.depth[where["subdural"]], 0.9) < 38 if where["subdural"].any() else True
        assert brain.ventricles[where["intraventricular"]].all()
        assert not brain.ventricles[where["intraparenchymal"]].any()
        outside = where["subarachnoid"] & ~brain.cisterns
        assert brain.sulcus[outside & (brain.depth > 4)].max(initial=0) < 3  # in or at a sulcus
        seen.update(kind for kind in SUBTYPES if where[kind].any())
    assert set(seen) == set(SUBTYPES)


def test_every_hemorrhage_occurs_and_is_several_slices_tall(studies):
    for kind in SUBTYPES:
        heights = [study.labels[:, LABELS.index(kind)].sum() for study in studies]
        heights = [height for height in heights if height]
        assert len(heights) >= 2, kind
        assert np.median(heights) >= 3, kind


def test_any_is_the_largest_of_the_five(studies):
    for study in studies:
        assert study.labels.shape == (len(study.hounsfield), 6)
        assert np.array_equal(study.labels[:, ANY], study.labels[:, :ANY].max(axis=1))


def test_prevalence_is_fit_for_learning(studies):
    labels = np.concatenate([study.labels for study in studies])
    assert 0.18 < labels[:, ANY].mean() < 0.40
    assert np.mean([study.labels.any() for study in studies]) == pytest.approx(SHARE_WITH_BLOOD, abs=0.2)


def test_slices_ascend_along_their_normal_and_half_of_the_series_are_tilted(studies):
    tilted = 0
    for study in studies:
        normal = np.cross(study.orientation[:3], study.orientation[3:])
        assert np.linalg.norm(normal) == pytest.approx(1)
        assert (np.diff(study.positions @ normal) > 2).all()
        tilted += abs(study.orientation[5]) > 0.01
    assert 0.3 < tilted / len(studies) < 0.7


def test_the_number_of_jobs_does_not_change_a_byte(folder, tmp_path):
    write_phantom(tmp_path / "data", studies=14, test_studies=3, image_size=24, seed=5, jobs=1)
    hashes = []
    for root in (folder, tmp_path / "data"):
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        hashes.append({path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    assert hashes[0] == hashes[1]


def test_headers_hold_what_the_rsna_files_hold_and_no_more(headers):
    for data in headers:
        assert {element.keyword for element in data} == RSNA_ELEMENTS
        assert data.StudyID == ""
        assert data.SOPInstanceUID.startswith("ID_")
        assert len(data.SOPInstanceUID) == len("ID_") + 9
        assert len(data.PatientID) == len("ID_") + 8
        assert len(data.StudyInstanceUID) == len(data.SeriesInstanceUID) == len("ID_") + 10
        assert data.PixelSpacing[0] * 24 == pytest.approx(235, abs=20)


def test_both_pixel_families_and_two_valued_windows_occur(headers):
    kinds = Counter((d.BitsStored, d.PixelRepresentation, int(d.RescaleIntercept)) for d in headers)
    assert set(kinds) <= {(12, 0, -1024), (12, 0, -1000), (16, 1, -1024)}
    assert {(bits, sign) for bits, sign, _ in kinds} == {(12, 0), (16, 1)}
    assert {data["WindowCenter"].VM for data in headers} == {1, 2}
    assert {data["WindowWidth"].VM for data in headers} == {1, 2}
    assert {data.file_meta.TransferSyntaxUID.is_implicit_VR for data in headers} == {True, False}


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_values_give_the_hounsfield_values_back(family):
    study = draw_study(2, 32)
    values = stored_values(study.hounsfield[12], family)
    hounsfield = values.astype(int) + int(float(family.intercept))
    circle = np.hypot(*np.meshgrid(*[np.arange(32) - 15.5] * 2)) <= 16
    expected = np.maximum(study.hounsfield[12], int(float(family.intercept)))
    assert np.array_equal(hounsfield[circle], np.minimum(expected, 4095 + int(float(family.intercept)))[circle])
    assert (values[~circle] == (-2000 if family.padded else 0)).all()


def test_a_file_reads_back_as_the_study():
    name = identify(seed=0, split="train", number=0)
    study = draw_study(name.seed, 32, name.patient_seed)
    data = to_dicom(study, name, 5)
    pixels = data.pixel_array.astype(int) + int(float(name.family.intercept))
    inside = slice(10, 22)
    assert np.array_equal(pixels[inside, inside], np.minimum(study.hounsfield[5], 3071)[inside, inside])


def test_tables_are_in_the_layout_of_the_challenge(folder):
    for split, table, value in (
        ("train", "stage_2_train.csv", (0, 1)),
        ("test", "phantom_test_labels.csv", (0, 1)),
        ("test", "stage_2_sample_submission.csv", (0.5,)),
    ):
        text = (folder / table).read_text()
        assert text.startswith("ID,Label\nID_")
        rows = pd.read_csv(folder / table)
        images = rows["ID"].str.rsplit("_", n=1).str[0]
        assert set(rows["Label"]) <= set(value)
        assert rows["ID"].str.rsplit("_", n=1).str[1].tolist() == list(LABELS) * (len(rows) // 6)
        assert set(images) == {path.stem for path in (folder / f"stage_2_{split}").iterdir()}
        assert len(rows) == 6 * images.nunique()
    assert {path.name for path in folder.glob("*.csv")} == {
        "stage_2_train.csv",
        "phantom_test_labels.csv",
        "stage_2_sample_submission.csv",
    }


def test_names_are_unique_and_some_patients_come_twice():
    names = [identify(0, split, number) for split in ("train", "test") for number in range(300)]
    images = [name.image_id(index) for name in names for index in range(40)]
    assert len(set(images)) == len(images)
    assert len({name.series_id for name in names}) == len({name.study_id for name in names}) == len(names)
    patients = Counter(name.patient_id for name in names)
    assert 0.05 < np.mean([count > 1 for count in patients.values()]) < 0.25
    # A patient is one head, and is either in the training or in the test set.
    assert len({(name.patient_id, name.patient_seed) for name in names}) == len(patients)
    assert not {name.patient_id for name in names[:300]} & {name.patient_id for name in names[300:]}


def test_more_studies_leave_the_first_ones_as_they_are(folder, tmp_path):
    write_phantom(tmp_path / "data", studies=2, test_studies=1, image_size=24, seed=5, jobs=1)
    for path in (tmp_path / "data").glob("stage_2_*/*.dcm"):
        assert path.read_bytes() == (folder / path.parent.name / path.name).read_bytes()


def test_without_traps_a_phantom_is_what_it_was_before_there_were_traps(folder, tmp_path):
    name = identify(5, "test", 2)
    study = draw_study(name.seed, 24, name.patient_seed)
    for index in range(len(study.labels)):
        to_dicom(study, name, index).save_as(tmp_path / "slice.dcm", enforce_file_format=True)
        written = folder / "stage_2_test" / f"{name.image_id(index)}.dcm"
        assert written.read_bytes() == (tmp_path / "slice.dcm").read_bytes()
    parameters = {"version": VERSION, "studies": 14, "test_studies": 3, "image_size": 24, "seed": 5}
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.name != "phantom.json")
    assert (folder / "phantom.json").read_text() == json.dumps({**parameters, "files": files}, indent=2) + "\n"
    assert {path.name for path in folder.iterdir()} == {
        "stage_2_train",
        "stage_2_test",
        "stage_2_train.csv",
        "stage_2_sample_submission.csv",
        "phantom_test_labels.csv",
        "contact_sheet.png",
        "phantom.json",
    }


def test_a_complete_phantom_is_left_alone(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_phantom(folder, studies=14, test_studies=3, image_size=24, seed=5, jobs=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "already" in capsys.readouterr().out


def test_other_content_is_refused(folder, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="other files than a phantom; choose another folder"):
        write_phantom(tmp_path, studies=1, test_studies=1, image_size=24)
    with pytest.raises(InputError, match="seed 5 instead of 6"):
        write_phantom(folder, studies=14, test_studies=3, image_size=24, seed=6)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_an_interrupted_phantom_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("models.phantom.dicom.contact_sheet", None)
    with pytest.raises(TypeError):
        write_phantom(tmp_path / "data", studies=4, test_studies=1, image_size=24, jobs=1)
    assert not any(tmp_path.iterdir())


def test_the_folder_tells_its_parameters(folder):
    assert json.loads((folder / "phantom.json").read_text())["seed"] == 5
    assert cv2.imread(str(folder / "contact_sheet.png")) is not None


def test_contact_sheet_has_a_tile_for_each_slice_and_window():
    slices = np.zeros((5, 20, 30), np.int16)
    sheet = contact_sheet(slices, ["subdural"] * 5, WINDOWS, columns=3, tile=100)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 2 * 3 * 100
    assert 300 < sheet.shape[1] < 350
    with pytest.raises(ValueError, match="5 slices but 1 captions"):
        contact_sheet(slices, ["subdural"])
