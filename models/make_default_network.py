"""Make the network that is used where nobody names one: trained on drawings alone, small enough for a repository.

    python models/make_default_network.py
    python models/make_default_network.py --data ../shared/rsna_sample     # measured on labelled slices of people, too

Needs nothing. Draws one phantom for the network of slices and another one for the recurrent layers over it, so that
these learn from what it says of strangers: of drawings that it has learnt from it is too sure. All of this stays in
default_network/ of the working folder, and what is finished is not done again. Writes
models/inference/default_network/: both runs with their weights as float16, what calibrates them, and a card. With
--data one that is there is measured, and its card written anew.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.common.channels import Channel
from models.common.cli import command
from models.common.config import RunConfig, SequenceConfig, TrainConfig
from models.common.errors import InputError
from models.common.folders import Work, WorkFolder, default_work
from models.common.options import Machine, TrainOptions
from models.common.progress import progress_bar, say
from models.inference.default import FOLDER, SLICES, STUDIES, require_whole
from models.phantom.dicom import write_phantom
from models.preprocessing import windows
from models.preprocessing.preparation import PrepareOptions, prepare
from models.training.run import train

SLICE_NETWORK = TrainConfig(
    name=SLICES,
    network="efficientnet-lite0-trunk",  # 4.7 MB as float16; the whole one has 6.8
    image_size=128,  # as train_lite0.py, and so are the other choices
    channels=(Channel(0, windows.BRAIN), Channel(0, windows.SUBDURAL), Channel(0, windows.SOFT_TISSUE)),
    optimizer="adam",
    max_lr=1.5e-3,
    epochs=4,  # docs/results.md tells how long that takes
    batch_size=32,
    weight_decay=1e-2,
    augment="randomised",  # it is to forget that they are drawings
)
LAYERS = SequenceConfig(
    name=STUDIES,
    runs=(SLICES,),
    views="flip",  # eight views would take four times as long, here and of whoever uses it
    optimizer="radam",
    max_lr=2e-3,  # as in the demo
    epochs=20,
    batch_size=4,
    weight_decay=1e-2,
    clip_gradient=1.0,
    shortest=0.5,
)
SEEDS = {SLICES: 18_001, STUDIES: 18_002}  # of the drawings: the demo's are of other patients


@dataclass(frozen=True)
class MakeOptions:
    """The command line of this script."""

    data: Path | None = None
    """labelled slices of people to measure it on, in Kaggle's layout; none: the card says that it was not measured"""
    output: Path = FOLDER
    """where to write it; if nothing is said, where it is looked for"""
    work: WorkFolder = field(default_factory=default_work)
    studies: tuple[int, int] = (600, 400)
    """drawn ones, for the network of slices and for the recurrent layers"""
    image_size: int = SLICE_NETWORK.image_size
    """side of a slice, pixels"""
    network: str = SLICE_NETWORK.network
    """of slices; a name from models/training/networks.py"""
    pretrained: bool = SLICE_NETWORK.pretrained
    """start it from ImageNet weights"""
    epochs: int = SLICE_NETWORK.epochs
    """of its training"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    jobs: int = -1
    """processes that draw and prepare; -1: one a core"""

    def part(self, name: str) -> Work:
        """The working folder in which one of its runs is trained; or of the slices that it is measured on."""
        return Work(self.work / "default_network" / name)


def make(options: MakeOptions) -> None:
    """Make what is missing of it. Raises InputError for another one that is there, and as the steps that are called."""
    asked = {name: getattr(options, name) for name in ("studies", "image_size", "network", "pretrained", "epochs")}
    made = asked | {"studies": list(options.studies)}
    if (options.output / "files.json").is_file():
        if (there := require_whole(options.output)["made"]) != made:
            raise InputError(
                f"{options.output} was made with {there}, not {made}; delete it, or choose another --output"
            )
        print(f"{options.output} is there; delete it to make it anew")
    else:
        make_anew(options, made)
    if options.data is not None:
        measure_on_people(options)


def make_anew(options: MakeOptions, made: dict[str, Any]) -> None:
    """Draw, train and write it; what is finished already is skipped. Raises InputError as the steps that are called."""
    from models.inference.default_files import halve, write_default  # with torch, seconds of imports

    slices, studies = options.part(SLICES), options.part(STUDIES)
    steps = {
        "drawings for the network of slices": lambda: draw(options, SLICES, options.studies[0]),
        "drawings for the recurrent layers": lambda: draw(options, STUDIES, options.studies[1]),
        "the network of slices": lambda: train_run(options, slices, slice_network(options)),
        "its weights as float16, as they will be used": lambda: halve(slices.run(SLICES, 0), studies.run(SLICES, 0)),
        "the recurrent layers": lambda: train_run(options, studies, LAYERS),
        "files and card": lambda: write_default(options.output, slices, studies, made),
    }
    with progress_bar("default network", total=len(steps), unit="step") as bar:
        for title, step in steps.items():
            say(f"default network: {title}")
            step()
            bar.update()


def slice_network(options: MakeOptions) -> TrainConfig:
    """The configuration that is asked for."""
    asked = {name: getattr(options, name) for name in ("image_size", "network", "pretrained", "epochs")}
    return replace(SLICE_NETWORK, **asked)


def draw(options: MakeOptions, name: str, studies: int) -> None:
    """Draw a phantom and prepare it. Raises InputError as `write_phantom` and `prepare` do."""
    work = options.part(name)
    write_phantom(work.root / "data", studies, 1, options.image_size, SEEDS[name], options.jobs)
    prepare_slices(options, work.root / "data", work)


def prepare_slices(options: MakeOptions, data: Path, work: Work, folds: int = 5) -> None:
    """Make the cache of a part of the work. Raises InputError as `prepare`."""
    sizes = (options.image_size,)
    prepare(PrepareOptions(data=data, work=work.root, image_size=sizes, folds=folds, jobs=options.jobs))


def train_run(options: MakeOptions, work: Work, config: RunConfig) -> None:
    """Train the fold of a run. Raises InputError as `train`."""
    train(TrainOptions(config, machine=Machine(work=work.root, device=options.device)))


def measure_on_people(options: MakeOptions) -> None:
    """Write on the card how the network ranks real slices. Raises InputError if there are none with labels."""
    from models.inference.default_files import write_card
    from models.inference.default_measuring import measure

    assert options.data is not None
    people = options.part("people")
    prepare_slices(options, options.data, people, folds=2)  # of no use here, and there may be few people
    measured = measure(options.output, people, options.device)
    write_card(options.output, require_whole(options.output), measured)
    print(f"{options.output / 'README.md'}: {measured.slices:,} slices of {measured.people:,} people")


if __name__ == "__main__":
    command(make, MakeOptions)
