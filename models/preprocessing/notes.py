"""What is known of a prepared series beside its slices, which the manifest keeps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from models.preprocessing.problems import ProblemRows


@dataclass(frozen=True)
class SeriesNotes:
    """The notes of one series: all of a SeriesInstanceUID, or the part of it that belongs together."""

    series_id: str
    part_of: str  # the key of all that has its SeriesInstanceUID: itself, unless that was several series
    columns: dict[str, np.ndarray]  # the metadata, name -> (slices,), in anatomical order; none of no slice
    problems: ProblemRows
    facts: dict[str, Any] | None = None  # what the headers tell of somebody's own series (selection.py)

    def __len__(self) -> int:
        """How many slices it has, those included that cannot be read."""
        return len(self.columns["image_id"]) if self.columns else 0

    @property
    def table(self) -> pd.DataFrame:
        """The metadata, a row a slice."""
        return pd.DataFrame(self.columns)

    def to_json(self) -> dict[str, Any]:
        """The notes as JSON can hold them."""
        return vars(self) | {"columns": {name: values.tolist() for name, values in self.columns.items()}}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SeriesNotes":
        """Rebuild notes from `to_json`."""
        columns = {name: np.array(values) for name, values in content["columns"].items()}
        return cls(**content | {"columns": columns, "problems": [tuple(row) for row in content["problems"]]})
