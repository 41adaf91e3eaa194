"""What context along z is worth: out-of-fold scores of the same small network with less and more of it, on a phantom.

    python benchmarks/context.py                                  # writes benchmarks/context.json
    python benchmarks/context.py --studies 600 --epochs 14        # larger, for a GPU
    python benchmarks/context.py --work scratch                   # can be stopped, and goes on there

One phantom at 64 px, folds grouped by patient, three seeds of the networks. Each row is the weighted log loss of all
folds' out-of-fold predictions: its mean over the seeds, and its spread, their standard deviation; and how much worse it
is than the network that is trained on whole studies, with its interval (paired, of patients and seeds).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from comparison import quiet
from experiment import (
    ExperimentOptions,
    fold_trainer,
    paired,
    prepare_phantom,
    read_out_of_fold,
    report,
    score,
    summarise,
    working_folder,
)
from tqdm.auto import tqdm

from models.common.channels import Channel
from models.common.cli import command
from models.common.config import RunConfig, SequenceConfig, StudyConfig, TrainConfig
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import Machine
from models.inference.aligned import align_runs
from models.inference.blending import fit_weights
from models.inference.comparing import Resampled
from models.inference.evidence import nested
from models.inference.smoothed_run import SmoothOptions, smooth_run
from models.preprocessing import windows
from models.preprocessing.tables import read_slices
from models.train_sequence import CONFIG as SEQUENCE
from models.train_small import CONFIG as SMALL
from models.train_study import CONFIG as STUDY

RESULTS = Path(__file__).parent / "context.json"
BELOW, ABOVE = (Channel(offset, windows.BRAIN, "mm") for offset in (-5, 5))
ONE_WINDOW = (Channel(0, windows.BRAIN),)
TRIPLET = (BELOW, *ONE_WINDOW, ABOVE)
MEAN, STUDIES = "single_and_recurrent", "study"
# In the order of the table, each with what it sees.
ROWS = {
    "single_one_window": "one window of the slice",
    "triplet_one_window": "one window of the slice and its two neighbours",
    "single": "three windows of the slice",
    "context": "three windows of the slice, one of its neighbours",
    "smoothing": "single, smoothed along z",
    "recurrent": "single, then recurrent layers",
    "context_recurrent": "context, then recurrent layers",
    "end_to_end": "single and recurrent layers, trained together",
    STUDIES: "single, then trained on together with a transformer",
    MEAN: "the mean of single and recurrent, for each label",
}


@dataclass(frozen=True)
class ContextOptions(ExperimentOptions):
    """The command line of this benchmark."""

    studies: int = 160
    epochs: int = 8
    output: Path = RESULTS


def main(options: ContextOptions) -> None:
    """Train and score all rows for each seed, print the table and write it."""
    with working_folder(options.work) as folder:
        work, machine = Work(folder), Machine(work=folder, device=options.device)
        prepare_phantom(folder, options)
        scored: dict[str, list[Resampled]] = {name: [] for name in ROWS}
        with fold_trainer(options.folds) as train_folds:
            for name, seed in tqdm([(name, seed) for name in ROWS for seed in range(options.seeds)], desc="runs"):
                if name == MEAN:
                    said = blend(work, [f"single_{seed}", f"recurrent_{seed}"])
                elif name == "smoothing":
                    said = read_out_of_fold(work, smooth_single(seed, work))
                else:
                    train_folds(config_of(name, seed, options.epochs), machine)
                    said = read_out_of_fold(work, f"{name}_{seed}")
                scored[name].append(score(said, work))
    rows = {name: summarise(of) for name, of in scored.items()}
    for name in rows.keys() - {STUDIES}:
        rows[name] |= paired(scored[name], scored[STUDIES])
    report(options, rows, ROWS)


def smooth_single(seed: int, work: Work) -> str:
    """Smooth the row `single`; returns the name of the run."""
    with quiet():
        smooth_run(SmoothOptions(f"single_{seed}", work.root))
    return f"single_{seed}_smoothed"


def blend(work: Work, runs: list[str]) -> pd.DataFrame:
    """The runs' weighted mean, for each label as fitted on other patients; indexed by `image_id`, columns LABELS."""
    slices = read_slices(work, "train").dropna(subset=list(LABELS))
    aligned = align_runs({run: read_out_of_fold(work, run) for run in runs}, slices)
    known = slices.set_index("image_id").loc[aligned.image_ids]
    said = nested(fit_weights, aligned, known[list(LABELS)].to_numpy(), known["patient_id"])
    return pd.DataFrame(said, index=known.index, columns=list(LABELS))


def config_of(name: str, seed: int, epochs: int) -> RunConfig:
    """The small network's preset, and what the row changes in it."""
    small = replace(SMALL, name=f"{name}_{seed}", seed=seed, epochs=epochs)
    if name == STUDIES:
        return study(small)
    changed = {
        "single_one_window": replace(small, channels=ONE_WINDOW),
        "triplet_one_window": replace(small, channels=TRIPLET),
        "single": small,
        "context": replace(small, channels=(*SMALL.channels, BELOW, ABOVE)),
        "recurrent": sequence(name, seed, "single"),
        "context_recurrent": sequence(name, seed, "context"),
        "end_to_end": end_to_end(small),
    }
    return changed[name]


def sequence(name: str, seed: int, run: str) -> SequenceConfig:
    """The preset, for some hundred studies: small batches, and more epochs of them."""
    own = replace(SEQUENCE, name=f"{name}_{seed}", runs=(f"{run}_{seed}",), seed=seed)
    return replace(own, batch_size=8, epochs=20, views="flip")


def end_to_end(small: TrainConfig) -> StudyConfig:
    """The small network and recurrent layers, on stretches of two studies a step; about as many slices in all."""
    slower = replace(small, batch_size=2, epochs=2 * small.epochs, clip_gradient=1.0)
    return StudyConfig(**vars(slower), study_slices=14)


def study(small: TrainConfig) -> StudyConfig:
    """What models/train_study.py declares of layers and losses, from the row `single`, for as long as `end_to_end`."""
    kept = ("start", "batch_size", "max_lr", "clip_gradient", "epochs")
    of_slices = {name: value for name, value in vars(small).items() if name not in kept}
    gentle = {"max_lr": small.max_lr / 3, "epochs": 2 * small.epochs}  # it does not begin anew
    return replace(STUDY, **of_slices, **gentle, start=f"single_{small.seed}")


if __name__ == "__main__":
    command(main, ContextOptions)
