"""Laws of the device: it is the one that was asked for, whatever fastai and torch would choose."""

from dataclasses import replace

import fastai.callback.core
import fastai.learner
import fastai.torch_core
import pytest
import torch
from fits import SMALL, learner_of, seeded_network

from models.common.errors import InputError
from models.common.options import InferOptions, Machine, TrainOptions
from models.inference.predict import infer
from models.train_small import CONFIG
from models.training.device import choose_device, use_device
from models.training.run import train


@pytest.fixture
def other_default(monkeypatch) -> None:
    """As on a machine whose default device is another one than was asked for: what goes there cannot be used."""
    for module in (fastai.learner, fastai.callback.core, fastai.torch_core):
        monkeypatch.setattr(module, "default_device", lambda *_: torch.device("meta"))


def test_a_run_is_trained_and_predicts_on_the_device_that_was_asked_for(few, other_default):
    options = TrainOptions(
        replace(CONFIG, name="device", epochs=1), fold=1, machine=Machine(work=few.root, device="cpu")
    )
    train(options)
    infer(InferOptions("device", fold=1, tta="none", machine=options.machine))
    assert (options.folder / "test.parquet").is_file()


def test_the_finder_and_the_profile_are_there_too(few, other_default):
    machine = Machine(work=few.root, device="cpu")
    for flag in ({"find_lr": True}, {"profile": True}):
        train(TrainOptions(replace(CONFIG, name="device_tried", batch_size=8), fold=1, machine=machine, **flag))


def test_batches_and_network_stay_where_the_learner_has_them(few, other_default):
    learner = learner_of(few, SMALL, seeded_network())
    seen = set()
    learner.model.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].device.type))
    learner.fit_one_cycle(1, 1e-3)
    assert seen == {next(learner.model.parameters()).device.type} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "--device gpu is no device; take auto, cpu, cuda, cuda:1 or mps"),
        ("cuda:x", "--device cuda:x is no device"),
        ("meta", "--device meta is not one that this project knows"),
        ("cuda:3", r"--device cuda:3 is not there, torch \S+ sees 2 CUDA devices; take auto, cpu, cuda, cuda:1 or mps"),
        ("mps", "--device mps is not there; take auto, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(few, monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        train(TrainOptions(replace(CONFIG, name="nowhere"), machine=Machine(work=few.root, device=name)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_card_is_one_line(few):
    with pytest.raises(InputError, match=r"--device cuda is not there, torch .* sees 0 CUDA devices; take auto"):
        train(TrainOptions(replace(CONFIG, name="nowhere"), machine=Machine(work=few.root, device="cuda")))


def test_auto_is_cuda_then_apples_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    chosen, exact = [], []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", exact.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert use_device(choose_device("auto")) == torch.device("cuda", 0)
    assert (chosen, exact) == ([torch.device("cuda", 0)], ["high"])
    assert torch.backends.cudnn.benchmark
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
