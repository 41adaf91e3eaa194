"""Laws of privacy: nothing that says whose data this is leaves the raw folder, in no file and in no line on the screen.

The phantoms hold canaries wherever a hospital's files may hold a name: in texts, identifiers, folders, file names, and
in elements where no reader expects text.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pyarrow import parquet
from torture import FOLDS, drawn, require_one_line, run_prepare
from written import contents

from models.common.folders import Work
from models.phantom.draft import edited
from models.preprocessing.preparation import PrepareOptions, prepare

SIZE = 48
CANARY = re.compile(rb"c.?a.?n.?a.?r.?y", re.IGNORECASE | re.DOTALL)  # in UTF-16 too
IDENTIFIERS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
OTHERS = ("StudyID", "AccessionNumber", "FrameOfReferenceUID", "OtherPatientIDs", "PatientComments", "DeviceUID")
# Where numbers and codes stand that are read; text in them makes the file odd or unusable, and is no less private.
READ = (
    "SpecificCharacterSet",
    "Modality",
    "ImageType",
    "PhotometricInterpretation",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
    "InstanceNumber",
    "SliceLocation",
    "NumberOfFrames",
    "ImagePositionPatient",
    "PixelSpacing",
)


# ---- raw folders ----


def tag(path: Path, number: int) -> Path:
    """Put canaries into the identifiers and the name of a file; the same identifiers stay the same."""
    with edited(path) as data:
        for keyword in IDENTIFIERS:
            setattr(data, keyword, f"CANARY^{keyword} {data[keyword].value}")
        for keyword in OTHERS:
            setattr(data, keyword, f"CANARY^{keyword}")
        data.file_meta.MediaStorageSOPInstanceUID = "CANARY.2.25.1"
        data.file_meta.SourceApplicationEntityTitle = "CANARY^title"
    return path.rename(path.with_name(f"CANARY^file {number:04d}"))


def with_text(path: Path, number: int) -> Path:
    """A copy of a file with text in an element that is read, written as such."""
    keyword, copy = READ[number], path.with_name(f"{path.name} text {number}")
    data = pydicom.dcmread(path)
    data.SOPInstanceUID = f"{data.SOPInstanceUID} {number}"
    data[keyword] = pydicom.DataElement(pydicom.datadict.tag_for_keyword(keyword), "LO", "CANARY^" + keyword)
    data.save_as(copy, enforce_file_format=True)
    return copy


def cut(path: Path, count: int) -> Iterator[Path]:
    """Copies of a file that end too early, at so many places, most of them in the header."""
    content = path.read_bytes()
    header = np.linspace(1, min(4096, len(content) - 1), count, dtype=int)
    for length in sorted({*header, *np.linspace(1, len(content) - 1, max(2, count // 4), dtype=int)}):
        copy = path.with_name(f"{path.name} cut at {length}")
        copy.write_bytes(content[:length])
        yield copy


def overwrite(path: Path, count: int) -> Iterator[Path]:
    """Copies of a file with a canary over so many places of the header."""
    content = path.read_bytes()
    for place in np.linspace(0, min(2048, len(content) - 8), count, dtype=int):
        copy = path.with_name(f"{path.name} written over at {place}")
        copy.write_bytes(content[:place] + b"CANARY^" + content[place + 7 :])
        yield copy


def hospital(factory: pytest.TempPathFactory, folder: Path, damages: int) -> Path:
    """A tree of a hospital's files, full of canaries, so many of them damaged in each way."""
    data = shutil.copytree(drawn(factory, 2, 1, "tree", "private_text"), folder)
    for left in data.glob("*.*"):
        left.unlink()  # of the phantom
    files = [tag(path, number) for number, path in enumerate(sorted(path for path in data.rglob("IM*")))]
    for number in range(len(READ)):
        with_text(files[0], number)
    for victim in (files[1], files[-1]):
        assert all([*cut(victim, damages), *overwrite(victim, damages)])
    (data / "CANARY^notes.txt").write_text("CANARY^text about a patient\n")
    return data


def private_words(data: Path) -> set[bytes]:
    """Identifiers in the files of a tree, and the names of its folders and files."""
    words = {part for path in data.rglob("*") for part in path.relative_to(data).parts}
    for path in data.rglob("*"):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            words |= {str(header[keyword].value) for keyword in IDENTIFIERS}
            words |= {word for keyword in IDENTIFIERS for word in str(header[keyword].value).split()}
        except Exception:  # what cannot be read here has the identifiers of a file that can
            continue
    return {word.encode() for word in words if len(word) > 5}


# ---- what got out ----


def readable(path: Path) -> Iterator[bytes]:
    """All that can be read in a file: its bytes, and what they hold compressed."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield repr(parquet.read_metadata(path).metadata).encode()
        yield pd.read_parquet(path).to_csv().encode()


def outlet(work: Path, done: Iterable[subprocess.CompletedProcess]) -> dict[str, bytes]:
    """All that prepare.py has written and printed."""
    texts = {"the screen": "\n".join(run.stdout + run.stderr for run in done).encode()}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        name = str(path.relative_to(work))
        texts[name] = b"\n".join([name.encode(), *readable(path)])
    return texts


def require_silence(work: Path, done: list[subprocess.CompletedProcess], words: Iterable[bytes] = ()) -> None:
    """Fail if a canary, or one of these words, stands in what was written or printed."""
    texts = outlet(work, done)
    assert sum(map(len, texts.values())) > 1000
    for name, text in texts.items():
        assert not (found := CANARY.search(text)), f"{name}: {text[max(0, found.start() - 100) : found.end() + 50]}"
        assert [word for word in words if word in text] == [], name


def run_all(data: Path, work: Path, *flags: object) -> list[subprocess.CompletedProcess]:
    """Check, then work."""
    done = [run_prepare(data, work, "--image-size", SIZE, *flags, *more) for more in (["--check"], [])]
    assert all(run.returncode in (0, 3) for run in done), done  # 3: so many files are damaged
    return done


def test_a_hospitals_tree_gives_nothing_away(tmp_path_factory, tmp_path):
    data = hospital(tmp_path_factory, tmp_path / "data", damages=20)
    done = run_all(data, tmp_path / "work", "--jobs", 1)
    require_silence(tmp_path / "work", done, private_words(data))
    problems = pd.read_csv(Work(tmp_path / "work").problems)
    assert problems["problem"].nunique() >= 6, "too little was wrong for this to be a test"


@pytest.mark.torture
def test_a_hospitals_tree_with_a_thousand_damaged_files_gives_nothing_away(tmp_path_factory, tmp_path):
    data = hospital(tmp_path_factory, tmp_path / "data", damages=250)
    done = run_all(data, tmp_path / "work")
    words = private_words(data)
    require_silence(tmp_path / "work", done, words)
    problems = pd.read_csv(Work(tmp_path / "work").problems)
    print(f"{len(list(data.rglob('*')))} files, {len(words)} words, {len(problems)} problems:")
    print(problems["problem"].value_counts().to_string())


@pytest.mark.torture
@pytest.mark.parametrize("traps", [("private_text",), ("all",)], ids=lambda traps: traps[0])
def test_the_texts_of_a_challenges_files_get_nowhere(traps, tmp_path_factory, tmp_path):
    studies = 3 if traps == ("private_text",) else 30
    data = shutil.copytree(drawn(tmp_path_factory, studies, 8, "stage_2", *traps), tmp_path / "data")
    victim = next(iter(sorted((data / "stage_2_train").glob("*.dcm"))))
    for copy in [*cut(victim, 50), *overwrite(victim, 50)]:
        copy.rename(copy.with_name(f"CANARY^{copy.name}.dcm"))
    done = run_all(data, tmp_path / "work")
    require_silence(tmp_path / "work", done)


@pytest.mark.torture
def test_what_is_refused_is_refused_without_a_name(tmp_path_factory, tmp_path):
    data, work = hospital(tmp_path_factory, tmp_path / "data", damages=2), tmp_path / "work"
    flags = ("--image-size", SIZE, "--jobs", 2, "--min-readable", 0)
    assert run_prepare(data, work, *flags).returncode == 0
    older = shutil.copytree(work, tmp_path / "older")
    shutil.rmtree(older / "cache" / "manifest")
    words = private_words(data)
    other = tmp_path / "other"
    other.mkdir()
    data.rename(other / "CANARY^elsewhere")  # the same files, of which the cache knows none by where it lies
    empty = tmp_path / "empty"
    (empty / "CANARY^folder").mkdir(parents=True)
    (empty / "CANARY^folder" / "CANARY^file").write_text("CANARY^text")
    done = [run_prepare(*folders, *flags) for folders in ((other, work), (other, older), (empty, tmp_path / "w"))]
    assert [run.returncode for run in done] == [1, 1, 1]
    for run, sentence in zip(done, ("another raw folder", "an older version", "is a CT slice"), strict=True):
        require_one_line(run, sentence)
    require_silence(older, done, words)


# ---- pseudonyms ----


def names(work: Path) -> set[str]:
    table = pd.read_parquet(Work(work).metadata("test"))
    return {name for column in ("image_id", "series_id", "study_id", "patient_id") for name in table[column]}


def test_the_same_key_gives_the_same_cache_and_another_key_other_names(tmp_path_factory, tmp_path):
    data = hospital(tmp_path_factory, tmp_path / "data", damages=2)
    first = PrepareOptions(data=data, work=tmp_path / "first", image_size=(SIZE,), folds=FOLDS, jobs=1)
    again, other = replace(first, work=tmp_path / "again"), replace(first, work=tmp_path / "other")
    prepare(first)
    again.work.mkdir()
    shutil.copy(first.work / "pseudonyms.key", again.work)
    for options in (again, other):
        prepare(options)
    assert contents(again.work / "cache") == contents(first.work / "cache")
    assert names(first.work).isdisjoint(names(other.work))
    assert len(names(first.work)) == len(names(other.work))
    assert all(re.fullmatch(r"ID_[0-9a-f]{16}(_\d{4})?", name) for name in names(first.work))
