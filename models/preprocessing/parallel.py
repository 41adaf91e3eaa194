"""One function over many items, on all cores or on a cluster, with a bar that shows the time left."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from models.common.errors import InputError
from models.common.process import start_process
from models.common.progress import progress_bar

_KILLED = (
    "a worker process was killed, most likely for lack of memory; what is finished is kept: run the same command again"
)

_SHARES = 4  # batches for each process at least, so that all end at nearly the same time

Item = TypeVar("Item")
Result = TypeVar("Result")


def progress_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int,
    title: str,
    dask: str | None = None,
    most: int = 1,
) -> list[Result]:
    """Results of `function` in the order of `items`, computed by `jobs` processes (-1: one a core).

    `most` items go to a process at a time: of small work sending it is the larger part. With `dask`, the address of a
    scheduler (tcp://...), by the workers of that cluster instead. Raises InputError if a worker dies.
    """
    return progress_batches(partial(_one_by_one, function), items, jobs, title, most, dask)


def progress_batches(
    function: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    jobs: int,
    title: str,
    most: int,
    dask: str | None = None,
) -> list[Result]:
    """The same of a function of some items at a time, `most` of them, or fewer so that all processes have work.

    Raises InputError if a worker dies.
    """
    items = list(items)
    workers = joblib.cpu_count() if jobs < 0 or dask else jobs
    size = most if workers == 1 else max(1, min(most, len(items) // (_SHARES * workers)))
    batches = [items[first : first + size] for first in range(0, len(items), size)]
    results = _on_cluster(function, batches, dask) if dask else _on_cores(function, batches, jobs)
    found: list[Result] = []
    try:
        with progress_bar(title, len(items), unit_scale=True) as bar:
            for batch in results:
                found += batch
                bar.update(len(batch))
    except TerminatedWorkerError as error:
        raise InputError(f"{_KILLED} with fewer --jobs") from error
    return found


def _one_by_one(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


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
