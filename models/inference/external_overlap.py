"""Whom have the networks that answered trained on? Nobody of a set may be scored as unseen who was seen.

The masks of BHSD and MBH-Seg are of studies of the challenge itself: they are scored only of whom it is noted that no
network has trained on them, as a fold has not on the patients that it validates on.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from models.common.errors import InputError
from models.common.folders import Work
from models.common.repair import command_of
from models.inference import default
from models.inference.external_answers import Answers
from models.inference.external_joining import Joined
from models.inference.external_labels import Published
from models.inference.external_names import identifiers_of, patient_of
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.training.run_record import PATIENTS, RunRecord, read_record
from models.training.seen import Seen, join_seen, seen_by


class Networks(NamedTuple):
    """Where the folds that answered were found, by name; what was not found is in neither."""

    folders: dict[str, Path]  # as they answered
    trained: dict[str, Path]  # as they were trained, with a note of whom on


def find_networks(answers: Answers, work: Work, release: Path | None) -> Networks:
    """The folds that answered, by the hash of their weights: of runs/, of a release, or the default network's.

    A release notes which weights its own were rounded from, and so in which run it is told whom they have seen. Raises
    InputError if a record is damaged.
    """
    folders, trained = {}, {}
    for name, sha256 in answers.weights.items():
        for folder in (work.runs / name, *([release / name] if release else []), default.FOLDER / name):
            told = record_of(folder)
            if told.get("weights_sha256") != sha256:
                continue
            folders[name] = folder
            run = work.runs / name
            before = told.get("float32_sha256")
            if before is None or (folder / PATIENTS).is_file():
                trained[name] = folder
            elif record_of(run).get("weights_sha256") == before:
                trained[name] = run
            break
    return Networks(folders, trained)


def record_of(folder: Path) -> dict[str, Any]:
    """config.json of a run; nothing where there is none."""
    if not isinstance(read_record(folder), RunRecord):  # it is damaged, or newer, or there is none
        return {}
    return json.loads((folder / "config.json").read_text())


def without_seen(published: Published, joined: Joined, answers: Answers, networks: Networks, work: Work) -> Joined:
    """Joined studies of whom no network has trained on, as far as that is noted.

    Raises InputError if nobody is left, or they are the challenge's studies and it is not noted.
    """
    seen = _seen(answers, networks)
    who = ", ".join(sorted(seen.unknown))
    if seen.unknown and published.name == "bhsd":
        raise InputError(
            f"the masks of {published.name} are of the challenge's own studies, and whom {who} has trained on is not "
            "known: it may have been these; name the working folder in which it was trained, whose runs/ hold its "
            "patients.parquet, with --work, and if a release of it has answered that, with --release"
        )
    known = [name for name in joined.studies.index if _names(published, name, work) & seen.patients]
    notes = list(joined.notes)
    if seen.unknown:
        notes.append(f"whom {who} has trained on is not known; name its working folder with --work")
    if not known:
        return joined._replace(notes=[*notes, "no network is known to have trained on any of these patients"])
    if len(known) == len(joined.studies):
        raise InputError(
            f"all {len(known)} studies of {published.name} with an answer are of patients that the networks have "
            "trained on, and tell nothing; answer with the fold that has validated on them, alone: "
            f"{command_of('predict', 'PATH', '--weights', 'RUN/fold0', '--output', 'FOLDER')}"
        )
    left = joined.studies.index.difference(known)
    notes.append(
        f"{len(known)} studies are of patients that a network has trained on, and are left out: {known[0]}, ..."
    )
    return Joined(
        joined.told,
        joined.studies.loc[left],
        joined.probability.loc[left],
        joined.patients.loc[left],
        joined.slices[joined.slices["study"].isin(left)] if len(joined.slices) else joined.slices,
        notes,
    )


def _seen(answers: Answers, networks: Networks) -> Seen:
    """Whom all of them have seen, and of which of them that is not noted."""
    noted = {name: seen_by(networks.trained[name]) if name in networks.trained else None for name in answers.weights}
    return join_seen(seen or Seen(frozenset(), frozenset([name])) for name, seen in noted.items())


def _names(published: Published, name: str, work: Work) -> set[str]:
    """What runs may have noted the patient of a study by: as the challenge does, or hashed by the working folder."""
    names = {patient_of(published.name, name), *identifiers_of(published.name, name)}
    secret = work.key
    return names | ({*map(Pseudonyms(read_key(secret)).hash, names)} if secret.is_file() else set())
