"""What commands leave behind, as tests compare it."""

import io
import json
from pathlib import Path

import pandas as pd

from models.training.callbacks import MEASURED

# Of a finished fold.
FOLD_FILES = {
    *("config.json", "model.safetensors", "fingerprint.json", "history.csv", "history.png"),
    *("patients.parquet", "valid.parquet"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its path from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def trained(folder: Path) -> dict[str, bytes | str]:
    """The files of a finished fold, without how long it took and what it ran on."""
    files = contents(folder)
    config = json.loads(files["config.json"])
    config.pop("ran", None)
    history = pd.read_csv(io.BytesIO(files["history.csv"])).drop(columns=list(MEASURED))
    return {**files, "config.json": json.dumps(config), "history.csv": history.to_csv()}
