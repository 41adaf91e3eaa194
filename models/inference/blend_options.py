"""The command line of models/blend.py."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from models.common.folders import DataFolder, Stage, Work, WorkFolder, default_data, default_work
from models.common.repair import command_of


@dataclass(frozen=True)
class BlendOptions:
    """Which runs to blend, and how."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """the runs; none: every finished one that has test predictions"""
    way: str | None = None
    """best: what the nested scores prefer; or one of best_single, equal, original, fitted, ... for all labels; none:
    what blend/blend.json tells, best where there is none"""
    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    stage: Stage = None

    @property
    def working_folder(self) -> Work:
        """The working folder, with the tables of the stage."""
        return Work(self.work, self.stage)

    @property
    def words(self) -> list[str]:
        """What asks for this, but for the folders, whose names may tell of a person."""
        return [*self.runs, *(["--way", self.way] if self.way else [])]

    @property
    def command(self) -> str:
        """The line that asks for this."""
        return command_of("blend", *self.words, work=self.working_folder, data=self.data)
