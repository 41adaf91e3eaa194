"""Numbers of a card that can be followed: each is read at a place of a file, and both are noted as it is shown."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

UNKNOWN = "not measured, because there is nothing to measure it on"
ONE_CLASS = "not measured, because all have the label there, or none has"


class Shown(NamedTuple):
    """A number, or another value, as a card shows it."""

    text: str
    file: str
    key: str  # the places in the JSON file, one within the other, as a JSON list
    style: str  # as Python's format() has it


class Traced:
    """JSON files by their names, and what has been shown of them."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self.files = files
        self.shown: list[Shown] = []

    def __call__(self, file: str, *key: str, style: str = "", unknown: str = UNKNOWN) -> str:
        """The value at a place of a file as text, which is noted; `unknown` where there is none."""
        value = find(self.files[file], key)
        if value is None:
            return unknown
        text = format(value, style)
        self.shown.append(Shown(text, file, json.dumps(key), style))
        return text

    def names(self, file: str, *key: str) -> list[str]:
        """The names at a place of a file, which are noted too: a card shows them."""
        found = list(find(self.files[file], key) or ())
        self.shown += [Shown(name, file, json.dumps([*key, name]), "name") for name in found]
        return found

    def range(self, file: str, *key: str, style: str = ".3f") -> str:
        """A value and its interval, of a row that has `name`, `name low`, `name high`; of a loss `low` and `high`."""
        *row, name = key
        ends = [f"{'' if name == 'log loss' else name} {end}".strip() for end in ("low", "high")]
        if find(self.files[file], (*row, name)) is None:
            return ONE_CLASS
        value = self(file, *key, style=style)
        if find(self.files[file], (*row, ends[0])) is None:
            return f"{value} (no interval: one patient, or none)"
        low, high = (self(file, *row, end, style=style) for end in ends)
        return f"{value} ({low} to {high})"

    def to_csv(self) -> str:
        """What was shown, a row each, and once."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Shown._fields)
        writer.writerows(dict.fromkeys(self.shown))
        return text.getvalue()


def find(content: Any, key: tuple[str, ...] | list[str]) -> Any:
    """The value at a place of what JSON holds; None where there is none."""
    for part in key:
        if isinstance(content, list):
            content = content[int(part)] if int(part) < len(content) else None
        elif isinstance(content, Mapping):
            content = content.get(part)
        else:
            return None
    return content
