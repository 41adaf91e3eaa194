"""DICOMDIR, the table of contents of a CD: it is no image, and may name files that nobody has copied."""

import re
import struct
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from models.common.patience import patiently
from models.preprocessing.archives import File
from models.preprocessing.elements import open_bounded
from models.preprocessing.reasons import UnreadableSliceError

NAME = "DICOMDIR"
MAX_TABLE, MAX_NAMED = 64 << 20, 200_000  # bytes, and files that it names
_FILE_ID = re.compile(rb"\x04\x00\x00\x15CS(..)", re.DOTALL)  # ReferencedFileID; always explicit (PS3.10 8.6)


def absent_files(files: Iterable[File]) -> list[Path]:
    """What a DICOMDIR among these files names that is not among them.

    File systems show such names in small letters, too, or with the version that they have on a CD. Raises InputError
    for a DICOMDIR that the system does not let this process read.
    """
    files = list(files)
    tables = [file for file in files if file.name.upper() == NAME]
    known = {_plain(str(file)) for file in files} if tables else set()
    named = [path for file in tables for path in patiently(lambda file=file: _named(file), file)]
    return sorted({path for path in named if _plain(str(path)) not in known})


def _plain(name: str) -> str:
    return name.lower().removesuffix(";1").removesuffix(".")


def _named(file: File) -> list[Path]:
    try:
        with open_bounded(file) as opened:
            data = opened.whole() if opened.size <= MAX_TABLE else b""
    except UnreadableSliceError:
        return []
    folder, found = Path(str(file)).parent, []
    for match in islice(_FILE_ID.finditer(data), MAX_NAMED):
        (length,) = struct.unpack("<H", match[1])
        parts = data[match.end() : match.end() + length].decode("latin-1").split("\\")
        found.append(Path("/".join((str(folder), *(part.strip(" \0") for part in parts)))))  # never absolute by itself
    return found
