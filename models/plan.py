"""What training on the challenge would take: disk, hours and GPU memory of each step, and how that is known.

    python models/plan.py --preset b2 --gpu h100          # by benchmarks/gpu.json, or by what is published
    python models/plan.py --preset b0_224 --measure       # by twenty steps on this machine
    python models/plan.py --preset small --measure --own  # for the slices of your own cache
    python models/plan.py --preset session --gpu t4 --gpus 2 --side-by-side --hours 10  # in how many epochs

Needs nothing; --measure takes the slices of cache/ where they are stored at this size, else noise of the same shape.
Writes nothing. The steps are those of the README.
"""

import json
import os
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.folders import Work, WorkFolder, default_work
from models.common.labels import LABELS
from models.common.options import Machine, TrainOptions
from models.preprocessing.tables import read_folds, read_slices
from models.preprocessing.windows import LOW_INFORMATION
from models.train_sequence import CONFIG as SEQUENCE
from models.train_session_sequence import CONFIG as SESSION_SEQUENCE
from models.training.planning import (
    CHALLENGE,
    MARGIN,
    Line,
    Slices,
    Speed,
    epochs_within,
    measured_speed,
    plan,
    plan_of_prepare,
    published_speed,
    seconds_after_preparing,
)
from models.training.run_folder import epochs_begun

SCRIPTS = Path(__file__).resolve().parent
BENCHMARKS = SCRIPTS.parent / "benchmarks"


@dataclass(frozen=True)
class PlanOptions:
    """The command line of this script."""

    preset: str = "b2"
    """a training script that looks at images, without its train_"""
    gpu: str = ""
    """the card, like h100, a100 or rtx3090"""
    measure: bool = False
    """time twenty steps on this machine instead"""
    network: str | None = None
    """none: the preset's"""
    image_size: int | None = None
    """none: the preset's"""
    batch_size: int | None = None
    """none: the preset's"""
    gpus: int = 1
    """cards of that kind"""
    side_by_side: bool = False
    """a fold on each of them, not all of them for each fold"""
    folds: int | None = None
    """that are trained; none: all"""
    hours: float | None = None
    """say how many epochs so many hours hold, once the slices are prepared, and plan for these; none: the preset's. A
    run that has been begun keeps its own"""
    work_from: tuple[Path, ...] = ()
    """working folders of earlier sessions, where it may have been begun"""
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """of the machine with them"""
    parts: int = 1
    """in which preparing is divided: prepare.py --part"""
    own: bool = False
    """plan for the slices of cache/, not for the challenge's"""
    work: WorkFolder = field(default_factory=default_work)
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps: what --measure measures"""
    workers: int = -1
    """loader processes there; -1: as in training"""


def main(options: PlanOptions) -> None:
    """Print the plan. Raises InputError for a preset that is not there, and where nothing tells how fast a card is."""
    for name in ("gpus", "cores", "parts", "folds"):
        if (count := getattr(options, name)) is not None and count < 1:
            raise InputError(f"--{name} {count}: there is one at least; repair it")
    config = preset(options)
    works = [Work(folder) for folder in (options.work, *options.work_from)]
    if options.hours is not None and (begun := epochs_begun(works, config)):
        folder, epochs = begun
        print(f"{options.preset}: {counted(epochs)}, with which {folder} was begun")
        return
    slices = own_slices(Work(options.work)) if options.own else CHALLENGE
    over = SESSION_SEQUENCE if options.preset in SESSION_SEQUENCE.runs else SEQUENCE
    planned = partial(
        plan,
        slices=slices,
        speed=speed_of(config, options),
        prepare=preparing(config, slices, options),
        gpus=options.gpus,
        sequence_epochs=over.epochs,
        views=over.views,
        folds=options.folds,
        side_by_side=options.side_by_side,
    )
    if options.hours is not None:
        config = replace(config, epochs=epochs_within(options.hours, config, planned))
    lines = planned(config)
    print(
        f"{options.preset}: {config.network} at {config.input_size} px, batch {config.batch_size}, "
        f"{counted(config.epochs)}; {slices.train:,} slices with labels of {slices.studies:,} studies, "
        f"{slices.test:,} to predict\n"
    )
    print(f"{'':36}{'disk':>10}{'time':>10}{'GPU memory':>12}   by")
    for line in lines:
        print(
            f"{line.step:36}{shown(line.disk, ' GB'):>10}{duration(line.seconds):>10}{shown(line.memory, ' GiB'):>12}"
            f"   {line.source}"
        )
    if options.hours is not None:
        print(f"\n{chosen(options, config.epochs, lines)}")


def preparing(config: TrainConfig, slices: Slices, options: PlanOptions) -> Line:
    """The line of models/prepare.py, which is done where the hours of a cache are asked for.

    Raises InputError outside of a checkout, where it is not.
    """
    if options.own and options.hours is not None:
        return Line(
            f"prepare.py --image-size {config.image_size}", None, None, None, "done: these are the slices of cache/"
        )
    milliseconds, source = measured_milliseconds("prepare_vs_fastai")
    return plan_of_prepare(config.image_size, slices, milliseconds, options.cores, source, options.parts)


def chosen(options: PlanOptions, epochs: int, lines: list[Line]) -> str:
    """One line: how many epochs the hours hold, and how many hours they and all that comes after them take."""
    taken, may = seconds_after_preparing(lines) / 3600, (1 - MARGIN) * (options.hours or 0)
    fits = f"{taken:.1f} with all that comes after, and a tenth kept back"
    longer = f"not even that: it takes {taken:.1f} with all that comes after, and goes on in another session"
    return (
        f"{options.preset}: {counted(epochs)}, what {options.hours:.1f} hours hold: {fits if taken <= may else longer}"
    )


def counted(epochs: int) -> str:
    """So many epochs, in words."""
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def preset(options: PlanOptions) -> TrainConfig:
    """A preset with the sizes that are asked for. Raises InputError if there is none."""
    config = preset_named(options.preset)
    config = config if options.network is None else replace(config, network=options.network)
    if options.image_size is not None:
        crop = config.crop_size and round(config.crop_size * options.image_size / config.image_size)
        config = replace(config, image_size=options.image_size, crop_size=crop)
    return config if options.batch_size is None else replace(config, batch_size=options.batch_size)


def preset_named(name: str) -> TrainConfig:
    """The configuration of a training script that looks at images. Raises InputError if there is none."""
    scripts = {path.stem.removeprefix("train_"): path.stem for path in SCRIPTS.glob("train_*.py")}
    for other in (SEQUENCE.name, SESSION_SEQUENCE.name):  # a step of the plan for each of the others
        scripts.pop(other)
    if name not in scripts:
        raise InputError(f"no preset {name!r} that looks at images; name one of {', '.join(sorted(scripts))}")
    return import_module(f"models.{scripts[name]}").CONFIG


def speed_of(config: TrainConfig, options: PlanOptions) -> Speed:
    """Measured here if that is asked for, else by the benchmark's results, else by what is published.

    Raises InputError if there is none of that.
    """
    if options.measure:
        from models.training.timing import measured_here  # with torch

        machine = Machine(options.work, device=options.device, workers=options.workers)
        return measured_here(TrainOptions(config, machine=machine))
    if not options.gpu:
        raise InputError("name a card with --gpu, like h100, or measure this machine with --measure")
    results = BENCHMARKS / "gpu.json"
    measured = measured_speed(json.loads(results.read_text()), config, options.gpu) if results.is_file() else None
    nearest = min((224, 512), key=lambda size: abs(size - config.image_size))
    milliseconds, _ = measured_milliseconds(f"input_{nearest}_vs_original")
    load = options.cores / options.gpus * 1000 / milliseconds * (nearest / config.image_size) ** 2  # of each card
    if speed := measured or published_speed(config, options.gpu, load):
        return speed
    raise InputError(f"nothing is published of {config.network}; measure it on a machine with the card, with --measure")


def measured_milliseconds(name: str) -> tuple[float, str]:
    """The milliseconds a slice of a row of benchmarks/results.json, and where they come from.

    Raises InputError where that file is not: outside of a checkout.
    """
    file = BENCHMARKS / "results.json"
    if not file.is_file():
        raise InputError(f"no {file}; plan in a checkout of the project")
    results = json.loads(file.read_text())
    (row,) = (row for row in results["rows"] if row["name"] == name)
    return row["ours"], f"measured, benchmarks/results.json: {results['machine']['cpu']}"


def own_slices(work: Work) -> Slices:
    """How many slices the cache holds. Raises InputError if there is none."""
    train = read_slices(work, "train").dropna(subset=list(LABELS))
    test = len(read_slices(work, "test")) if work.metadata("test").is_file() else 0
    low = (train["img_pct_window"] < LOW_INFORMATION).mean()
    return Slices(len(train), test, train["series_id"].nunique(), float(low), read_folds(work)["fold"].nunique())


def shown(value: float | None, unit: str) -> str:
    """A number with its unit; a dash where there is none."""
    return "-" if value is None else f"{value:,.1f}{unit}"


def duration(seconds: float | None) -> str:
    """In the unit in which a person would say it."""
    if seconds is None:
        return "-"
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:,.0f} h"
    )


if __name__ == "__main__":
    command(main, PlanOptions)
