"""What is known of a prepared series beside its slices, which the manifest keeps."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from models.preprocessing.problems import ProblemRows


@dataclass(frozen=True)
class SeriesNotes:
    """The notes of one series: all of a SeriesInstanceUID, or the part of it that belongs together."""

    series_id: str
    part_of: str  # the key of all that has its SeriesInstanceUID: itself, unless that was several series
    table: pd.DataFrame  # the metadata, a row a slice, in anatomical order
    problems: ProblemRows
    facts: dict[str, Any] | None = None  # what the headers tell of somebody's own series (selection.py)

    def to_json(self) -> dict[str, Any]:
        """The notes as JSON can hold them: the metadata by columns."""
        return vars(self) | {"table": self.table.to_dict("list")}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SeriesNotes":
        """Rebuild notes from `to_json`, with the types of columns that their values have in JSON."""
        problems = [tuple(row) for row in content["problems"]]
        return cls(content["series_id"], content["part_of"], pd.DataFrame(content["table"]), problems, content["facts"])
