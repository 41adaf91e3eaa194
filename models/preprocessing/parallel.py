"""One function over many items, on all cores or on a cluster, with a bar that shows the time left."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

from models.common.errors import InputError
from models.common.process import start_process

_KILLED = (
    "a worker process was killed, most likely for lack of memory; what is finished is kept: run the same command again"
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def progress_map(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int, title: str, dask: str | None = None
) -> list[Result]:
    """Results of `function` in the order of `items`, computed by `jobs` processes (-1: one a core).

    With `dask`, the address of a scheduler (tcp://...), by the workers of that cluster instead. Raises InputError if a
    worker dies.
    """
    items = list(items)
    results = _on_cluster(function, items, dask) if dask else _on_cores(function, items, jobs)
    try:
        return list(tqdm(results, total=len(items), desc=title, unit_scale=True, dynamic_ncols=True))
    except TerminatedWorkerError as error:
        raise InputError(f"{_KILLED} with fewer --jobs") from error


def _on_cores(function: Callable[[Item], Result], items: list[Item], jobs: int) -> Iterator[Result]:
    return joblib.Parallel(n_jobs=jobs, return_as="generator")(
        joblib.delayed(_started)(function, item) for item in items
    )


def _started(function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function in a worker, which may be a new process."""
    start_process()
    return function(item)


def _on_cluster(function: Callable[[Item], Result], items: list[Item], address: str) -> Iterator[Result]:
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise InputError("--dask needs the package distributed: pip install 'dask[distributed]'") from None
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}; start one, or leave --dask out") from error
    with client:
        try:
            for future in client.map(partial(_started, function), items, pure=False):
                yield future.result()
                future.release()
        except KilledWorker as error:
            raise InputError(f"{_KILLED} with more memory a worker") from error
