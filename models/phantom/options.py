"""The command line of make_phantom.py: what to draw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Trap = Literal[
    "all",
    "private_text",
    "train_and_test_patient",
    "wrapped",
    "signed_zero_intercept",
    "padding",
    "padding_tag",
    "two_windows",
    "not_square",
    "mixed_orientation",
    "duplicate_positions",
    "uneven_spacing",
    "no_position",
    "instance_number_only",
    "enhanced",
    "rle",
    "jpeg_ls",
    "jpeg_2000",
    "jpeg_lossless",
    "deflated",
    "mixed_sizes",
    "truncated",
    "constant",
    "beyond_12_bits",
    "stray_newline",
    "text_file",
    "empty_file",
    "duplicate_labels",
    "labels_without_files",
    "files_without_labels",
    "contradicting_labels",
]  # the names in traps.py
LayoutName = Literal["stage_2", "stage_1", "zip", "tree"]  # the names in layouts.py


@dataclass(frozen=True)
class PhantomOptions:
    """The arguments of `write_phantom` (models/phantom/dicom.py)."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder to make; a folder that holds the same phantom already is left alone."""
    studies: int = 120
    """Training studies, of about 34 slices each."""
    test_studies: int = 20
    """Test studies, of other patients."""
    image_size: int = 64
    """Rows and columns of a slice, pixels; the RSNA's slices have 512."""
    seed: int = 0
    """The same seed gives the same files."""
    jobs: int = -1
    """Processes, -1 for one a core; their number does not change the files."""
    traps: tuple[Trap, ...] = ()
    """What to make awkward, as in real data; all: all of it but contradicting labels, which prepare refuses."""
    layout: LayoutName = "stage_2"
    """Names of folders and tables; tree: folders as a hospital exports them, without any table."""
