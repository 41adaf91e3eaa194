"""--part 2/4: some of the series, so that several sessions, or machines, prepare a share each, and one joins them."""

import re
from typing import NamedTuple

from isal.isal_zlib import crc32

from models.common.errors import InputError
from models.common.folders import Work


class Share(NamedTuple):
    """One of so many shares of all series, which any process tells by their keys alone."""

    number: int  # from 1
    of: int

    def holds(self, series: str) -> bool:
        """Whether a series belongs to it: shares are of nearly one size, and data that grow change none of them."""
        return crc32(series.encode()) % self.of == self.number - 1


def require_key(share: Share, work: Work) -> None:
    """Raise InputError if a share of own files would be named by another key than the first one's."""
    if share.number > 1 and not work.key.is_file():
        raise InputError(
            f"--part {share.number}/{share.of} of own files needs the key that part 1 has named them by; run that, or "
            f"begin it, then copy {work.key.name} of its --work to {work.key}"
        )


def read_share(text: str) -> Share:
    """The share that a flag names. Raises InputError for one that cannot be."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    share = Share(int(match[1]), int(match[2])) if match else Share(0, 0)
    if not 1 <= share.number <= share.of:
        raise InputError(f"--part {text} is none of several; name one like 2/4")
    return share
