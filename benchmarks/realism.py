"""How real is the phantom? Its slices beside real ones at the same depths in the head, judged by numbers.

    python benchmarks/realism.py --data ../shared/rsna_sample            # "now" in benchmarks/realism.json
    python benchmarks/realism.py --data ... --studies 12 --seeds 1 --output mine.json     # a quick look

Needs real slices (RSNA_DATA or --data); a seed is another set of drawn studies. Told apart: the AUC of a classifier on
what EfficientNet-Lite0 with ImageNet weights sees of patches and of whole slices, learnt on half of the studies of each
kind and tested on the other half; .5 is the best that can be, and the goal is .80 for patches and .90 for slices.
Fréchet: the distance of the same features, drawn to real, as a ratio to that between halves of the real studies (goal:
below 3). Measures: HU by tissue, noise, edges and areas, and the share of the drawn studies that lie where real ones do
(from the tenth to the ninetieth of a hundred; .8 is the best that can be). The fourth judgement, whether drawings and
people agree on which network is better, is another script: realism_verdicts.py.
"""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from comparison import default_data
from experiment import working_folder
from realism_features import (
    WINDOWS,
    Judged,
    Look,
    chance,
    distances,
    features_of,
    patch_images,
    told_apart,
    whole_images,
)
from realism_measures import Measures, compare, measure_all
from realism_slices import Slices, draw_phantoms, match, read_real
from run import commit, describe_machine

from models.common.channels import Channel
from models.common.cli import command
from models.common.errors import InputError
from models.common.files import write_text
from models.preprocessing.parallel import progress_map

RESULTS = Path(__file__).parent / "realism.json"
FULL = 512  # pixels of a scanner's slice, at which noise and edges are measured too
GOALS = {"patches": 0.80, "whole slices": 0.90}  # AUC
RATIO = 3.0  # of Fréchet distances

Seen = dict[tuple[str, str], Judged]  # of a kind of image and a window


@dataclass(frozen=True)
class RealismOptions:
    """The command line of this benchmark."""

    data: Path | None = field(default_factory=default_data)
    """folder with real slices (or set RSNA_DATA)"""
    studies: int = 24
    """of the phantom, for each seed"""
    seeds: int = 3
    """of the phantom"""
    image_size: int = 256
    """pixels of the slices"""
    full_studies: int = 2
    """of them, for each seed, measured at 512 pixels as well"""
    network: str = "lite0"
    """whose features are judged; "random": random convolutions, for tests"""
    name: str = "now"
    """under which the numbers stand in the output; those of other names are kept"""
    output: Path = RESULTS
    """the numbers as JSON"""
    work: Path | None = None
    """folder for the cache of the real slices, which is kept; none: a temporary one"""


def main(options: RealismOptions) -> None:
    """Judge, print and write. Raises InputError without real slices."""
    if options.data is None:
        raise InputError("realism.py needs real slices; name their folder with --data or RSNA_DATA")
    for threshold in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        os.environ.setdefault(threshold, str(1 << 28))  # bytes: what the networks free, the workers keep
    judged = {**provenance(options), **judge(options, options.data)}
    show(judged)
    write_under(options.output, options.name, judged)
    print(f"{options.output}: {options.name!r}, commit {judged['commit']}")


def provenance(options: Any) -> dict[str, Any]:
    """By what, and of which commit, numbers come about; the folder of the data is named without its path."""
    numbers = {name: value for name, value in vars(options).items() if isinstance(value, int | str)}
    words = [word if "/" not in word else Path(word).name for word in sys.argv]
    return {"command": " ".join(words), "commit": commit(), "machine": describe_machine(), "settings": numbers}


def write_under(path: Path, name: str, content: dict[str, Any]) -> None:
    """Write numbers under a name into a JSON file, beside what is there already under other names."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    write_text(path, json.dumps({**known, name: content}, indent=1) + "\n")


def judge(options: RealismOptions, data: Path) -> dict[str, Any]:
    """All numbers of the three judgements."""
    sizes = tuple(dict.fromkeys((options.image_size, FULL)))
    with working_folder(options.work) as folder:
        real = read_real(data, folder, sizes)
    peers = look_at(real[options.image_size], options, seed=0)
    seen, matched = [], []
    measures: dict[int, list[Measures]] = {size: [] for size in sizes}
    for seed in range(options.seeds):
        phantom = draw_phantoms(seed, options.studies, options.image_size)
        measures[options.image_size] += measure_all(phantom)
        if options.full_studies and options.image_size != FULL:
            measures[FULL] += measure_all(draw_phantoms(seed, options.full_studies, FULL))
        alike, how = match(phantom, real[options.image_size], seed)
        seen.append(look_at(alike, options, seed))
        matched.append(how)
    rows = {f"{size} px": compare(measure_all(real[size]), own) for size, own in measures.items() if own}
    shares = {size: float(np.mean([row["inside"] for row in of_size.values()])) for size, of_size in rows.items()}
    return {
        "slices": len(real[options.image_size]),
        "depths apart": {name: max(how[name] for how in matched) for name in matched[0]},
        **{kind: compare_features(kind, seen, peers) for kind in GOALS},
        "mean share inside": {size: round(share, 3) for size, share in shares.items()},
        "measures": rows,
    }


def look_at(slices: Slices, options: RealismOptions, seed: int) -> Seen:
    """What the network sees of patches and whole slices through each window, and of which study it is."""
    images = dict(zip(GOALS, (patch_images(slices, seed), whole_images(slices)), strict=True))
    keys = [(kind, str(Channel(0, window)), window) for kind in images for window in WINDOWS]
    looks = [Look(images[kind][0], window, options.network) for kind, _, window in keys]
    features = progress_map(features_of, looks, -1, "looks through windows")
    return {(kind, name): (of_one, images[kind][1]) for (kind, name, _), of_one in zip(keys, features, strict=True)}


def compare_features(kind: str, seen: list[Seen], peers: Seen) -> dict[str, dict[str, float]]:
    """For each window, and as their mean: AUC and Fréchet distance, means and spread of the seeds.

    Beside them what is there by chance: both numbers of one half of the real studies against the other.
    """
    rows, scores = {}, []
    for window in (key for of_kind, key in peers if of_kind == kind):
        peer = peers[kind, window]
        scores.append([np.mean(told_apart(own[kind, window], peer, number)) for number, own in enumerate(seen)])
        apart = np.mean([distances(own[kind, window], peer, number) for number, own in enumerate(seen)], axis=0)
        by_chance = chance(peer, seed=0)
        rows[window] = {
            "AUC": float(np.mean(scores[-1])),
            "spread": float(np.std(scores[-1])),
            "AUC by chance": by_chance[0],
            "Fréchet": float(apart[0]),
            "among real": float(apart[1]),
            "ratio": float(apart[0] / apart[1]),
            "ratio by chance": by_chance[1],
        }
    mean = {name: float(np.mean([row[name] for row in rows.values()])) for name in next(iter(rows.values()))}
    mean["spread"] = float(np.std(np.mean(scores, axis=0)))  # of the seeds' means
    return {name: {key: round(value, 3) for key, value in row.items()} for name, row in {**rows, "mean": mean}.items()}


def show(judged: dict[str, Any]) -> None:
    """Print the three judgements."""
    for size, rows in judged["measures"].items():
        print(f"\n{f'at {size}: 10, 50, 90 % of the studies':46}{'real':^30}{'phantom':^30}inside")
        for name, row in rows.items():
            three = "".join(f"{value:10.4g}" for value in row["real"] + row["phantom"])
            print(f"{name:46}{three}{row['inside']:7.2f}")
    for kind, goal in GOALS.items():
        rows = judged[kind]
        print(f"\n{f'{kind}, window':24}" + "".join(f"{name:>17}" for name in rows["mean"]))
        for window, row in rows.items():
            print(f"{window:24}" + "".join(f"{value:17.3f}" for value in row.values()))
        for name, limit in (("AUC", goal), ("ratio", RATIO)):
            reached = "reached" if rows["mean"][name] <= limit else "not reached"
            print(f"goal: {name} of {kind} <= {limit:.2f}: {rows['mean'][name]:.3f}, {reached}")
    print(f"\nmean share of measures inside (best .8): {judged['mean share inside']}")
    print(f"depths apart from the real ones: {judged['depths apart']}")


if __name__ == "__main__":
    command(main, RealismOptions)
