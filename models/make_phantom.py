"""Write synthetic head CT studies with hemorrhages, as DICOM files in the layout of the RSNA challenge's data.

    python models/make_phantom.py data/phantom --studies 120 --test-studies 20 --image-size 64

Needs nothing. Writes stage_2_train/, stage_2_test/, their tables, the answers of the test slices
(phantom_test_labels.csv) and a picture to look at (contact_sheet.png).

With --traps all (or truncated rle ...) also what is awkward in real data, and phantom_traps.csv that tells where.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from models.common.cli import command
from models.phantom.dicom import write_phantom
from models.phantom.layouts import LAYOUTS
from models.phantom.traps import TRAPS

Trap = Literal[("all", *TRAPS)]
LayoutName = Literal[tuple(LAYOUTS)]


@dataclass(frozen=True)
class PhantomOptions:
    """What to draw."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder to make; a folder that holds the same phantom already is left alone."""
    studies: int = 120
    """Training studies, of about 28 slices each."""
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


def make_phantom(options: PhantomOptions) -> None:
    """Write the phantom that the options ask for."""
    write_phantom(**vars(options))


if __name__ == "__main__":
    command(make_phantom, PhantomOptions)
