"""Where files lie: the working folder and what is in it, and the flags that name the folders."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

RELEASE = "release.json"  # marks a folder as one that travels (models/inference/release.py)
STORED = ".slices"  # what the name of a stored series ends in (models/preprocessing/store.py)


@dataclass(frozen=True)
class Work:
    """The working folder: `cache/` holds what is derived from the raw data, `runs/` holds results.

    Tables that were asked for by the stage of the challenge stand in `cache/stage_<n>/`; all share one slice store.
    """

    root: Path
    stage: int | None = None

    @property
    def cache(self) -> Path:
        """What is derived from the raw data, and can be made anew."""
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        """Results, a folder a run."""
        return self.root / "runs"

    @property
    def blend(self) -> Path:
        """What blending.ipynb has made of the runs."""
        return self.root / "blend"

    @property
    def tables(self) -> Path:
        """Where the tables of this stage stand."""
        return self.cache / f"stage_{self.stage}" if self.stage else self.cache

    @property
    def stages(self) -> tuple["Work", ...]:
        """The same folder as each stage of the challenge sees it, and as it is without one."""
        return tuple(Work(self.root, stage) for stage in (None, 1, 2))

    @property
    def flag(self) -> str:
        """What makes a command that is named in a message one of this stage."""
        return f" --stage {self.stage}" if self.stage else ""

    @property
    def folds(self) -> Path:
        """The fold of each patient."""
        return self.tables / "folds.csv"

    @property
    def problems(self) -> Path:
        """Each file that could not be used as it is, and why."""
        return self.tables / "problems.csv"

    @property
    def series_list(self) -> Path:
        """A row a series: what it is, and whether it is taken."""
        return self.tables / "series.csv"

    @property
    def contact_sheet(self) -> Path:
        """A picture of some slices, to look at."""
        return self.tables / "contact_sheet.png"

    @property
    def manifest(self) -> Path:
        """The folder with an entry a series: what it was made of, and what came of it."""
        return self.cache / "manifest"

    @property
    def prepared(self) -> Path:
        """The mark that the cache is complete: its settings, and the hashes of the files that have no checksum."""
        return self.tables / "prepare.json"

    @property
    def key(self) -> Path:
        """The secret that the names of own files follow from."""
        return self.root / "pseudonyms.key"

    @property
    def begun(self) -> Path:
        """The mark that prepare.py has worked here: tables that are not here then are not to come from elsewhere."""
        return self.root / ".prepared_here"

    def metadata(self, split: str) -> Path:
        """A row for each slice of a split, "train" or "test"."""
        return self.tables / f"metadata_{split}.parquet"

    def affines(self, image_size: int) -> Path:
        """A row for each stored series: where its stored slices of this size lie in the patient."""
        return self.tables / f"affine_{image_size}.csv"

    def pseudolabels(self, name: str, fold: int) -> Path:
        """Labels of test slices, which a fold may train on."""
        return self.tables / f"pseudolabels_{name}_fold{fold}.parquet"

    def slices(self, image_size: int) -> Path:
        """The slice store of one size, the side of a slice in pixels."""
        return self.cache / f"slices_{image_size}"

    def series(self, image_size: int, series_id: str) -> Path:
        """The file of a series in the slice store."""
        return self.slices(image_size) / f"{series_id}{STORED}"

    def run(self, name: str, fold: int) -> Path:
        """The folder of a fold of a run."""
        return self.runs / name / f"fold{fold}"

    def rehearsal(self, name: str, fold: int) -> Path:
        """Where a run is gone through in small; not among the runs."""
        return self.root / "fast_dev_run" / name / f"fold{fold}"

    def prediction(self, name: str, fold: int, split: str) -> Path:
        """A prediction file of a fold. A stage has test slices of its own; what was validated is the fold's, always."""
        of_stage = f"_stage_{self.stage}" if self.stage and split != "valid" else ""
        return self.run(name, fold) / f"{split}{of_stage}.parquet"


_DATA = "folder, zip or tar of DICOM files, in Kaggle's layout or any; never written to (or set RSNA_DATA)"
DataFolder = Annotated[Path, tyro.conf.arg(help=_DATA)]
WorkFolder = Annotated[Path, tyro.conf.arg(help="folder that holds cache/ and runs/ (or set RSNA_WORK)")]
_STAGE = "stage of the challenge, its tables in cache/stage_<n>/; none: the one that is there, its tables in cache/"
Stage = Annotated[Literal[1, 2] | None, tyro.conf.arg(help=_STAGE)]


def default_data() -> Path:
    """The folder that RSNA_DATA names, else data/ in the current one."""
    return Path(os.environ.get("RSNA_DATA", "data"))


def default_work() -> Path:
    """The folder that RSNA_WORK names, else the current one."""
    return Path(os.environ.get("RSNA_WORK", "."))
