"""What blending by evidence and pseudolabels are worth: nested and out-of-fold scores of stand-ins on a phantom.

    python benchmarks/blending.py                         # writes benchmarks/blending.json
    python benchmarks/blending.py --work scratch          # can be stopped, and goes on there

The small network at 64 px stands in for each of the original's five networks, with its windows and under its name, in
folds that are grouped by patient, three seeds. The blends' scores are nested: of patients that the fit has not seen.
B5's stand-in is then finetuned, at a tenth of its rate, on soft pseudolabels that all five have made for the test.
Each row is a weighted log loss: its mean over the seeds, and its spread, their standard deviation.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from comparison import quiet
from experiment import (
    ExperimentOptions,
    Trainer,
    fold_trainer,
    prepare_phantom,
    read_out_of_fold,
    report,
    score_run,
    summarise,
    working_folder,
)
from tqdm.auto import tqdm

from models import train_b0, train_b0_224, train_b2, train_b5, train_resnext101
from models.common.cli import command
from models.common.config import FinetuneConfig, TrainConfig
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine
from models.inference.aligned import align_runs
from models.inference.evidence import nested, possible_ways
from models.inference.predict import infer
from models.inference.pseudolabel_files import PseudolabelOptions, make_pseudolabels
from models.preprocessing.tables import read_slices
from models.train_small import CONFIG as SMALL
from models.training.metric import weighted_log_loss

RESULTS = Path(__file__).parent / "blending.json"
PRESETS = tuple(script.CONFIG for script in (train_b0, train_b0_224, train_b2, train_b5, train_resnext101))
# In the order of the table, each with what it is.
ROWS = {
    "best_single": "the run with the lowest loss",
    "equal": "the mean of the runs",
    "original": "the original's weights",
    "fitted": "weights fitted for each label",
    "fitted_calibrated": "the same, calibrated for each label",
    "stacker": "logistic regression on a slice and its neighbours",
    "b5_like": "B5's stand-in",
    "b5_like_pseudo": "finetuned with pseudolabels",
}


@dataclass(frozen=True)
class BlendingOptions(ExperimentOptions):
    """The command line of this benchmark."""

    studies: int = 100
    epochs: int = 6
    output: Path = RESULTS
    test_studies: int = 40


def main(options: BlendingOptions) -> None:
    """Score all rows for each seed, print the table and write it."""
    scores = {name: [] for name in ROWS}
    with working_folder(options.work) as folder:
        prepare_phantom(folder, options)
        with fold_trainer(options.folds) as train_folds:
            for seed in tqdm(range(options.seeds), desc="seeds"):
                with quiet():
                    work = run_seed(folder, seed, options, train_folds)
                for name, value in (blend_scores(work) | pseudolabel_scores(work)).items():
                    scores[name].append(value)
    report(options, summarise(scores), ROWS)


def run_seed(folder: Path, seed: int, options: BlendingOptions, train_folds: Trainer) -> Work:
    """Train and infer all runs of a seed, in a working folder of its own over the one cache."""
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
    gentle = replace(config, name=f"{config.name}_pseudo", max_lr=config.max_lr / 10, epochs=epochs)
    return FinetuneConfig(**vars(gentle), start=config.name, pseudolabels=pseudolabels)


def infer_folds(config: TrainConfig, folds: int, machine: Machine) -> None:
    """Predict the test slices with each fold of a run."""
    for fold in range(folds):
        infer(InferOptions(config.name, fold, tta="flip", machine=machine))


def blend_scores(work: Work) -> dict[str, float]:
    """The nested score of each way to blend the stand-ins."""
    slices = read_slices(work, "train")
    runs = align_runs({preset.name: read_out_of_fold(work, preset.name) for preset in PRESETS}, slices)
    known = slices.set_index("image_id").loc[runs.image_ids]
    target = known[list(LABELS)].to_numpy()
    ways = [(name, fit) for name, fit in possible_ways(runs).items() if name in ROWS]  # choosing.py has all of them
    return {name: weighted_log_loss(target, nested(fit, runs, target, known["patient_id"])) for name, fit in ways}


def pseudolabel_scores(work: Work) -> dict[str, float]:
    """The out-of-fold scores of B5's stand-in, before and after it was finetuned."""
    return {"b5_like": score_run(work, "b5"), "b5_like_pseudo": score_run(work, "b5_pseudo")}


if __name__ == "__main__":
    command(main, BlendingOptions)
