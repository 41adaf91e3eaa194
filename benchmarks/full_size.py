"""The last steps at the full set's size: blending 12 runs, scoring them and a submission, pseudolabels, a report.

    OMP_NUM_THREADS=1 python benchmarks/full_size.py      # writes benchmarks/full_size.json
    python benchmarks/full_size.py --labels data/stage_2_train.csv      # the challenge's labels
    python benchmarks/full_size.py --slices 20000 --test-slices 4000    # smaller

Makes random predictions around the labels (random ones too, with the challenge's prevalences, if no file is named) of
studies of 35 slices. Each row is a script, as a user starts it but for its imports: its seconds, those of all its
threads on the processor, which other work on the machine changes little, and its peak memory. models/blend.py tries all
ways to blend on patients that they have not seen, chooses one for each label and writes the submission; then makes it
again from blend.json.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from comparison import peak_memory, quiet, separately
from run import commit, describe_machine
from scipy.special import expit

from models.blend import BlendOptions
from models.blend import blend as blend_runs
from models.common.cli import command
from models.common.files import hash_file, write_csv, write_json, write_parquet, write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.prediction_files import prediction_table
from models.inference.blend_record import read_record_of_blend
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.preprocessing.challenge_csv import read_labels
from models.preprocessing.tables import hash_tables, read_slices
from models.report import ReportOptions, report
from models.score import ScoreOptions, score
from models.train_small import CONFIG as SMALL
from models.training.run_record import save_config
from models.training.seen import seen_in, write_seen

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
    output: Path = Path(__file__).parent / "full_size.json"
    """the table as JSON"""


def main(options: FullSizeOptions) -> None:
    """Make the runs, measure each step, print the table and write it."""
    rows, machine = {}, separately(describe_machine)
    print(f"{machine['cpu']}, commit {commit()}: {options.runs} runs, {options.slices:,} slices\n")
    with tempfile.TemporaryDirectory() as name:
        separately(make_runs, Path(name), options)
        for step in (blend, blend_again, score_all, score_submission, pseudolabel, report_on_blend):
            rows[str(step.__doc__)], result = separately(measure, step, Path(name))
            numbers = "".join(f"{value:8.1f} {unit}" for unit, value in rows[str(step.__doc__)].items())
            print(f"{step.__doc__:60}{numbers}   {result}", flush=True)
    labels = "random" if options.labels is None else options.labels.name
    settings = {name: value for name, value in asdict(options).items() if isinstance(value, int)} | {"labels": labels}
    results = {"machine": machine, "commit": commit(), "settings": settings, "rows": rows}
    write_text(options.output, json.dumps(results, indent=1) + "\n")


def measure(step: Callable[[Path], str], folder: Path) -> tuple[dict[str, float], str]:
    """Seconds, those on the processor and the most memory that this process has held; what the step says of itself."""
    started, worked = time.perf_counter(), time.process_time()
    with quiet():
        result = step(folder)
    numbers = {
        "s": time.perf_counter() - started,
        "s CPU": time.process_time() - worked,
        "GiB": peak_memory() / 2**30,
    }
    return {unit: round(value, 1) for unit, value in numbers.items()}, result


def make_runs(folder: Path, options: FullSizeOptions) -> None:
    """Write the tables of the cache, a raw folder that asks for a submission, and runs of random predictions."""
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
    ids = np.add.outer(test["image_id"].to_numpy(object) + "_", np.array(LABELS, object)).ravel()
    write_csv(folder / "data" / "stage_2_sample_submission.csv", pd.DataFrame({"ID": ids, "Label": 0.5}))
    write_text(folder / "data" / "stage_2_train.csv", "ID,Label\n")  # nobody looks into it: the cache has the labels
    for split in ("train", "test"):
        (folder / "data" / f"stage_2_{split}").mkdir()
    sources = hash_tables(work)
    for number in range(options.runs):
        name, noise = f"run{number:02d}", random.uniform(0.5, 1.5)
        for fold in range(FOLDS):
            write_fold(work.run(name, fold), fold, (train, test), noise, random)
            write_text(work.run(name, fold) / "model.safetensors", "")  # nor into these
            save_config(work.run(name, fold), replace(SMALL, name=name), fold, {"sources": sources})


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
    folder: Path, fold: int, tables: tuple[pd.DataFrame, pd.DataFrame], noise: float, random: np.random.Generator
) -> None:
    """Write predictions, the truth and noise on logits, and whom the fold has trained on.

    `tables` are the slices of train and of test.
    """
    train, test = tables
    held_out = train["fold"] == fold
    for split, table in (("valid", train[held_out]), ("test", test)):
        truth = table[list(LABELS)].to_numpy()
        hard = 2 * np.random.default_rng(len(table)).standard_normal(truth.shape)  # what all runs get wrong alike
        probability = expit(-4 + 4 * truth + hard + noise * random.standard_normal(truth.shape))
        write_parquet(folder / f"{split}.parquet", prediction_table(table["image_id"], probability))
    write_seen(folder, seen_in(train[~held_out]))


def blend(folder: Path) -> str:
    """blend.py: all ways nested, a choice for each label"""
    blend_runs(BlendOptions(data=folder / "data", work=folder))
    record = read_record_of_blend(Work(folder))
    assert record is not None
    rows = len(pd.read_csv(folder / "submission.csv"))
    return f"{', '.join(f'{label}: {way}' for label, way in record.ways.items())}; {rows:,} rows"


def blend_again(folder: Path) -> str:
    """blend.py: the submission again from blend.json"""
    before = hash_file(folder / "submission.csv")
    blend_runs(BlendOptions(data=folder / "data", work=folder))
    return "the same" if hash_file(folder / "submission.csv") == before else "ANOTHER"


def score_all(folder: Path) -> str:
    """score.py: every run and the blend"""
    score(ScoreOptions(work=folder))
    return f"{len(list((folder / 'runs').iterdir()))} runs"


def score_submission(folder: Path) -> str:
    """score.py: a submission, with intervals"""
    table = read_slices(Work(folder), "test")
    labels = table.melt(id_vars="image_id", value_vars=list(LABELS), var_name="label", value_name="Label")
    labels["ID"] = labels["image_id"] + "_" + labels["label"]
    labels[["ID", "Label"]].to_csv(folder / "labels.csv", index=False)
    score(ScoreOptions((folder / "submission.csv",), labels=folder / "labels.csv", work=folder))
    return f"{len(labels):,} rows"


def pseudolabel(folder: Path) -> str:
    """make_pseudolabels.py: of three runs for each fold"""
    make_pseudolabels(PseudolabelOptions(("run00", "run01", "run02"), work=folder))
    return f"{len(list((folder / 'cache').glob('pseudolabels_*')))} files"


def report_on_blend(folder: Path) -> str:
    """report.py: of the blend, without pictures"""
    report(ReportOptions(work=folder))
    return f"{(folder / 'report_blend.html').stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    command(main, FullSizeOptions)
