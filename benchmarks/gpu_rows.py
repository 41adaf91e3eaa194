"""The rows of benchmarks/gpu.py: what is measured of a preset, each setting in a process of its own.

A process has a limit and is ended by it, tells each number as soon as it has it, and takes with it what it has broken.
"""

import gc
import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

from models.common.config import Precision, TrainConfig
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.plan import preset_named
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.anchors import anchors_of
from models.training.device import choose_device, count_workers, use_device
from models.training.fold import kind_of
from models.training.loading import make_loader
from models.training.memory import peak_gib, reset_peak
from models.training.precision import usable_precision
from models.training.processes import Processes
from models.training.timing import OneBatch, Pace, load_rate, predict_rate, train_rate

Row = dict[str, Any]
NUMBERS = ("loader", "alone", "both", "efficiency", "d4", "peak_gib", "d4_peak_gib")
START, COMPILATION = 12.0, 60.0  # seconds in which a process starts, finds its kernels, and compiles


@dataclass(frozen=True)
class RowOptions:
    """How the rows are measured."""

    work: Work
    device: str = "auto"
    workers: int = -1
    seconds: float = 5.0
    """for each number, after the warm-up"""
    quick: bool = False
    """on pictures of 32 pixels, four at a time: a rehearsal, whose numbers mean nothing"""


class Setting(NamedTuple):
    """A preset in one of its ways, and which numbers are asked of it."""

    preset: str
    precision: Precision
    channels_last: bool
    compile: bool
    asked: tuple[str, ...]

    def config(self, quick: bool) -> TrainConfig:
        """The preset's configuration in that precision, from random weights. Raises InputError if there is none."""
        config = replace(preset_named(self.preset), precision=self.precision, pretrained=False)
        if quick:
            crop = config.crop_size and 26
            config = replace(config, image_size=32, crop_size=crop, batch_size=4, skip_low_information=False)
        return config

    def needs(self, seconds: float) -> float:
        """In how many seconds it can be done at best."""
        return START + len(self.asked) * seconds + (COMPILATION if self.compile else 0)


def settings(presets: tuple[str, ...]) -> list[Setting]:
    """All that is measured, what matters most first: the last may find no time left."""
    plain = [Setting(preset, "auto", True, False, ("alone", "both", "loader", "d4")) for preset in presets]
    compiled = [Setting(preset, "auto", True, True, ("alone", "both")) for preset in presets]
    others = [Setting(preset, "fp16", True, False, ("alone",)) for preset in presets]
    others += [Setting(preset, "auto", False, False, ("alone",)) for preset in presets]
    return plain + compiled[:1] + others + compiled[1:]


def empty_row(setting: Setting, quick: bool) -> Row:
    """A row without numbers, in the precision that is asked for, beside what is published of its network."""
    config = setting.config(quick)
    published = {one.card: round(one.scaled(config.input_size)) for one in anchors_of(config.network)}
    return {
        "preset": setting.preset,
        "network": config.network,
        "size": config.input_size,
        "batch": config.batch_size,
        "precision": setting.precision,
        "channels_last": setting.channels_last,
        "compile": setting.compile,
        **dict.fromkeys(NUMBERS),
        "published": published,
        "seconds": 0.0,
        "why": {},
    }


def measured_row(setting: Setting, options: RowOptions, limit: float, loader: float | None) -> Row:
    """Measure a setting within so many seconds; each number that is missing has its reason in `why`.

    `loader` is what the loader of the preset gives, where another row has told it already.
    """
    row, began = empty_row(setting, options.quick), time.monotonic()
    row["loader"] = loader
    ending = "not asked of this setting"
    if limit < setting.needs(options.seconds):
        ending = f"left out: time, {limit:.0f} s were left"
    else:
        for said in _said_by_process(setting, options, limit):
            row["why"] |= said.pop("why", {})
            ending = said.pop("ending", ending)
            row |= said
    if row["both"] and row["alone"] and row["loader"]:
        row["efficiency"] = round(row["both"] / min(row["alone"], row["loader"]), 3)
    if options.device == "cpu":
        row["why"] |= {"peak_gib": "no GPU", "d4_peak_gib": "no GPU"}
    row["why"] = {name: row["why"].get(name, ending) for name in NUMBERS if row[name] is None}
    row["seconds"] = round(time.monotonic() - began, 1)
    return row


def _said_by_process(setting: Setting, options: RowOptions, limit: float) -> Iterator[Row]:
    """What the process that measures a setting sends; at last why it has ended, if not because it was done."""
    # A fork of this process, which has imported everything but has never touched the GPU: that can be done once only.
    context, end = get_context("fork"), time.monotonic() + limit
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, setting, options))
    process.start()
    theirs.close()
    try:
        while ours.poll(max(0.0, end - time.monotonic())):
            said = ours.recv()
            if "done" in said:
                return
            yield said
        yield {"ending": f"left out: time, not done after {limit:.0f} s"}
    except EOFError:
        process.join(START)
        if process.exitcode != 0:
            yield {"ending": f"error: its process has ended with {process.exitcode}"}
    finally:
        _end(process)


def _end(process: BaseProcess) -> None:
    """End it with all that it has started: loaders, compilers."""
    assert process.pid is not None  # it has been started
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join(START)


def _measure(connection: Connection, setting: Setting, options: RowOptions) -> None:
    os.setsid()
    heard = io.StringIO()
    with redirect_stdout(heard), redirect_stderr(heard):
        if not setting.channels_last:  # for this process alone: all that asks for it gets the other one
            torch.channels_last = torch.contiguous_format
        for name in setting.asked:
            said = _tried(name, setting, options)
            halved = [line for line in heard.getvalue().splitlines() if line.startswith("out of memory")]
            connection.send(said | ({"halved": halved[-1]} if halved else {}))
            gc.collect()
    connection.send({"done": True})  # its loaders hold the other end open for seconds yet
    connection.close()
    os._exit(0)  # without waiting for them


def _tried(name: str, setting: Setting, options: RowOptions) -> Row:
    """What a measurement says of a number and of the precision that it is computed in, or why it cannot."""
    try:
        measurement = _measurement(setting, options)
        return {"precision": measurement.precision, **getattr(measurement, name)()}
    except Exception as error:  # whatever a driver, a compiler or a card may raise: it is one number less
        return {"why": {name: f"error: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}}


@lru_cache(maxsize=1)
def _measurement(setting: Setting, options: RowOptions) -> "Measurement":
    """Made when the first number is asked for, and again if that has failed."""
    return Measurement(setting, options)


class Measurement:
    """The numbers of a setting."""

    def __init__(self, setting: Setting, options: RowOptions) -> None:
        config = setting.config(options.quick)
        machine = Machine(options.work.root, device=options.device, workers=options.workers)
        self.options = TrainOptions(config, compile=setting.compile, machine=machine)
        self.device = use_device(choose_device(options.device))
        self.precision = usable_precision(config.precision, self.device)
        self.processes = Processes(self.device)
        self.workers = count_workers(options.workers, self.device)
        self.pace = Pace(2, options.seconds, warm_up=1) if options.quick else Pace(20, options.seconds)
        self.kind = kind_of(config, self.options.folder)
        slices = read_slices(options.work, "train")
        slices = slices[slices["chunk"] != UNREADABLE].reset_index(drop=True)
        self.dataset = self.kind.dataset(slices, options.work, self.kind.augment)
        self.train = make_loader(self.dataset, config.batch_size, self.workers, config.seed, slices["image_id"])
        self.one = OneBatch(self.train, self.device, 1)
        self.network = self.kind.network(self.dataset)

    def alone(self) -> Row:
        """A batch that is on the device already, again and again: a whole step, slices/s, and the memory it takes."""
        reset_peak(self.device)
        kept = OneBatch(self.train, self.device)
        rate = train_rate(self.network, kept, self.one, self.options, self.processes, self.pace)
        return {"alone": round(rate, 1), "peak_gib": _rounded(peak_gib(self.device))}

    def both(self) -> Row:
        """A training with its loader, slices/s."""
        pace = self.pace.beyond(self.workers)
        return {"both": round(train_rate(self.network, self.train, self.one, self.options, self.processes, pace), 1)}

    def loader(self) -> Row:
        """The batches that the loader makes when nobody uses them, slices/s."""
        return {"loader": round(load_rate(self.train, self.pace.beyond(self.workers)), 1)}

    def d4(self) -> Row:
        """Predictions of a batch under each of the eight symmetries, slices/s, and the memory they take."""
        reset_peak(self.device)
        kept = OneBatch(self.train, self.device)
        rate = predict_rate(self.network, kept, self.options, self.processes, self.pace, self.kind.view("d4"))
        return {"d4": round(rate, 1), "d4_peak_gib": _rounded(peak_gib(self.device))}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)
