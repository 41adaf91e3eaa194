"""Stored series -> what others look at: a volume for viewers, and what was predicted of it over z."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import replacing
from models.common.folders import Work
from models.inference.runs import read_fold
from models.preprocessing.affine import Placement, place_series
from models.preprocessing.origin import SYNTHETIC, is_synthetic
from models.preprocessing.store import Series
from models.preprocessing.tables import UNREADABLE, read_slices
from models.reporting.figures import draw_along_z
from models.reporting.nifti import to_nifti

_TOLD = 0.1  # mm beside its place, or degrees of shear, of which nothing need be said


class Predicted(NamedTuple):
    """What was predicted, and by what."""

    by: str
    probabilities: pd.DataFrame  # index image_id, columns LABELS


def find_series(work: Work, splits: Sequence[str], keys: Collection[str]) -> dict[str, pd.DataFrame]:
    """The stored slices of the series that are asked for, without keys of all of the first split, by their split.

    Raises InputError for a key that no stored series has, and if the metadata is damaged.
    """
    tables = {split: read_slices(work, split) for split in splits}
    tables = {split: table[table["chunk"] != UNREADABLE] for split, table in tables.items()}
    known = {series_id for table in tables.values() for series_id in table["series_id"]}
    if unknown := set(keys) - known:
        raise InputError(f"no stored series {min(unknown)}; {work.series_list} holds the keys, and which are taken")
    if not keys:
        return {splits[0]: tables[splits[0]]}
    found = {split: table[table["series_id"].isin(keys)] for split, table in tables.items()}
    return {split: table for split, table in found.items() if len(table)}


def read_predicted(work: Work, run: str, fold: int, split: str) -> Predicted:
    """What a fold has predicted of "test", or of the part of "train" that it was validated on.

    Raises InputError, naming the command that makes it, if it is not there.
    """
    return Predicted(f"{run}, fold {fold}", read_fold(work, run, fold, "test" if split == "test" else "valid"))


def export_series(
    slices: pd.DataFrame, image_size: int, work: Work, path: Path, predictions: Predicted | None
) -> list[str]:
    """Write a series, its stored rows of the metadata, as `path`.nii.gz, and its predictions as `path`.png.

    Returns what is to be said of them. Raises InputError if the store is not there or damaged.
    """
    lines, placed, synthetic = [], place_series(slices, image_size), is_synthetic(work)
    if placed.is_known:
        store = Series(work.series(image_size, slices["series_id"].iloc[0]))
        hounsfield = np.stack([store.read(number) for number in range(len(store))])
        volume = path.with_name(f"{path.name}.nii.gz")
        _write(volume, to_nifti(hounsfield, placed.affine, synthetic))
        lines.append(f"{volume}: {len(store)} slices, {describe(placed)}")
    else:
        lines.append(f"{path.name}: no volume, for its files do not tell where its slices lie")
    if predictions is None:
        return lines
    seen = slices[slices["image_id"].isin(predictions.probabilities.index)]
    if seen.empty:
        return [*lines, f"{path.name}: no picture, for {predictions.by}, has not predicted it"]
    picture = path.with_name(f"{path.name}.png")
    probability = predictions.probabilities.loc[seen["image_id"]].to_numpy()
    title = f"{path.name}: {predictions.by}" + (f"\n{SYNTHETIC}" if synthetic else "")
    _write(picture, draw_along_z(seen, probability, title))
    return [*lines, f"{picture}: {len(seen)} predicted slices"]


def describe(placed: Placement) -> str:
    """How large the elements of a volume are, and what a viewer does not show."""
    text = f"{placed.pixel[0]:.3f} x {placed.pixel[1]:.3f} x {placed.step:.3f} mm"
    if placed.shear > _TOLD:
        text += f", sheared by the tilt of the gantry ({placed.shear:.1f} degrees)"
    if placed.departure > _TOLD:
        text += f"; they are not evenly spaced: a viewer shows some up to {placed.departure:.1f} mm from their place"
    return text


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
