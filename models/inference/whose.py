"""Whose slices predictions are of: those of patients that the network has trained on are never scored with others."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models.common.folders import Work
from models.common.prediction_files import read_predictions
from models.training.run_record import RunRecord, read_record
from models.training.seen import Seen, join_seen, seen_by, seen_or_unknown

UNSEEN = "patients it has not trained on"
SEEN = "patients this network has trained on"
IN_TRAIN = "patients also in train, on whom it may have trained"  # that was not noted
NOT_IN_TRAIN = "patients not in train"
STRANGERS = "patients whom the cache does not know"
KINDS = (UNSEEN, NOT_IN_TRAIN, IN_TRAIN, STRANGERS, SEEN)

_PATIENTS, _UNKNOWN, _WEIGHTS = "seen_patients", "seen_unknown", "weights_sha256"  # of the notes in a prediction file


class Part(NamedTuple):
    """Slices that were predicted by networks which have trained on the same patients."""

    image_ids: pd.Index
    seen: Seen | None  # None: nobody has noted whom they have seen


def split_by_kind(parts: Iterable[Part], patients: pd.DataFrame) -> dict[str, pd.Index]:
    """The slices of each of KINDS that is there; `patients` is what `read_patients` gives.

    Of a slice that stands in several parts, because several networks have predicted it, the last of its kinds counts.
    """
    codes, names = pd.factorize(patients["patient_id"])  # -1: nobody's
    in_train = patients["in_train"].to_numpy(bool)
    kinds, strangers = np.full(len(patients), -1), pd.Index([])
    for part in _distinct(parts):
        places = patients.index.get_indexer(part.image_ids)
        strangers = strangers.union(part.image_ids[places < 0], sort=False)
        places = places[places >= 0]
        of_part = _kinds(part.seen, codes[places], names, in_train[places])
        kinds[places] = np.maximum(kinds[places], of_part)
    found = {kind: patients.index[kinds == code] for code, kind in enumerate(KINDS)}
    found[STRANGERS] = found[STRANGERS].append(strangers)
    return {kind: image_ids for kind, image_ids in found.items() if len(image_ids)}


def _distinct(parts: Iterable[Part]) -> list[Part]:
    """Without repetitions: runs with the same folds have seen the same, and to look up a million names takes time."""
    found: list[Part] = []
    for part in parts:
        if not any(part.seen == other.seen and part.image_ids.equals(other.image_ids) for other in found):
            found.append(part)
    return found


def _kinds(seen: Seen | None, codes: np.ndarray, names: pd.Index, in_train: np.ndarray) -> np.ndarray:
    """The place in KINDS of slices, (slices,), by the codes (slices,) of their patients and whether train has them."""
    not_noted = np.where(in_train, KINDS.index(IN_TRAIN), KINDS.index(NOT_IN_TRAIN))
    kinds = not_noted if seen is None or seen.unknown else np.full(len(codes), KINDS.index(UNSEEN))
    if seen is not None and len(names):
        kinds = np.where(names.isin(list(seen.patients))[codes], KINDS.index(SEEN), kinds)
    return np.where(codes < 0, KINDS.index(STRANGERS), kinds)


def parts_of_run(work: Work, name: str, folds: list[int]) -> list[Part]:
    """The out-of-fold slices of each fold. Its network has validated on them: what is not noted was not seen.

    Raises InputError if the predictions, or the notes, lack or are damaged.
    """
    return [part_of_fold(work, name, fold) for fold in folds]


def part_of_fold(work: Work, name: str, fold: int) -> Part:
    """The same of one fold. Raises InputError as `parts_of_run`."""
    seen = seen_by(work.run(name, fold))
    image_ids = read_predictions(work.prediction(name, fold, "valid"), "the training script").index
    return Part(image_ids, Seen(seen.patients if seen else frozenset()))


def part_of_file(file: Path, predictions: pd.DataFrame) -> Part:
    """What a prediction file notes of itself; else whom the fold in whose folder it lies has seen, if that made it.

    Raises InputError if a note is damaged.
    """
    notes = predictions.attrs
    if _PATIENTS in notes:
        return Part(predictions.index, Seen(frozenset(notes[_PATIENTS]), frozenset(notes[_UNKNOWN])))
    record = read_record(file.parent)
    if record is None or (isinstance(record, RunRecord) and notes.get(_WEIGHTS) not in (None, record.weights_sha256)):
        return Part(predictions.index, None)  # older versions have noted no weights
    seen = seen_by(file.parent)
    if file.name == "valid.parquet":
        return Part(predictions.index, Seen(seen.patients if seen else frozenset()))
    return Part(predictions.index, seen)


def seen_by_runs(work: Work, runs: dict[str, list[int]]) -> Seen:
    """Whom the networks of some folds of runs have seen, together. Raises InputError if a note is damaged."""
    return join_seen(seen_or_unknown(work.run(name, fold)) for name, folds in runs.items() for fold in folds)


def note_seen(folder: Path, slices: pd.DataFrame) -> dict[str, Any]:
    """What a prediction file is to note: whom of these slices the network in `folder` has seen. Prints how many.

    Raises InputError if its own note is damaged.
    """
    seen = seen_or_unknown(folder)
    known = slices[slices["patient_id"].astype(str).isin(seen.patients)]
    if len(known):
        count = known["patient_id"].nunique()
        print(f"{len(known):,} of {len(slices):,} slices are of {count:,} {SEEN}: they tell nothing of its worth")
    if seen.unknown:
        print(f"whom {' and '.join(sorted(seen.unknown))} has trained on is not noted")
    return {_PATIENTS: sorted(set(known["patient_id"].astype(str))), _UNKNOWN: sorted(seen.unknown)}
