"""Headers of all files -> one row a slice, in anatomical order within its series."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from models.errors import InputError
from models.preprocessing.dicom import UnreadableSliceError, read_header
from models.preprocessing.parallel import progress_map

PROBLEM_COLUMNS = ["item", "problem", "treatment"]


def problem(item: str, what: str, treatment: str) -> dict[str, str]:
    """A row of cache/problems.csv."""
    return dict(zip(PROBLEM_COLUMNS, (item, what, treatment), strict=True))


def collect_headers(files: list[Path], jobs: int, title: str) -> tuple[pd.DataFrame, list[dict]]:
    """Read the headers of `files` in parallel.

    Returns one row a readable file (identifiers, geometry, pixel format; the column `path`), and the problems.
    Raises InputError if there is no readable file at all.
    """
    rows, problems = [], []
    for path, row in zip(files, progress_map(_header_row, files, jobs, title), strict=True):
        if isinstance(row, str):
            problems.append(problem(path.name, row, "left out"))
        else:
            rows.append({**row, "path": path})
    if not rows:
        reason = f", first: {problems[0]['problem']}" if problems else ""
        raise InputError(
            f"{title}: none of {len(files)} files is a DICOM slice{reason}; name another folder with --data"
        )
    table = pd.DataFrame(rows)
    repeated = table.duplicated("image_id")
    problems += [
        problem(path.name, "SOPInstanceUID of another file", "left out") for path in table.loc[repeated, "path"]
    ]
    return table[~repeated], problems


def order_slices(table: pd.DataFrame) -> pd.DataFrame:
    """Sort slices by series and position; adds `z`, mm along the slice normal, towards the head for axial slices.

    The position is the projection of ImagePositionPatient on the normal of the slice plane (PS3.3 C.7.6.2.1.1); it
    needs no InstanceNumber, and holds for tilted series. One normal serves a whole series, also where slices of two
    tilts are mixed in it. Slices at one position keep the order of their `image_id`.
    """
    table = table.sort_values("image_id")
    orientation = table.groupby("series_id")[[f"image_orientation_{i}" for i in range(6)]].transform("first").to_numpy()
    position = table[[f"image_position_{i}" for i in range(3)]].to_numpy()
    z = (np.cross(orientation[:, :3], orientation[:, 3:]) * position).sum(axis=1)  # (slices,)
    return table.assign(z=z).sort_values(["series_id", "z", "image_id"], ignore_index=True)


def _header_row(path: Path) -> dict | str:
    try:
        row = read_header(path)
    except UnreadableSliceError as reason:
        return str(reason)
    for name in ("image_id", "series_id"):  # a series' file in the store bears its id
        if not re.fullmatch(r"\w[\w.-]*", row[name]):
            return f"{name} in the header is not a plain name"
    row["patient_id"] = row["patient_id"] or row["study_id"] or row["series_id"]  # without one, a study is a patient
    return row
