"""Laws that only a GPU can show: make gpu runs these beside its measurements, make test leaves them out.

They bring their own data and need no other file of the tests, whose packages a machine with a GPU may lack. With
GPU_TESTS_DEVICE=cpu they are rehearsed: what a CPU cannot do is skipped.
"""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import defaults
from torch import nn

from models import train_b0_recurrent, train_sequence, train_small
from models.common.config import RunConfig
from models.common.folders import Work
from models.common.labels import LABELS
from models.common.options import InferOptions, Machine, TrainOptions
from models.common.prediction_files import read_predictions
from models.inference.predict import infer
from models.phantom.dicom import write_phantom
from models.preprocessing.preparation import PrepareOptions, prepare
from models.training.d4 import mean_probability
from models.training.networks import ARCHITECTURES, Architecture, build_network
from models.training.run import train
from models.training.symmetries import D4

REPOSITORY = Path(__file__).parent.parent.parent
ON = os.environ.get("GPU_TESTS_DEVICE", "cuda:0")
IS_CUDA = ON.startswith("cuda")
PATIENCE = 120  # seconds

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        IS_CUDA and not torch.cuda.is_available(), reason="no CUDA device; make gpu is for a machine with one"
    ),
]
cuda_only = pytest.mark.skipif(not IS_CUDA, reason="a CPU cannot show this")

# Of losses, relative. In bf16 they were 0.001 beside those in fp32 on a CPU, with another seed 0.06.
ROUNDING, OTHER_DRAWS = 0.02, 0.15
CONFIG = replace(train_small.CONFIG, precision="fp32", epochs=2, max_lr=1e-3, augment="none")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    """A cache of sixteen studies, in two folds."""
    folder = tmp_path_factory.mktemp("gpu")
    write_phantom(folder / "data", studies=16, test_studies=2, image_size=64, seed=0, jobs=1)
    prepare(PrepareOptions(data=folder / "data", work=folder, image_size=(64,), folds=2, jobs=1))
    return Work(folder)


def options_for(work: Work, config: RunConfig, device: str = ON, **words) -> TrainOptions:
    return TrainOptions(config, tta="none", machine=Machine(work=work.root, device=device, workers=2), **words)


def trained(work: Work, name: str, device: str = ON, base: RunConfig = CONFIG, **fields) -> pd.DataFrame:
    """The history of a run of that name, which is trained now."""
    options = options_for(work, replace(base, name=name, **fields), device)
    train(options)
    return pd.read_csv(options.folder / "history.csv")


def assert_follows(history: pd.DataFrame, other: pd.DataFrame, tolerance: float) -> None:
    assert len(history) == len(other)
    for column in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(history[column], other[column], rtol=tolerance, err_msg=column)


@pytest.fixture(scope="module")
def full(work) -> pd.DataFrame:
    """The history of an undisturbed run in fp32."""
    return trained(work, "full")


def without_dropout(size: int) -> nn.Module:
    """The small network; what a card draws for a dropout depends on types and kernels."""
    network = ARCHITECTURES["small"].build(size)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


@pytest.fixture(scope="module")
def plain(work) -> Iterator[pd.DataFrame]:
    """The same of the network without dropout, which has the name "plain" in these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "plain", Architecture(without_dropout, None))
        yield trained(work, "plain", network="plain")


@pytest.fixture
def seen(monkeypatch) -> list[tuple[torch.device, torch.dtype]]:
    """Where the first convolution of each network "noted" computes, and in which type."""
    outputs: list[tuple[torch.device, torch.dtype]] = []

    def noted(size: int) -> nn.Module:
        network = without_dropout(size)
        convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        convolution.register_forward_hook(lambda _, __, result: outputs.append((result.device, result.dtype)))
        return network

    monkeypatch.setitem(ARCHITECTURES, "noted", Architecture(noted, None))
    return outputs


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)], ids=["fp16", "bf16"]
)
def test_losses_in_half_precision_follow_those_in_full(work, plain, seen, precision, dtype):
    half = trained(work, precision, precision=precision, network="noted")
    assert_follows(half, plain, ROUNDING)
    assert {found for _, found in seen} == {dtype if IS_CUDA else torch.float32}


@pytest.mark.parametrize("device", dict.fromkeys([ON, ON.partition(":")[0], "cpu"]))
def test_a_run_computes_where_it_is_told_to(work, seen, device):
    trained(work, f"on_{device.replace(':', '_')}", device, network="noted", epochs=1)
    asked = torch.device(device)
    where = torch.device("cuda", asked.index or 0) if asked.type == "cuda" else asked
    assert {found for found, _ in seen} == {where}


@cuda_only
def test_a_step_waits_for_nothing(work, monkeypatch):
    """Losses are looked at every twenty steps: of twelve, one at most."""

    class Watched(Callback):
        def before_batch(self) -> None:
            if self.training and self.iter == 2:
                torch.cuda.set_sync_debug_mode("warn")

        def after_batch(self) -> None:
            if self.training and self.iter == 13:
                torch.cuda.set_sync_debug_mode("default")

        def after_train(self) -> None:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(defaults, "callbacks", [*defaults.callbacks, Watched])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(work, "watched", epochs=1, batch_size=8, precision="bf16")
    waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    assert len(waits) <= 1, "\n".join(f"{one.filename}:{one.lineno} {one.message}" for one in waits)


# ---- kill and go on ----

DEVICES = dict.fromkeys([(ON, ON), ("cpu", ON), (ON, "cpu")])


@pytest.fixture(scope="module")
def killed(work) -> dict[tuple[str, str], RunConfig]:
    """Runs that were killed after their first checkpoint, each begun on the first device; all at the same time."""
    configs = {pair: replace(CONFIG, name="_".join(("killed", *pair)).replace(":", "_")) for pair in DEVICES}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    processes = {}
    for pair, config in configs.items():
        flags = ["--work", work.root, "--device", pair[0], "--name", config.name, "--epochs", CONFIG.epochs]
        flags += ["--max-lr", CONFIG.max_lr, "--augment", CONFIG.augment, "--precision", CONFIG.precision]
        script = [sys.executable, REPOSITORY / "models/train_small.py", *flags, "--checkpoint-steps", 3, "--workers", 1]
        processes[pair] = subprocess.Popen([*map(str, script)], env=environment, start_new_session=True)
    waiting, end = dict(processes), time.monotonic() + PATIENCE
    while waiting and time.monotonic() < end:
        for pair, process in list(waiting.items()):
            if any(work.run(configs[pair].name, 0).glob("checkpoint_*.json")) or process.poll() is not None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                del waiting[pair]
        time.sleep(0.002)
    for process in waiting.values():
        os.killpg(process.pid, signal.SIGKILL)
    assert not waiting
    return configs


@pytest.mark.parametrize("pair", DEVICES, ids="-then-".join)
def test_a_run_that_is_killed_goes_on_to_the_same_end_on_any_device(work, full, killed, pair, capsys):
    history = trained(work, killed[pair].name, pair[1])
    assert "going on in epoch" in capsys.readouterr().out
    # Between kinds of devices the dropout draws other numbers.
    assert_follows(history, full, ROUNDING if pair[0] == pair[1] else OTHER_DRAWS)


# ---- memory, compilation ----


@cuda_only
def test_a_batch_that_is_too_large_for_the_card_is_halved(work, capsys):
    """The card is made as small as half of what the whole batch takes."""
    large = {"network": "efficientnet-b0", "batch_size": 128, "epochs": 1}
    _free()
    torch.cuda.reset_peak_memory_stats(ON)
    trained(work, "fits", **large)
    peak, total = torch.cuda.max_memory_reserved(ON), torch.cuda.get_device_properties(ON).total_memory
    _free()
    capsys.readouterr()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(ON) + 0.5 * peak) / total, ON)
    try:
        history = trained(work, "too_large", **large)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, ON)
        _free()
    assert "out of memory: from here on a batch of 128 goes through the network" in capsys.readouterr().out
    assert np.isfinite(history["valid_loss"]).all()


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


@cuda_only  # a CPU's compiler takes minutes
@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="torch.compile needs a C compiler")
def test_a_compiled_run_follows_the_other(work, plain):
    config = replace(CONFIG, name="compiled", network="plain")
    options = options_for(work, config, compile=True)
    train(options)
    assert_follows(pd.read_csv(options.folder / "history.csv"), plain, ROUNDING)


# ---- what is built on it ----


def test_d4_predictions_are_those_of_the_cpu(work, full):
    """Up to TF32."""
    probabilities = {}
    for device in (ON, "cpu"):
        infer(InferOptions("full", machine=Machine(work=work.root, device=device, workers=0)))
        file = work.prediction("full", 0, "test")
        probabilities[device] = read_predictions(file, "")
        file.unlink()
    assert list(probabilities[ON].columns) == list(LABELS)
    np.testing.assert_allclose(probabilities[ON], probabilities["cpu"], atol=0.01)


@torch.inference_mode()
def test_the_mean_over_d4_does_not_depend_on_how_a_slice_lies():
    torch.manual_seed(0)
    network = build_network(CONFIG).to(ON, memory_format=torch.channels_last).eval()
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8).to(ON, memory_format=torch.channels_last)
    upright = mean_probability(network, images, group=D4)
    for symmetry in D4:
        turned = mean_probability(network, symmetry.apply(images), group=D4)
        torch.testing.assert_close(turned, upright, rtol=0, atol=2e-3)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_network_of_whole_studies_trains_and_predicts(work, precision):
    name = f"recurrent_{precision}"
    small = {"image_size": 64, "batch_size": 2, "study_slices": 12, "slices_at_once": 8, "epochs": 1}
    history = trained(work, name, base=train_b0_recurrent.CONFIG, precision=precision, pretrained=False, **small)
    assert np.isfinite(history["valid_loss"]).all()
    infer(InferOptions(name, tta="flip", batch_size=2, machine=Machine(work=work.root, device=ON, workers=0)))
    assert np.isfinite(read_predictions(work.prediction(name, 0, "test"), "")).all(axis=None)


def test_recurrent_layers_train_on_embeddings(work, full):
    base = replace(train_sequence.CONFIG, runs=("full",), views="flip")
    history = trained(work, "sequence", base=base, epochs=2, batch_size=2)
    results = json.loads((work.run("sequence", 0) / "config.json").read_text())["results"]
    assert results["weighted_log_loss"] == pytest.approx(history["valid_loss"].min(), rel=1e-3)
