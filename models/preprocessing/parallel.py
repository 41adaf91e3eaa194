"""One function over many items on all cores, with a bar that shows the time left."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import joblib
from tqdm.auto import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def progress_map(function: Callable[[Item], Result], items: Iterable[Item], jobs: int, title: str) -> list[Result]:
    """Results of `function` in the order of `items`, computed by `jobs` processes (-1: one a core)."""
    items = list(items)
    results = joblib.Parallel(n_jobs=jobs, return_as="generator")(joblib.delayed(function)(item) for item in items)
    return list(tqdm(results, total=len(items), desc=title, unit_scale=True, dynamic_ncols=True))
