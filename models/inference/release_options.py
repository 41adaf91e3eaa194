"""The command line of models/release.py."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from models.common.errors import InputError
from models.common.folders import Stage, Work, WorkFolder, default_work

_RESEARCH = (
    "research: to rank slices and studies of non-contrast head CT of adults by how probable hemorrhage is, and to be "
    "compared with. Not to diagnose, and not to decide who is looked at first"
)
_RUNS = "a run; or the runs of a blend, or blend: the one that blend/blend.json tells of"


@dataclass(frozen=True)
class ReleaseOptions:
    """What to release. Raises InputError for values that cannot be."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help=_RUNS)] = ()
    output: Path = Path("release")
    """the folder to write; beside it OUTPUT.zip"""
    license: str | None = None
    """of the weights, like cc-by-nc-4.0; none: mit, if they have learnt from drawings alone"""
    data_source: str | None = None
    """whose slices and labels these are, and under which licence, in a sentence; none: of the challenge and of drawings
    this is known"""
    intended_use: str = _RESEARCH
    """in a sentence"""
    contact: str = "whoever has passed this folder on"
    """whom to ask"""
    dataset: str | None = None
    """the id of what it was validated on among the data sets of Hugging Face, like owner/name"""
    slices: int = 300
    """of the own validation, on which float16 and robustness are measured: about so many"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("name what to release: a run, the runs of a blend, or blend")
        if not self.output.name:
            raise InputError(f"--output {self.output} is no folder of its own; name one that is not there yet")
        if self.slices < 1:
            raise InputError(f"--slices must be above 0, not {self.slices}")
        for name in ("license", "data_source", "intended_use", "contact", "dataset"):
            if (value := getattr(self, name)) is not None and not value.strip():
                raise InputError(f"--{name.replace('_', '-')} says nothing; leave it out, or say something")

    @property
    def working_folder(self) -> Work:
        """The working folder, with the tables of the stage."""
        return Work(self.work, self.stage)
