"""Which of your own files does a line of the predictions, of problems.csv or series.csv, come from?

    python models/find_files.py runs/b2/fold0/test.parquet --data own_data --output by_file.csv
    python models/find_files.py cache/problems.csv --data own_data --output problems_by_file.csv

The cache names your own slices by keyed hashes, so that it can be passed on. This reads the key of the working folder
(pseudonyms.key; keep it to yourself) and the names in the data folder again, and writes the table with a column `file`.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from models.common.cli import command
from models.common.errors import InputError
from models.common.files import legible, read_parquet, write_csv
from models.common.folders import DataFolder, Work, WorkFolder, default_data, default_work
from models.preprocessing.archives import File
from models.preprocessing.dicomdir import absent_files
from models.preprocessing.grouping import BATCH, look_at, named_files
from models.preprocessing.parallel import progress_batches
from models.preprocessing.pseudonyms import Pseudonyms, read_key
from models.preprocessing.raw import RawFolder, find_raw


@dataclass(frozen=True)
class FindOptions:
    """The command line of this script."""

    table: Annotated[Path, tyro.conf.Positional]
    """a prediction file (.parquet), a problems.csv or a series.csv"""
    output: Path = Path("by_file.csv")
    """the table to write; it tells whose data this is"""
    data: DataFolder = field(default_factory=default_data)
    work: WorkFolder = field(default_factory=default_work)
    jobs: int = -1
    """processes; -1: one a core"""


def find_files(options: FindOptions) -> None:
    """Write the table with its files. Raises InputError if the key or the data lacks, or the table cannot be read."""
    table = read_table(options.table)
    key = Work(options.work).key
    if not key.is_file():
        raise InputError(f"no {key}; name the working folder that the cache was made in with --work")
    raw = find_raw(options.data, work=options.work)
    files = names_of_files(raw, Pseudonyms(read_key(key), challenge=raw.stage is not None), options.jobs)
    names = table.iloc[:, 0]
    found = names.map(files).fillna(names.str.replace(r"_\d{4}$", "", regex=True).map(files))  # a frame of a file
    write_csv(options.output, table.assign(file=found)[["file", *table.columns]])
    print(f"{options.output}: {len(table):,} lines, {found.notna().sum():,} of them traced to a file in {raw.folder}")


def read_table(path: Path) -> pd.DataFrame:
    """A table whose first column holds names of slices or files. Raises InputError if it cannot be read."""
    if path.suffix == ".parquet":
        return read_parquet(path, "the script that wrote it")
    try:
        return pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); name a prediction file or a problems.csv") from error


def names_of_files(raw: RawFolder, pseudonyms: Pseudonyms, jobs: int) -> dict[str, str]:
    """The name of every slice, and of every file as problems.csv calls it -> its path in the data folder.

    That of a series -> the folder of its first file.
    """
    files = [path for split in raw.splits for path in raw.files(split)]
    names = {pseudonyms.file(path, raw.root): _shown(path, raw) for path in absent_files(files)}
    named = named_files(files, raw.root, pseudonyms, {})
    for file in progress_batches(partial(look_at, pseudonyms), named, jobs, "names of files", BATCH):
        name, image = _shown(file.path, raw), file.names.image_id
        names[file.name.strip()] = name
        if file.names.series_id:
            names.setdefault(file.names.series_id, name.rpartition("/")[0] or ".")
        if image:
            names[image] = names[pseudonyms.of_file(image, file.name)] = name
    return names


def _shown(file: File, raw: RawFolder) -> str:
    """A file's path in the data folder; of a member of an archive that of the archive, and the name in it."""
    return legible(file.relative_to(raw.folder))


if __name__ == "__main__":
    command(find_files, FindOptions)
