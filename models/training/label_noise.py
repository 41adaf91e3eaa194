"""Labels that trained networks disagree with count less; nobody's label is judged by a network that has seen it.

Nor by one that has seen whom the fold validates on: then the validation's labels would speak in the weights. So the
folds of the run that judges were trained without that fold as well (--without).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.files import hash_file, read_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.repair import command_of_fold
from models.preprocessing.tables import patients_of_fold, split_fold
from models.training.balance import weighted
from models.training.run_record import RunRecord, read_record
from models.training.seen import require_unseen


def weigh_labels(slices: pd.DataFrame, work: Work, config: TrainConfig, fold: int) -> pd.DataFrame:
    """Slices to train on with the LABEL_WEIGHTS of `label_weights`, 1 where nobody has judged them.

    Raises InputError if the run that judges has no finished fold, or may have trained on whom this fold validates on.
    """
    if config.noisy_labels is None:
        return slices
    said = pd.concat([read_parquet(file, "") for file in judgements(work, config, fold)]).set_index("image_id")
    probability = said.reindex(slices["image_id"])[list(LABELS)].to_numpy()
    return weighted(slices, label_weights(slices[list(LABELS)].to_numpy(float), probability))


def label_weights(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """How much labels (slices, 6) count beside what was said of them, (slices, 6), NaN where nothing: (slices, 6).

    All, where the probability of what they say is at least a half; twice that probability where it is less.
    """
    agreement = 1 - np.abs(label - probability)
    return np.minimum(2 * np.where(np.isnan(agreement), 1, agreement), 1)


def judgements(work: Work, config: TrainConfig, fold: int) -> list[Path]:
    """The out-of-fold predictions that judge labels. Raises InputError as `weigh_labels`."""
    if config.noisy_labels is None:
        return []
    _, valid = split_fold(work, fold, skip_low_information=False)
    folders = sorted(work.run(config.noisy_labels, fold).parent.glob("fold*"))
    finished = [folder for folder in folders if isinstance(read_record(folder), RunRecord)]
    if not finished:
        train = command_of_fold("train", work.run(config.noisy_labels, int(fold == 0)))
        raise InputError(f"no fold of {config.noisy_labels} to judge labels; train them with: {train} --without {fold}")
    for folder in finished:
        require_unseen(folder, valid, work, fold)
    return [folder / "valid.parquet" for folder in finished]


def judged_by(work: Work, config: TrainConfig, fold: int) -> dict[str, str]:
    """The sha256 of the predictions that judge labels, by their names. Raises InputError as `weigh_labels`."""
    files = judgements(work, config, fold)
    return {f"{config.noisy_labels}/{file.parent.name}/{file.name}": hash_file(file) for file in files}


def leave_out(slices: pd.DataFrame, work: Work, config: TrainConfig) -> pd.DataFrame:
    """Slices to train on but for those of the fold that is left out beside the validation.

    Raises InputError for a fold that does not exist.
    """
    if config.without is None:
        return slices
    patients = patients_of_fold(work, config.without)
    if patients.empty:
        raise InputError(f"no fold {config.without} in {work.folds} to leave out; name another with --without")
    return slices[~slices["patient_id"].isin(patients)].reset_index(drop=True)
