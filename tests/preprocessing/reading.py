"""A folder of files -> its series, without the command around it."""

from collections.abc import Iterable
from pathlib import Path

from models.common.folders import Work
from models.preprocessing.grouping import SeriesTask, group_by_series, look_at, named_files
from models.preprocessing.notes import SeriesNotes
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder
from models.preprocessing.series import prepare_series

PSEUDONYMS = Pseudonyms(b"key")


def tasks_of(raw: RawFolder, files: list[Path], work: Path, sizes: Iterable[int] = ()) -> list[SeriesTask]:
    """The series of some files, in the order of their identifiers."""
    looks = look_at(PSEUDONYMS, named_files(files, raw.root, PSEUDONYMS, {}))
    tasks, problems = group_by_series(looks, raw, Work(work), tuple(sizes), PSEUDONYMS)
    assert problems == []
    return tasks


def prepare_tree(folder: Path, work: Path | None = None, sizes: Iterable[int] = ()) -> list[SeriesNotes]:
    """The parts of all series of a folder of files, in the order of their identifiers."""
    raw = RawFolder(folder, None, None, folder, None, None)
    return [part for task in tasks_of(raw, raw.files("test"), work or folder, sizes) for part in prepare_series(task)]
