"""Step 1: a folder in Kaggle's layout -> cache/ (metadata, slice store, folds, problems).

    python models/prepare.py --data data --image-size 224 512

Needs the challenge's data, or a phantom (python models/make_phantom.py data).
Writes cache/metadata_{train,test}.parquet, cache/slices_<size>/<series>.b2nd, cache/folds.csv and cache/problems.csv.
What is there already is not made again.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from models.cli import command
from models.errors import InputError
from models.labels import LABELS
from models.paths import (
    DataFolder,
    Work,
    WorkFolder,
    default_data,
    default_work,
    write_csv,
    write_parquet,
    write_text,
)
from models.preprocessing.cleaning import add_missing, image_ids, join_labels, read_labels, read_sample_submission
from models.preprocessing.folds import label_shares, make_folds
from models.preprocessing.metadata import PROBLEM_COLUMNS, collect_headers, order_slices, problem
from models.preprocessing.raw import RawFolder, find_raw
from models.preprocessing.series import UNREADABLE, store_all_series


@dataclass(frozen=True)
class PrepareOptions:
    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    image_size: tuple[int, ...] = (224, 512)
    """sides of the stored slices, pixels; one store for each"""
    folds: int = 5
    """parts for cross-validation, grouped by patient"""
    seed: int = 0
    """of the folds"""
    jobs: int = -1
    """processes; -1: one a core"""


def prepare(options: PrepareOptions) -> None:
    if not options.image_size or min(options.image_size) < 1:
        raise InputError(f"--image-size {options.image_size} must be one or more sizes above 0")
    raw, work = find_raw(options.data), Work(options.work)
    fingerprint, state = raw.fingerprint(), {"folds": options.folds, "seed": options.seed}
    refuse_other_raw(work, fingerprint)
    finished = finished_sizes(work, state)
    if set(options.image_size) <= finished:
        print(f"{work.cache} is complete for image sizes {sorted(finished)}; nothing to do")
        return
    labels, repeated = read_labels(raw.labels)
    expected = image_ids(read_sample_submission(raw.sample_submission))
    write_text(raw_file(work), fingerprint)  # first, so that a cache that was cut short is not filled from other data

    train, train_problems = prepare_split(raw, "train", work, options)
    test, test_problems = prepare_split(raw, "test", work, options)
    train, label_problems = join_labels(train, labels, raw.labels.name)
    test, missing_problems = add_missing(test, expected, raw.sample_submission.name)
    repeated_problems = [
        problem(image_id, f"stands more than once in {raw.labels.name}", "equal rows dropped") for image_id in repeated
    ]
    problems = train_problems + test_problems + repeated_problems + label_problems + missing_problems

    labelled = train.dropna(subset=list(LABELS))
    write_csv(work.folds, make_folds(labelled, options.folds, options.seed))
    write_parquet(work.metadata("train"), train)
    write_parquet(work.metadata("test"), test)
    write_csv(work.problems, pd.DataFrame(problems, columns=PROBLEM_COLUMNS))
    write_text(state_file(work), json.dumps({**state, "image_size": sorted(finished | set(options.image_size))}))
    print_summary(work, {"train": train, "test": test}, len(problems))


def prepare_split(raw: RawFolder, split: str, work: Work, options: PrepareOptions) -> tuple[pd.DataFrame, list[dict]]:
    headers, header_problems = collect_headers(raw.files(split), options.jobs, f"{split}: headers")
    table, slice_problems = store_all_series(
        order_slices(headers), work, options.image_size, options.jobs, f"{split}: series"
    )
    return table, header_problems + slice_problems


def refuse_other_raw(work: Work, fingerprint: str) -> None:
    """Raise InputError if the cache, whole or not, was made from other data, with series of the same names."""
    if raw_file(work).is_file() and raw_file(work).read_text() != fingerprint:
        raise InputError(f"{work.cache} was made with another raw folder; delete it, or choose another with --work")


def finished_sizes(work: Work, state: dict) -> set[int]:
    """Image sizes that the cache holds. Raises InputError if it was made with other folds."""
    if not state_file(work).is_file():
        return set()
    cached = json.loads(state_file(work).read_text())
    for name, value in state.items():
        if cached.get(name) != value:
            what = f"--{name} {cached.get(name)}"
            raise InputError(f"{work.cache} was made with {what}; delete it, or choose another folder with --work")
    return set(cached["image_size"])


def raw_file(work: Work) -> Path:
    return work.cache / "raw.txt"


def state_file(work: Work) -> Path:
    return work.cache / "prepare.json"  # written last: it says that the cache is complete


def print_summary(work: Work, tables: dict[str, pd.DataFrame], problems: int) -> None:
    for split, table in tables.items():
        series, patients = table["series_id"].nunique(), table["patient_id"].nunique()
        unreadable = (table["chunk"] == UNREADABLE).sum()
        print(f"{split}: {len(table):,} slices, {series:,} series, {patients:,} patients, {unreadable:,} not readable")
    prevalence = ", ".join(f"{label} {share:.3f}" for label, share in label_shares(tables["train"]).items())
    print(f"train labels: {prevalence}")
    print(f"{work.cache}: {problems:,} problems, each a line in {work.problems.name}")


if __name__ == "__main__":
    command(prepare, PrepareOptions)
