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
from models.training.device import choose_device, require_kernels, use_device
from models.training.run import train

pytestmark = pytest.mark.usefixtures("tiny")


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


T4, P100, H200 = (7, 5), (6, 0), (9, 0)
TODAYS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        (T4, TODAYS),
        (H200, ["sm_80", "sm_90a"]),
        ((8, 9), TODAYS),  # by the kernels of 8.6
        ((13, 0), TODAYS),  # by PTX
        (P100, ["compute_50"]),
        (P100, []),  # another maker's torch
        (P100, ["gfx90a"]),
    ],
)
def test_a_card_that_torch_has_kernels_for_is_used(capability, built, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    require_kernels(torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("capability", "built"), [(P100, TODAYS), ((8, 0), ["sm_86"]), ((13, 0), TODAYS[:-1]), (P100, ["sm_75"])]
)
def test_a_card_that_torch_has_no_kernels_for_is_one_true_line_before_any_work(capability, built, monkeypatch, few):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100-PCIE-16GB")
    told = (
        rf"^Tesla P100-PCIE-16GB has compute capability {capability[0]}\.{capability[1]}, and torch \S+ was built for "
    )
    with pytest.raises(
        InputError, match=told + r"[\d.]+ to [\d.]+: it cannot compute there; take another card .*T4 x2"
    ):
        train(TrainOptions(replace(CONFIG, name="nowhere"), machine=Machine(work=few.root)))


def test_auto_is_cuda_then_apples_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: [])
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
