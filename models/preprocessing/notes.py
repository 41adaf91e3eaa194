"""What is known of a prepared series beside its slices: stored with them, so that its files need not be read again."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from models.preprocessing.problems import ProblemRows


@dataclass(frozen=True)
class SeriesNotes:
    """The notes of one series; in a store they are JSON (models/preprocessing/store.py)."""

    source: str  # a hash of the files: SeriesTask.source
    table: pd.DataFrame  # the metadata, a row a slice, in anatomical order
    problems: ProblemRows
    facts: dict[str, Any] | None = None  # what the headers tell of somebody's own series (selection.py)

    def to_json(self) -> dict[str, Any]:
        """The notes as a store keeps them: the metadata by columns."""
        content = {"source": self.source, "slices": self.table.to_dict("list"), "problems": self.problems}
        return content if self.facts is None else content | {"facts": self.facts}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SeriesNotes":
        """Rebuild notes from `to_json`, with the types of columns that their values have in JSON."""
        problems = [tuple(row) for row in content["problems"]]
        return cls(content["source"], pd.DataFrame(content["slices"]), problems, content.get("facts"))
