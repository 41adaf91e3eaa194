"""Files that somebody names -> their studies, and one study -> its series, stored and measured like any others."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pandas as pd

from models.common.files import write_parquet
from models.common.folders import Work
from models.preprocessing.given import Given
from models.preprocessing.grouping import BATCH, Look, SeriesTask, group_by_series, look_at, named_files
from models.preprocessing.manifest import Known, Mark
from models.preprocessing.metadata import slice_table
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.parallel import progress_batches
from models.preprocessing.problems import ProblemRows
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder
from models.preprocessing.selection import select_series
from models.preprocessing.series import prepare_series

SPLIT = "test"  # whatever somebody names is to be predicted


class OwnStudy(NamedTuple):
    """The files of one study, by series."""

    key: str
    series: list[SeriesTask]

    @property
    def files(self) -> list[Look]:
        """All of them, in the order of the series."""
        return [file for task in self.series for file in task.files]

    @property
    def content(self) -> str:
        """A hash of the names, sizes and times of the files: another one when one has come, gone or changed."""
        lines = sorted(f"{file.name} {file.size} {file.time}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class ReadStudy(NamedTuple):
    """A study whose series have been read."""

    notes: list[SeriesNotes]  # of those that may be predicted
    series: pd.DataFrame  # a row each, as in cache/series.csv
    problems: ProblemRows


def find_studies(
    given: Given, pseudonyms: Pseudonyms, jobs: int, dask: str | None = None, known: dict[str, Known] | None = None
) -> tuple[list[OwnStudy], ProblemRows]:
    """The studies of some files, by key, and the problems of files that belong to none.

    What is `known` of files is not read again, and what is found is added to it. Raises InputError for a file that the
    system does not let this process read.
    """
    known = {} if known is None else known
    named = named_files(given.files, given.root, pseudonyms, known)
    looks = progress_batches(partial(look_at, pseudonyms), named, jobs, "series of each file", BATCH, dask)
    for look in looks:
        if look.reason is None:
            mark = Mark(look.size, look.time, 0, look.syntax, look.names.image_id)
            known[look.name] = Known(mark, look.names, look.names.series_id)
    raw = RawFolder(given.root, None, None, given.root, None, None)
    tasks, problems = group_by_series(looks, raw, Work(given.root), (), pseudonyms)
    studies = _by_study(tasks)
    shared = Counter(study for _, study in studies)  # two patients may have one
    found = []
    for (patient, study), own in studies.items():
        key = study if shared[study] == 1 else pseudonyms.hash(f"{patient} {study}")
        if not any(file.syntax for task in own for file in task.files):  # volumes: elsewhere others are called the same
            key = pseudonyms.hash(f"{given.root.resolve()} {key}")
        found.append(OwnStudy(key, own))
    return sorted(found, key=lambda study: study.key), problems


def _by_study(tasks: list[SeriesTask]) -> dict[tuple[str, str], list[SeriesTask]]:
    """The series of each patient's study; one that names no patient goes with the others of its study."""
    owners = [(max(file.names.patient_id for file in task.files), _study_of(task)) for task in tasks]
    known = defaultdict(set)
    for patient, study in owners:
        known[study].add(patient)
    studies = defaultdict(list)
    for task, (patient, study) in zip(tasks, owners, strict=True):
        named = known[study] - {""}
        studies[patient or (min(named) if len(named) == 1 else ""), study].append(task)
    return studies


def _study_of(task: SeriesTask) -> str:
    return max(file.names.study_id for file in task.files) or task.series


def read_study(study: OwnStudy, work: Work, image_sizes: Collection[int], take: Collection[str]) -> ReadStudy:
    """Read the series of a study, and store in a working folder those that may be predicted.

    `take` names series that are, whatever they are. Raises InputError if a store cannot be written, and for a file that
    the system does not let this process read.
    """
    parts: list[SeriesNotes] = []
    for task in study.series:
        own = replace(task, work=work, image_sizes=tuple(image_sizes), take=frozenset(take))
        parts += prepare_series(own)
    taken, rows, problems = select_series(parts, SPLIT, take)
    return ReadStudy([notes for notes in taken if len(notes)], rows, problems + slice_table(taken)[1])


def files_of_images(study: OwnStudy, pseudonyms: Pseudonyms) -> dict[str, Look]:
    """The file of each image by its name, and by the one that it has where several files share that."""
    found = {file.names.image_id: file for file in study.files}
    return found | {pseudonyms.of_file(file.names.image_id, file.name): file for file in study.files}


def write_chosen(notes: Sequence[SeriesNotes], work: Work) -> pd.DataFrame:
    """The slices of some series as the metadata of a working folder, which networks read. Raises InputError."""
    table, _ = slice_table(notes)
    write_parquet(work.metadata(SPLIT), table)
    return table
