"""Write stored series for a viewer, as NIfTI in Hounsfield units, and what was predicted of them as a picture.

    python models/export_nifti.py ID_0123456789abcdef --run b2 --output volumes

Needs cache/ with the slices of that size and, with --run, the predictions of a fold in runs/b2/fold0/. Without a key
every series of the test is written; cache/series.csv holds the keys.
Writes volumes/<series>.nii.gz, which any viewer opens in the right orientation, and volumes/<series>.png, the six
probabilities over z. Prints the size of a volume's elements, and how far from their place a viewer shows slices of
uneven spacing. What is made of a phantom says so: the header, the picture and the screen. Research software, not a
medical device: do not base a decision about a patient on it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from models.common.cli import command
from models.common.errors import InputError
from models.common.folders import Stage, Work, WorkFolder, default_work
from models.preprocessing.origin import describe_synthetic
from models.preprocessing.tables import require_slices


@dataclass(frozen=True)
class ExportOptions:
    """The command line of this script."""

    series: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """keys of the series to write (cache/series.csv); none: all of the test"""
    image_size: int = 512
    """side of the stored slices, pixels"""
    run: str | None = None
    """the run whose predictions to draw; none: no picture"""
    fold: int = 0
    """of the run"""
    output: Path = Path("volumes")
    """the folder to write to"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None


def export(options: ExportOptions) -> None:
    """Write the volumes and pictures.

    Raises InputError if a series, its slices or the predictions are not there, or nothing tells where a named one lies.
    """
    if options.run is not None and Path(options.run).name != options.run:
        raise InputError(f"{options.run} is not the name of a run; name a folder of runs/ without its path")
    work = Work(options.work, options.stage)
    splits = [split for split in ("test", "train") if work.metadata(split).is_file()]
    if not splits:
        require_slices(work, "test")
    from models.reporting.export import (
        export_series,
        find_series,
        read_predicted,
    )  # with matplotlib: seconds

    print(describe_synthetic(work), end="")
    for split, table in find_series(work, splits, options.series).items():
        predictions = read_predicted(work, options.run, options.fold, split) if options.run is not None else None
        for series_id, slices in table.groupby("series_id", sort=False):
            lines = export_series(slices, options.image_size, work, options.output / str(series_id), predictions)
            print("\n".join(lines))


if __name__ == "__main__":
    command(export, ExportOptions)
