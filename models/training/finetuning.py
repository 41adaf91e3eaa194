"""What a network is finetuned with: the weights of a trained run, and pseudolabelled test slices, of the same fold."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.config import FinetuneConfig
from models.common.errors import InputError
from models.common.files import hash_file, read_parquet
from models.common.folders import Work
from models.common.labels import LABEL_WEIGHTS
from models.preprocessing.tables import patients_of_fold, read_slices
from models.preprocessing.windows import LOW_INFORMATION
from models.training.run_record import field_differences
from models.training.sources import Source, find_source

_SHAPE = ("network", "image_size", "crop_size", "channels")


def find_start(config: FinetuneConfig, folder: Path) -> Source:
    """The fold whose weights the run in `folder` starts from.

    Raises InputError if it is not trained, or its network is another one or sees something else.
    """
    start = find_source(config.start, folder, "--start")
    if different := field_differences(config, start.config, _SHAPE):
        raise InputError(f"{start.folder} has {', '.join(different)}; make it equal, or name another with --start")
    return start


def add_pseudolabels(slices: pd.DataFrame, work: Work, config: FinetuneConfig, fold: int) -> pd.DataFrame:
    """Labelled slices and, below them, the pseudolabelled test slices of a fold, with LABEL_WEIGHTS: 1 for the former.

    Low-information slices are left out of the latter, too, when asked. Raises InputError if the pseudolabels lack, were
    made for other folds or test slices, or hold a patient whom the fold validates on.
    """
    file = work.pseudolabels(config.pseudolabels, fold)
    repair = f"python models/make_pseudolabels.py {config.start} --name {config.pseudolabels}{work.flag}"
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
