"""Whom have the networks that answered trained on? Nobody of a set may be scored as unseen who was seen.

The masks of BHSD and MBH-Seg are of studies of the challenge itself: they are scored only of whom it is noted that no
network has trained on them, as a fold has not on the patients that it validates on.
"""

from pathlib import Path
from typing import NamedTuple

from models.common.errors import InputError
from models.common.folders import Work
from models.common.repair import command_of
from models.inference import default
from models.inference.external_answers import Answers
from models.inference.external_joining import Joined
from models.inference.external_labels import Published
from models.inference.external_names import identifiers_of, patient_of
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.training.run_record import RunRecord, read_record
from models.training.seen import Seen, join_seen, seen_by


class Networks(NamedTuple):
    """The folders of what has answered, by name, and the names of what was not found."""

    folders: dict[str, Path]
    unknown: list[str]


def find_networks(answers: Answers, work: Work, release: Path | None) -> Networks:
    """The folds that answered, by the hash of their weights: of runs/, of a release, or the default network's.

    Raises InputError if a record is damaged.
    """
    folders = {}
    for name, sha256 in answers.weights.items():
        for folder in (work.runs / name, *([release / name] if release else []), default.FOLDER / name):
            record = read_record(folder)
            if isinstance(record, RunRecord) and record.weights_sha256 == sha256:
                folders[name] = folder
                break
    return Networks(folders, [name for name in answers.weights if name not in folders])


def without_seen(published: Published, joined: Joined, networks: Networks, work: Work) -> Joined:
    """Joined studies of whom no network has trained on, as far as that is noted.

    Raises InputError if nobody is left, or they are the challenge's studies and it is not noted.
    """
    seen = _seen(networks)
    who = ", ".join(sorted(seen.unknown))
    if seen.unknown and published.name == "bhsd":
        raise InputError(
            f"the masks of {published.name} are of the challenge's own studies, and whom {who} has trained on is not "
            "known: it may have been these; name the working folder whose runs/ answered, with their patients.parquet, "
            "with --work"
        )
    known = [name for name in joined.studies.index if _names(published, name, work) & seen.patients]
    notes = list(joined.notes)
    if seen.unknown:
        notes.append(
            f"whom {', '.join(sorted(seen.unknown))} has trained on is not known; --work names its working folder"
        )
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


def _seen(networks: Networks) -> Seen:
    """Whom all of them have seen, and of which of them that is not noted."""
    parts = [Seen(frozenset(), frozenset(networks.unknown))]
    for name, folder in networks.folders.items():
        parts.append(seen_by(folder) or Seen(frozenset(), frozenset([name])))
    return join_seen(parts)


def _names(published: Published, name: str, work: Work) -> set[str]:
    """What runs may have noted the patient of a study by: as the challenge does, or hashed by the working folder."""
    names = {patient_of(published.name, name), *identifiers_of(published.name, name)}
    secret = work.root / "pseudonyms.key"
    return names | ({*map(Pseudonyms(read_key(secret)).hash, names)} if secret.is_file() else set())
