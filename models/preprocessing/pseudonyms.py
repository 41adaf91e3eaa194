"""Identifiers that may leave the raw folder: the RSNA's own pseudonyms as they are, all others as keyed hashes."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from models.common.files import remove_temporaries, replacing
from models.common.folders import Work
from models.preprocessing.archives import File

_RSNA = re.compile(r"ID_[0-9a-f]{6,12}")


class Names(NamedTuple):
    """The identifiers of a slice, as its header has them or as pseudonyms."""

    image_id: str
    series_id: str
    study_id: str
    patient_id: str


def is_of_challenge(identifier: str) -> bool:
    """Whether an identifier has the form of the RSNA's own."""
    return _RSNA.fullmatch(identifier) is not None


@dataclass(frozen=True)
class Pseudonyms:
    """Names for identifiers: the same key gives the same name, and without it nobody can tell whose it is.

    What an identifier is decides, not the folder that it stands in. No SOPInstanceUID of a hospital looks like the
    RSNA's, but a PatientID may: only beside an image of the RSNA's do the other identifiers keep their names.
    """

    key: bytes
    challenge: bool = False
    """the files lie in Kaggle's layout, where a file has the name of its image"""

    def image(self, identifier: str) -> str:
        """The name of an image."""
        return identifier if is_of_challenge(identifier) else self.hash(identifier)

    def images(self, identifiers: pd.Series) -> pd.Series:
        """The names of many images, and of the frames of files, <SOPInstanceUID>_<0001 ...>, as tables have them."""
        others = identifiers[~identifiers.str.fullmatch(_RSNA.pattern).astype(bool)]
        if others.empty:
            return identifiers
        parts = others.str.extract(r"(?s)^(.*?)(_\d{4})?\Z").fillna("")
        return identifiers.where(~identifiers.index.isin(others.index), parts[0].map(self.image) + parts[1])

    def names(self, identifiers: Names) -> Names:
        """The names of an image, its series, its study and its patient; an empty one stays empty."""
        if is_of_challenge(identifiers.image_id):
            return Names(*(self.image(identifier) if identifier else "" for identifier in identifiers))
        return Names(*(self.hash(identifier) if identifier else "" for identifier in identifiers))

    def file(self, path: File, root: Path) -> str:
        """What a file is called: its own name in a challenge, which is its image's, else a hash of where it lies."""
        if self.challenge and is_of_challenge(path.stem):
            return path.name
        return "file_" + self.hash(str(path.relative_to(root))).removeprefix("ID_")

    def of_file(self, image: str, file: str) -> str:
        """The name of an image whose identifier other images have, too: that of its file tells it from them."""
        return self.hash(f"{image} {file}")

    def hash(self, text: str) -> str:
        """A name of the RSNA's form for any text."""
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


def cached_images(root: Path, identifiers: pd.Series) -> pd.Series:
    """What the cache of a working folder calls the images of a table; as they are where it has no key."""
    path = Work(root).key
    return Pseudonyms(read_key(path)).images(identifiers) if path.is_file() else identifiers
