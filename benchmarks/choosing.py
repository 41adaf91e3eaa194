"""Is the way that is chosen for each label ever worse than one way for all? Nested scores of made-up runs on phantoms.

    python benchmarks/choosing.py                         # writes benchmarks/choosing.json

Draws a phantom, and for each seed takes 40, 100 and 300 of its studies and makes up what five networks say of their
slices: the truth, what all of them get wrong alike in a study and in a slice, and errors of their own. One is better
than the others, and one is too sure of itself. Once all have both folds, once the third lacks the second. Each row is
of one number of studies: the nested weighted log loss of each way, its mean over the seeds; that of the ways that are
chosen for each label; how much worse these are than the best way for all, which is known only afterwards, in the seed
where they are worst, with its interval (paired, of patients); and the expected calibration error.
"""

import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from comparison import quiet
from experiment import working_folder
from run import commit, describe_machine
from scipy.special import expit
from sklearn.calibration import calibration_curve
from tqdm.auto import tqdm

from models.common.cli import command
from models.common.files import write_text
from models.common.folders import Work
from models.common.labels import LABELS
from models.inference.aligned import align_runs
from models.inference.comparing import differences, resample
from models.inference.evidence import Nest, possible_ways, ways_to_try
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.preprocessing.tables import read_slices, split_fold

NOISE = {"b0": 1.6, "b0_224": 1.0, "b2": 1.5, "b5": 1.4, "resnext101": 1.7}  # of each run's own, on logits
BESIDE = {"worse by": "value", "low": "low", "high": "high"}  # the best way
SIZES, FOLDS, BINS = (40, 100, 300), ("equal", "unequal"), 10


@dataclass(frozen=True)
class ChoosingOptions:
    """The command line of this benchmark."""

    seeds: int = 15
    """of what the networks say; the phantom stays the same"""
    output: Path = Path(__file__).parent / "choosing.json"
    """the table as JSON"""
    work: Path | None = None
    """folder for the phantom and its cache, which are kept; none: a temporary one"""


def main(options: ChoosingOptions) -> None:
    """Score all ways for each seed, print the table and write it."""
    rows = {}
    with working_folder(options.work) as folder:
        with quiet():
            write_phantom(folder / "data", studies=max(SIZES), test_studies=1, image_size=64, seed=0)
            prepare(PrepareOptions(folder / "data", folder, image_size=(64,), folds=2))
        slices = read_slices(Work(folder), "train").dropna(subset=list(LABELS))
        of_fold, _ = split_fold(Work(folder), 1, skip_low_information=False)
        slices["in_first"] = slices["image_id"].isin(of_fold["image_id"])
        for studies, folds in tqdm(list(product(SIZES, FOLDS)), desc="numbers of studies"):
            scores = pd.DataFrame([score_seed(slices, studies, folds, seed) for seed in range(options.seeds)])
            worst = scores.sort_values("worse by")[list(BESIDE)].iloc[-1]  # the seed where they are worst
            means = scores.drop(columns=list(BESIDE)).mean()
            beyond = {"beyond the interval": len(scores[scores["low"] > 0])}
            rows[f"{studies} studies, {folds} folds"] = {**pd.concat([means, worst]).round(4).to_dict(), **beyond}
    print(pd.DataFrame(rows).T.to_string(float_format="{:.4f}".format))
    settings = {name: value for name, value in asdict(options).items() if isinstance(value, int)}
    results = {"machine": describe_machine(), "commit": commit(), "settings": settings, "rows": rows}
    write_text(options.output, json.dumps(results, indent=1) + "\n")


def score_seed(slices: pd.DataFrame, studies: int, folds: str, seed: int) -> dict[str, float]:
    """Nested scores of all ways on so many studies, and by how much the chosen ones are worse than the best of them."""
    few = slices[slices["study_id"].isin(slices["study_id"].unique()[:studies])]
    runs = align_runs(make_up(few, folds, seed), few)
    known = few.set_index("image_id").loc[runs.image_ids]
    target, patients = known[list(LABELS)].to_numpy(), known["patient_id"].to_numpy()
    nest = Nest(runs, target, known["patient_id"])
    tried = {way: nest.attempt(fit) for way, fit in possible_ways(runs).items()}
    chosen = nest.choose_nested({way: tried[way] for way in ways_to_try(nest)})
    unseen = {way: one.probability for way, one in tried.items()} | {"by_label": chosen}
    drawn = {way: resample(target, probability, patients) for way, probability in unseen.items()}
    scores = {way: float(one.value[0]) for way, one in drawn.items()}
    best = min(tried, key=lambda way: scores[way])
    worse = differences(drawn["by_label"], drawn[best])[list(BESIDE.values())].to_numpy(float)[0]
    scores["calibration error"] = calibration_error(target, unseen["by_label"])
    return scores | dict(zip(BESIDE, worse, strict=True))


def make_up(slices: pd.DataFrame, folds: str, seed: int) -> dict[str, pd.DataFrame]:
    """What five networks say of slices; of unequal folds the third says nothing of the second."""
    random, truth = np.random.default_rng((len(slices), seed)), slices[list(LABELS)].to_numpy()
    study = pd.factorize(slices["study_id"])[0]
    alike = random.normal(0, 0.8, (study.max() + 1, 6))[study] + random.normal(0, 1.5, truth.shape)
    said = {}
    for name, noise in NOISE.items():
        of_study = random.normal(0, 0.5, (study.max() + 1, 6))[study]
        logits = -3 + 3.5 * truth + alike + of_study + random.normal(0, noise, truth.shape)
        probability = expit((1.5 if name == "b5" else 0.8) * logits).astype(np.float32)
        said[name] = pd.DataFrame(probability, columns=list(LABELS), index=pd.Index(slices["image_id"]))
    if folds == "unequal":
        said["b2"] = said["b2"][slices["in_first"].to_numpy()]
    return said


def calibration_error(target: np.ndarray, probability: np.ndarray) -> float:
    """The mean distance of predicted and observed shares in tenths of the slices, the mean of the labels.

    Of targets and probabilities (slices, 6).
    """
    apart = []
    for own, said in zip(target.T, probability.T, strict=True):
        observed, predicted = calibration_curve(own, said, n_bins=BINS, strategy="quantile")
        apart.append(np.abs(observed - predicted).mean())
    return float(np.mean(apart))


if __name__ == "__main__":
    command(main, ChoosingOptions)
