"""Published labels and answers -> which answer is of which study, and which slice of it of which label.

Nothing is dropped in silence: what has no other half is counted, and named.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.labels import ANY, LABELS
from models.inference.external_answers import Answers, Told, names_of
from models.inference.external_labels import Published
from models.inference.external_names import identifiers_of, name_in, patient_of, study_of_challenge
from models.preprocessing.pseudonyms import Pseudonyms, read_key

KEY = "pseudonyms.key"  # of a folder of answers
_FRAME = re.compile(r"_(\d{4})$")  # of the name of an image: which slice of its volume it is
_FEW = 5  # that are named


class Rows(NamedTuple):
    """What is scored."""

    target: np.ndarray  # (rows, 6); labels that nobody tells of are 0, and not to be looked at
    probability: np.ndarray  # (rows, 6)
    patients: np.ndarray  # (rows,), their names


class Joined(NamedTuple):
    """Studies that have both, index their names."""

    told: dict[str, Told]
    studies: pd.DataFrame  # LABELS, of those that are not refused
    probability: pd.DataFrame  # of the same, LABELS
    patients: pd.Series  # of the same
    # A row a slice that has both: study, number, z (by the labels), z_told (by the answer), LABELS, and p_<label>.
    slices: pd.DataFrame
    notes: list[str]

    @property
    def of_studies(self) -> Rows:
        """A row a study."""
        target = self.studies[list(LABELS)].fillna(0).to_numpy(float)
        return Rows(target, self.probability.to_numpy(float), self.patients.to_numpy(str))

    @property
    def of_slices(self) -> Rows:
        """A row a slice, where they have labels."""
        target = self.slices[list(LABELS)].fillna(0).to_numpy(float)
        probability = self.slices[[f"p_{label}" for label in LABELS]].to_numpy(float)
        return Rows(target, probability, self.patients.loc[self.slices["study"]].to_numpy(str))


def join(published: Published, answers: Answers) -> Joined:
    """Each study beside its answer.

    Raises InputError if no answer is of any study, two are of the same, or slices cannot be told apart.
    """
    told, strangers = _match(published, answers)
    scored = {name: one for name, one in told.items() if not one.is_refused}
    notes = _counted(published, answers, told, strangers)
    if not scored:
        raise InputError(f"all {len(told)} studies of {published.name} with an answer were refused: nothing to score")
    probability = [[one.content["study_probability"][label] for label in LABELS] for one in scored.values()]
    names = pd.Index(scored, name="study")
    slices, lacking = _join_slices(published, scored)
    return Joined(
        told,
        published.studies.loc[names],
        pd.DataFrame(probability, index=names, columns=list(LABELS), dtype=float),
        pd.Series([patient_of(published.name, name) for name in names], index=names),
        slices,
        notes + lacking,
    )


def _match(published: Published, answers: Answers) -> tuple[dict[str, Told], list[Told]]:
    """The answer of each study that has one, and the answers that are of none."""
    keys = _keys(published, answers)
    found: dict[str, Told] = {}
    strangers = []
    for one in answers.told:
        name = name_in(published.name, one.place) or next((keys[key] for key in one.keys if key in keys), None)
        if name is None or name not in published.studies.index:
            strangers.append(one)
        elif name in found:
            raise InputError(f"{found[name].folder} and {one.folder} are both answers to {name}; keep one of the two")
        else:
            found[name] = one
    if not found:
        raise InputError(
            f"none of the {len(answers.told):,} answers in {answers.folder} is of a study of {published.name}, first "
            f"{published.studies.index[0]}; answer the very files of the set, naming the folder in which its volumes "
            "or studies lie, with --names: then they are found by their names"
        )
    return found, strangers


def _keys(published: Published, answers: Answers) -> dict[str, str]:
    """What answers may call a study, its series or its patient -> its name. Keys are hashes by a secret beside them."""
    secret = answers.folder / KEY
    hashed = Pseudonyms(read_key(secret)).hash if secret.is_file() else None
    keys = {}
    for name in published.studies.index:
        if published.name == "bhsd":
            keys[study_of_challenge(name)] = name
        if hashed is not None:
            keys |= {hashed(identifier): name for identifier in identifiers_of(published.name, name)}
    return keys


def _counted(published: Published, answers: Answers, told: dict[str, Told], strangers: Sequence[Told]) -> list[str]:
    """What has no other half, and what was refused."""
    notes = [
        f"{published.name}: {len(published.studies):,} studies with labels, {len(answers.told):,} answers, "
        f"{len(told):,} studies with both"
    ]
    if lacking := [name for name in published.studies.index if name not in told]:
        notes.append(
            f"without an answer: {_some(lacking)}; answer the folder in which they lie, with the same --output"
        )
    if strangers:
        notes.append(f"{len(strangers):,} answers to studies without labels, not scored: {names_of(strangers)}")
    refused = [name for name, one in told.items() if one.is_refused]
    if refused:
        bleeding = int(published.studies.loc[refused, LABELS[ANY]].sum())
        notes.append(f"refused, and not scored: {_some(refused)}, {bleeding:,} of them with hemorrhage")
    verdicts = Counter(one.content["verdict"] for one in told.values())
    return [*notes, ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(verdicts.items()))]


def _some(names: Sequence[str]) -> str:
    return f"{len(names):,} studies ({', '.join(names[:_FEW])}{', ...' if len(names) > _FEW else ''})"


def _join_slices(published: Published, told: dict[str, Told]) -> tuple[pd.DataFrame, list[str]]:
    """The slices that have both, and what has no other half. Raises InputError as `_numbered`."""
    if published.slices.empty:
        return pd.DataFrame(), []
    tables, unread = [], 0
    labelled = published.slices[published.slices["study"].isin(told)]
    for name, own in labelled.groupby("study"):
        slices = _numbered(told[str(name)].slices, own, str(name))
        unread += (~slices["readable"].astype(bool)).sum()
        known = _is_placed(told[str(name)])
        slices = slices.assign(study=name, z=slices["z"].astype(float) if known else np.nan)
        tables.append(slices[slices["readable"].astype(bool)])
    said = pd.concat(tables).rename(columns={"z": "z_told"} | {label: f"p_{label}" for label in LABELS})
    both = labelled.merge(said.drop(columns=["image_id", "slice", "readable"]), on=["study", "number"])
    notes = [f"{len(labelled):,} slices of them have labels, {len(said):,} an answer, {len(both):,} both"]
    if unread:
        notes.append(f"{unread:,} slices could not be read, and are not scored")
    return both, notes


def _is_placed(one: Told) -> bool:
    """Whether it is known which end of the series that was judged is the head."""
    return all(
        row["plane"] != "unknown" for row in one.content["all_series"] if row["series_id"] == one.content["series"]
    )


def _numbered(slices: pd.DataFrame, labels: pd.DataFrame, name: str) -> pd.DataFrame:
    """The slices of an answer with the `number` that labels know them by.

    A slice of a volume is named by its place in the file. Files of single slices are as many as the labels, and both
    run from the feet to the head, if it is known where the labels lie. Raises InputError if neither is so.
    """
    numbers = slices["image_id"].str.extract(_FRAME)[0]
    if numbers.notna().all():
        return slices.assign(number=numbers.astype(int))
    upwards = labels.dropna(subset="z").sort_values("z", kind="stable")["number"].to_numpy()
    if len(upwards) != len(slices) or len(labels) != len(slices):
        raise InputError(
            f"{name} has {len(labels)} slices with labels, {len(upwards)} of them at a known place, and was answered "
            f"as {len(slices)} single files: nobody can tell which is which; answer the set's own volumes"
        )
    return slices.assign(number=upwards)
