"""A tree of drawn series as hospitals leave it, in the file system or in archives, and what else lies in such trees."""

import io
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hostile import DICOMDIR, EXPLICIT, element, meta, sequence, u32
from layout_files import Format, file_of
from layout_parts import NAMES, Part, Recipe, draw_part
from layout_series import Artist, Drawn

from models.preprocessing.problems import Problem
from models.preprocessing.reasons import Reason

STYLES = ("plain", "ending", "spaces", "umlauts", "stray", "deep")


@dataclass
class Layout:
    """What was drawn, and what is due of it."""

    data: Path
    work: Path
    kinds: list[str]
    drawn: list[Drawn]
    reasons: Counter = field(default_factory=Counter)  # of files beside those of series
    lost: int = 0  # files that may have been slices, and have no row
    told: set[str] = field(default_factory=set)  # problems of no series
    labels: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of images, by their identifiers
    table: Path | None = None  # --labels
    unseen: int = 0  # images that are to be predicted, and of which no slice is taken
    take: tuple[str, ...] = ()
    min_readable: float = 0.99

    @property
    def parts(self) -> list[Part]:
        """Of all series."""
        return [part for one in self.drawn for part in one.parts]

    @property
    def taken(self) -> list[Part]:
        """Those that are predicted, or trained on."""
        return [part for part in self.parts if part.taken != "left out"]

    @property
    def exit_code(self) -> int:
        """0, 1 where a folder holds nothing to predict, or 3 where too little is readable."""
        if {part.folder for part in self.parts} != {part.folder for part in self.taken}:
            return 1
        rows = [row for part in self.taken for row in part.rows]
        lost = sum(row.values is None for row in rows) + self.lost
        return 3 if lost > (1 - self.min_readable) * (len(rows) + self.lost) else 0


def write_tree(layout: Layout, rng: np.random.Generator, way: str) -> None:
    """A hospital's tree, a folder a series, in the file system or in an archive, and what else lies in such trees."""
    root = layout.data
    in_archive = way in ("zip", "tar")
    for number, one in enumerate(layout.drawn):
        folder = _write_series(root, number, one, rng, layout.kinds, in_archive)
        if not in_archive and rng.random() < 0.2:
            _pack(folder, str(rng.choice(["zip", "tar"])))
            layout.kinds.append("nested archive")
    for kind in rng.permutation(list(_BESIDE))[: rng.integers(0, 5)]:
        if not (in_archive and kind in ("link", "packed", "dangling", "own files")):
            _BESIDE[str(kind)](layout, rng)
            layout.kinds.append(str(kind))
    if in_archive:
        layout.data = _pack(root, way)


def _write_series(
    root: Path, number: int, one: Drawn, rng: np.random.Generator, kinds: list[str], in_archive: bool
) -> Path:
    """Write the files of a series under names of some style, in any order; returns their folder."""
    style = str(rng.choice(STYLES))
    folder = root / {"spaces": f"series {number}", "deep": f"a/b/{number}/c"}.get(style, f"s{number}")
    names = [str(name) for name in rng.permutation(len(one.files))]
    if style == "stray":
        names = [f"{name}.dcm " for name in names]
        one.told.add(Problem.STRAY_NAME.value[0])
    elif style == "umlauts" and not in_archive:
        names = [os.fsdecode(b"M\xfcller" + name.encode()) for name in names]
    elif style != "plain":
        names = [f"IM {name}.dcm" for name in names]
    for name, content in zip(names, one.files, strict=True):
        write(folder / name, content)
    for name, content in enumerate(one.first):
        write(root / "!" / f"{number}-{name}", content)
    kinds.append(style)
    return folder


def write(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _pack(folder: Path, way: str) -> Path:
    """An archive in place of a folder."""
    packed = folder.with_name(f"{folder.name}.{way}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if any(not str(path).isprintable() for path in files):
        return folder
    if way == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(packed, "w") as archive:
            for path in files:
                archive.add(path, str(path.relative_to(folder)))
    shutil.rmtree(folder)
    return packed


# ---- what lies beside the slices ----


def _add_notes(layout: Layout, rng: np.random.Generator) -> None:
    write(layout.data / "notes.txt", b"the patient was restless" * 20)
    layout.reasons[Reason.NOT_DICOM.value] += 1


def _add_hidden(layout: Layout, rng: np.random.Generator) -> None:
    """Whole slices of a series of their own, which nobody has meant to be there."""
    other = Artist(rng, "1.2.9").draw_series(plain=True)
    for name, content in zip((".hidden.dcm", ".nfs0000000000a1b2c3", "._IM0001"), other.files, strict=False):
        write(layout.data / name, content)
    write(layout.data / ".trash" / "IM0001", other.files[3])


def _add_directory(layout: Layout, rng: np.random.Generator) -> None:
    """A DICOMDIR that names a file that is there, and one that is not."""
    there = next(path for path in sorted(layout.data.rglob("*")) if path.is_file() and str(path).isascii())
    names = [str(there.relative_to(layout.data)), "LOST/IM0001"]
    records = [element(0x00041500, "CS", name.replace("/", "\\").encode()) for name in names]
    records = [element(0x00041400, "UL", u32(0)) + record for record in records]
    write(layout.data / "DICOMDIR", meta(EXPLICIT, DICOMDIR) + sequence(0x00041220, *records))
    layout.reasons[Reason.NOT_CT.value] += 1
    layout.told.add(Problem.ABSENT.value[0])


def _add_own_files(layout: Layout, rng: np.random.Generator) -> None:
    """The working folder is that of the data, or lies in it, and holds what the scripts write."""
    layout.work = layout.data / str(rng.choice(["", "own"]))
    for name in ("submission.csv", "by_file.csv", "report_blend.html", "runs/b2/fold0/config.json", "blend/a.csv"):
        write(layout.work / name, b"1,2,3")


def _add_link(layout: Layout, rng: np.random.Generator) -> None:
    folder = layout.data / "!" if (layout.data / "!").is_dir() else layout.data / "a"
    if not folder.is_dir():
        folder = next(path for path in sorted(layout.data.iterdir()) if path.is_dir() and path.name.startswith("s"))
    (layout.data / "again").symlink_to(folder, target_is_directory=True)


def _add_dangling(layout: Layout, rng: np.random.Generator) -> None:
    (layout.data / "IM9999").symlink_to("/absent/IM9999")
    layout.reasons[Reason.NOT_OPENED.value] += 1
    layout.lost += 1


def _add_packed(layout: Layout, rng: np.random.Generator) -> None:
    """An archive of a kind that cannot be read in place."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    write(layout.data / "more.tar.gz", buffer.getvalue())
    layout.reasons[Reason.ARCHIVE.value] += 1
    layout.lost += 1


def _add_garbage(layout: Layout, rng: np.random.Generator) -> None:
    """A file that begins as DICOM does, and goes on with noise."""
    write(layout.data / "IM8888", meta(EXPLICIT) + b"\x08\x00\x05\x00ZZ\xff\xff" + b"\xfe" * 90)
    layout.reasons[Reason.HEADER.value] += 1
    layout.lost += 1


def _add_nameless(layout: Layout, rng: np.random.Generator) -> None:
    """A slice that does not say of which series it is: nobody can use it."""
    artist = Artist(rng, "1.2.8")
    recipe = Recipe(dict.fromkeys(NAMES), Format("explicit"), number=3)
    slices, _ = draw_part(rng, recipe, artist.uids(3))
    write(layout.data / "IM7777", file_of(slices[0].stored, slices[0].form, slices[0].elements))
    layout.reasons[Reason.NO_IDENTIFIER.value] += 1
    layout.lost += 1


def _add_empty(layout: Layout, rng: np.random.Generator) -> None:
    write(layout.data / "empty.dcm", b"")
    layout.reasons[Reason.NOT_DICOM.value] += 1


_BESIDE = {
    "notes": _add_notes,
    "hidden": _add_hidden,
    "DICOMDIR": _add_directory,
    "own files": _add_own_files,
    "link": _add_link,
    "dangling": _add_dangling,
    "packed": _add_packed,
    "garbage": _add_garbage,
    "nameless": _add_nameless,
    "empty": _add_empty,
}
