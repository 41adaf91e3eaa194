"""The command line of predict.py: what to answer, with which networks, and what to write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.common.errors import InputError
from models.common.options import EngineName, TestTimeAugmentation


@dataclass(frozen=True)
class PredictOptions:
    """Raises InputError for values that cannot be."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """files, folders, zips, tars, a DICOMDIR, with CT in any order; never written to"""
    weights: tuple[Path, ...] = ()
    """folders of finished runs or folds, or names of runs/, whose answers are averaged, or a release; none: the default
    network"""
    output: Path = Path("answers")
    """the folder to write to, a sub-folder a study; what stands there already is not answered again"""
    series: tuple[str, ...] = ()
    """keys of series to answer, whatever they are (answers.csv and the pages name them)"""
    tta: TestTimeAugmentation = "flip"
    """views that networks of images take: one, two or eight symmetries"""
    prevalence: float | None = None
    """share of studies with hemorrhage where this is used: tells what an alarm is worth"""
    dicom: bool = False
    """write a DICOM structured report and pictures of key slices, with the identity of the patient"""
    nifti: bool = False
    """write where the network looked as NIfTI, in the coordinates of the scanner"""
    names: bool = False
    """name files and folders as they are called, which may tell whose they are, beside the keys"""
    work: Path | None = None
    """keep the scratch cache in this folder"""
    watch: Path | None = None
    """a drop folder: answer each study once its files have come, until stopped"""
    quiet: float = 30
    """seconds without a change after which a study in the drop folder is complete"""
    jobs: int = 1
    """processes, each with all networks; -1: one a core"""
    dask: str | None = None
    """scheduler of a Dask cluster to work on (tcp://...), which sees the same folders"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    engine: EngineName = "auto"
    """what carries out the networks; auto: torch where it is installed and has their weights, else ONNX on the CPU"""

    def __post_init__(self) -> None:
        if bool(self.paths) == (self.watch is not None):
            raise InputError("name what to answer: files, folders or archives, or a drop folder with --watch")
        written = {folder.resolve() for folder in (self.output, self.work) if folder is not None}
        if any(path.resolve() in written for path in (*self.paths, self.watch) if path is not None):
            raise InputError("what is to be answered is not written to: choose another folder with --output or --work")
        if self.work is not None and self.work.resolve() == self.output.resolve():
            raise InputError(f"--work {self.work} is the folder of the answers; choose another one")
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise InputError(f"--prevalence {self.prevalence} must lie between 0 and 1")
        if self.quiet < 0 or self.jobs == 0:
            raise InputError("--quiet must not be negative, nor --jobs 0")
