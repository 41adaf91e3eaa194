"""What cache/prepare.json tells of whose slices a cache holds, and of how it was made: for pages and for messages."""

from pathlib import Path
from typing import Any

import pandas as pd

from models.common.errors import InputError
from models.common.files import read_json
from models.common.folders import Work
from models.common.repair import command_of

DRAWN = "phantom.json"  # lies in the data folder of a phantom
SYNTHETIC = "synthetic: drawn by make_phantom.py, nobody was scanned"  # what is told of it


def title_of(settings: dict[str, Any]) -> str | None:
    """SYNTHETIC if that is among the settings of a cache, which prepare.json is going to tell."""
    return SYNTHETIC if settings.get("synthetic") else None


def listed(table: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """The same table with a column that says so where it is of drawings: for a file that a person opens."""
    return table.assign(synthetic=True) if settings.get("synthetic") else table


def marked(table: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """The same table, marked as drawn where it is: the mark is kept in its file."""
    table.attrs |= {"synthetic": True} if settings.get("synthetic") else {}
    return table


def is_synthetic(work: Work) -> bool:
    """Whether the slices of a working folder are drawings of this project: any stage's mark tells it of all.

    A cache of an older version has no mark; the same prepare.py adds it in a second.
    """
    return any(noted(stage).get("synthetic", False) for stage in work.stages)


def synthetic_title(work: Work) -> str | None:
    """SYNTHETIC, to stand above a picture; None where people were scanned."""
    return SYNTHETIC if is_synthetic(work) else None


def describe_synthetic(work: Work) -> str:
    """SYNTHETIC and a line break, to print before a table; nothing where people were scanned."""
    return f"{SYNTHETIC}\n" if is_synthetic(work) else ""


def prepare_command(work: Work, image_size: int | None = None) -> str:
    """The line that makes the cache of a working folder anew, or what of it lacks, from the data that it was made of.

    Nothing of the path of own data is noted, and so --data is not told then.
    """
    known = noted(work)
    sizes = sorted({*known.get("image_size", []), *([image_size] if image_size else [])})
    words: list[object] = ["--image-size", *sizes] if sizes else []
    for name, usual in (("folds", 5), ("seed", 0)):
        if known.get(name, usual) != usual:
            words += [f"--{name}", known[name]]
    words += ["--take", *known["take"]] if known.get("take") else []
    words += ["--labels", known["labels"]] if known.get("labels") else []
    return command_of("prepare", *words, work=work, data=Path(known["data"]) if "data" in known else None)


def command_of_store(folder: Path) -> str:
    """The same for a folder of the slice store, WORK/cache/slices_<size>, which all stages share."""
    work, size = Work(folder.parent.parent), folder.name.rpartition("_")[2]
    prepared = next((stage for stage in work.stages if noted(stage)), work)
    return prepare_command(prepared, int(size) if size.isdecimal() else None)


def noted(work: Work) -> dict[str, Any]:
    """What prepare.json of this stage tells; nothing where there is none, or it is damaged, which others say."""
    try:
        return read_json(work.prepared, "") if work.prepared.is_file() else {}
    except InputError:
        return {}
