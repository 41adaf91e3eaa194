"""What `prepare.py` can be asked for."""

from dataclasses import dataclass, field
from pathlib import Path

from models.common.folders import DataFolder, Stage, WorkFolder, default_data, default_work
from models.common.session import Session


@dataclass(frozen=True)
class PrepareOptions:
    """Where the raw data is, and what to make of it."""

    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    image_size: tuple[int, ...] = (224, 512)
    """sides of the stored slices, pixels; one store for each"""
    folds: int = 5
    """parts for cross-validation, grouped by patient"""
    seed: int = 0
    """of the folds"""
    stage: Stage = None
    labels: Path | None = None
    """a table of labels for own files (docs/own_ct.md): what it names is for training, the rest to be predicted"""
    take: tuple[str, ...] = ()
    """keys of series to predict although they are no axial head CT in Hounsfield units (cache/series.csv)"""
    retry: bool = False
    """read series again of which a file could not be read; without it they are when another decoder is there"""
    part: str | None = None
    """like 2/4: store the second fourth of the series alone; --work-from with all four makes a whole cache of them"""
    check: bool = False
    """only read everything and report what is wrong"""
    jobs: int = -1
    """processes; -1: one a core"""
    min_readable: float = 0.99
    """share of the CT slices that must be readable; with fewer the exit code is 3"""
    dask: str | None = None
    """scheduler of a Dask cluster to work on (tcp://...), which sees the same folders"""
    session: Session = field(default_factory=Session)
