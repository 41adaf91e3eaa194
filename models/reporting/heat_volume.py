"""Where a network looked in a series, as NIfTI in the scanner's coordinates: any viewer lays it over the series."""

from pathlib import Path

import numpy as np

from models.common.files import replacing
from models.common.folders import Work
from models.inference.answer import Answer
from models.inference.answering import Court, readable_study
from models.preprocessing.affine import place_series


def write_heat(answer: Answer, court: Court, work: Work, file: Path) -> str:
    """Write the heat of all readable slices, 0 to 1000 for the hottest place; why it cannot be, "" where it is written.

    Raises InputError if the store is damaged, or the file cannot be written.
    """
    from models.reporting.nifti import to_nifti  # with nibabel: a second

    study = readable_study(answer.slices, work)
    heat = court.ensemble.heat(study)
    if heat is None:
        return "onnxruntime has none of this network, torch would have"
    placed = place_series(study.slices, heat.shape[-1])
    if not placed.is_known:
        return "nothing tells where its slices lie"
    scaled = np.rint(1000 * heat / max(float(heat.max()), 1e-9)).astype(np.int16)
    with replacing(file) as temporary:
        temporary.write_bytes(to_nifti(scaled, placed.affine, answer.synthetic, of_heat=True))
    return ""
