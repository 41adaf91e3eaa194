"""What a recipe is worth on people: EfficientNet-Lite0 on a few labelled studies, each predicted by all of the others.

    python benchmarks/real_studies.py --data ../shared/rsna_sample   # writes benchmarks/real_studies.json
    python benchmarks/real_studies.py --data data --work scratch     # can be stopped, and goes on there

Each patient is a fold, and every network that of its last epoch: to choose the best one on the patient who is predicted
would flatter it. Five rows, three seeds: the preset, the same with the recipe's fields, the preset from the weights
that the default network has learnt on drawings, this at a tenth of the rate, and those weights as they are. Beside each
weighted log loss stands how much higher it is than the preset's, with a 95 % interval over drawn patients and seeds,
paired. With seven patients that interval is wide, and tells so.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from comparison import default_data, quiet
from experiment import known_slices, paired, read_out_of_fold, report, score, summarise, train_quietly, working_folder
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import ANY, LABELS
from models.common.options import InferOptions, Machine, TestTimeAugmentation, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference.comparing import Resampled
from models.inference.default import default_runs
from models.inference.predict import infer
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_slices
from models.train_lite0 import CONFIG as LITE0
from models.training.callbacks import History
from models.training.run_record import require_run

RESULTS = Path(__file__).parent / "real_studies.json"
PRESET, UNTRAINED = "preset", "as_it_is"
VIEWS: TestTimeAugmentation = "flip"
ROWS = {
    PRESET: "EfficientNet-Lite0 as models/train_lite0.py has it, from ImageNet's weights",
    "recipe": "the same with the moving average, a cosine, strong augmentation and a faster head",
    "drawings": "the network of slices of the default network, trained on",
    "gently": "the same, at a tenth of the rate",
    UNTRAINED: "the same network, as it is: nobody has taught it people",
}


@dataclass(frozen=True)
class StudiesOptions:
    """The command line of this benchmark."""

    data: Path | None = field(default_factory=default_data)
    """folder in Kaggle's layout, with labels (or set RSNA_DATA)"""
    seeds: int = 3
    """of the networks"""
    epochs: int = LITE0.epochs
    work: Path | None = None
    """folder for the cache and the runs, which are kept; none: a temporary one"""
    output: Path = RESULTS
    """the table as JSON"""


def main(options: StudiesOptions) -> None:
    """Train every fold of every row and seed; print the table and write it. Raises InputError if no data is named."""
    if options.data is None:
        raise InputError("no data; name a folder of labelled studies of people with --data")
    with working_folder(options.work) as folder:
        work = Work(folder)
        with quiet():
            patients = prepare_folds(options.data, folder / "counted", 2)
            prepare_folds(options.data, folder, patients)
        machine = Machine(folder, device="cpu", workers=0)
        trainings = list(trainings_of(options, machine, patients))
        with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            list(tqdm(pool.map(train_to_the_end, trainings), total=len(trainings), desc="folds"))
            infer(InferOptions(UNTRAINED, 0, VIEWS, "train", default_runs()[0], machine=machine))
        report(options, {row: row_of(row, work, options.seeds) for row in ROWS}, ROWS)


def prepare_folds(data: Path, folder: Path, folds: int) -> int:
    """Make a cache with so many folds; how many patients have labels."""
    prepare(PrepareOptions(data, folder, image_size=(LITE0.image_size,), folds=folds))
    return read_slices(Work(folder), "train").dropna(subset=list(LABELS))["patient_id"].nunique()


def trainings_of(options: StudiesOptions, machine: Machine, folds: int) -> Iterator[TrainOptions]:
    """All folds of all rows, seed by seed."""
    for seed in range(options.seeds):
        for row in [row for row in ROWS if row != UNTRAINED]:
            config = replace(config_of(row), name=f"{row}_{seed}", seed=seed, epochs=options.epochs)
            for fold in range(folds):
                yield TrainOptions(config, fold, tta=VIEWS, machine=machine)


def train_to_the_end(options: TrainOptions) -> None:
    """Train a fold without a word, and keep the network of its last epoch."""
    with patch("models.training.learner.History", lambda **_: History(last=True)):
        train_quietly(options)


def config_of(row: str) -> TrainConfig:
    """What a row changes in the preset."""
    if row == "recipe":
        return replace(LITE0, ema=0.99, schedule="cosine", augment="strong", head_lr=3 * LITE0.max_lr)
    if row in ("drawings", "gently"):
        folder, _ = default_runs()
        config = require_run(folder, "").config
        assert isinstance(config, TrainConfig)
        rate = LITE0.max_lr / 10 if row == "gently" else LITE0.max_lr
        return replace(LITE0, network=config.network, channels=config.channels, start=str(folder), max_lr=rate)
    return LITE0


def row_of(row: str, work: Work, seeds: int) -> dict[str, float]:
    """The scores of a row, and how it stands beside the preset."""
    ours, areas = zip(*(scores(work, row, seed) for seed in range(seeds)), strict=True)
    told = summarise(ours) | {"AUC of any": round(sum(areas) / seeds, 3)}
    if row != PRESET:
        told |= paired(ours, [scores(work, PRESET, seed)[0] for seed in range(seeds)])
    return told


def scores(work: Work, row: str, seed: int) -> tuple[Resampled, float]:
    """The loss of a run on patients that it has not seen, with its draws of patients, and the AUC of `any`."""
    said = read_out_of_fold(work, f"{row}_{seed}") if row != UNTRAINED else untrained(work)
    scored = score(said, work)
    return scored, float(roc_auc_score(known_slices(work).loc[said.index, LABELS[ANY]], said[LABELS[ANY]]))


def untrained(work: Work) -> pd.DataFrame:
    """What the default network's network of slices says, indexed by `image_id`; it is the same for all seeds."""
    said = read_predictions(work.prediction(UNTRAINED, 0, "train"), "")
    return said.loc[said.index.intersection(known_slices(work).dropna(subset=list(LABELS)).index)]


if __name__ == "__main__":
    command(main, StudiesOptions)
