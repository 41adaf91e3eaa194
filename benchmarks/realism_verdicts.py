"""Do drawings and people agree on which network is better? Losses of many networks on both, and how their ranks agree.

    python benchmarks/realism_verdicts.py --data ../shared/rsna_sample --work scratch   # 40 minutes on two cores
    python benchmarks/realism_verdicts.py --data ../shared/rsna_sample --quick          # a minute: does it run at all?

Every network learns on the same phantom studies alone. Its weighted log loss on those that were held out stands beside
that on the labelled real slices, and Spearman's correlation of the two is the verdict: 1 where the phantom ranks
networks and settings as people do (goal: .7), 0 or less where it misleads. Writes "verdicts" in benchmarks/realism.json
after every network. With --work it can be stopped and goes on there; for another phantom name another folder.
"""

import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from comparison import default_data, quiet
from experiment import working_folder
from realism import RESULTS, provenance, write_under
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from models.common.cli import command
from models.common.config import TrainConfig
from models.common.errors import InputError
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference.predict import infer
from models.inference.predictions import align, read_predictions
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_slices
from models.train_small import CONFIG as SMALL
from models.training.metric import weighted_log_loss
from models.training.run import train

GOAL = 0.7  # Spearman's correlation
HELD_OUT = 4  # folds of the phantom, of which one is held out
DRAWN = 128  # pixels at which the phantom is drawn, the largest of the settings
# Finetuned gently; batch-norm statistics are recomputed, for with few steps the running ones lag behind.
LITE0 = {"network": "efficientnet-lite0", "pretrained": True, "max_lr": 1e-3, "epochs": 3, "batchnorm_batches": 30}
B0 = {"network": "efficientnet-b0", "max_lr": 3e-3, "epochs": 4, "batchnorm_batches": 30}  # from scratch
# What each changes in the preset of the small network; the dearest first, so that two processes end together.
SETTINGS: dict[str, dict[str, Any]] = {
    "lite0_128": {**LITE0, "image_size": 128},
    "lite0_128_hard": {**LITE0, "image_size": 128, "augment": "hard"},
    "lite0_128_randomised": {**LITE0, "image_size": 128, "augment": "randomised"},
    "b0_96": {**B0, "image_size": 96},
    "small_128": {"image_size": 128, "epochs": 6},
    "lite0_64": {**LITE0, "image_size": 64},
    "b0_64": {**B0, "image_size": 64},
    "small_96": {"image_size": 96, "epochs": 8},
    "small_64": {"epochs": 8},
    "small_64_hard": {"epochs": 8, "augment": "hard"},
    "small_64_unchanged": {"epochs": 8, "augment": "none"},
    "small_64_randomised": {"epochs": 8, "augment": "randomised"},
    "small_64_one_window": {"epochs": 8, "channels": ["40/80"]},
    "small_64_short": {"epochs": 2},
}

Row = dict[str, float]


@dataclass(frozen=True)
class VerdictOptions:
    """The command line of this benchmark."""

    data: Path | None = field(default_factory=default_data)
    """folder with real, labelled slices (or set RSNA_DATA)"""
    studies: int = 160
    """of the phantom, a quarter of them held out"""
    seed: int = 0
    """of the phantom and the networks"""
    only: tuple[str, ...] = ()
    """names of some settings; none: all"""
    quick: bool = False
    """twelve studies, an epoch, the small network at 64 px: whether all of it runs, not what comes of it"""
    output: Path = RESULTS
    """the numbers as JSON"""
    work: Path | None = None
    """folder for phantom, caches and runs, which are kept; none: a temporary one"""
    jobs: int = 2
    """networks that learn side by side, each on one core"""


def main(options: VerdictOptions) -> None:
    """Train and score every setting, print and write. Raises InputError without real slices."""
    if options.data is None:
        raise InputError("realism_verdicts.py needs real slices; name their folder with --data or RSNA_DATA")
    data, options = options.data, replace(options, studies=12) if options.quick else options
    names = settings_of(options)
    with working_folder(options.work) as folder:
        prepare_both(folder, data, options, tuple({image_size(name) for name in names}))
        rows: dict[str, Row] = {}
        configs = [config_of(name, options.seed, options.quick) for name in names]
        with ProcessPoolExecutor(options.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as processes:
            tasks = {processes.submit(score, config, folder): config.name for config in configs}
            for task in as_completed(tasks):
                row = rows[tasks[task]] = task.result()
                print(f"{tasks[task]:22}" + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
                judged = {**provenance(options), "rows": {name: rows[name] for name in names if name in rows}}
                write_under(options.output, "verdicts", {**judged, "agreement": agreement(rows)})
    print(f"{options.output}: of {len(rows)} networks {agreement(rows)}, goal: rank correlation of losses {GOAL}")


def settings_of(options: VerdictOptions) -> list[str]:
    """The names of the settings that are asked for. Raises InputError for one that there is not."""
    if unknown := set(options.only) - set(SETTINGS):
        raise InputError(f"no setting {sorted(unknown)[0]!r}; there are {', '.join(SETTINGS)}")
    names = [name for name in SETTINGS if not options.only or name in options.only]
    if options.quick and not options.only:
        names = [name for name in names if name.startswith("small_64")]
    return names


def image_size(name: str) -> int:
    """Pixels of a setting."""
    return SETTINGS[name].get("image_size", SMALL.image_size)


def config_of(name: str, seed: int, quick: bool = False) -> TrainConfig:
    """The small network's preset, and what the setting changes in it."""
    values = {**SMALL.to_json(), "name": name, "seed": seed, **SETTINGS[name]}
    return TrainConfig.from_json(values | ({"epochs": 1} if quick else {}))


def prepare_both(folder: Path, data: Path, options: VerdictOptions, sizes: tuple[int, ...]) -> None:
    """Draw the phantom, and make the caches of phantom and of real slices."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        write_phantom(folder / "data", options.studies, test_studies=1, image_size=DRAWN, seed=options.seed)
        for part, raw in (("phantom", folder / "data"), ("real", data)):
            folds = HELD_OUT if part == "phantom" else 2
            prepare(PrepareOptions(raw, folder / part, image_size=tuple(sorted(sizes)), folds=folds))


def score(config: TrainConfig, folder: Path) -> Row:
    """Train one network on the phantom; its losses, and the AUC of `any`, on held-out phantoms and real slices."""
    phantom, real, begin = folder / "phantom", folder / "real", time.perf_counter()
    machine = partial(Machine, device="cpu")
    with quiet():
        train(TrainOptions(config, tta="none", machine=machine(work=phantom)))
        weights = Work(phantom).run(config.name, 0)
        infer(InferOptions(config.name, 0, "none", "train", weights, machine=machine(work=real)))
    row = {}
    for name, work, split in (("phantom", Work(phantom), "valid"), ("real", Work(real), "train")):
        loss, auc = loss_and_auc(work, read_predictions(work.prediction(config.name, 0, split), "the same command"))
        row |= {f"{name} loss": round(loss, 4), f"{name} AUC": round(auc, 4)}
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def loss_and_auc(work: Work, predictions: pd.DataFrame) -> tuple[float, float]:
    """Weighted log loss, and AUC of `any`, of predictions of slices that have labels."""
    labels = read_slices(work, "train").dropna(subset=list(LABELS)).set_index("image_id")[list(LABELS)]
    known = predictions[predictions.index.isin(labels.index)]
    target = align(labels, known.index.to_series(), "the table of labels")
    auc = roc_auc_score(target["any"], known["any"]) if target["any"].nunique() == 2 else np.nan
    return weighted_log_loss(target.to_numpy(), known.to_numpy()), float(auc)


def agreement(rows: dict[str, Row]) -> dict[str, float | None]:
    """Spearman's rank correlation over the networks, of the losses and of the AUCs; None of fewer than three."""
    found: dict[str, float | None] = {}
    for kind in ("loss", "AUC"):
        pairs = np.array([(row[f"phantom {kind}"], row[f"real {kind}"]) for row in rows.values()])
        found[kind] = round(float(spearmanr(*pairs.T).statistic), 3) if len(pairs) > 2 else None
    return found


if __name__ == "__main__":
    command(main, VerdictOptions)
