"""Identifiers that may leave the raw folder: the RSNA's own pseudonyms as they are, all others as keyed hashes."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from models.common.files import remove_temporaries, replacing
from models.preprocessing.archives import File

_RSNA = re.compile(r"ID_[0-9a-f]{6,12}")
_PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)


def is_of_challenge(identifier: str) -> bool:
    """Whether an identifier has the form of the RSNA's own."""
    return _RSNA.fullmatch(identifier) is not None


@dataclass(frozen=True)
class Pseudonyms:
    """Names for identifiers: the same key gives the same name, and without it nobody can tell whose it is.

    `challenge` says that the data comes in Kaggle's layout, whose tables name the images: an image keeps its name
    there, and so does every identifier of the RSNA's form.
    """

    key: bytes
    challenge: bool

    def image(self, identifier: str) -> str:
        """The name of an image; one that the tables of a challenge can name stays as it is."""
        return identifier if self.challenge and _PLAIN.fullmatch(identifier) else self._hash(identifier)

    def __call__(self, identifier: str) -> str:
        """The name of a patient, a study or a series."""
        return identifier if self.challenge and _RSNA.fullmatch(identifier) else self._hash(identifier)

    def file(self, path: File, root: Path) -> str:
        """What a file is called in a report: its own name in a challenge, which is its image's, else a hash."""
        if self.challenge and _RSNA.fullmatch(path.stem):
            return path.name.strip()
        return "file_" + self._hash(str(path.relative_to(root))).removeprefix("ID_")

    def _hash(self, text: str) -> str:
        data = text.encode("utf-8", "surrogateescape")
        return f"ID_{hashlib.blake2b(data, key=self.key, digest_size=8).hexdigest()}"


def read_key(path: Path) -> bytes:
    """The secret of a working folder, made at its first use. Whoever has it can test who a name stands for.

    Raises InputError if it cannot be written.
    """
    if not path.is_file():
        remove_temporaries(path.parent, f".{path.name}.*")  # of a run that was killed
        with replacing(path, mode=0o600) as temporary:
            temporary.write_text(secrets.token_hex(32))
    return bytes.fromhex(path.read_text())
