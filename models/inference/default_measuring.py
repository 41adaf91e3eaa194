"""How a default network ranks labelled slices of people."""

from pathlib import Path

import pandas as pd

from models.common.errors import InputError
from models.common.files import hash_file
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine
from models.inference.comparing import intervals, resample
from models.inference.default import SLICES, STUDIES, default_runs
from models.inference.default_card import Measured
from models.inference.predict import infer
from models.inference.predictions import read_probabilities
from models.inference.scoring import in_common
from models.preprocessing.origin import is_synthetic
from models.preprocessing.tables import UNREADABLE, read_slices


def measure(folder: Path, work: Work, device: str = "auto") -> Measured:
    """Predict the labelled slices of a cache with a default network, and score it.

    Raises InputError if the slices are drawings, none has a label, or the cache lacks their size.
    """
    if is_synthetic(work):
        raise InputError(f"{work.root} holds drawings, which tell nothing of people; name labelled slices with --data")
    slices = read_slices(work, "train") if work.metadata("train").is_file() else pd.DataFrame()  # own files have none
    slices = slices[slices["chunk"] != UNREADABLE] if len(slices) else slices
    labelled = slices.reindex(columns=["image_id", "patient_id", *LABELS]).dropna().set_index("image_id")
    if labelled.empty:
        raise InputError(f"no slice of {work.root} has a label; name labelled slices with --data")
    tables = {}
    for name, run in zip((SLICES, STUDIES), default_runs(folder), strict=True):
        # Predictions of other weights may lie there: those have another name.
        called = f"{name}_{hash_file(run / 'config.json')[:12]}"
        options = InferOptions(called, split="train", weights=run, machine=Machine(work=work.root, device=device))
        infer(options)
        tables[name] = read_probabilities(options.output)
    found, target, _ = in_common(labelled, tables[STUDIES])
    people = labelled.loc[found, "patient_id"].to_numpy()
    drawn = {name: resample(target, table.loc[found].to_numpy(), people) for name, table in tables.items()}
    return Measured(
        slices=len(found),
        people=len(set(people)),
        with_label=dict(zip(LABELS, target.sum(axis=0).astype(int).tolist(), strict=True)),
        scores={name: intervals(scores) for name, scores in drawn.items()},
    )
