"""What blending by evidence and pseudolabels are worth: nested and out-of-fold scores of stand-ins on a phantom.

    python benchmarks/blending.py                         # writes benchmarks/blending.json
    python benchmarks/blending.py --work scratch          # can be stopped, and goes on there
    python benchmarks/blending.py --studies 40            # written among the others, and so is one with --lacking

The small network at 64 px stands in for each of the original's five networks, with its windows and under its name, in
folds that are grouped by patient, five seeds. The blends' scores are nested: of patients that neither the fit has seen
nor the choice of a way for each label. B5's stand-in is then finetuned, at a tenth of its rate, on soft pseudolabels
that all five have made for the test. Each row is a weighted log loss: its mean over the seeds, and its spread, their
standard deviation; and by how much the chosen blend is worse, the mean over the seeds with its interval (paired, of
patients), and in how many seeds it is proven worse.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from comparison import quiet
from experiment import (
    ExperimentOptions,
    Trainer,
    fold_trainer,
    prepare_phantom,
    read_out_of_fold,
    report,
    summarise,
    working_folder,
)
from tqdm.auto import tqdm

from models import train_b0, train_b0_224, train_b2, train_b5, train_resnext101
from models.common.cli import command
from models.common.config import FinetuneConfig, TrainConfig
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TestTimeAugmentation
from models.inference.aligned import align_runs
from models.inference.comparing import Resampled, differences, resample
from models.inference.evidence import Nest, possible_ways, ways_to_try
from models.inference.predict import infer
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.inference.runs import finished_folds, join_folds, read_fold
from models.preprocessing.tables import read_slices
from models.train_small import CONFIG as SMALL

RESULTS = Path(__file__).parent / "blending.json"
PRESETS = tuple(script.CONFIG for script in (train_b0, train_b0_224, train_b2, train_b5, train_resnext101))
VIEWS: TestTimeAugmentation = "flip"  # of validation and test alike; all eight would take most of the time
CHOSEN = "by_label"
# In the order of the table, each with what it is.
ROWS = {
    CHOSEN: "a way for each label, by nested scores",
    "equal": "the mean of the runs",
    "original": "the original's weights",
    "best_single": "the run with the lowest loss",
    "fitted": "weights fitted for each label",
    "fitted_calibrated": "the same, calibrated for each label",
    "stacker": "logistic regression on a slice and its neighbours",
    "boosted": "gradient boosted trees on the same",
    "b5_like": "B5's stand-in",
    "b5_like_pseudo": "finetuned with pseudolabels",
}


@dataclass(frozen=True)
class BlendingOptions(ExperimentOptions):
    """The command line of this benchmark."""

    studies: int = 100
    epochs: int = 4
    output: Path = RESULTS
    test_studies: int = 20
    seeds: int = 5
    lacking: bool = False
    """one run lacks its last fold, so that all are compared on fewer patients"""


def main(options: BlendingOptions) -> None:
    """Score all rows for each seed, print the table and write it."""
    scored: list[dict[str, Resampled]] = []
    with working_folder(options.work) as folder:
        prepare_phantom(folder, options)
        with fold_trainer(options.folds, VIEWS) as train_folds:
            for seed in tqdm(range(options.seeds), desc="seeds"):
                with quiet():
                    work = run_seed(folder, seed, options, train_folds)
                    scored.append(score_seed(work, options.lacking))
    rows = {name: summarise([of[name] for of in scored]) | beside_chosen(scored, name) for name in ROWS}
    usual = options.studies == BlendingOptions.studies and not options.lacking
    under = (
        "" if usual else f"{options.studies} studies, {'one run lacks a fold' if options.lacking else 'equal folds'}"
    )
    report(options, rows, ROWS, under)


def run_seed(folder: Path, seed: int, options: BlendingOptions, train_folds: Trainer) -> Work:
    """Train and infer all runs of a seed, in a working folder of its own over the one cache; what is there stays."""
    work = Work(folder / f"seed{seed}")
    work.root.mkdir(exist_ok=True)
    if not work.cache.exists():
        work.cache.symlink_to(Work(folder).cache.resolve())
    machine = Machine(work=work.root, device=options.device)
    standins = {preset.name: standin(preset, seed, options.epochs) for preset in PRESETS}
    for config in standins.values():
        train_folds(config, machine)
        infer_folds(config, options.folds, machine)
    pseudolabels = f"pseudo_{seed}"
    make_pseudolabels(PseudolabelOptions(tuple(standins), name=pseudolabels, work=work.root))
    train_folds(finetuned(standins["b5"], pseudolabels), machine)
    return work


def standin(preset: TrainConfig, seed: int, epochs: int) -> TrainConfig:
    """The small network with the name and the windows of a preset; those with equal windows differ by their seed."""
    own_seed = 100 * seed + PRESETS.index(preset)
    return replace(SMALL, name=preset.name, channels=preset.channels, epochs=epochs, seed=own_seed)


def finetuned(config: TrainConfig, pseudolabels: str) -> FinetuneConfig:
    """B5's chain: from that fold's weights, at a tenth of the rate, for half as many epochs."""
    epochs = max(config.epochs // 2, 1)
    gentle = replace(config, name=f"{config.name}_pseudo", max_lr=config.max_lr / 10, epochs=epochs, start=config.name)
    return FinetuneConfig(**vars(gentle), pseudolabels=pseudolabels)


def infer_folds(config: TrainConfig, folds: int, machine: Machine) -> None:
    """Predict the test slices with each fold of a run."""
    for fold in range(folds):
        infer(InferOptions(config.name, fold, tta=VIEWS, machine=machine))


def score_seed(work: Work, lacking: bool) -> dict[str, Resampled]:
    """The scores of all rows, on the same slices and draws: nested ones of blends, out-of-fold ones of B5's stand-in.

    Before it was finetuned, and after. The first run may be lacking its last fold.
    """
    slices = read_slices(work, "train")
    said_by = {preset.name: read_out_of_fold(work, preset.name) for preset in PRESETS}
    if lacking:
        name = PRESETS[0].name
        said_by[name] = join_folds(name, [read_fold(work, name, k, "valid") for k in finished_folds(work, name)[:-1]])
    runs = align_runs(said_by, slices)
    known = slices.set_index("image_id").loc[runs.image_ids]
    target, patients = known[list(LABELS)].to_numpy(), known["patient_id"]
    nest = Nest(runs, target, patients)
    tried = {way: nest.attempt(fit) for way, fit in possible_ways(runs).items()}
    chosen = nest.choose_nested({way: tried[way] for way in ways_to_try(nest)})
    said = {way: one.probability for way, one in tried.items()} | {CHOSEN: chosen}
    for row, run in (("b5_like", "b5"), ("b5_like_pseudo", "b5_pseudo")):
        said[row] = read_out_of_fold(work, run).loc[runs.image_ids].to_numpy()
    return {name: resample(target, said[name], patients.to_numpy()) for name in ROWS}


def beside_chosen(scored: list[dict[str, Resampled]], name: str) -> dict[str, float]:
    """By how much the chosen blend is worse than a row, the mean of the seeds, and in how many that is proven."""
    differ = [differences(of[CHOSEN], of[name]).iloc[0] for of in scored]
    all_seeds = differences(*(mean_of([of[which] for of in scored]) for which in (CHOSEN, name))).iloc[0]
    beside = {"chosen worse by": all_seeds["value"], "low": all_seeds["low"], "high": all_seeds["high"]}
    rounded = {what: round(float(value), 4) for what, value in beside.items()}
    return rounded | {"proven": sum(int(seed["low"] > 0) for seed in differ)}


def mean_of(scores: list[Resampled]) -> Resampled:
    """The mean of the seeds of each score and draw: the patients that were drawn are the same."""
    values, draws = (np.mean([getattr(of, field) for of in scores], axis=0) for field in ("value", "draws"))
    return scores[0]._replace(value=values, draws=draws)


if __name__ == "__main__":
    command(main, BlendingOptions)
