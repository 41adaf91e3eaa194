"""Which way to blend is best for each label: ways are scored on patients that their fit has not seen, as is the choice.

The patients are dealt into parts. What is said of a part comes from fits to the other parts; what is chosen for a part,
from losses on the other parts, by fits that have seen neither this part nor the one that is scored.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from models.common.errors import InputError
from models.common.labels import LABELS, METRIC_WEIGHTS
from models.inference.aligned import Aligned, Rows
from models.inference.blending import (
    ALL,
    ORIGINAL_WEIGHTS,
    Blend,
    fit_best_single,
    fit_calibrated,
    fit_equal,
    fit_original,
    fit_weights,
)
from models.inference.calibration import raise_any
from models.inference.comparing import drawn_totals, tails
from models.inference.stacking import Stacker, fit_boosted, fit_stacker
from models.training.metric import slice_losses

PARTS = 5  # of the patients; a blend is fitted on all but one of them and used on that one
# Of few patients more parts, which takes little time: a choice sees fits without two parts, and three fifths of few
# patients tell too little of what all of them will give.
FEW, PARTS_OF_FEW = 500, 10
ONE_ERROR = 0.683  # the share of an interval of one standard error to each side
PROVEN = 1 - 0.05 / len(LABELS)  # of six labels, one in twenty times one goes beyond it by chance
ENOUGH = 100_000  # slices to fit on, those of whole patients; more of them take time and change next to nothing
Fit = Callable[[Aligned, np.ndarray, np.ndarray], Blend | Stacker]
# From the simplest on: where two do not differ, the simpler one is taken.
WAYS: dict[str, Fit] = {
    "equal": fit_equal,
    "original": fit_original,
    "best_single": fit_best_single,
    "fitted": fit_weights,
    "fitted_calibrated": fit_calibrated,
    "stacker": fit_stacker,
    "boosted": fit_boosted,
}


class Tried(NamedTuple):
    """What one way to blend says of patients that its fit has not seen."""

    probability: np.ndarray  # (slices, 6), of each part by a fit to the others
    # Sums of the losses of each patient, (parts, patients, 6): [k] by fits that have not seen part k either.
    without: np.ndarray


class LabelWise(NamedTuple):
    """A blend that takes each label from a way of its own; `any` is at least the largest of the five types."""

    ways: tuple[str, ...]  # of each label
    blends: dict[str, Blend | Stacker]

    def __call__(self, runs: Aligned, rows: Rows = ALL) -> np.ndarray:
        """Probabilities of the slices `rows`, (slices, 6). Raises InputError for other runs than it was made for."""
        return compose(self.ways, {way: blend(runs, rows) for way, blend in self.blends.items()})


def possible_ways(runs: Aligned) -> dict[str, Fit]:
    """All WAYS; without the original's weights if none of its runs is there."""
    return {name: fit for name, fit in WAYS.items() if name != "original" or set(runs.names) & set(ORIGINAL_WEIGHTS)}


class Nest:
    """The slices that ways to blend are tried on, their patients dealt into parts."""

    def __init__(self, runs: Aligned, target: np.ndarray, patients: pd.Series) -> None:
        """`target` is (slices, 6), `patients` names the patient of each slice. Raises InputError for a single one."""
        self.runs, self.target = runs, target
        self.codes, names = pd.factorize(patients, sort=True)
        if len(names) < 2:
            raise InputError(
                "the slices that all runs have are of one patient, and blends are compared on two or more; "
                "train the same folds of each run, or name fewer runs"
            )
        self.count = min(PARTS_OF_FEW if len(names) < FEW else PARTS, len(names))
        self.patients = len(names)
        self.part = np.empty(len(target), int)
        folds = GroupKFold(self.count, shuffle=True, random_state=0)
        for number, (_, held_out) in enumerate(folds.split(target, groups=self.codes)):
            self.part[held_out] = number
        self.looked_at = some_patients(self.codes, ENOUGH)

    def fit(self, fit: Fit, without: tuple[int, ...] = ()) -> Blend | Stacker:
        """A blend that is fitted without some parts."""
        return fit(self.runs, self.target, self.looked_at & ~np.isin(self.part, without))

    def unseen(self, fit: Fit) -> np.ndarray:
        """Probabilities of all slices, (slices, 6), each from a blend that was fitted on slices of other patients."""
        probability = np.empty(self.target.shape)
        for part in range(self.count):
            rows = self.part == part
            probability[rows] = self.fit(fit, (part,))(self.runs, rows)
        return probability

    def attempt(self, fit: Fit) -> Tried:
        """What a way says of slices that it has not seen, and what its choice may depend on."""
        without = np.zeros((self.count, self.patients, len(LABELS)))
        for pair in combinations(range(self.count), 2) if self.count > 2 else ():
            blend = self.fit(fit, pair)
            for own, other in (pair, pair[::-1]):
                without[own] += self.losses(blend(self.runs, self.part == other), self.part == other)
        return Tried(self.unseen(fit), without)

    def losses(self, probability: np.ndarray, rows: Rows = ALL) -> np.ndarray:
        """Sums of the losses of each patient over the slices `rows`, whose probabilities these are: (patients, 6)."""
        losses = slice_losses(self.target[rows], probability)
        return np.stack([np.bincount(self.codes[rows], own, self.patients) for own in losses.T], axis=1)

    def choose(self, tried: dict[str, Tried]) -> tuple[str, ...]:
        """The way of each label, by all slices."""
        return self._choose(
            {way: self.losses(one.probability) for way, one in tried.items()}, np.full(len(self.part), True)
        )

    def choose_nested(self, tried: dict[str, Tried]) -> np.ndarray:
        """Probabilities of all slices, (slices, 6): of each part by the ways that are chosen without it.

        What is gained by choosing after having looked is not in their score.
        """
        probability = np.empty(self.target.shape)
        for part in range(self.count):
            rows = self.part == part
            ways = self._choose({way: one.without[part] for way, one in tried.items()}, ~rows)
            probability[rows] = compose(ways, {way: tried[way].probability[rows] for way in set(ways)})
        return probability

    def finish(self, ways: tuple[str, ...], possible: dict[str, Fit]) -> LabelWise:
        """The blend of all parts that takes each label from its way."""
        return LabelWise(ways, {way: self.fit(possible[way]) for way in dict.fromkeys(ways)})

    def _choose(self, losses: dict[str, np.ndarray], rows: np.ndarray) -> tuple[str, ...]:
        """By the losses of patients (patients, 6) and their slices."""
        slices = np.bincount(self.codes[rows], minlength=self.patients)
        there = slices > 0
        return choose_ways({way: own[there] for way, own in losses.items()}, slices[there])


def ways_to_try(nest: Nest) -> dict[str, Fit]:
    """The possible ways of which the best is looked for: of FEW patients without the trees.

    There they take most of the time, and of 40, 100 and 300 phantom studies they were never better than the logistic
    regression (benchmarks/blending.py, benchmarks/choosing.py).
    """
    possible = possible_ways(nest.runs)
    return {name: fit for name, fit in possible.items() if name != "boosted" or nest.patients >= FEW}


def nested(fit: Fit, runs: Aligned, target: np.ndarray, patients: pd.Series) -> np.ndarray:
    """`Nest.unseen` of one way. Raises InputError for a single patient."""
    return Nest(runs, target, patients).unseen(fit)


def choose_ways(losses: dict[str, np.ndarray], slices: np.ndarray) -> tuple[str, ...]:
    """The way of each label: one for all, but for the labels that speak against it.

    `losses` are sums over the slices of a patient, (patients, 6), of ways from the simplest on; `slices` counts those
    of each patient. The way for all is the simplest whose weighted loss is within one standard error of the best one's
    (Breiman, Friedman, Olshen and Stone 1984): of few patients 95 % intervals hold zero for all that is much better,
    too. A label on which it is proven worse than another takes the simplest that is not proven worse than the best one
    there. Proven is where the interval of the paired difference does not hold zero, 95 % for the six labels together.
    For a single patient, who has no interval, the simplest way is taken.

    Were each label to take its simplest way at once, six small losses, none of them proven, would add up to one that
    is: of 40 patients that is worse than the best way for all, in the simulations of benchmarks/choosing.py.
    """
    ways = list(losses)
    if len(slices) < 2:
        return (ways[0],) * len(LABELS)
    totals = drawn_totals(np.concatenate([*losses.values(), slices[:, None]], axis=1), 1000, 0)
    means = (totals[:, :-1] / totals[:, -1:]).reshape(len(totals), len(ways), len(LABELS))
    weighted = np.average(means, axis=2, weights=METRIC_WEIGHTS)
    for_all = equal_to_best(weighted, tails(len(slices), ONE_ERROR)[0])[0]
    chosen = []
    for label in range(len(LABELS)):
        equal = equal_to_best(means[:, :, label], tails(len(slices), PROVEN)[0])
        chosen.append(ways[for_all if for_all in equal else equal[0]])
    return tuple(chosen)


def equal_to_best(losses: np.ndarray, lowest: float) -> list[int]:
    """The ways whose loss does not differ from the best one's, from the simplest on, by their place.

    `losses` are (1 + draws, ways), the first row of the slices as they are; `lowest` is the percentile of draws at
    which an interval begins.
    """
    more = losses[1:] - losses[1:, [losses[0].argmin()]]
    return list(np.flatnonzero(np.percentile(more, lowest, axis=0) <= 0))


def compose(ways: tuple[str, ...], probability: dict[str, np.ndarray]) -> np.ndarray:
    """Each label from the probabilities (slices, 6) of its way, and `any` at least the largest of the five types."""
    return raise_any(np.stack([probability[way][:, label] for label, way in enumerate(ways)], axis=1))


def some_patients(codes: np.ndarray, enough: int) -> np.ndarray:
    """Whether to look at each slice, (slices,): all slices of patients drawn at random until there are enough.

    `codes` numbers the patient of each slice from 0 on.
    """
    counts = np.bincount(codes)
    order = np.random.default_rng(0).permutation(len(counts))
    before = np.cumsum(counts[order]) - counts[order]
    return np.isin(codes, order[before < enough])
