"""The trained runs that another run builds on, each by its weights of the same fold."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from models.common.config import StudyConfig, TrainConfig
from models.common.errors import InputError
from models.common.files import read_parquet
from models.common.folders import Work
from models.training.run_record import RunRecord, read_run


class Source(NamedTuple):
    """A trained fold, whose network looks at single slices."""

    name: str
    folder: Path
    record: RunRecord
    config: TrainConfig  # the record's

    def store(self, work: Work, views: str) -> Path:
        """Where its embeddings lie: other weights or views have another folder."""
        return work.cache / "embeddings" / f"{self.name}_{self.folder.name}_{self.record.weights_sha256[:12]}_{views}"


def find_source(name: str, folder: Path, flag: str) -> Source:
    """The fold of another run that the one in `folder` builds on: runs/<name>/fold<k> beside it.

    Raises InputError, naming the `flag` that chooses it, if it is not trained, or is no network of single slices.
    """
    folder = folder.parent.parent / name / folder.name
    record = read_run(folder)
    if record is None:
        train = f"python models/train_{name}.py --fold {folder.name.removeprefix('fold')}"
        raise InputError(f"no trained network in {folder}; train it with: {train}, or name another run with {flag}")
    config = record.config
    if not isinstance(config, TrainConfig) or isinstance(config, StudyConfig):
        raise InputError(f"{folder} holds no network of single slices; name another run with {flag}")
    return Source(name, folder, record, config)


def require_unseen(folder: Path, image_ids: pd.Series, folds: Path) -> None:
    """Raise InputError if the fold of a run in `folder` may have trained on some of these slices.

    It has not where it was validated on them. It may have where `folds` are not those that it was trained with: they
    were made anew, or are those of another stage.
    """
    validated = read_parquet(folder / "valid.parquet", f"python models/train_{folder.parent.name}.py")["image_id"]
    seen = image_ids[~image_ids.isin(validated)]
    if len(seen):
        raise InputError(
            f"{folder} was not validated on {len(seen):,} of {len(image_ids):,} slices that {folds} has in its "
            f"{folder.name}, first {seen.iloc[0]}; it may have trained on them: name a run that was trained with these "
            "folds"
        )
