"""Laws of a Dask cluster: it makes the same cache as this machine's processes, compressed slices included."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torture import FOLDS, SIZES, compressed, large, require_same_cache, small

from models.common.errors import InputError
from models.preprocessing.parallel import progress_map
from models.preprocessing.preparation import PrepareOptions, prepare

distributed = pytest.importorskip("distributed")


@contextmanager
def cluster(workers: int, threads: int) -> Iterator[str]:
    """The address of a scheduler on this machine, and processes that work for it."""
    options = {"threads_per_worker": threads, "dashboard_address": None, "memory_limit": 0}
    with distributed.LocalCluster(n_workers=workers, **options) as local:
        yield local.scheduler_address


def require_same_by_dask(data: Path, folder: Path, workers: int, threads: int) -> None:
    """Fail unless a cluster makes the cache that this process makes."""
    here = PrepareOptions(data=data, work=folder / "here", image_size=SIZES, folds=FOLDS, jobs=1)
    prepare(here)
    with cluster(workers, threads) as address:
        prepare(PrepareOptions(data=data, work=folder / "there", image_size=SIZES, folds=FOLDS, dask=address))
    require_same_cache(folder / "there", folder / "here")


def test_a_cluster_makes_the_same_cache_of_compressed_slices_too(tmp_path_factory, tmp_path):
    require_same_by_dask(compressed(small(tmp_path_factory), tmp_path / "data"), tmp_path, workers=2, threads=1)


@pytest.mark.torture
@pytest.mark.parametrize(("workers", "threads"), [(2, 1), (1, 4)])
def test_threads_of_a_worker_do_not_mix_up_slices(workers, threads, tmp_path_factory, tmp_path):
    require_same_by_dask(compressed(large(tmp_path_factory), tmp_path / "data"), tmp_path, workers, threads)


@pytest.mark.torture
def test_a_scheduler_that_does_not_answer_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}"):
            progress_map(str, [1], 1, "", address)


@pytest.mark.torture
def test_workers_that_die_are_an_error_of_one_line():
    with cluster(1, 1) as address, pytest.raises(InputError, match="killed") as caught:
        progress_map(os._exit, [3], 1, "", address)
    assert "\n" not in str(caught.value)
