"""Laws of a busy machine: a slice is not lost because this or another process was slow, or a decoder was killed."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torture import SIZES, compressed, large, require_same_cache, run_prepare, small

from models.preprocessing import decoding
from models.preprocessing.dicom import read_slices


@pytest.fixture
def slow_start(tmp_path, monkeypatch):
    """The decoder's process takes five seconds more to start, as it may from a network's disk."""
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 5\nexec "{sys.executable}" "$@"\n')
    slow.chmod(0o755)
    forget_decoder()
    monkeypatch.setattr(sys, "executable", str(slow))
    yield
    forget_decoder()


def forget_decoder() -> None:
    """Let the next compressed file start a decoder."""
    decoding._decoder().stop()


@pytest.fixture
def pair(tmp_path_factory, tmp_path) -> tuple[Path, Path]:
    """A slice, and the same one compressed."""
    data = small(tmp_path_factory)
    first = sorted((data / "stage_2_train").iterdir())[0]
    return first, compressed(data, tmp_path / "data") / "stage_2_train" / first.name


def test_a_decoder_that_starts_slowly_loses_no_slice(pair, slow_start):
    plain, packed = pair
    assert np.array_equal(read_slices(packed), read_slices(plain))


def test_a_decoder_that_was_killed_between_two_files_loses_no_slice(pair):
    plain, packed = pair
    process = decoding._decoder().process
    process.kill()
    process.wait()
    assert np.array_equal(read_slices(packed), read_slices(plain))


def test_threads_of_one_process_do_not_mix_up_slices(tmp_path_factory, tmp_path):
    files = sorted((compressed(small(tmp_path_factory), tmp_path / "data") / "stage_2_train").iterdir())
    with ThreadPoolExecutor(2) as threads:  # as a Dask worker reads
        found = list(threads.map(read_slices, files))
    for path, slices in zip(files, found, strict=True):
        np.testing.assert_array_equal(slices, read_slices(path))


@pytest.mark.torture
def test_many_more_processes_than_cores_lose_no_slice(tmp_path_factory, tmp_path):
    data = compressed(large(tmp_path_factory), tmp_path / "data")
    for jobs in (1, 8 * os.cpu_count()):
        done = run_prepare(data, tmp_path / f"work{jobs}", "--image-size", SIZES[0], "--jobs", jobs)
        assert done.returncode == 0, done.stderr
    require_same_cache(tmp_path / f"work{jobs}", tmp_path / "work1")
