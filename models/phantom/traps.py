"""What is awkward in real data, planted in a phantom: files that are damaged, contradict each other or come otherwise.

    plant(draft_folder, LAYOUTS["stage_2"], splits, ["truncated", "rle"], seed=0)

Writes phantom_traps.csv with the columns `trap,split,item`: the item is the id of the image, series or patient that
the trap is about. No slice bears two traps, but that private_text is in all files. This module holds the registry and
the traps of tables, names and whole files; traps_pixels.py, traps_geometry.py, traps_formats.py and traps_private.py
hold the others. The numbers in the docstrings were counted on the RSNA's set.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from models.common.errors import InputError
from models.phantom import traps_formats as formats
from models.phantom import traps_geometry as geometry
from models.phantom import traps_pixels as pixels
from models.phantom.draft import Draft, Items, edited, image_of
from models.phantom.layouts import Layout
from models.phantom.traps_private import private_text


def plant(folder: Path, layout: Layout, splits: Mapping[str, str], traps: Iterable[str], seed: int) -> None:
    """Plant traps in a finished phantom and record them; the same seed gives the same bytes.

    `splits` says for each image whether it is in "train" or in "test". Raises `InputError` if there are too few
    studies for so many traps.
    """
    draft = Draft(folder, layout, splits, seed)
    rows = []
    for trap in traps:
        draft.begin(trap)
        rows += [(trap, split, item) for split, item in TRAPS[trap](draft)]
    table = pd.DataFrame(rows, columns=["trap", "split", "item"])
    table.to_csv(folder / "phantom_traps.csv", index=False, lineterminator="\n")


def choose_traps(names: Sequence[str], layout: Layout) -> list[str]:
    """The traps that the names ask for, "all" among them, in the order in which they are planted.

    "all" leaves out what prepare must refuse, and what a layout without tables cannot have. Raises `InputError` for
    an unknown trap, and for one that this layout cannot have.
    """
    impossible = () if layout.labels is not None else IN_TABLES
    for name in names:
        if name not in ("all", *TRAPS):
            raise InputError(f"there is no trap {name!r}; choose from all, {', '.join(TRAPS)}")
        if name in impossible:
            raise InputError(f"the trap {name} needs a layout with tables; choose another layout")
    whole = "all" in names
    return [trap for trap in TRAPS if trap in names or (whole and trap not in (*REFUSED, *impossible))]


def duplicate_labels(draft: Draft) -> Items:
    """The label rows of four images stand twice, and are equal."""
    yield from _repeat_rows(draft, 4, lambda row: row)


def contradicting_labels(draft: Draft) -> Items:
    """The rows of one image stand twice with unequal labels; the RSNA has none, and nobody can say which is true."""
    yield from _repeat_rows(draft, 1, lambda row: row[:-1] + {"0": "1", "1": "0"}[row[-1]])


def labels_without_files(draft: Draft) -> Items:
    """Images that have labels, and no file."""
    for piece in draft.take_slices(2, "train"):
        piece.path.unlink()
        yield piece.image


def files_without_labels(draft: Draft) -> Items:
    """Files of the training set that have no labels."""
    pieces = draft.take_slices(2, "train")
    images = {piece.image_id for piece in pieces}
    draft.edit_rows("train", lambda rows: [row for row in rows if image_of(row) not in images])
    yield from (piece.image for piece in pieces)


def train_and_test_patient(draft: Draft) -> Items:
    """A test study of a patient who is in the training set too, as 285 are in stage 1."""
    (test,) = draft.take_series(1, "test")
    (train,) = draft.take_series(1, "train")
    for piece in test:
        with edited(piece.path) as data:
            data.PatientID = train[0].patient_id
    yield test[0].split, train[0].patient_id


def stray_newline(draft: Draft) -> Items:
    """A file's name ends in a newline, as a list of names that is read carelessly makes them."""
    (piece,) = draft.take_slices(1)
    piece.path.rename(piece.path.with_name(piece.path.name + "\n"))
    yield piece.image


def text_file(draft: Draft) -> Items:
    """The page of an error stands in the place of a slice, as after a download that failed."""
    (piece,) = draft.take_slices(1)
    piece.path.write_text("<html><head><title>403 Forbidden</title></head></html>\n")
    yield piece.image


def empty_file(draft: Draft) -> Items:
    """A file without a byte, as after a copy onto a full disk."""
    (piece,) = draft.take_slices(1)
    piece.path.write_bytes(b"")
    yield piece.image


def _repeat_rows(draft: Draft, count: int, change: Callable[[str], str]) -> Items:
    pieces = draft.take_slices(count, "train")
    images = {piece.image_id for piece in pieces}
    draft.edit_rows("train", lambda rows: rows + [change(row) for row in rows if image_of(row) in images])
    yield from (piece.image for piece in pieces)


# In the order in which they are planted: all files, whole series, and single slices of the series that are left.
TRAPS: dict[str, Callable[[Draft], Items]] = {
    trap.__name__: trap
    for trap in (
        private_text,
        train_and_test_patient,
        pixels.wrapped,
        pixels.signed_zero_intercept,
        pixels.padding,
        pixels.padding_tag,
        pixels.two_windows,
        geometry.not_square,
        geometry.mixed_orientation,
        geometry.duplicate_positions,
        geometry.uneven_spacing,
        geometry.no_position,
        geometry.instance_number_only,
        formats.enhanced,
        formats.rle,
        formats.jpeg_ls,
        formats.jpeg_2000,
        formats.jpeg_lossless,
        formats.deflated,
        geometry.mixed_sizes,
        pixels.truncated,
        pixels.constant,
        pixels.beyond_12_bits,
        stray_newline,
        text_file,
        empty_file,
        duplicate_labels,
        labels_without_files,
        files_without_labels,
        contradicting_labels,
    )
}
IN_TABLES = ("duplicate_labels", "contradicting_labels", "labels_without_files", "files_without_labels")
REFUSED = ("contradicting_labels",)
