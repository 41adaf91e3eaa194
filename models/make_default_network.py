"""Make the network that is used where nobody names one: of slices and of studies, trained on drawings alone.

    python models/make_default_network.py --data ../shared/rsna_sample     # with labelled slices, to measure it on

Needs nothing. Draws phantoms to default_network/ of the working folder, prepares them and trains there.
"""

from dataclasses import dataclass, field

from models.common.cli import command
from models.common.folders import WorkFolder, default_work
from models.inference.default import SLICES, STUDIES
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare

SEEDS = {SLICES: 18_001, STUDIES: 18_002}  # of the drawings: nobody else draws the same patients


@dataclass(frozen=True)
class MakeOptions:
    """The command line of this script."""

    work: WorkFolder = field(default_factory=default_work)
    studies: tuple[int, int] = (400, 200)
    """drawn ones, for the network of slices and for the recurrent layers"""
    image_size: int = 128
    """side of a slice, pixels"""
    jobs: int = -1
    """processes that draw and prepare; -1: one a core"""


def make(options: MakeOptions) -> None:
    """Draw and prepare what it learns from. Raises InputError as `write_phantom` and `prepare` do."""
    for name, count in zip((SLICES, STUDIES), options.studies, strict=True):
        work = options.work / "default_network" / name
        data = work / "data"
        write_phantom(data, count, 1, options.image_size, SEEDS[name], options.jobs)
        prepare(PrepareOptions(data=data, work=work, image_size=(options.image_size,), jobs=options.jobs))


if __name__ == "__main__":
    command(make, MakeOptions)
