"""blend/blend.json -> what of it travels: the weights of each label, and what they say of unseen patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.repair import command_of
from models.inference.aligned import align_runs
from models.inference.blend_record import BlendRecord, changed_inputs, describe_fit, read_record_of_blend
from models.inference.evidence import Nest, compose, possible_ways
from models.inference.joining import Share
from models.inference.runs import read_out_of_fold
from models.inference.scored import BLEND
from models.preprocessing.tables import read_slices
from models.training.run_record import SmoothedRecord, read_record

_MEAN = "fitted_calibrated"  # the way of a label whose own cannot travel


class ReleasedBlend(NamedTuple):
    """How runs are joined where they travel."""

    record: BlendRecord
    shares: dict[str, Share]  # by label
    replaced: tuple[str, ...]  # labels whose way in blend.json is a second level, which cannot travel
    unseen: (
        pd.DataFrame | None
    )  # nested predictions, as LABELS by image_id; none: they are those of blend/valid.parquet

    @property
    def folds(self) -> dict[str, list[int]]:
        """The folds of each run that has a weight."""
        used = {run for share in self.shares.values() for run in share.weights}
        return {run: folds for run, folds in self.record.folds.items() if run in used}


def read_released_blend(work: Work, names: Sequence[str]) -> ReleasedBlend:
    """The blend of some runs, or the one that is there. Raises InputError if there is none, or it is of others."""
    runs = [name for name in names if name != BLEND]
    repair = command_of("blend", *runs, work=work)
    record = read_record_of_blend(work)
    if record is None:
        raise InputError(f"no blend in {work.blend}, which tells how runs are joined; make it with: {repair}")
    if runs and set(runs) != set(record.folds):
        there = ", ".join(record.folds)
        raise InputError(f"{work.blend} is a blend of {there}, not of {', '.join(runs)}; delete it, then: {repair}")
    if changed := changed_inputs(work, record):
        raise InputError(f"{work.blend} was made from another {changed[0]}; delete {work.blend}, then: {repair}")
    for run, folds in record.folds.items():
        if isinstance(read_record(work.run(run, folds[0])), SmoothedRecord):
            raise InputError(f"{run} is predictions that were smoothed, and no network; blend runs without it")
    replaced = tuple(label for label in LABELS if record.fitted[label]["kind"] != "Blend")
    shares = {label: Share.from_fitted(record.fitted[label]) for label in LABELS if label not in replaced}
    unseen = None
    if replaced:
        means, unseen = _refit(work, record, replaced)
        shares |= means
    return ReleasedBlend(record, {label: _without_zeros(share) for label, share in shares.items()}, replaced, unseen)


def _refit(work: Work, record: BlendRecord, replaced: Sequence[str]) -> tuple[dict[str, Share], pd.DataFrame]:
    """The best mean of labels that cannot keep their way, and what all labels then say of unseen patients."""
    labelled = read_slices(work, "train").dropna(subset=list(LABELS))
    aligned = align_runs({run: read_out_of_fold(work, run, folds) for run, folds in record.folds.items()}, labelled)
    known = labelled.set_index("image_id").loc[aligned.image_ids]
    nest, possible = Nest(aligned, known[list(LABELS)].to_numpy(), known["patient_id"]), possible_ways(aligned)
    mean = nest.fit(possible[_MEAN])
    shares = {label: Share.from_fitted(describe_fit(mean, LABELS.index(label), aligned.names)) for label in replaced}
    ways = tuple(_MEAN if label in replaced else record.ways[label] for label in LABELS)
    said = compose(ways, {way: nest.unseen(possible[way]) for way in set(ways)})
    return shares, pd.DataFrame(said.astype(np.float32), aligned.image_ids, list(LABELS))


def _without_zeros(share: Share) -> Share:
    kept = {run: weight for run, weight in share.weights.items() if weight > 0}
    return Share(kept, share.space, share.calibration)
