"""Whether files were drawn by make_phantom.py, or show people: by the list that it leaves beside what it has drawn.

FOLDER/phantom.json, which may be packed with the rest: the parameters of a phantom and, as "files", all that it wrote
"""

import json
from collections.abc import Iterable
from pathlib import Path

from models.preprocessing.archives import File, Member, archive_of, members
from models.preprocessing.elements import open_bounded
from models.preprocessing.origin import DRAWN

_DEPTH = 3  # folders of a patient, a study and a series, below that of the phantom
_BESIDE = (".csv", ".html", ".json", ".md", ".png", ".txt")  # what is laid beside slices and is none


def is_drawn(files: Iterable[File], root: Path) -> bool:
    """Whether all of some files are a phantom's; `root` is the folder or archive that they are named from.

    One that make_phantom.py has not written shows a person, wherever it lies: people's files are laid into a phantom's
    folder, and the challenge's are unpacked there. Nothing is told of no files. What a mark of an older version lies
    above is drawn, for it lists nothing. Raises ArchiveError, and OSError, as `members` does.
    """
    archive = archive_of(root)
    marks = [] if archive is None else [one for one in members(archive) if one.name == DRAWN]
    packed = next((mark for mark in marks if mark.inner.count("/") < 2), None)
    if packed is not None:
        folder, names = Path(packed.inner).parent, (Path(file.inner) for file in files if isinstance(file, Member))
        return _are_listed(packed, folder, names)
    place = root if archive is None else archive.parent
    real = place.resolve()
    marked = next((folder for folder in (real, *real.parents[:_DEPTH]) if (folder / DRAWN).is_file()), None)
    if marked is None:
        return False
    outer = (file.archive if isinstance(file, Member) else file for file in files)
    return _are_listed(marked / DRAWN, marked, (real / file.relative_to(place) for file in outer))


def _are_listed(mark: File, folder: Path, files: Iterable[Path]) -> bool:
    """Whether the phantom of a mark has written all of some files; `folder` is that of the mark."""
    with open_bounded(mark) as file:
        listed = json.loads(file.whole()).get("files")
    slices = [path for path in files if path.suffix not in _BESIDE]
    if listed is None:
        return bool(slices)
    known = {*listed}
    return bool(slices) and all(
        path.is_relative_to(folder) and path.relative_to(folder).as_posix() in known for path in slices
    )
