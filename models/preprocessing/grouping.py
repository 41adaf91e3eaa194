"""Files -> the series that they belong to, by the first bytes of each, or by what the manifest knows of it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import UID, AllTransferSyntaxes

from models.common.folders import Work
from models.common.patience import patiently
from models.preprocessing.archives import File
from models.preprocessing.decoding import missing_decoder
from models.preprocessing.elements import Reason, UnreadableSliceError, stamp
from models.preprocessing.formats import peek
from models.preprocessing.manifest import Known
from models.preprocessing.problems import NOT_USED, ProblemRows, unreadable
from models.preprocessing.pseudonyms import Names, Pseudonyms, is_of_challenge
from models.preprocessing.raw import RawFolder

BATCH = 256  # files that are looked at at a time


class Look(NamedTuple):
    """What the first look at a file tells."""

    path: File
    name: str  # in reports and in the manifest
    size: int = 0  # bytes
    time: int = 0  # of its last change, ns; in an archive what stands for it
    names: Names = Names("", "", "", "")  # pseudonyms
    syntax: str = ""  # the transfer syntax, "" for NIfTI
    reason: Reason | None = None

    @property
    def lacks(self) -> str:
        """The package that decodes its pixels and is not installed, "" if there is none."""
        return missing_decoder(UID(self.syntax)) or ""


@dataclass(frozen=True)
class SeriesTask:
    """The files of one series, and what is to be made of them."""

    series: str  # the key: the name of the series, unless two patients or studies share it
    files: list[Look]
    root: Path
    work: Work
    image_sizes: tuple[int, ...]  # of the stores, pixels; none where only a report is wanted
    pseudonyms: Pseudonyms
    shared: frozenset[str] = frozenset()  # names of images that other series have, too
    take: frozenset[str] = frozenset()  # keys of series that are stored whatever they are
    retry: bool = False  # read it again if a file of it could not be read

    @property
    def lacks(self) -> str:
        """A package that is not installed, and without which some file of it cannot be decoded; "" if none is."""
        return next((file.lacks for file in self.files if file.lacks), "")


def named_files(
    files: Iterable[File], root: Path, pseudonyms: Pseudonyms, known: Mapping[str, Known]
) -> list[tuple[str, File, Path, Known | None]]:
    """Files for `look_at`: names, the files, where they are named from, and what the manifest knows of those names."""
    return [(name, path, root, known.get(name)) for path in files for name in [pseudonyms.file(path, root)]]


def look_at(pseudonyms: Pseudonyms, files: Iterable[tuple[str, File, Path, Known | None]]) -> list[Look]:
    """What the first bytes of each file tell, or what is known of it if it has not changed; else the reason.

    Raises InputError for a file that the system does not let this process read.
    """
    return [patiently(partial(_look, pseudonyms, *file), file[1]) for file in files]


def _look(pseudonyms: Pseudonyms, name: str, path: File, root: Path, known: Known | None) -> Look:
    size = time = 0
    try:
        size, time = stamp(path)
        if known is not None and (size, time) == known.mark[:2]:
            return Look(path, name, size, time, known.names, known.mark.syntax)
        identifiers, syntax = peek(path, root)
    except UnreadableSliceError as error:
        return Look(path, name, size, time, reason=error.reason)
    syntax = syntax if syntax in AllTransferSyntaxes else ""  # of a damaged file it may be any text
    names = pseudonyms.names(Names(*identifiers))
    reason = None if names.image_id and names.series_id else Reason.NO_IDENTIFIER
    return Look(path, name, size, time, names, syntax, reason)


def group_by_series(
    looks: Iterable[Look],
    raw: RawFolder,
    work: Work,
    image_sizes: Collection[int],
    pseudonyms: Pseudonyms,
    take: Collection[str] = (),
    retry: bool = False,
) -> tuple[list[SeriesTask], ProblemRows]:
    """A task for each series of each study and patient, sorted by key, and a problem row for a file that tells none.

    `image_sizes` are those of the stores to write (pixels); `take` names series that are stored whatever they are.
    """
    groups: dict[Names, list[Look]] = defaultdict(list)
    problems = []
    for file in looks:
        if file.reason is None:
            groups[file.names._replace(image_id="")].append(file)
        else:
            problems.append(unreadable(file.name.strip(), file.reason, NOT_USED))
    series = _by_series(groups, pseudonyms)
    owners = Counter(name for files in series.values() for name in {file.names.image_id for file in files})
    tasks = []
    for key, files in sorted(series.items()):
        shared = {file.names.image_id for file in files if owners[file.names.image_id] > 1}
        own = frozenset(name for name in shared if not is_of_challenge(name))
        task = SeriesTask(key, files, raw.root, work, tuple(image_sizes), pseudonyms, own, frozenset(take), retry)
        tasks.append(task)
    return tasks, problems


def _by_series(groups: dict[Names, list[Look]], pseudonyms: Pseudonyms) -> dict[str, list[Look]]:
    """The files of each series by its key, from those of each patient, study and series."""
    sharing = defaultdict(set)
    for group in groups:
        sharing[group.series_id].add(group)
    series = defaultdict(list)
    for name, members in sharing.items():
        whole = {group: _whole(group, members) for group in members}
        is_one = len(set(whole.values())) == 1
        for group, owner in whole.items():
            series[name if is_one else pseudonyms.hash(" ".join(owner))] += groups[group]
    return {key: sorted(files, key=lambda file: file.path.parts) for key, files in series.items()}


def _whole(group: Names, others: set[Names]) -> Names:
    """The one of the others that names a study or a patient where this group does not, if there is one; else itself."""
    fitting = [
        other
        for other in others
        if other != group and all(mine in ("", theirs) for mine, theirs in zip(group, other, strict=True))
    ]
    return fitting[0] if len(fitting) == 1 else group
