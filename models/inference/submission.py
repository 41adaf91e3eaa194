"""A blend -> submission.csv."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import write_csv
from models.common.labels import LABELS
from models.inference.predictions import align


def describe_mismatches(predictions: dict[str, pd.DataFrame], image_ids: pd.Index) -> list[str]:
    """A line for each way in which the slices of a run are not exactly `image_ids`, those of the sample submission.

    `predictions` are indexed by `image_id`. All of this is mended by aligning, and what lacks by the other runs. Raises
    InputError for a run that has none of the slices, and if a slice lacks in all runs.
    """
    lines = []
    for name, table in predictions.items():
        known = image_ids.isin(table.index)
        others = table.index.difference(image_ids)
        if not known.any():
            raise InputError(
                f"{name} has none of the {len(image_ids):,} slices of the sample submission, but {len(others):,} "
                "others: they are of another stage or set; name the right one with --stage or --data, and infer again"
            )
        if not known.all():
            lines.append(f"{name} lacks {(~known).sum():,} of {len(image_ids):,} slices, first {image_ids[~known][0]}")
        if len(others):
            lines.append(f"{name} has {len(others):,} slices that nobody asked for, first {others[0]}")
        elif known.all() and not table.index.equals(image_ids):
            lines.append(f"{name} has the slices in another order")
    lacking = image_ids[~np.any([image_ids.isin(table.index) for table in predictions.values()], axis=0)]
    if len(lacking):
        raise InputError(
            f"no run has {len(lacking):,} of the {len(image_ids):,} slices of the sample submission, first {lacking[0]}"
        )
    return lines


def write_submission(
    file: Path, predictions: pd.DataFrame, submission_ids: pd.Series, images: pd.Series
) -> pd.DataFrame:
    """Write `ID,Label` with exactly the IDs of the sample submission, in its order; returns what was written.

    `images` are the names that the predictions have for the slice of each ID.

    Raises InputError if a slice lacks or a value is not a probability; then nothing is written.
    """
    slices = align(predictions, images, "the blend").to_numpy()  # (rows, 6): a slice's six labels in each row
    column = pd.Index(LABELS).get_indexer(pd.Index(submission_ids.str.rsplit("_", n=1).str[1]))
    values = np.take_along_axis(slices, column[:, None], axis=1)[:, 0]
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"the blend holds a value that is no probability; {file} is not written")
    table = pd.DataFrame({"ID": submission_ids.to_numpy(), "Label": values})
    write_csv(file, table)
    return table
