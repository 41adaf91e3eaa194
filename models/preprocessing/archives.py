"""A zip or tar -> the files in it, each as a place to read from. Nothing is extracted, and no name is trusted.

A directory is read once, by one process; members are small and can be sent to others. Archives within archives are
files like any others, and are not opened.
"""

import errno
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from models.common.errors import InputError
from models.preprocessing.reasons import Reason

MAX_DIRECTORY = 256 << 20  # bytes of a zip's directory; Kaggle's has some 110 million
MAX_TAR_HEADER = 1 << 14  # bytes of a long name or of a pax header
MAX_MEMBERS = 2_000_000  # of a tar; Kaggle's zip has 874,035
TAR = -1  # in place of a zip's method: the bytes as they are, from the offset on, without a checksum
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = 30  # bytes at least, before the name (APPNOTE 4.3.7)
_ENCRYPTED = 0x2041  # flags: encrypted, strongly encrypted, with a masked directory (APPNOTE 4.4.4)
_ARCHIVES = (".zip", ".tar")
_PACKED = (*_ARCHIVES, ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")
_ENDINGS = frozenset(ending[-3:] for ending in _PACKED)  # the first look: every file is asked
# What zipfile and tarfile fail with where an archive, not the system, is to blame.
_FLAWS = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, ValueError, EOFError, OverflowError)
_FLAWS += (struct.error, zlib.error, LookupError)
_BAD_SEEK = (None, errno.EINVAL, errno.EOVERFLOW)  # what they raise themselves, or where a length leads nowhere


class ArchiveError(InputError):
    """An archive of which no member can be read in place; the message names it, and says what to do."""


class Member(NamedTuple):
    """A file in an archive, which answers what is asked of a path that names a file."""

    archive: Path
    inner: str  # its name there
    offset: int  # of its header in a zip, of its bytes in a tar
    packed: int  # bytes that it takes in the archive
    size: int  # bytes
    method: int  # of a zip, or TAR
    mark: int  # crc32 of a zip's member, when all of a tar was changed (ns) of a tar's
    flaw: Reason | None = None  # why it may not be read

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.inner.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The same without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of the archive's path, and of the name in it."""
        return (*self.archive.parts, *self.inner.split("/"))

    def relative_to(self, folder: Path) -> Path:
        """Its name as seen from its archive, from a folder in it, or from one that the archive lies in."""
        return Path(str(self)).relative_to(folder)

    def __str__(self) -> str:
        """The path of the archive and the name in it."""
        return f"{self.archive}/{self.inner}"


File = Path | Member


def is_archive(file: File) -> bool:
    """Whether a file is, by its name, an archive whose members can be read where they stand."""
    return isinstance(file, Path) and file.name.lower().endswith(_ARCHIVES)


def is_packed(name: str) -> bool:
    """Whether a name is that of an archive of any kind."""
    return name[-3:].lower() in _ENDINGS and name.lower().endswith(_PACKED)


def archive_of(place: Path) -> Path | None:
    """The archive that a place is, or lies in; None for one in the file system."""
    return next((path for path in (place, *place.parents) if is_archive(path) and path.is_file()), None)


def members(archive: Path) -> tuple[Member, ...]:
    """The files in an archive, in the order of their names, none hidden; its directory is read once in a process.

    Those that may not be read are among them, with their flaws. Raises ArchiveError, an InputError, if the
    archive cannot be read in place, and OSError if the system does not let this process read it.
    """
    status = archive.stat()
    if not stat.S_ISREG(status.st_mode):  # to open a FIFO would block for ever
        raise ArchiveError(f"{archive} is no file; name another")
    return _members(archive, status.st_size, status.st_mtime_ns)


@cache
def _members(archive: Path, size: int, changed: int) -> tuple[Member, ...]:
    is_tar = archive.name.lower().endswith(".tar")
    try:
        with _Bounded(io.FileIO(archive)) as file:
            file.most = MAX_TAR_HEADER if is_tar else MAX_DIRECTORY
            found = list(_read_tar(archive, file, size, changed) if is_tar else _read_zip(archive, file))
    except OSError as error:
        if error.errno not in _BAD_SEEK:
            raise
        raise _damaged(archive, error) from error
    except ArchiveError:
        raise
    except _FLAWS as error:
        cause = error.__context__
        if isinstance(cause, OSError) and cause.errno not in _BAD_SEEK:  # zipfile blames the file for what a disk does
            raise cause from None
        raise _damaged(archive, error) from error
    last = {member.inner: place for place, member in enumerate(found)}  # of two of one name the last one counts
    found = [
        member if last[member.inner] == place else member._replace(flaw=member.flaw or Reason.NOT_A_MEMBER)
        for place, member in enumerate(found)
        if not _is_hidden(member.inner)
    ]
    return tuple(sorted(found, key=lambda member: member.inner.split("/")))


class _Bounded(io.BufferedReader):
    """An archive of which no more than `most` bytes are read at once: sizes in its directory are not trusted."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises BadZipFile, which stands for a damaged archive of either kind, if it is asked for more."""
        if size is not None and size > self.most:
            raise zipfile.BadZipFile("its directory claims more than an archive of slices has")
        return super().read(self.most if size is None or size < 0 else size)


def _damaged(archive: Path, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{archive} cannot be read in place ({error or type(error).__name__}): download or pack it again, as a zip"
    )


def _is_hidden(name: str) -> bool:
    """Those that macOS adds below __MACOSX are, too; a name that leads out of the archive is not, and is told."""
    return "/." in f"/{name}" and any(part.startswith(".") and part.strip(".") for part in name.split("/"))


def _leads_elsewhere(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":"


# ---- zip ----


def _read_zip(archive: Path, file: _Bounded) -> Iterator[Member]:
    with zipfile.ZipFile(file) as opened:
        infos, start = opened.infolist(), opened.start_dir
    if any(info.volume for info in infos):
        raise ArchiveError(
            f"{archive} is a part of a split archive; join the parts: zip -s 0 {archive} --out whole.zip"
        )
    overlapping = _overlapping(infos, start)
    for info in infos:
        if not info.is_dir():
            name, packed = info.filename.removeprefix("./"), info.compress_size
            flaw = Reason.NOT_A_MEMBER if id(info) in overlapping else _flaw_in_zip(info)
            yield Member(archive, name, info.header_offset, packed, info.file_size, info.compress_type, info.CRC, flaw)


def _overlapping(infos: list[zipfile.ZipInfo], start: int) -> set[int]:
    """The ids of those that reach into the next one, or into the directory: of such, bombs are made."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in ordered[1:]), start]
    return {
        id(info)
        for info, end in zip(ordered, ends, strict=False)
        if info.header_offset + _LOCAL_HEADER + len(info.filename) + info.compress_size > end
    }


def _flaw_in_zip(info: zipfile.ZipInfo) -> Reason | None:
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        return Reason.PACKED
    if stat.S_ISLNK(info.external_attr >> 16) or _leads_elsewhere(info.filename):
        return Reason.NOT_A_MEMBER
    return None


# ---- tar ----


def _read_tar(archive: Path, file: _Bounded, size: int, changed: int) -> Iterator[Member]:
    """The members; what marks them is when the archive was `changed` (ns): their own times are zero where tools ask."""
    with tarfile.open(fileobj=file, mode="r:") as opened:
        count, place = 0, -1
        while (info := opened.next()) is not None:
            vars(opened)["members"] = []  # it would keep them all
            count += 1
            if opened.offset <= place or count > MAX_MEMBERS:
                raise tarfile.ReadError("its members lead backwards, or are too many")
            place = opened.offset
            if not info.isdir():
                is_file = info.isreg() and not info.issparse() and not _leads_elsewhere(info.name)
                flaw = None if is_file and 0 <= info.size <= size - info.offset_data else Reason.NOT_A_MEMBER
                name = info.name.removeprefix("./")
                yield Member(archive, name, info.offset_data, info.size, info.size, TAR, changed, flaw)
        file.seek(opened.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
        raise tarfile.ReadError("it is cut off, or damaged")
