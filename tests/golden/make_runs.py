"""Make runs_<commit>.tar.xz: a cache, and trained runs of all kinds with their predictions, by the code of a commit.

    git worktree add ../old 032d62a
    PYTHONPATH=../old OMP_NUM_THREADS=1 python tests/golden/make_runs.py FOLDER tests/golden/runs_032d62a.tar.xz

Their slices are those of 032d62a.tar.xz. So that the archive stays small, of the weights of large layers only the
largest are kept, the others are set to 0 before anything is predicted.
"""

import importlib
import shutil
import sys
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models import train_b0_recurrent, train_sequence, train_small
from models.inference.predict import InferOptions, infer
from models.make_pseudolabels import PseudolabelOptions, make_pseudolabels
from models.prepare import PrepareOptions, prepare
from models.training.run import train

SLICES = Path(__file__).with_name("032d62a.tar.xz")
SHARE = 0.99  # of the weights of a layer that are set to 0
SMALL = replace(train_small.CONFIG, image_size=32, epochs=1, batch_size=4, precision="fp16")


def from_either(name: str, old: str, new: str) -> Any:
    """What stood in one module of `models` at commit 032d62a, and stands in another now."""
    try:
        return getattr(importlib.import_module(f"models.{old}"), name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(f"models.{new}"), name)


def configs() -> dict[str, Any]:
    """A run of each kind; each may build on those before it."""
    finetune, study = (from_either(name, "config", "common.config") for name in ("FinetuneConfig", "StudyConfig"))
    of_study = {name: getattr(train_b0_recurrent.CONFIG, name) for name in ("dropout", "reverse", "shortest")}
    layers = {"hidden": 4, "layers": 1, "cell": "gru"}
    shared = {name: value for name, value in vars(SMALL).items() if name != "start"}
    return {
        "small": SMALL,
        "finetuned": finetune(**shared | {"name": "finetuned", "start": "small", "pseudolabels": "pseudo"}),
        "recurrent": study(
            **shared
            | of_study
            | layers
            | {"name": "recurrent", "study_slices": 3, "slices_at_once": 3, "batch_size": 2}
        ),
        "sequence": replace(
            train_sequence.CONFIG, runs=("small",), views="flip", epochs=1, batch_size=1, precision="fp16", **layers
        ),
    }


def main(root: Path, archive: Path) -> None:
    torch.set_num_threads(1)
    with tarfile.open(SLICES) as slices:
        slices.extractall(root, [one for one in slices if one.name.startswith("data/")], filter="data")
    machine_of, options = (from_either(name, "config", "common.options") for name in ("Machine", "TrainOptions"))
    prepare(PrepareOptions(data=root / "data", work=root, image_size=(32,), folds=2, jobs=1))
    running = importlib.import_module("models.training.run")
    if not hasattr(running, "fit"):
        running = importlib.import_module("models.training.fold")
    running.fit = partial(sparse_fit, running.fit)
    machine = machine_of(work=root, device="cpu")
    for name, config in configs().items():
        train(options(config, machine=machine))
        infer(InferOptions(name, machine=machine))
        if name == "small":
            make_pseudolabels(PseudolabelOptions(("small",), work=root))
    pack(root, archive)


def sparse_fit(fit, network, *arguments, **keywords):
    """What is trained, but for all small weights of large layers."""
    history = fit(network, *arguments, **keywords)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1000:
                norm, rank = parameter.norm(), int(parameter.numel() * SHARE)
                parameter[parameter.abs() < parameter.abs().flatten().kthvalue(rank)[0]] = 0
                parameter.mul_(1.7 * norm / parameter.norm())  # so that slices still differ in what comes out
            parameter.copy_(parameter.half().float())
    return history


def pack(root: Path, archive: Path) -> None:
    shutil.rmtree(root / "data")
    left_out = {"embeddings", "manifest", "tensorboard", "history.png", "contact_sheet.png", "pseudonyms.key"}
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in sorted(root.rglob("*")):
            inner = path.relative_to(root)
            if path.is_file() and not left_out & set(inner.parts) and not path.name.startswith("."):
                tar.add(path, inner)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
