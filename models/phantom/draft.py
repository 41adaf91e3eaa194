"""A phantom that is written but not at its place yet, as the traps of traps.py see it."""

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
from pydicom.dataset import Dataset

from models.common.errors import InputError
from models.phantom.layouts import Layout

Items = Iterator[tuple[str, str]]  # what a trap yields for its record: split, and id of an image, series or patient


@dataclass(frozen=True)
class Slice:
    """A file of the draft, and what the record of a trap may name: each a pair of split and item."""

    path: Path
    split: str
    image_id: str
    series_id: str
    patient_id: str
    z: float

    @property
    def image(self) -> tuple[str, str]:
        """How a trap records this image."""
        return self.split, self.image_id

    @property
    def series(self) -> tuple[str, str]:
        """How a trap records the series of this image."""
        return self.split, self.series_id


class Draft:
    """The files of a phantom, and which of them bear a trap already."""

    def __init__(self, folder: Path, layout: Layout, splits: Mapping[str, str], seed: int) -> None:
        """`splits` says for each image whether it is in "train" or in "test"."""
        self.folder = folder
        self.layout = layout
        self.seed = seed
        self.series: dict[str, list[Slice]] = {}  # each from the base up
        self.trapped: set[str] = set()  # images
        roots = {folder / layout.folder(split) for split in ("train", "test")}
        slices = [_read_slice(path, splits) for root in roots for path in root.rglob("I*") if path.is_file()]
        for piece in sorted(slices, key=lambda piece: (piece.series_id, piece.z)):
            self.series.setdefault(piece.series_id, []).append(piece)

    def begin(self, trap: str) -> None:
        """Give a trap its own random numbers, whatever other traps are planted."""
        self.trap = trap
        self.rng = np.random.default_rng([self.seed, zlib.crc32(trap.encode())])

    def take_series(self, count: int = 1, split: str | None = None) -> list[list[Slice]]:
        """Series without any trap, from now on trapped. Raises InputError if there are not so many."""
        free = [
            series
            for series in self.series.values()
            if split in (None, series[0].split) and not any(piece.image_id in self.trapped for piece in series)
        ]
        if len(free) < count:
            raise self._too_small(split)
        chosen = [free[i] for i in self.rng.permutation(len(free))[:count]]
        self.trapped.update(piece.image_id for series in chosen for piece in series)
        return chosen

    def take_slices(self, count: int, split: str | None = None) -> list[Slice]:
        """Slices without a trap, from now on trapped; of the series with the fewest traps.

        Raises InputError if there are not so many.
        """
        return [self._take_slice(split) for _ in range(count)]

    def edit_rows(self, split: str, change: Callable[[list[str]], Iterable[str]]) -> None:
        """Replace the rows `ID,Label` of the tables of a split."""
        for table in self.layout.tables(split):
            path = self.folder / table
            head, *rows = path.read_text().splitlines()
            path.write_text("\n".join([head, *change(rows)]) + "\n")

    def _take_slice(self, split: str | None) -> Slice:
        free = [
            [piece for piece in series if piece.image_id not in self.trapped]
            for series in self.series.values()
            if split in (None, series[0].split)
        ]
        free = [pieces for pieces in free if pieces]
        if not free:
            raise self._too_small(split)
        trapped = [len(self.series[pieces[0].series_id]) - len(pieces) for pieces in free]
        fewest = [pieces for pieces, number in zip(free, trapped, strict=True) if number == min(trapped)]
        pieces = fewest[self.rng.integers(len(fewest))]
        piece = pieces[self.rng.integers(len(pieces))]
        self.trapped.add(piece.image_id)
        return piece

    def _too_small(self, split: str | None) -> InputError:
        kind = "test study" if split == "test" else "training study" if split == "train" else "study"
        return InputError(f"no {kind} is left for the trap {self.trap}; ask for more studies or for fewer traps")


@contextmanager
def edited(path: Path) -> Generator[Dataset]:
    """Yield the data set of a file, and write it back."""
    with pydicom.config.disable_value_validation():  # the RSNA's identifiers are no valid UIDs
        data = pydicom.dcmread(path)
        yield data
        data.save_as(path, enforce_file_format=True)


def image_of(row: str) -> str:
    """The image of a row `<image>_<label>,<value>`."""
    return row.rsplit("_", 1)[0]


def _read_slice(path: Path, splits: Mapping[str, str]) -> Slice:
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(path, stop_before_pixels=True)
        image = str(data.SOPInstanceUID)
        z = float(data.ImagePositionPatient[2])
        return Slice(path, splits[image], image, str(data.SeriesInstanceUID), str(data.PatientID), z)
