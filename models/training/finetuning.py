"""What a network is finetuned with beside the labelled slices: pseudolabelled test slices of the same fold."""

import numpy as np
import pandas as pd

from models.common.config import FinetuneConfig
from models.common.errors import InputError
from models.common.files import hash_file, read_parquet
from models.common.folders import Work
from models.common.labels import LABEL_WEIGHTS
from models.common.repair import command_of
from models.preprocessing.tables import patients_of_fold, read_slices
from models.preprocessing.windows import LOW_INFORMATION
from models.training.seen import Seen, join_seen, seen_or_unknown


def add_pseudolabels(slices: pd.DataFrame, work: Work, config: FinetuneConfig, fold: int) -> pd.DataFrame:
    """Labelled slices and, below them, the pseudolabelled test slices of a fold, with LABEL_WEIGHTS: 1 for the former.

    Low-information slices are left out of the latter, too, when asked. Raises InputError if the pseudolabels lack, were
    made for other folds or test slices, or hold a patient whom the fold validates on.
    """
    file, repair = work.pseudolabels(config.pseudolabels, fold), _repair(work, config)
    table = read_parquet(file, repair)
    for source in (work.folds, work.metadata("test")):
        if table.attrs.get(source.name) != hash_file(source):
            raise InputError(f"{file} was made with another {source}; delete it and make it anew with: {repair}")
    test = read_slices(work, "test").merge(table, on="image_id", validate="one_to_one")
    if (known := test["patient_id"].isin(patients_of_fold(work, fold))).any():
        raise InputError(
            f"{file} holds {known.sum():,} slices of patients whom fold {fold} validates on, first "
            f"{test.loc[known, 'image_id'].iloc[0]}; delete it and make it anew with: {repair}"
        )
    if config.skip_low_information:
        test = test[test["img_pct_window"] >= LOW_INFORMATION]
    return pd.concat([slices.assign(**dict.fromkeys(LABEL_WEIGHTS, np.float32(1))), test], ignore_index=True)


def seen_by_labellers(work: Work, config: FinetuneConfig, fold: int) -> Seen:
    """Whom the runs have seen that have made the pseudolabels of a fold. Raises InputError if the pseudolabels lack."""
    runs = read_parquet(work.pseudolabels(config.pseudolabels, fold), _repair(work, config)).attrs["runs"]
    return join_seen(seen_or_unknown(work.run(run, fold)) for run in runs.split())


def _repair(work: Work, config: FinetuneConfig) -> str:
    return command_of("make_pseudolabels", config.start, "--name", config.pseudolabels, work=work)
