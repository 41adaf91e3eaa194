"""What is known of the slices beside their files: labels, and what is to be predicted."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from models.common.errors import InputError
from models.preprocessing.challenge_csv import image_ids, read_labels, read_sample_submission
from models.preprocessing.metadata import add_missing, join_labels, shared_patients
from models.preprocessing.own_labels import OwnLabels, join_own_labels, read_own_labels
from models.preprocessing.problems import Problem, ProblemRows, problem_rows
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder


class Truth(NamedTuple):
    """What the tables of a challenge, or one's own, say; None where there is no such table."""

    labels: pd.DataFrame | None
    repeated: list[str]  # images whose rows stand more than once
    expected: pd.Series | None  # images that are to be predicted
    own: OwnLabels | None = None


def read_tables(raw: RawFolder, own: Path | None) -> Truth:
    """Read the labels and the sample submission. Raises InputError if they cannot be used."""
    if own is not None:
        if raw.stage is not None:
            raise InputError(f"{raw.root} has labels of its own, in {raw.labels}; leave out --labels {own}")
        return Truth(None, [], None, read_own_labels(own))
    labels, repeated = read_labels(raw.labels) if raw.labels else (None, [])
    expected = image_ids(read_sample_submission(raw.sample_submission)) if raw.sample_submission else None
    return Truth(labels, repeated, expected)


def join_tables(
    tables: dict[str, pd.DataFrame], series: pd.DataFrame, truth: Truth, pseudonyms: Pseudonyms
) -> tuple[dict[str, pd.DataFrame], ProblemRows]:
    """Put labels on the training slices, and rows for what is to be predicted and is not there on those of the test.

    `series` is the table of all series. Raises InputError for one's own labels that name nothing of this.
    """
    if truth.own is not None:
        return join_own_labels(tables["test"], series, truth.own, pseudonyms)
    tables, problems = dict(tables), problem_rows(Problem.REPEATED_LABEL, map(pseudonyms.image, truth.repeated))
    if truth.labels is not None:
        labels = truth.labels.assign(image_id=pseudonyms.images(truth.labels["image_id"]))
        tables["train"], found = join_labels(tables["train"], labels)
        problems += found + shared_patients(tables["train"], tables["test"])
    if truth.expected is not None:
        tables["test"], found = add_missing(tables["test"], pseudonyms.images(truth.expected))
        problems += found
    return tables, problems
