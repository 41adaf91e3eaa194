"""Laws of published sets: each layout is read as it is published, and each study and slice finds its own answer."""

import re
from pathlib import Path

import elsewhere
import numpy as np
import pandas as pd
import pytest
from elsewhere import answer_volumes, hinted, labels_of, plain_slices, spread, write_answer, write_mask, write_scan

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import ANY, LABELS, SUBTYPES
from models.inference.external import read_external
from models.inference.external_answers import read_answers
from models.inference.external_joining import join
from models.inference.external_masks import read_bhsd, read_instance
from models.inference.external_names import name_in, patient_of
from models.inference.external_tables import read_cq500, read_physionet
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.score import ScoreOptions, score

EVEN = np.full(6, 0.5)
BLEEDS = labels_of((), ("subdural",), ("subdural", "epidural"), ("intraventricular",), *[()] * 6)


@pytest.fixture
def answers(tmp_path) -> Path:
    """A folder to be filled."""
    folder = tmp_path / "answers"
    read_key(folder / "pseudonyms.key")
    return folder


# ---- CQ500 ----


def test_of_cq500_the_majority_of_three_readers_counts(tmp_path):
    reads = {
        "CQ500-CT-0": [(), ("ICH", "SDH"), ()],
        "CQ500-CT-12": [("ICH", "IPH"), ("ICH", "IPH", "SAH"), ()],
        "CQ500-CT-490": [("ICH", "EDH", "Fracture"), ("ICH", "IVH"), ("ICH", "IVH", "SDH", "ChronicBleed")],
    }
    found = read_cq500(elsewhere.write_reads(tmp_path / "reads.csv", reads))
    assert found.labels == LABELS
    types = {name: {label for label in LABELS if row[label] == 1} for name, row in found.studies.iterrows()}
    assert types == {
        "CQ500-CT-0": set(),
        "CQ500-CT-12": {"intraparenchymal", "any"},
        "CQ500-CT-490": {"intraventricular", "any"},
    }
    assert found.slices.empty
    assert read_cq500(tmp_path).studies.equals(found.studies)  # the folder will do


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("R2:SAH", "R2:X"), "lacks the column R2:SAH"),
        (lambda text: text.replace("CQ500-CT-1,B1,0", "CQ500-CT-1,B1,2"), "line 3: '2' for R1:ICH; a label is 0 or 1"),
        (lambda text: text.replace("CQ500-CT-1,", "CQ500-CT-0,"), "several rows for CQ500-CT-0"),
        (lambda text: text.replace("CQ500-CT-1,", "patient 1,"), "names 'patient 1', no study of CQ500"),
    ],
)
def test_another_layout_of_cq500_is_refused(tmp_path, change, message):
    file = elsewhere.write_reads(tmp_path / "reads.csv", {f"CQ500-CT-{number}": [(), (), ()] for number in (0, 1)})
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=re.escape(message)):
        read_cq500(file)


def test_studies_of_cq500_are_found_with_and_without_blanks_and_by_the_key_of_their_patient(tmp_path, answers):
    reads = {f"CQ500-CT-{number}": [("ICH",)] * 3 if number % 2 else [()] * 3 for number in (1, 2, 3, 4, 21)}
    labels = elsewhere.write_reads(tmp_path / "reads.csv", reads)
    places = {
        1: "CQ500CT1 CQ500CT1/Unknown Study/CT Plain/CT000001.dcm",
        2: "CQ500-CT-2/CT000001.dcm",
        3: "qure/CQ500 CT 3.zip/CQ500CT3 CQ500CT3/Unknown Study/CT 2.55mm/CT000001.dcm",
        21: "cq500ct21/series/1.dcm",
    }
    for number, place in places.items():
        study = f"study{number}"
        write_answer(answers, study, plain_slices(study), spread(EVEN * number / 30), place=place, names=True)
    key = Pseudonyms(read_key(answers / "pseudonyms.key"))
    write_answer(answers, "study4", plain_slices("study4"), spread(EVEN * 4 / 30), patient=key.hash("CQ500CT4"))
    joined = join(read_cq500(labels), read_answers(answers))
    said = joined.probability["any"]
    assert {name: round(value * 60) for name, value in said.items()} == {f"CQ500-CT-{n}": n for n in (1, 2, 3, 4, 21)}
    assert joined.slices.empty


# ---- PhysioNet ----


def test_physionet_counts_slices_from_1_and_any_is_what_is_not_no_hemorrhage(tmp_path):
    file = elsewhere.write_physionet(tmp_path, {49: BLEEDS, 130: labels_of((), ())})
    found = read_physionet(tmp_path)
    assert found.labels == LABELS
    assert list(found.studies.index) == ["049", "130"]
    own = found.slices[found.slices["study"] == "049"]
    assert list(own["number"]) == [*range(1, 11)]
    assert (own[list(LABELS)].to_numpy() == BLEEDS).all()
    assert found.studies.loc["049"].to_dict() == dict(zip(LABELS, BLEEDS.max(axis=0), strict=True))
    table = pd.read_csv(file)
    table.loc[0, "No_Hemorrhage"] = 0  # of which no type is told
    table.to_csv(file, index=False)
    again = read_physionet(file)
    assert again.slices.loc[0, "any"] == 1
    assert "in 1 of 12 rows hemorrhage and its types contradict each other" in again.notes[0]


@pytest.mark.parametrize("patient", [48, 59, 65, 131])
def test_patients_without_a_scan_are_no_layout_of_physionet(tmp_path, patient):
    with pytest.raises(InputError, match=rf"patient '{patient}', of whom version 1.3.1 has no scan"):
        read_physionet(elsewhere.write_physionet(tmp_path, {patient: BLEEDS}))


def test_a_slice_that_lacks_in_physionet_is_told(tmp_path):
    file = elsewhere.write_physionet(tmp_path, {66: BLEEDS})
    pd.read_csv(file)[1:].to_csv(file, index=False)
    with pytest.raises(InputError, match="the slices of patient 66 do not run from 1 to 9"):
        read_physionet(file)


def test_the_demographics_of_physionet_have_a_header_of_two_rows(tmp_path):
    elsewhere.write_physionet(tmp_path, {49: BLEEDS, 50: labels_of(())})
    (tmp_path / "Patient_demographics.csv").write_text(
        'Patient Number,"Age\n(years)",Gender,Hemorrhage type based on the radiologists diagnosis ,,,,,'
        "Fracture (yes 1/no 0),Note1\n,,,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,,\n"
        "49,23,Male,1,,,1,1,,\n50,31,Female,,,,,,1,\n59,4,Male,,,,1,,,\n,,,,,,,,,\n"
    )
    assert read_physionet(tmp_path).notes == (
        "Patient_demographics.csv: tells the same types of 2 patients as their slices do",
    )
    file = tmp_path / "Patient_demographics.csv"
    file.write_text(file.read_text().replace("50,31,Female,", "50,31,Female,1"))
    assert "other types of 1 patients than their slices do, first 050" in read_physionet(tmp_path).notes[0]


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_find_their_answers_in_volumes_that_run_either_way(tmp_path, answers, names, suffix):
    generator = np.random.default_rng(1)
    target = {patient: BLEEDS for patient in (49, 58, 66, 130)}
    said = {f"{patient:03d}": hinted(own, generator) for patient, own in target.items()}
    for patient in target:
        write_scan(tmp_path / "ct_scans" / f"{patient:03d}{suffix}", upwards=patient % 2 == 0)
    answer_volumes(tmp_path / "ct_scans", answers, lambda place, _: said[place[:3]], names=names)
    joined = join(read_physionet(elsewhere.write_physionet(tmp_path, target)), read_answers(answers))
    assert set(joined.studies.index) == set(said)
    assert len(joined.slices) == 40
    for _, row in joined.slices.iterrows():
        probability = [row[f"p_{label}"] for label in LABELS]
        assert probability == pytest.approx(list(said[row["study"]][row["number"] - 1]))


# ---- masks ----


def test_instance_has_binary_masks_that_tell_of_any_alone(tmp_path):
    for name, values in (("001", [[], [1], [1], []]), ("100", [[], [255], [], []])):
        write_mask(tmp_path / "train_2" / "label" / f"{name}.nii.gz", values, upwards=name == "001")
        write_scan(tmp_path / "train_2" / "data" / f"{name}.nii.gz", slices=4)
    found = read_instance(tmp_path / "train_2")
    assert found.labels == ("any",)
    assert list(found.studies.index) == ["001", "100"]
    assert list(found.slices["any"]) == [0, 1, 1, 0, 0, 1, 0, 0]
    assert found.slices[list(SUBTYPES)].isna().all(axis=None)
    assert list(found.slices["z"]) == [-20, -15, -10, -5, 25, 20, 15, 10]
    assert read_instance(tmp_path / "train_2" / "label").slices.equals(found.slices)
    write_mask(tmp_path / "train_2" / "label" / "002.nii.gz", [[1], [2], [], []])
    with pytest.raises(InputError, match="several classes, and INSTANCE's masks one"):
        read_instance(tmp_path)
    with pytest.raises(InputError, match=r"is no mask: it holds -1000 to 40; name the folder of masks"):
        read_instance(tmp_path / "train_2" / "data")


def test_bhsd_has_five_classes_in_the_order_of_the_alphabet(tmp_path):
    name = "ID_0b10cbee_ID_f91d6a7cd2"
    write_mask(tmp_path / "label_192" / "ground truths" / f"{name}.nii.gz", [[], [1], [2, 3], [4], [5], [1, 5]])
    write_scan(tmp_path / "label_192" / "images" / f"{name}.nii.gz", slices=6)
    found = read_bhsd(tmp_path)
    due = [set(), {"epidural"}, {"intraparenchymal", "intraventricular"}, {"subarachnoid"}, {"subdural"}]
    told = [{label for label in SUBTYPES if row[label] == 1} for _, row in found.slices.iterrows()]
    assert told == [*due, {"epidural", "subdural"}]
    assert list(found.slices["any"]) == [0, 1, 1, 1, 1, 1]
    assert list(found.studies.index) == [name]
    assert patient_of("bhsd", name) == "ID_0b10cbee"
    write_mask(tmp_path / "label_192" / "ground truths" / f"{name}.nii.gz", [[6], []])
    with pytest.raises(InputError, match="holds 6, and classes are 1 to 5"):
        read_bhsd(tmp_path)


def test_of_the_annotators_of_mbh_seg_more_than_half_count(tmp_path):
    folder = tmp_path / "MBH_Train_2025_voxel-label" / "ID_0b10cbee_ID_f91d6a7cd2"
    write_scan(folder / "image.nii.gz", slices=3)
    for annotator, drawn in enumerate(([[1], [4], []], [[1], [5], [5]], [[], [5], []]), start=1):
        write_mask(folder / f"label_annot_{annotator}.nii.gz", drawn)
    found = read_bhsd(tmp_path)
    assert [[label for label in SUBTYPES if row[label] == 1] for _, row in found.slices.iterrows()] == [
        ["epidural"],
        ["subdural"],
        [],
    ]
    assert name_in("bhsd", "ID_0b10cbee_ID_f91d6a7cd2/image.nii.gz") == found.studies.index[0]


def test_masks_of_the_challenge_find_answers_to_its_own_files(tmp_path, answers):
    """Files of single slices are named by no frame: both run from the feet to the head."""
    name = "ID_0b10cbee_ID_f91d6a7cd2"
    write_mask(tmp_path / "masks" / f"{name}.nii.gz", [[5], [], [], []], upwards=False)
    said = np.linspace(0.1, 0.4, 4)[:, None] * np.ones(6)
    write_answer(answers, name[12:], plain_slices("00000a", image="ID_{study}00{number}"), said, patient=name[:11])
    joined = join(read_bhsd(tmp_path / "masks"), read_answers(answers))
    assert joined.slices.set_index("number")["p_any"].to_dict() == pytest.approx({1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})
    write_mask(tmp_path / "masks" / f"{name}.nii.gz", [[5], [], [], [], []])
    with pytest.raises(InputError, match="5 slices with labels, 5 of them at a known place, and was answered as 4"):
        join(read_bhsd(tmp_path / "masks"), read_answers(answers))


# ---- nothing is dropped in silence ----


def test_what_has_no_other_half_and_what_is_refused_is_counted_and_named(tmp_path, answers):
    reads = {f"CQ500-CT-{number}": [("ICH",)] * 3 if number < 3 else [()] * 3 for number in (1, 2, 3, 4)}
    labels = elsewhere.write_reads(tmp_path / "reads.csv", reads)
    for number in (1, 3, 5):
        place, study = f"CQ500CT{number}/1.dcm", f"study{number}"
        write_answer(answers, study, plain_slices(study), spread(EVEN), place=place, names=True)
    key = Pseudonyms(read_key(answers / "pseudonyms.key")).hash("CQ500-CT-2")
    write_answer(answers, "study2", plain_slices("study2"), None, patient=key)
    text = "\n".join(join(read_cq500(labels), read_answers(answers)).notes)
    assert "cq500: 4 studies with labels, 4 answers, 3 studies with both" in text
    assert "without an answer: 1 studies (CQ500-CT-4)" in text
    assert "1 answers to studies without labels, not scored: study5" in text
    assert "refused, and not scored: 1 studies (CQ500-CT-2), 1 of them with hemorrhage" in text


def test_answers_that_are_of_no_study_and_two_of_one_are_told_with_the_repair(tmp_path, answers):
    labels = elsewhere.write_reads(tmp_path / "reads.csv", {"CQ500-CT-1": [()] * 3})
    write_answer(answers, "study1", plain_slices("study1"), spread(EVEN))
    with pytest.raises(InputError, match=r"none of the 1 answers in .* is of a study of cq500.* with --names"):
        join(read_cq500(labels), read_answers(answers))
    for study in ("study2", "study3"):
        write_answer(answers, study, plain_slices(study), spread(EVEN), place="CQ500CT1/1.dcm", names=True)
    with pytest.raises(InputError, match=r"study2 and \S+study3 are both answers to CQ500-CT-1"):
        join(read_cq500(labels), read_answers(answers))


def test_answers_of_several_networks_or_thresholds_are_not_scored_together(answers):
    with pytest.raises(InputError, match="no answers in"):
        read_answers(answers)
    write_answer(answers, "study1", plain_slices("study1"), spread(EVEN))
    for name, other in (
        ("weights", {"weights": {"b2/fold1": "cd" * 32}}),
        ("points", {"points": {"sensitivity": elsewhere.POINTS["sensitivity"]._replace(threshold=0.31)}}),
    ):
        folder = write_answer(answers, name, plain_slices(name), spread(EVEN), **other)
        with pytest.raises(InputError, match="by different networks or thresholds"):
            read_answers(answers)
        (folder / "answer.json").unlink()
    (answers / "study1" / "answer.json").write_text("{")
    with pytest.raises(InputError, match=r"answer.json is damaged; delete its folder"):
        read_answers(answers)


def test_a_slice_that_could_not_be_read_is_nobodys(tmp_path, answers):
    write_mask(tmp_path / "label" / "001.nii.gz", [[1], [], [1], []])
    slices = plain_slices("study", image="{study}_000{number}").assign(chunk=[0, -1, 0, 0])
    slices["image_id"] = [f"study_{number:04d}" for number in (1, 2, 3, 4)]
    write_answer(answers, "study", slices, spread(EVEN), place="001.nii.gz", names=True)
    joined = join(read_instance(tmp_path), read_answers(answers))
    assert list(joined.slices["number"]) == [1, 3, 4]
    assert "1 slices could not be read, and are not scored" in joined.notes


# ---- the command ----


def test_the_command_prints_scores_beside_those_of_the_release_and_says_what_it_lacks(tmp_path, answers, capsys):
    generator = np.random.default_rng(2)
    target = {patient: generator.permuted(BLEEDS, axis=0) for patient in range(66, 76)}
    target |= {patient: np.zeros((10, 6)) for patient in range(76, 82)}
    said = {f"{patient:03d}": hinted(own, generator) for patient, own in target.items()}
    for patient in target:
        write_scan(tmp_path / "ct_scans" / f"{patient:03d}.nii")
    answer_volumes(tmp_path / "ct_scans", answers, lambda place, _: said[place[:3]])
    labels = elsewhere.write_physionet(tmp_path, target)
    options = ScoreOptions(external="physionet", labels=labels, predictions=answers, work=tmp_path)
    score(options)
    text = capsys.readouterr().out
    for line in (
        "made up\n",
        "physionet: 16 studies with labels, 16 answers, 16 studies with both",
        "160 slices of them have labels, 160 an answer, 160 both",
        "whom b2/fold0 has trained on is not known",
        "orientation by place: the same in 16 of 16 studies",
        "studies: 16 of 16 patients",
        "sensitivity at 0.3, chosen for sensitivity",
        "slices: 160 of 16 patients",
        "weighted log loss ",
        "reliability of any in slices",
    ):
        assert line in text
    assert "Traceback" not in text
    for wrong, message in (
        ({"labels": None}, "needs the labels of the set, --labels, and answers"),
        ({"predictions": None}, "needs the labels of the set, --labels, and answers"),
        ({"files": (Path("b2"),)}, "b2: with --external, answers are named with --predictions"),
        ({"labels": Path("absent")}, "there is no absent; name the labels of physionet"),
        ({"release": Path("absent")}, "there is no absent; name the folder of the release"),
        ({"external": None}, "--predictions and --release belong to a published set"),
    ):
        with pytest.raises(InputError, match=message):
            score(ScoreOptions(**vars(options) | wrong))


def test_a_set_of_any_alone_is_scored_on_any_alone(tmp_path, answers):
    for name in ("001", "002", "003"):
        write_mask(tmp_path / "label" / f"{name}.nii.gz", [[1], [1], [], []])
        write_scan(tmp_path / "data" / f"{name}.nii.gz", slices=10)
    answer_volumes(tmp_path / "data", answers, lambda _, count: spread(EVEN, count))
    external = read_external("instance", tmp_path, answers, Work(tmp_path), None)
    assert external.published.labels == ("any",)
    assert external.joined.of_studies.target[:, ANY].tolist() == [1, 1, 1]
