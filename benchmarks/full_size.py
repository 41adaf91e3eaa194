"""The last steps at the full set's size: pseudolabels, blending 12 runs, scoring a submission, a report.

    python benchmarks/full_size.py
    python benchmarks/full_size.py --labels data/stage_2_train.csv      # the challenge's labels
    python benchmarks/full_size.py --slices 20000 --test-slices 4000    # smaller

Makes random predictions around the labels (random ones too, with the challenge's prevalences, if no file is named) of
studies of 35 slices. Prints the seconds and the peak memory of reading the runs, trying all ways to blend them on
patients that they have not seen, choosing one for each label and writing submission.csv; of models/score.py on the
submission; of models/make_pseudolabels.py; and of models/report.py, without pictures.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from comparison import peak_memory, quiet, separately
from run import cpu_model
from scipy.special import expit

from models.common.cli import command
from models.common.files import hash_file, write_csv, write_json, write_parquet
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import prediction_table
from models.inference.aligned import align_runs
from models.inference.evidence import Nest, possible_ways
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.inference.runs import load_runs
from models.inference.submission import write_submission
from models.preprocessing.challenge_csv import image_ids, read_labels
from models.preprocessing.tables import read_slices
from models.report import ReportOptions, report
from models.score import ScoreOptions, score
from models.train_small import CONFIG as SMALL
from models.training.metric import weighted_log_loss
from models.training.run_record import save_config
from models.training.weights import save_weights

PREVALENCES = (0.004, 0.048, 0.035, 0.048, 0.063, 0.144)  # of the challenge
FOLDS, STUDY = 5, 35  # slices of a study


@dataclass(frozen=True)
class FullSizeOptions:
    """The command line of this benchmark."""

    slices: int = 752_803
    """to fit on; fewer if the label file holds fewer"""
    test_slices: int = 121_232
    """in the submission"""
    runs: int = 12
    labels: Path | None = None
    """label file in Kaggle's format"""


def main(options: FullSizeOptions) -> None:
    """Make the runs, and print the seconds and the memory of each step."""
    print(f"{cpu_model()}, torch {torch.__version__}: {options.runs} runs, {options.slices:,} slices\n")
    with tempfile.TemporaryDirectory() as name:
        separately(make_runs, Path(name), options)
        for step in (blend, score_submission, pseudolabel, report_on_run):
            seconds, peak, result = separately(measure, step, Path(name))
            print(f"{step.__doc__:70}{seconds:8.1f} s{peak / 2**30:8.2f} GiB   {result}", flush=True)


def measure(step: Callable[[Path], str], folder: Path) -> tuple[float, int, str]:
    """Seconds, the most bytes that this process has held, and what the step says of its result."""
    started = time.perf_counter()
    result = step(folder)
    seconds = time.perf_counter() - started
    return seconds, peak_memory(), result


def make_runs(folder: Path, options: FullSizeOptions) -> None:
    """Write the tables of the cache, and finished runs of random predictions."""
    random, work = np.random.default_rng(0), Work(folder)
    train, test = (
        make_slices(split, count) for split, count in (("train", options.slices), ("test", options.test_slices))
    )
    if options.labels:
        train = read_labels(options.labels)[0].head(options.slices).join(train.drop(columns=["image_id", *LABELS]))
    for split, table in (("train", train), ("test", test)):
        write_parquet(work.metadata(split), table.drop(columns="fold"))
    write_csv(work.folds, train[["patient_id", "fold"]].drop_duplicates())
    write_json(work.prepared, {"files": {work.folds.name: hash_file(work.folds)}})
    for number in range(options.runs):
        name, noise = f"run{number:02d}", random.uniform(0.5, 1.5)
        for fold in range(FOLDS):
            write_fold(work, name, fold, train[train["fold"] == fold], test, noise, random)


def make_slices(split: str, count: int) -> pd.DataFrame:
    """The metadata of so many slices with random labels, and the fold of each."""
    random = np.random.default_rng(len(split))
    study = np.arange(count) // STUDY
    columns = {
        "image_id": [f"ID_{split}{row:07x}" for row in range(count)],
        **{f"{name}_id": [f"ID_{split}{number:06x}" for number in study] for name in ("series", "study", "patient")},
        "fold": study % FOLDS,
        "chunk": np.arange(count) % STUDY,
        "z": 5.0 * (np.arange(count) % STUDY),
        "gap_below": 5.0,
        "bits_stored": 16,
        "pixel_representation": 1,
        "rescale_intercept": -1024,
    }
    labels = (random.random((count, len(LABELS))) < PREVALENCES).astype(np.float32)
    return pd.DataFrame(columns | dict(zip(LABELS, labels.T, strict=True)))


def write_fold(
    work: Work, name: str, fold: int, valid: pd.DataFrame, test: pd.DataFrame, noise: float, random: np.random.Generator
) -> None:
    """Write the files of a finished fold, whose predictions are the truth and noise, on logits."""
    folder = work.run(name, fold)
    for split, table in (("valid", valid), ("test", test)):
        truth = table[list(LABELS)].to_numpy()
        hard = 2 * np.random.default_rng(len(table)).standard_normal(truth.shape)  # what all runs get wrong alike
        probability = expit(-4 + 4 * truth + hard + noise * random.standard_normal(truth.shape))
        write_parquet(folder / f"{split}.parquet", prediction_table(table["image_id"], probability))
    save_weights(folder, torch.nn.Linear(1, 1))
    save_config(folder, replace(SMALL, name=name), fold, {})


def blend(folder: Path) -> str:
    """read, try all ways nested, choose one for each label, submission.csv"""
    work = Work(folder)
    runs, slices = load_runs(work), read_slices(work, "train")
    aligned = align_runs({run.name: run.out_of_fold for run in runs}, slices)
    known = slices.set_index("image_id").loc[aligned.image_ids]
    target, ways = known[list(LABELS)].to_numpy(), possible_ways(aligned)
    nest = Nest(aligned, target, known["patient_id"])
    tried = {way: nest.attempt(fit) for way, fit in ways.items()}
    unseen = weighted_log_loss(target, nest.choose_nested(tried))
    test = align_runs({run.name: run.test for run in runs}, read_slices(work, "test"), fill=True)
    blended = nest.finish(nest.choose(tried), ways)(test)
    ids = pd.Series(np.add.outer(test.image_ids.to_numpy(object) + "_", np.array(LABELS, object)).ravel())
    predictions = pd.DataFrame(blended, index=test.image_ids, columns=list(LABELS))
    rows = len(write_submission(folder / "submission.csv", predictions, ids, image_ids(ids)))
    return f"nested weighted log loss {unseen:.4f}; {rows:,} rows written"


def score_submission(folder: Path) -> str:
    """models/score.py on the submission"""
    table = read_slices(Work(folder), "test")
    labels = table.melt(id_vars="image_id", value_vars=list(LABELS), var_name="label", value_name="Label")
    labels["ID"] = labels["image_id"] + "_" + labels["label"]
    labels[["ID", "Label"]].to_csv(folder / "labels.csv", index=False)
    with quiet():
        score(ScoreOptions((folder / "submission.csv",), labels=folder / "labels.csv", work=folder))
    return f"{len(labels):,} rows"


def pseudolabel(folder: Path) -> str:
    """models/make_pseudolabels.py, of three runs for each fold"""
    with quiet():
        make_pseudolabels(PseudolabelOptions(("run00", "run01", "run02"), work=folder))
    return f"{len(list((folder / 'cache').glob('pseudolabels_*')))} files"


def report_on_run(folder: Path) -> str:
    """models/report.py on a run, without pictures"""
    with quiet():
        report(ReportOptions("run00", work=folder))
    return f"{(folder / 'report_run00.html').stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    command(main, FullSizeOptions)
