"""How far a fold as ONNX is from the same fold in torch, on slices of a cache or, without one, on made-up ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy.special import expit

from models.common.config import SequenceConfig, StudyConfig
from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import STORED, Work
from models.common.labels import LABELS
from models.common.prediction_files import read_predictions
from models.inference.asked_runs import Fold, Study
from models.inference.engines import Engine
from models.inference.ensemble import Ensemble
from models.inference.onnx_engine import OnnxEngine
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.preprocessing.store import compress_slice, write_series
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.metric import weighted_log_loss
from models.training.study_places import places
from models.training.symmetries import IDENTITY

EXACT = 1e-4  # largest difference of a probability between torch and a graph in float32 that is given the same
_MADE = 12  # slices
_BLOBS = 9  # places along a side between which made-up slices change


class Looked(NamedTuple):
    """Slices to compare on, some whole studies."""

    of: str  # what they are
    studies: list[Study]
    labelled: bool


class Checked(NamedTuple):
    """What came of it."""

    name: str  # of the fold
    of: str
    slices: int
    apart: float  # of graphs that are given the same: largest difference of a probability
    difference: float  # the same of the whole way
    losses: tuple[float, float] | None  # weighted log loss by ONNX, and by torch

    def told(self) -> dict[str, Any]:
        """As onnx.json has it."""
        return self._asdict()


def check(fold: Fold, ours: Fold, engine: Engine, looked: Looked, exact: bool) -> Checked:
    """Compare a fold by torch with `ours`, the same as ONNX. Raises InputError if it is to be `exact` and is not."""
    onnx = OnnxEngine()
    apart = max(_apart(fold, ours, engine, onnx, study) for study in looked.studies)
    if exact and not apart <= EXACT:
        raise InputError(f"{fold.folder} as ONNX is {apart:.1e} from torch, more than {EXACT:g}; it is not written")
    theirs, own = (
        np.concatenate([ensemble.ask(study)[0].probability.mean(axis=0) for study in looked.studies])
        for ensemble in (Ensemble([fold], "cpu", "none", "torch"), Ensemble([ours], "cpu", "none", "onnx"))
    )
    losses = None
    if looked.labelled:
        target = np.concatenate([study.slices[list(LABELS)].to_numpy(float) for study in looked.studies])
        losses = weighted_log_loss(target, own), weighted_log_loss(target, theirs)
    return Checked(fold.name, looked.of, len(own), float(apart), float(np.abs(own - theirs).max()), losses)


def gather(fold: Fold, work: Path | None, most: int, scratch: Path) -> Looked:
    """Whole studies of about `most` slices: of the fold's validation, else of the cache, else made up in `scratch`.

    Raises InputError if the cache is damaged.
    """
    cache = Work(work) if work is not None else None
    if cache is not None and all(cache.slices(size).is_dir() for size in fold.image_sizes):
        valid = fold.folder / "valid.parquet"
        if valid.is_file() and cache.metadata("train").is_file():
            table = read_slices(cache, "train")
            own = read_predictions(valid, "training that fold again").index
            table = table[table["image_id"].isin(own)].dropna(subset=list(LABELS))
            if len(table):
                return Looked("its validation", _some(table, cache, most), True)
        for split in ("test", "train"):
            if cache.metadata(split).is_file():
                return Looked("the cache", _some(read_slices(cache, split), cache, most), False)
    return Looked("made-up slices", [_made_up(fold, Work(scratch))], False)


def _some(table: pd.DataFrame, work: Work, most: int) -> list[Study]:
    """The first studies of a table, as many as have `most` slices; at least one."""
    studies, count = [], 0
    for _, slices in table[table["chunk"] != UNREADABLE].groupby("series_id", sort=False):
        studies.append(Study(slices.reset_index(drop=True), work))
        count += len(slices)
        if count >= most:
            break
    return studies


def _made_up(fold: Fold, work: Work) -> Study:
    """A study of all that Hounsfield units may be, without any likeness to a head."""
    random = np.random.default_rng(0)
    coarse = random.uniform(*HOUNSFIELD_RANGE, (_MADE, _BLOBS, _BLOBS)).astype(np.float32)
    for size in fold.image_sizes:
        slices = [cv2.resize(one, (size, size), interpolation=cv2.INTER_LINEAR) for one in coarse]
        noisy = [np.clip(one + random.normal(0, 20, one.shape), *HOUNSFIELD_RANGE).astype(np.int16) for one in slices]
        write_series(work.slices(size) / f"made{STORED}", [compress_slice(one) for one in noisy], (size, size), {})
    names = [f"made_{number}" for number in range(_MADE)]
    table = pd.DataFrame({"image_id": names, "series_id": "made", "chunk": range(_MADE)})
    table = table.assign(z=5.0 * np.arange(_MADE), tilt=0.0)
    write_parquet(work.metadata("test"), table)  # in which neighbours so many mm away are looked up
    return Study(table, work)


def _apart(fold: Fold, ours: Fold, torch: Engine, onnx: Engine, study: Study) -> float:
    """The largest difference of a probability, of all graphs of a fold, each given the same as its network in torch."""
    return max(float(np.abs(expit(one) - expit(other)).max()) for one, other in _pairs(fold, ours, torch, onnx, study))


def _pairs(
    fold: Fold, ours: Fold, torch: Engine, onnx: Engine, study: Study
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits (slices, 6) by torch, and by ONNX."""
    seen = [torch.see(eye, study, (IDENTITY,)) for eye in fold.eyes]
    for eye, known in zip(ours.eyes, seen, strict=True):
        yield known.logits[0], onnx.see(eye, study, (IDENTITY,)).logits[0]
    if isinstance(fold.record.config, SequenceConfig | StudyConfig):
        described = [one.embedding[0] for one in seen] + [one.logits[0] for one in seen]
        given = np.concatenate(described, axis=1), places(study.slices)
        yield torch.carry(fold, *given), onnx.carry(ours, *given)
