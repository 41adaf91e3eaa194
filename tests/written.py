"""What commands leave behind, as tests compare it."""

from pathlib import Path

# Of a finished fold.
FOLD_FILES = {"config.json", "model.safetensors", "history.csv", "history.png", "patients.parquet", "valid.parquet"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its path from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
