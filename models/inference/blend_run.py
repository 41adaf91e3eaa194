"""Runs -> blend/ and submission.csv: the ways are compared on unseen patients, and what was done is noted."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from models.common.errors import InputError
from models.common.files import hash_file, write_parquet
from models.common.folders import Work, default_work
from models.common.labels import LABELS
from models.common.locks import only_process
from models.common.prediction_files import prediction_table
from models.common.repair import command_of
from models.inference.aligned import Aligned, align_runs
from models.inference.blend_options import BlendOptions
from models.inference.blend_record import (
    BlendRecord,
    changed_inputs,
    describe_fit,
    inputs_of,
    read_record_of_blend,
    write_record,
)
from models.inference.evidence import Fit, Nest, possible_ways, ways_to_try
from models.inference.runs import Run, load_runs
from models.inference.submission import describe_mismatches, write_submission
from models.inference.unlike import describe_left_out, describe_views
from models.preprocessing.challenge_csv import image_ids, read_sample_submission
from models.preprocessing.origin import describe_synthetic
from models.preprocessing.pseudonyms import cached_images
from models.preprocessing.raw import find_raw
from models.preprocessing.tables import read_slices
from models.training.metric import log_losses

BEST = "best"
_ALIKE = 1e-4  # of weights: between what is fitted twice on the same, with other threads


class Material(NamedTuple):
    """What blends are fitted on, and what they are for."""

    work: Work
    runs: list[Run]
    aligned: Aligned  # out-of-fold, the slices that all runs have
    nest: Nest  # their labels and patients
    test: Aligned  # filled


def carry_out(options: BlendOptions) -> None:
    """Choose, fit and write; or, where that is done, write the submission again.

    Raises InputError if there is no run to blend, the way is unknown, or blend/ was made of or by something else.
    """
    work = options.working_folder
    with only_process(work.root / ".blend.lock", "blending", item=work.blend):
        done = read_record_of_blend(work)
        names = options.runs
        if done is not None and set(names) in (set(), set(done.folds)):
            names = tuple(done.folds)  # in their order: what was fitted is compared number by number
        runs = load_runs(work, names)
        for line in describe_left_out(runs) + describe_views(work, runs):
            print(line)
        material = gather(work, runs)
        asked_rows(material, options)  # before minutes of fits, and before a file of the blend is written
        if done is None:
            record, unseen = choose(material, options)
        else:
            record, unseen = require_same(done, material, options), None
            print(f"{work.blend / 'blend.json'} is there; the submission is made again from it: {record.name}")
        write_blend(material, record, unseen, options)


def gather(work: Work, runs: list[Run]) -> Material:
    """The runs side by side. Raises InputError if a table of the cache lacks or is damaged."""
    labelled = read_slices(work, "train").dropna(subset=list(LABELS))
    aligned = align_runs({run.name: run.out_of_fold for run in runs}, labelled)
    known = labelled.set_index("image_id").loc[aligned.image_ids]
    nest = Nest(aligned, known[list(LABELS)].to_numpy(), known["patient_id"])
    test = align_runs({run.name: run.test for run in runs}, read_slices(work, "test"), fill=True)
    return Material(work, runs, aligned, nest, test)


def choose(material: Material, options: BlendOptions) -> tuple[BlendRecord, np.ndarray]:
    """The record of a blend that is to be made, and its nested predictions, (slices, 6).

    Raises InputError as `ways_for`.
    """
    asked = options.way or BEST
    nest, possible = material.nest, ways_for(asked, material.nest)
    tried = {name: nest.attempt(fit) for name, fit in possible.items()} if asked == BEST else {}
    unseen = {name: one.probability for name, one in tried.items()} or {asked: nest.unseen(possible[asked])}
    ways = nest.choose(tried) if tried else (asked,) * len(LABELS)
    return note(material, options, ways, unseen), nest.choose_nested(tried) if tried else unseen[asked]


def ways_for(asked: str, nest: Nest) -> dict[str, Fit]:
    """The ways that are tried, and the one that is asked for.

    Raises InputError for one that is asked for and unknown, or possible with other runs alone.
    """
    tried, possible = ways_to_try(nest), possible_ways(nest.runs)
    if asked != BEST and asked not in possible:
        raise InputError(f"--way {asked} is none of {', '.join([BEST, *possible])}")
    return tried if asked == BEST else tried | {asked: possible[asked]}


def note(
    material: Material, options: BlendOptions, ways: tuple[str, ...], unseen: dict[str, np.ndarray]
) -> BlendRecord:
    """The record of a blend with the way of each label, of what ways say of unseen patients, (slices, 6) each.

    Raises InputError for damaged tables.
    """
    losses = {name: log_losses(material.nest.target, probability) for name, probability in unseen.items()}
    return BlendRecord(
        asked=options.way or BEST,
        ways=dict(zip(LABELS, ways, strict=True)),
        nested={label: {name: float(of[place]) for name, of in losses.items()} for place, label in enumerate(LABELS)},
        fitted={},
        files_sha256={},
        command=command_of("blend", *options.words, work=Work(default_work(), material.work.stage)),
        **inputs_of(material.work, material.runs),
    )


def require_same(done: BlendRecord, material: Material, options: BlendOptions) -> BlendRecord:
    """The record of a blend that has been made. Raises InputError if it was of other runs, or another way is asked."""
    work = material.work
    now = inputs_of(work, material.runs)
    changed = [f"the folds {done.folds}, now {now['folds']}"] if now["folds"] != done.folds else []
    changed += [f"another {name}" for name in changed_inputs(work, done)]
    changed += [f"--stage {done.stage}"] if work.stage != done.stage else []
    changed += [f"--way {done.asked}"] if options.way not in (None, done.asked) else []
    before, after = (
        {f"{run}/{file}" for run, files in hashes.items() for file in files}
        for hashes in (done.runs_sha256, now["runs_sha256"])
    )
    changed += [f"{file}, which lacks now" for file in sorted(before - after)]
    changed += [f"no {file}, which is there now" for file in sorted(after - before)]
    if changed:
        raise InputError(f"{work.blend} was made with {changed[0]}; delete it, then: {options.command}")
    return done


def write_blend(
    material: Material, record: BlendRecord, unseen: np.ndarray | None, options: BlendOptions
) -> BlendRecord:
    """Fit the ways of a record on all slices, and write the blend and the submission; blend.json last.

    `unseen` are the nested predictions, (slices, 6); None: those that are there already, and made anew if they lack.
    Raises InputError if this version fits otherwise than the one that made the record, or a slice lacks.
    """
    work, names = material.work, material.aligned.names
    ways = tuple(record.ways[label] for label in LABELS)
    blend = material.nest.finish(ways, possible_ways(material.aligned))
    fitted = {label: describe_fit(blend.blends[record.ways[label]], place, names) for place, label in enumerate(LABELS)}
    if record.fitted and (other := different(record.fitted, fitted)):
        raise InputError(f"another version of this project made {work.blend}, which fits {other} otherwise; delete it")
    file, test = work.blend / "valid.parquet", blend(material.test)
    written = replace(record, fitted=fitted)
    notes = {"way": written.name, "ways": list(ways), "runs": list(names)}  # kept in the files, told in the report
    if unseen is None and not file.is_file():
        _, unseen = choose(material, replace(options, way=record.asked))
    if unseen is not None:
        write_predictions(file, material.aligned.image_ids, unseen, notes)
    write_predictions(work.blend / "test.parquet", material.test.image_ids, test, notes)
    files = {name: work.blend / name for name in ("valid.parquet", "test.parquet")} | submit(material, test, options)
    written = replace(written, files_sha256={name: hash_file(path) for name, path in files.items()})
    write_record(work, written)
    print_ways(written, work)
    return written


def different(before: dict[str, dict], now: dict[str, dict]) -> str | None:
    """The first label of which something else was fitted; what no number tells does not count."""
    for label, values in now.items():
        ours, theirs = numbers(values), numbers(before.get(label, {}))
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=_ALIKE, atol=_ALIKE):
            return label
    return None


def numbers(values: object) -> list[float]:
    """All numbers in what JSON holds, in its order."""
    if isinstance(values, dict):
        return [number for value in values.values() for number in numbers(value)]
    if isinstance(values, list):
        return [number for value in values for number in numbers(value)]
    return [float(values)] if isinstance(values, int | float) else []


def write_predictions(file: Path, image_ids: pd.Index, probability: np.ndarray, notes: dict) -> None:
    """A prediction file of probabilities (slices, 6). Raises InputError if it cannot be written."""
    table = prediction_table(image_ids.to_series(), probability)
    table.attrs = notes
    write_parquet(file, table)


def submit(material: Material, test: np.ndarray, options: BlendOptions) -> dict[str, Path]:
    """Write submission.csv of test probabilities (slices, 6), where the raw folder asks for one; its path by its name.

    Raises InputError as `asked_rows`.
    """
    asked = asked_rows(material, options)
    if asked is None:
        print(f"no submission: {options.data} has no sample submission that tells its rows")
        return {}
    ids, images, lines = asked
    for line in lines:
        print(line)
    file = material.work.root / "submission.csv"
    table = write_submission(file, pd.DataFrame(test, material.test.image_ids, list(LABELS)), ids, images)
    print(f"{file}: {len(table):,} rows for {len(test):,} slices, ordered as the sample submission")
    return {file.name: file}


def asked_rows(material: Material, options: BlendOptions) -> tuple[pd.Series, pd.Series, list[str]] | None:
    """The IDs of the sample submission, the image of each, and a line for each way in which a run has other slices.

    None without a sample submission. Raises InputError if no run has a slice of it, or there is no raw folder.
    """
    raw = find_raw(options.data, options.stage, options.work)
    if raw.sample_submission is None:
        return None
    ids = read_sample_submission(raw.sample_submission)
    images = cached_images(material.work.root, image_ids(ids))
    tests = {run.name: run.test for run in material.runs}
    return ids, images, describe_mismatches(tests, pd.Index(images.unique()))


def print_ways(record: BlendRecord, work: Work) -> None:
    """The way of each label, and its log loss on patients that its fit has not seen beside that of the others."""
    table = pd.DataFrame.from_dict(record.nested, orient="index")
    table.insert(0, "used", [record.called(label) for label in table.index])
    print(f"{describe_synthetic(work)}log loss of each label on patients that a blend has not seen, by way")
    print(table.to_string(float_format="{:.4f}".format))
