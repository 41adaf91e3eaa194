"""Files -> the series that they belong to, by the first bytes of each."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from models.common.folders import Work
from models.common.patience import patiently
from models.preprocessing.archives import File
from models.preprocessing.decoding import missing_decoder
from models.preprocessing.dicom import peek
from models.preprocessing.elements import Reason, UnreadableSliceError
from models.preprocessing.problems import NOT_USED, ProblemRows, unreadable
from models.preprocessing.pseudonyms import Pseudonyms
from models.preprocessing.raw import RawFolder

_BATCH = 256  # files that are peeked into at a time


class Peeked(NamedTuple):
    """What the first bytes of a file tell."""

    path: File
    series_id: str = ""
    image_id: str = ""
    mark: str = ""  # size and checksum of the first bytes
    lacks: str = ""  # the package that decodes its pixels and is not installed
    reason: Reason | None = None


@dataclass(frozen=True)
class SeriesTask:
    """The files of one series, and where its slices go."""

    series_id: str  # the pseudonym
    files: list[Peeked]
    stores: dict[int, Path]  # image size -> file of the store; empty when only a report is wanted
    root: Path
    pseudonyms: Pseudonyms
    take: bool = False  # store it whatever it is

    @property
    def lacks(self) -> str:
        """A package that is not installed, and without which some file of it cannot be decoded; "" if none is."""
        return next((file.lacks for file in self.files if file.lacks), "")

    def source(self) -> str:
        """A hash of the files' names, sizes and first bytes: other files of these names have another one."""
        lines = "\n".join(f"{file.path.name} {file.mark}" for file in self.files)
        return hashlib.blake2b(lines.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def in_batches(files: list[File]) -> list[list[File]]:
    """Files for `peek_batch`, some hundred at a time."""
    return [files[first : first + _BATCH] for first in range(0, len(files), _BATCH)]


def peek_batch(files: list[File]) -> list[Peeked]:
    """What the first bytes of each file tell; for one that tells nothing, the reason.

    Raises InputError for a file that the system does not let this process read.
    """
    peeked = []
    for path in files:
        try:
            series_id, image_id, size, checksum, syntax = patiently(partial(peek, path), path)
            lacks = missing_decoder(syntax) or ""
            peeked.append(Peeked(path, series_id, image_id, f"{size} {checksum:08x}", lacks))
        except UnreadableSliceError as error:
            peeked.append(Peeked(path, reason=error.reason))
    return peeked


def group_by_series(
    peeked: Iterable[Peeked],
    raw: RawFolder,
    work: Work,
    sizes: Iterable[int],
    pseudonyms: Pseudonyms,
    take: Collection[str] = (),
) -> tuple[list[SeriesTask], ProblemRows]:
    """A task for each series, sorted by its pseudonym, and a problem row for each file that tells no series.

    `sizes` are those of the stores to write (pixels); `take` names series that are stored whatever they are.
    """
    groups, problems = defaultdict(list), []
    for file in peeked:
        if file.reason is None and file.series_id and file.image_id:
            groups[pseudonyms(file.series_id)].append(file)
        else:
            reason = file.reason or Reason.NO_IDENTIFIER
            problems.append(unreadable(pseudonyms.file(file.path, raw.root), reason, NOT_USED))
    return [
        SeriesTask(name, files, {size: work.series(size, name) for size in sizes}, raw.root, pseudonyms, name in take)
        for name, files in sorted(groups.items())
    ], problems
