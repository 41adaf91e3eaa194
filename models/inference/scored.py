"""What models/score.py scores: predictions by name, whose slices they are of, and the tables that it prints."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.prediction_files import read_predictions
from models.common.repair import command_of
from models.inference.blend_record import BlendRecord, changed_inputs, read_record_of_blend
from models.inference.predictions import read_probabilities
from models.inference.runs import (
    chosen_on_own_slices,
    finished_folds,
    load_out_of_fold,
    read_out_of_fold,
    require_finished,
)
from models.inference.scoring import in_common, score_intervals, score_table
from models.inference.whose import (
    SEEN,
    STRANGERS,
    UNSEEN,
    Part,
    part_of_file,
    parts_of_run,
    seen_by_runs,
    split_by_kind,
)
from models.preprocessing.origin import prepare_command
from models.preprocessing.pseudonyms import cached_images
from models.training.scoring import CERTAIN, WEIGHTED, label_table
from models.training.seen import Seen

BLEND = "blend"


class Scored(NamedTuple):
    """Predictions to score."""

    name: str
    table: pd.DataFrame  # index image_id, columns LABELS
    parts: list[Part]  # whose slices these are
    notes: tuple[str, ...] = ()  # what was chosen on the very slices that are scored


def read_everything(work: Work) -> list[Scored]:
    """Every finished run out-of-fold, and the blend if there is one that was made of runs as they are now.

    Raises InputError as `load_out_of_fold`.
    """
    found = [_of_run(work, name, finished_folds(work, name), table) for name, table in load_out_of_fold(work).items()]
    if (work.blend / "valid.parquet").is_file():
        try:
            found.append(_of_blend(work))
        except InputError as error:
            print(f"{BLEND} is left out: {error}")
    return found


def read_named(work: Work, name: str) -> Scored:
    """The blend, a run out-of-fold, a prediction file or a submission.

    Raises InputError for what is none of them, or is damaged, and for a blend that was made of other runs.
    """
    if name == BLEND:
        return _of_blend(work)
    if (work.runs / name).is_dir() or (Path(name).name == name and not Path(name).suffix):
        folds = require_finished(work, name)
        return _of_run(work, name, folds, read_out_of_fold(work, name, folds))
    file = Path(name)
    table = read_probabilities(file)
    if file.suffix != ".csv":
        return Scored(name, table, [part_of_file(file, table)])
    images = cached_images(work.root, table.index.to_series())  # a submission names the images as the files do
    table = table.set_index(pd.Index(images, name="image_id"))
    return Scored(name, table, [Part(table.index, _seen_by_blend(work, file))])


def print_table(
    predictions: list[Scored], labels: pd.DataFrame, patients: pd.DataFrame, work: Work, with_intervals: bool
) -> None:
    """A row for each of the predictions and kind of patient; before it, if it is asked for, the log loss of each label.

    `labels` and predictions are indexed by `image_id`, `patients` is what `read_patients` gives.
    """
    rows = {}
    for each in predictions:
        kinds = split_by_kind(each.parts, patients)
        labelled = {kind: ids for kind, ids in kinds.items() if len(ids.intersection(labels.index))}
        if with_intervals:
            count = sum(len(ids.intersection(labels.index)) for ids in labelled.values())
            print(
                f"{each.name}: {count:,} of {len(each.table):,} predicted slices have a label, {count:,} of "
                f"{len(labels):,} labelled slices a prediction"
            )
        for kind, ids in labelled.items():
            rows[each.name if kind == UNSEEN else f"{each.name}, {kind}"] = each.table.loc[ids]
            if with_intervals:
                print_labels(kind, labels, each.table.loc[ids], patients, work)
    table = score_table(labels, rows)
    print(table.to_string(float_format="{:.4f}".format))
    for each in predictions:
        for note in each.notes:
            print(f"{each.name}: chosen on the slices that it is scored on: {note}")
    print_last(table.loc[[row for row in table.index if not row.endswith(SEEN)] or table.index])


def print_last(table: pd.DataFrame) -> None:
    """The last row of a table of scores, in a sentence."""
    last = table.iloc[-1]
    if last["prior"] < CERTAIN:
        beside = "each label is the same in all slices, which leaves nothing to compare with"
    else:
        share = 1 - last[WEIGHTED] / last["prior"]
        beside = f"{abs(share):.0%} {'below' if share >= 0 else 'above'} the prior's {last['prior']:.4f}"
    auc = "no AUC of any" if np.isnan(last["AUC any"]) else f"AUC of any {last['AUC any']:.3f}"
    print(
        f"{table.index[-1]}: weighted log loss {last[WEIGHTED]:.4f}, {beside}; {auc} over {last['slices']:,.0f} slices"
    )


def print_labels(
    kind: str, labels: pd.DataFrame, predictions: pd.DataFrame, patients: pd.DataFrame, work: Work
) -> None:
    """The log loss of each label of one kind of patients, with intervals where it is known who they are."""
    slices, target, probability = in_common(labels, predictions)
    names = patients["patient_id"].reindex(slices)
    if kind == STRANGERS:
        print(
            f"no intervals: the patient of {len(slices):,} of these slices is not in the cache; name another with "
            f"--work or --stage, or make it with: {prepare_command(work)}"
        )
        table, heading = label_table(target, probability), f"{kind}: {len(slices):,} slices"
    else:
        table = score_intervals(target, probability, names.to_numpy())
        heading = f"{kind}: {len(slices):,} slices of {names.nunique():,} patients"
    print(f"{heading}\n{table.to_string(float_format='{:.4f}'.format, na_rep='')}\n")


def _of_run(work: Work, name: str, folds: list[int], table: pd.DataFrame) -> Scored:
    return Scored(name, table, parts_of_run(work, name, folds), tuple(chosen_on_own_slices(work, name, folds)))


def _of_blend(work: Work) -> Scored:
    """The nested predictions of the blend, each from a fit and from networks that have not seen its patient."""
    repair = command_of("blend", work=work)
    table = read_predictions(work.blend / "valid.parquet", repair)
    record = read_record_of_blend(work)
    if record is None:
        return Scored(
            BLEND, table, [Part(table.index, Seen(frozenset()))], ("not noted; an older version has made it",)
        )
    if changed := changed_inputs(work, record):
        raise InputError(f"{work.blend} was made from another {changed[0]}; delete {work.blend}, then: {repair}")
    own = [part for name, folds in record.folds.items() for part in parts_of_run(work, name, folds)]
    parts = [Part(part.image_ids.intersection(table.index), part.seen) for part in own]
    return Scored(f"{BLEND}: {record.name}", table, parts, tuple(_notes(work, record)))


def _seen_by_blend(work: Work, file: Path) -> Seen | None:
    """Whom the networks behind a submission have seen, if it is the one of the blend that is there."""
    try:
        record = read_record_of_blend(work)
    except InputError:  # the blend is damaged, and not asked for
        return None
    if record is None or record.files_sha256.get("submission.csv") != hash_file(file):
        return None
    return seen_by_runs(work, record.folds)


def _notes(work: Work, record: BlendRecord) -> list[str]:
    """Of its runs alone: the way is chosen anew for each part of the patients, by the others."""
    return [
        f"{note} of {name}" for name, folds in record.folds.items() for note in chosen_on_own_slices(work, name, folds)
    ]
