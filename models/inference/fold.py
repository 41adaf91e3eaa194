"""The weights of a fold -> probabilities of the test slices."""

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from models.common.earlier import go_on_from
from models.common.errors import InputError
from models.common.files import write_parquet
from models.common.folders import Work
from models.common.options import InferOptions
from models.inference.parts import FILLED, MADE_FROM, Parts, find_run, is_finished, only_inference, parts_of
from models.inference.predictions import fill_unreadable
from models.inference.stored import Stored, look_at
from models.inference.whose import note_seen
from models.preprocessing.origin import is_synthetic
from models.preprocessing.tables import UNREADABLE, read_slices
from models.training.device import count_workers
from models.training.evaluation import predict_batches
from models.training.kinds import Kind, kind_of
from models.training.loading import load_batches, ordered_batches
from models.training.processes import Processes, started_processes
from models.training.run_record import RunRecord
from models.training.stopping import Interrupted, Stop, same_command, stop_signals
from models.training.weights import load_trained

LISTED = 10  # names in a message; all of them stand in cache/problems.csv


def carry_out(options: InferOptions) -> None:
    """Predict what is missing of a split; raises InputError as `models.inference.predict.infer`."""
    output = options.output
    session, work = options.machine.session, options.machine.working_folder
    with (
        started_processes(options.machine.device) as processes,
        stop_signals(session.hours_left) as stop,
        ExitStack() as held,
    ):
        try:
            if processes.count > 1:
                processes.on_main(lambda: go_on_from(session, work))
            record = processes.on_main(lambda: find_run(options))
            kind, parts = kind_of(record.config, options.folder), parts_of(options, record)
            if processes.on_main(lambda: is_finished(options, record, parts)):
                return
            processes.on_main(lambda: held.enter_context(only_inference(output)))
            slices = processes.main_first(lambda: read_slices(work, options.split))
            stored = processes.on_main(lambda: look_at(slices, work, record.config, options.folder))
            processes.on_main(lambda: parts.take_over(output, slices, stored))
            readable = slices[slices["chunk"] != UNREADABLE]
            missing = readable[~readable["image_id"].isin(processes.on_main(lambda: parts.read(stored)).index)]
            if len(missing):
                processes.on_main(lambda: require_sources(kind, record))  # before hours of extraction
                processes.on_main(lambda: warn_of_drawings(record, work))
                kind.make_inputs(slices, options.machine, processes)
                print(f"{output}: {len(missing):,} of {len(slices):,} slices to predict")
                with processes.as_one():
                    predict_missing(missing, stored, kind, record, parts, options, processes, stop)
            processes.on_main(lambda: write_predictions(output, slices, stored, parts, record, options.folder))
        except Interrupted as interrupted:
            print(f"{output}: stopped by {interrupted}, what is predicted is saved; go on with: {same_command()}")
            raise SystemExit(interrupted.code) from None


def require_sources(kind: Kind, record: RunRecord) -> None:
    """Raise InputError if a network that this one builds on has been trained anew since."""
    for name, sha256 in kind.input_weights().items():
        if record.sources.get(name) != sha256:
            raise InputError(f"{kind.folder} was trained on another {name}; delete it and train that fold anew")


def warn_of_drawings(record: RunRecord, work: Work) -> None:
    """Say so if a network that has learnt from drawings is to predict people."""
    if record.ran.get("synthetic") and not is_synthetic(work):
        print("warning: this network has learnt from drawings of make_phantom.py; it knows nothing of people")


def predict_missing(
    slices: pd.DataFrame,
    stored: Stored,
    kind: Kind,
    record: RunRecord,
    parts: Parts,
    options: InferOptions,
    processes: Processes,
    stop: Stop,
) -> None:
    """Predict readable slices with a trained network; write a part every few minutes, and when told to stop.

    Of several processes each predicts a stretch of the slices. Raises InputError if the weights have changed or do not
    fit, and for what fails in the loader; Interrupted when it was told to stop.
    """
    dataset = kind.dataset(slices, options.machine.working_folder, "none")
    network = kind.network(dataset)
    load_trained(kind.folder, record, network)
    workers = count_workers(options.machine.workers, processes.device)
    image_ids = slices["image_id"]
    batches = ordered_batches(dataset, options.batch_size, processes)
    loader = load_batches(dataset, batches, workers, image_ids)
    own = image_ids.iloc[batches.stretch]
    title = f"{options.name} fold {options.fold}: {options.split}, tta {options.tta}"
    view = kind.view(options.tta)
    first, pending, saved, began = 0, [], time.monotonic(), time.monotonic()
    with stop.after_saving():
        for probability in predict_batches(network, loader, processes, record.config.precision, title, view):
            stop.measured("step", time.monotonic() - began)
            began = time.monotonic()
            pending.append(probability)
            count = sum(map(len, pending))
            waited = time.monotonic() - saved >= 60 * options.checkpoint_minutes
            if waited or stop.number is not None or first + count == len(own):
                parts.write(own.iloc[first : first + count], np.concatenate(pending), stored)
                first, pending, saved = first + count, [], time.monotonic()
            if stop.number is not None:
                raise Interrupted(stop.number)


def write_predictions(
    output: Path, slices: pd.DataFrame, stored: Stored, parts: Parts, record: RunRecord, folder: Path
) -> None:
    """Write the finished file, in the order of the metadata, and delete its parts.

    In it is noted whom of its slices the network in `folder` has trained on. Raises InputError if that is damaged.
    """
    complete = fill_unreadable(slices, parts.read(stored), pd.Series(record.results["prevalence"])).reset_index()
    filled = list(slices.loc[slices["chunk"] == UNREADABLE, "image_id"])
    complete.attrs = {
        **parts.origin,
        **note_seen(folder, slices),
        MADE_FROM: stored.checksums,
        FILLED: filled,
    }  # kept in the file
    write_parquet(output, complete)
    parts.delete()
    print(f"{output}: {len(slices):,} slices")
    if filled:
        more = f" and {len(filled) - LISTED:,} more" if len(filled) > LISTED else ""
        print(f"{len(filled):,} without an image have the mean of their neighbours: {', '.join(filled[:LISTED])}{more}")
