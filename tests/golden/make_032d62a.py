"""Made 032d62a.tar.xz: a phantom, its cache, two trained runs and a smoothed one, by the code of commit 032d62a.

    git worktree add ../old 032d62a
    PYTHONPATH=../old OMP_NUM_THREADS=1 python tests/golden/make_032d62a.py FOLDER 032d62a.tar.xz

The imports below are those of that commit. So that the archive stays small, there are three slices a study, and of the
weights of `small` only the largest are kept, the others are set to 0 before anything is predicted.
"""

import shutil
import sys
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pydicom
import torch
from models.config import Machine, TrainOptions
from models.preprocessing.phantom.dicom import write_phantom

from models import train_sequence, train_small
from models.inference.predict import InferOptions, infer
from models.prepare import PrepareOptions, prepare
from models.preprocessing import report
from models.smooth import SmoothOptions, smooth_run
from models.training import run

EVERY = 8  # of how many slices one is kept
SHARE = 0.98  # of the weights of a layer that are set to 0


def main(root: Path, archive: Path) -> None:
    torch.set_num_threads(1)
    report.contact_sheet = partial(report.contact_sheet, tile=16)
    run.fit = partial(sparse_fit, run.fit)
    write_phantom(root / "data", studies=4, test_studies=1, image_size=32, seed=3, jobs=1)
    thin_out(root / "data")
    prepare(PrepareOptions(data=root / "data", work=root, image_size=(32,), folds=2, jobs=1))
    machine = Machine(work=root, device="cpu")
    small = replace(train_small.CONFIG, image_size=32, epochs=2, batch_size=4)
    run.train(TrainOptions(small, machine=machine))
    infer(InferOptions("small", machine=machine))
    smooth_run(SmoothOptions("small", work=root))
    sequence = replace(train_sequence.CONFIG, runs=("small",), views="flip", epochs=1, batch_size=1, hidden=4, layers=1)
    run.train(TrainOptions(sequence, machine=machine))
    infer(InferOptions("sequence", machine=machine))
    pack(root, archive)


def thin_out(data: Path) -> None:
    kept = set()
    for split in ("train", "test"):
        series = {}
        for path in (data / f"stage_2_{split}").glob("*.dcm"):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            series.setdefault(header.SeriesInstanceUID, []).append((float(header.ImagePositionPatient[2]), path))
        for files in series.values():
            for number, (_, path) in enumerate(sorted(files)):
                if number % EVERY == 3:
                    kept.add(path.stem)
                else:
                    path.unlink()
    for csv in data.glob("*.csv"):
        table = pd.read_csv(csv)
        table[table["ID"].str.rsplit("_", n=1).str[0].isin(kept)].to_csv(csv, index=False)
    (data / "contact_sheet.png").unlink()


def sparse_fit(fit, network, *arguments, **keywords):
    """What is trained, but for all small weights of a large network."""
    history = fit(network, *arguments, **keywords)
    parameters = list(network.parameters())
    if sum(parameter.numel() for parameter in parameters) > 20_000:
        with torch.no_grad():
            for parameter in parameters:
                if parameter.ndim > 1:
                    norm, rank = parameter.norm(), max(1, int(parameter.numel() * SHARE))
                    parameter[parameter.abs() < parameter.abs().flatten().kthvalue(rank)[0]] = 0
                    parameter.mul_(1.7 * norm / parameter.norm())  # so that slices still differ in what comes out
                parameter.copy_(parameter.half().float())
    return history


def pack(root: Path, archive: Path) -> None:
    shutil.rmtree(root / "cache/embeddings")
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in sorted(root.rglob("*")):
            is_left_out = path.name == "history.png" or "tensorboard" in path.parts or path.name.startswith(".")
            if path.is_file() and not is_left_out:
                tar.add(path, path.relative_to(root))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
