"""Studies -> a folder of answers: each answered once, by one process of several, and what was cut short goes on.

OUTPUT/answers.csv           all studies, what is most probable first
OUTPUT/<study>/answer.json   last of its folder: it marks the whole
OUTPUT/predict.json          with what they were made
OUTPUT/pseudonyms.key        of the keys; keep it to yourself
"""

import json
import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import joblib

from models.common import repair
from models.common.errors import InputError
from models.common.files import (
    hash_file,
    legible,
    read_json,
    remove_temporaries,
    replacing,
    require_writable,
    write_csv,
    write_json,
    write_text,
)
from models.common.folders import RELEASE, Work
from models.common.locks import only_process
from models.common.progress import say
from models.inference.answer import FORMAT, Answer, row_of, slice_rows, to_json, worklist
from models.inference.answering import Court, answer_study, open_court
from models.inference.asked import PredictOptions
from models.preprocessing.elements import PARSER_ERRORS
from models.preprocessing.grouping import Look
from models.preprocessing.own_studies import OwnStudy, files_of_images
from models.preprocessing.parallel import progress_map
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.reporting.answer_page import render_answer
from models.reporting.heat_volume import write_heat
from models.reporting.key_slices import KeySlice, key_slices

KEY = "pseudonyms.key"
ANSWER = "answer.json"
_KEPT = 6  # characters of the key of a study, in what its folder is called with --names
_NAMED = 100  # bytes at most before them; a name may have 255, and a character takes up to four


class Errand(NamedTuple):
    """What a process needs to answer studies."""

    options: PredictOptions
    root: Path  # that files are named from
    synthetic: bool
    command: str


def command_of(options: PredictOptions) -> str:
    """The line that makes these answers, without the names of folders, which may tell of a person."""
    flags = [f"--{name}" for name in ("dicom", "nifti", "names") if getattr(options, name)]
    flags += [f"--tta {options.tta}"] if options.tta != PredictOptions.tta else []
    flags += [f"--prevalence {options.prevalence:g}"] if options.prevalence is not None else []
    flags += [f"--series {' '.join(options.series)}"] if options.series else []
    flags += ["--weights RUN"] if options.weights else []
    return " ".join([repair.command_of("predict", "PATH"), *flags])


@contextmanager
def open_output(options: PredictOptions, court: Court) -> Generator[Pseudonyms]:
    """Hold a folder of answers, whose pseudonyms are yielded.

    Raises InputError if it holds answers that were made in another way, or another process writes there.
    """
    output = options.output
    require_writable(output)
    with only_process(output / ".predict.lock", "predict.py"):
        remove_temporaries(output, ".*")
        remove_temporaries(output, "*/.*")
        _require_same(output / "predict.json", options, court)
        yield Pseudonyms(read_key(output / KEY))


def answer_all(studies: Sequence[OwnStudy], errand: Errand) -> list[dict[str, Any]]:
    """Answer what is not answered yet, and write answers.csv; returns what answer.json of each study tells.

    Raises InputError if that cannot be done.
    """
    options = errand.options
    told = {one["study"]: one for one in folders_of(options.output).values()}
    waiting = [study for study in studies if not _is_answered(study, told.get(study.key), options)]
    if done := len(studies) - len(waiting):
        print(f"{options.output}: {done:,} of {len(studies):,} studies are answered already")
    progress_map(partial(answer_one, errand), waiting, options.jobs, "studies", options.dask)
    folders = folders_of(options.output)
    write_csv(options.output / "answers.csv", worklist([row_of(one, name) for name, one in folders.items()]))
    own = {study.key for study in studies}
    return [one for one in folders.values() if one["study"] in own]


def folders_of(output: Path, pattern: str = "*") -> dict[str, dict[str, Any]]:
    """What every answer.json tells, by the name of its folder; one that is damaged is answered again."""
    found = {}
    for file in sorted(output.glob(f"{pattern}/{ANSWER}")):
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if told.get("format") == FORMAT:
            found[file.parent.name] = told
    return found


def _folders_about(study: OwnStudy, output: Path) -> list[Path]:
    """Where a study has been answered: what a folder is called by its files changes when more of them arrive."""
    named = folders_of(output, f"*{study.key[-_KEPT:]}")
    return [output / name for name, told in named.items() if told["study"] == study.key]


def answer_one(errand: Errand, study: OwnStudy) -> None:
    """Answer a study and write its folder. Raises InputError if that cannot be done."""
    options = errand.options
    court = court_of(options, errand.synthetic)
    with _scratch(options, study) as work:
        answer = answer_study(study, court, work)
        files = files_of_images(study, Pseudonyms(read_key(options.output / KEY)))
        folder = options.output / (_named(study, errand.root) if options.names else study.key)
        for made in {folder, *_folders_about(study, options.output)}:  # it is made anew, under another name perhaps
            if made.is_dir():
                shutil.rmtree(made)
        names = {image: legible(file.path.relative_to(errand.root)) for image, file in files.items()}
        write_csv(folder / "slices.csv", slice_rows(answer, names if options.names else None))
        keys = key_slices(answer, court, work)
        write_text(folder / "page.html", render_answer(answer, keys, work, errand.command))
        if options.dicom and keys:
            _write_dicom(answer, keys, files, folder)
        if options.nifti and keys and (reason := write_heat(answer, court, work, folder / "heat.nii.gz")):
            say(f"{answer.study}: no heat is written, for {reason}")
        text = json.dumps(to_json(answer, errand.command), indent=1, ensure_ascii=False)
        write_text(folder / ANSWER, text)


def _write_dicom(answer: Answer, keys: Sequence[KeySlice], files: dict[str, Look], folder: Path) -> None:
    """Write the objects that belong into the study, or say why there are none."""
    from models.reporting.dicom_objects import make_objects  # with highdicom: a second
    from models.reporting.dicom_sources import find_sources

    sources = find_sources(answer.slices, files)
    if sources.reason:
        say(f"{answer.study}: no DICOM is written, for {sources.reason}")
        return
    try:
        objects = make_objects(answer, keys, sources)
    except PARSER_ERRORS as error:  # what highdicom, or pydicom, says of a header that no object can be made of
        say(f"{answer.study}: no DICOM is written, for its header does not allow it ({error})")
        return
    for name, content in objects.items():
        with replacing(folder / "dicom" / name) as temporary:
            temporary.write_bytes(content)


@lru_cache(maxsize=1)  # of a process: its networks are loaded once
def court_of(options: PredictOptions, synthetic: bool) -> Court:
    """Who answers. Raises InputError as `open_court`."""
    court = open_court(options.weights, options.device, options.tta, synthetic)
    asked = {name: getattr(options, name) for name in ("engine", "prevalence", "series")}
    return replace(court, **asked, threads=_threads(options))


def _named(study: OwnStudy, root: Path) -> str:
    """What the folder of a study is called: as that of its files, and the end of its key, for others may lie there."""
    folders = [file.path.relative_to(root).parent.parts for file in study.files]
    shared = [parts[0] for parts in zip(*folders, strict=False) if len(set(parts)) == 1]
    plain = re.sub(r"[^\w.-]+", "_", "_".join(shared))
    end = plain.encode()[-_NAMED:].decode(errors="ignore").strip("._")
    return f"{end or 'study'}_{study.key[-_KEPT:]}"


def _is_answered(study: OwnStudy, told: dict[str, Any] | None, options: PredictOptions) -> bool:
    if told is None or told["content"] != study.content:
        return False
    asked = {row["series_id"] for row in told["all_series"]} & set(options.series)
    return not asked or (told["series"] in asked and told["verdict"] != "refused")


@contextmanager
def _scratch(options: PredictOptions, study: OwnStudy) -> Generator[Work]:
    """A working folder for a study, which is gone afterwards, unless --work keeps it."""
    if options.work is not None:
        yield Work(options.work / study.key)
        return
    with tempfile.TemporaryDirectory(prefix="predict_") as folder:
        yield Work(Path(folder))


def _threads(options: PredictOptions) -> int | None:
    """One thread a process where there are several: more would fight over the cores."""
    alone = options.jobs in (1, -1) and not options.dask
    return None if alone else max(1, joblib.cpu_count() // max(1, options.jobs))


def _require_same(file: Path, options: PredictOptions, court: Court) -> None:
    """Raise InputError if answers were made with other weights or flags; note with which they are made."""
    settings = {
        "format": FORMAT,
        "weights": {name: sha256 for fold in court.folds for name, sha256 in fold.weights.items()},
        # How runs are joined, calibrated and read: two releases may have the same weights.
        "release": None if court.release is None else hash_file(court.release.folder / RELEASE),
        **{name: getattr(options, name) for name in ("tta", "prevalence", "dicom", "nifti", "names")},
    }
    if not file.is_file():
        write_json(file, settings)
        return
    before = read_json(file, f"the same command, after deleting {options.output}")
    for name, value in settings.items():
        if before.get(name) != value:
            shown = "others" if name in ("weights", "release") else before.get(name)
            flag = "weights" if name == "release" else name
            raise InputError(f"{options.output} was made with --{flag} {shown}; choose another folder with --output")
