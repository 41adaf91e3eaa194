"""Zip and tar files made by hand to harm whoever reads them; HOSTILE_ARCHIVES names them, as HOSTILE does for files."""

import os
import struct
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from hostile import EXPLICIT, Writer, body, deflated, meta, write

STORED, DEFLATED = 0, 8
ENCRYPTED, LINK = 1, 0o120777 << 16
GIGABYTE = 1 << 30


class Packed(NamedTuple):
    """A member of a zip, and what is said of it where that is not the truth."""

    name: bytes = b"a.dcm"
    data: bytes = b""  # as it is packed
    content: bytes = b""  # what it holds: its length and checksum are those that are said
    method: int = STORED
    size: int | None = None
    flags: int = 0
    mode: int = 0
    offset: int | None = None  # of its header
    disk: int = 0
    local_method: int | None = None
    header: bytes = b"PK\3\4"


def sound() -> bytes:
    return meta(EXPLICIT) + body({})


def stored(content: bytes | None = None, **said) -> Packed:
    content = sound() if content is None else content
    return Packed(data=content, content=content)._replace(**said)


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def packed(content: bytes | None = None, **said) -> Packed:
    content = sound() if content is None else content
    return Packed(data=deflate(content), content=content, method=DEFLATED)._replace(**said)


def zip_of(
    *members: Packed, directory: bytes | None = None, count: int | None = None, length: int | None = None
) -> bytes:
    """A zip of such members; `directory`, `count` and `length` are what stands at its end in place of the truth."""
    body, entries = bytearray(), bytearray()
    for member in members:
        size = len(member.content) if member.size is None else member.size
        offset = len(body) if member.offset is None else member.offset
        sums = zlib.crc32(member.content), len(member.data), size, len(member.name)
        method = member.method if member.local_method is None else member.local_method
        if member.offset is None:
            body += struct.pack("<4sHHHHHIIIHH", member.header, 20, member.flags, method, 0, 33, *sums, 0)
            body += member.name + member.data
        start = b"PK\1\2", 0x314, 20, member.flags, member.method, 0, 33
        entries += struct.pack("<4s6H3I5H2I", *start, *sums, 0, 0, member.disk, 0, member.mode, offset) + member.name
    entries = entries if directory is None else directory
    count = min(len(members), 0xFFFF) if count is None else count
    length = len(entries) if length is None else length
    return bytes(body) + entries + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, length, len(body), 0)


def zip_file(*members: Packed, **said) -> Writer:
    return write(lambda: zip_of(*members, **said), "a.zip")


def tar_of(*infos: tarfile.TarInfo, content: bytes | None = None, end: bool = True) -> bytes:
    """A tar of headers, each with the content of a sound slice behind it."""
    data = sound() if content is None else content
    blocks = bytearray()
    for info in infos:
        blocks += info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
    return bytes(blocks) + bytes(1024 if end else 0)


def entry(name: str = "a.dcm", kind: bytes = tarfile.REGTYPE, size: int | None = None, **more) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(sound()) if size is None else size
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar_file(content) -> Writer:
    return write(content, "a.tar")


def _bomb(megabytes: int) -> bytes:
    """A deflated stream of a sound slice and so many megabytes of zeros."""
    return deflated(sound(), megabytes)[len(meta("1.2.840.10008.1.2.1.99")) :]


def _zips() -> dict[str, Writer]:
    many = [Packed(b"%d.dcm" % number, offset=0, content=sound(), data=sound()) for number in range(5000)]
    inner = zip_of(stored())
    entries = zip_of(stored())[len(sound()) + 35 :]
    return {
        "zip-bomb": write(lambda: zip_of(packed(data=_bomb(1024), size=GIGABYTE)), "a.zip"),
        "zip-bomb-that-says-it-is-small": write(lambda: zip_of(packed(data=_bomb(1024))), "a.zip"),
        "zip-bomb-of-overlapping-members": zip_file(stored(), *many),
        "zip-bomb-of-quoted-members": zip_file(stored(), *(stored(name=b"%d" % n, offset=n) for n in range(9))),
        "zip-in-zip": zip_file(stored(inner, name=b"b.zip")),
        "zip-that-says-4-gb": zip_file(packed(size=0xFFFFFFFE), stored(name=b"b", size=0xFFFFFFFE)),
        "zip-of-100000-empty-members": write(
            lambda: zip_of(*(Packed(b"%d" % number) for number in range(100_000))), "a.zip"
        ),
        "zip-whose-directory-says-4-gb": zip_file(stored(), length=0xFFFFFFFE, count=0xFFFF),
        "zip-without-a-directory": write(lambda: zip_of(stored())[: len(sound()) + 35], "a.zip"),
        "zip-that-is-cut-off": write(lambda: zip_of(stored(), stored(name=b"b"))[:-40], "a.zip"),
        "zip-whose-directory-is-garbage": zip_file(stored(), directory=b"\xff" * 500),
        "zip-whose-directory-is-cut-off": zip_file(stored(), directory=entries[:30]),
        "zip-of-random-bytes": write(lambda: os.urandom(1 << 16), "a.zip"),
        "zip-that-is-empty": write(b"", "a.zip"),
        "zip-that-is-a-slice": write(sound, "a.zip"),
        "zip-with-a-long-extra-field": zip_file(stored(b"PK\3\4" + b"\xff" * 99 + sound()), stored(offset=35)),
        "zip-with-a-wrong-header": zip_file(stored(header=b"PK\7\7")),
        "zip-with-a-header-beyond-the-end": zip_file(stored(offset=1 << 30)),
        "zip-with-a-name-of-60000-bytes": zip_file(stored(name=b"x" * 60_000)),
        "zip-with-a-name-of-nothing": zip_file(stored(name=b"")),
        "zip-with-a-name-of-bytes": zip_file(stored(name=b"\xff\n\0\x1b[2J.dcm")),
        "zip-of-a-deflated-nothing": zip_file(packed(data=b"\0\0\0\xff\xff" * 100_000)),
        "zip-deflated-from-the-deflated": zip_file(packed(deflated(body({})))),
        "zip-that-is-a-fifo": _fifo,
        "zip-whose-directory-has-900-mb": _sparse(
            "a.zip", end=struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 9, 9, 900 << 20, GIGABYTE - 22 - (900 << 20), 0)
        ),
    }  # fmt: skip


def _sparse(name: str, start: bytes = b"", end: bytes = b"") -> Writer:
    """A file of a gigabyte of zeros, which take no room on a disk, between its start and its end."""

    def writer(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(start)
        os.truncate(path, GIGABYTE - len(end))
        with path.open("ab") as file:
            file.write(end)
        return path

    return writer


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.zip")
    return folder / "a.zip"


def _pax(key: str, value: str) -> bytes:
    info = entry()
    info.pax_headers = {key: value}
    return info.tobuf(tarfile.PAX_FORMAT) + sound() + bytes(-len(sound()) % 512 + 1024)


def _tars() -> dict[str, Writer]:
    negative = entry().tobuf()[:124] + struct.pack(">IQ", 0xFFFFFFFF, 2**64 - 512) + entry().tobuf()[136:]
    total = 256 + sum(negative[:148]) + sum(negative[156:512])
    negative = negative[:148] + b"%06o\0 " % total + negative[156:]
    return {
        "tar-with-a-size-below-zero": tar_file(lambda: tar_of(entry()) [:-1024] + negative + sound() + bytes(4096)),
        "tar-with-a-pax-size-of-1e18": tar_file(lambda: _pax("size", str(10**18))),
        "tar-with-a-pax-size-below-zero": tar_file(lambda: _pax("size", "-512")),
        "tar-with-a-pax-size-of-5000-digits": tar_file(lambda: _pax("size", "9" * 5000)),
        "tar-with-a-pax-time-of-nan": tar_file(lambda: _pax("mtime", "nan")),
        "tar-with-a-pax-header-of-1-gb": tar_file(lambda: tar_of(entry("x", tarfile.XHDTYPE, GIGABYTE))),
        "tar-with-a-pax-header-of-900-mb": _sparse("a.tar", entry("x", tarfile.XHDTYPE, 900 << 20).tobuf()),
        "tar-with-a-name-of-1-gb": tar_file(lambda: tar_of(entry("x", tarfile.GNUTYPE_LONGNAME, GIGABYTE))),
        "tar-with-digits-without-end": tar_file(lambda: _pax("comment", "1" * 12_000)),
        "tar-of-8-gb": tar_file(lambda: tar_of(entry(size=8 << 30))),
        "tar-that-is-cut-off": tar_file(lambda: tar_of(entry(), entry("b"))[:-5000]),
        "tar-without-an-end": tar_file(lambda: tar_of(entry(), end=False)),
        "tar-with-a-damaged-header": tar_file(lambda: tar_of(entry())[:-1024] + b"x" * 512 + tar_of(entry("b"))),
        "tar-of-random-bytes": write(lambda: os.urandom(1 << 16), "a.tar"),
        "tar-that-is-empty": write(b"", "a.tar"),
        "tar-of-50000-empty-members": tar_file(lambda: tar_of(*[entry(size=0)] * 50_000, content=b"")),
        "tar-in-tar": tar_file(lambda: tar_of(entry("b.tar", size=10240), content=tar_of(entry()).ljust(10240, b"\0"))),
        "tar-of-a-bomb": tar_file(lambda: tar_of(entry(size=len(_deflated())), content=_deflated())),
    }  # fmt: skip


def _deflated() -> bytes:
    return deflated(body({}), 1024)


HOSTILE_ARCHIVES: dict[str, Writer] = {**_zips(), **_tars()}
