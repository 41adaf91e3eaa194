"""Laws of a step's cost: the CPU does not wait for the device, and does little itself.

On a GPU, whoever asks for the value of a tensor waits for all that has been launched before. Here those who ask are
counted: `item`, `cpu`, `tolist` and `bool` of a tensor are how Python asks.
"""

from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler
from fits import SMALL, learner_of, seeded_network

import radam
from models.preprocessing.tables import split_fold
from models.train_b0_recurrent import CONFIG as RECURRENT
from models.training import precision
from models.training.dataset import StudyDataset
from models.training.learner import make_learner, one_cycle
from models.training.loading import make_loader
from models.training.processes import Processes
from models.training.recurrent import build_study_network
from models.training.steps import LOOK, StepLearner
from models.training.studies import split_studies

CPU = torch.device("cpu")


@pytest.fixture
def waits(monkeypatch) -> list[str]:
    """Who has asked a tensor for its value."""
    asked = []
    for name in ("item", "cpu", "tolist", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def noted(self, *words, original=original, name=name, **more):
            asked.append(name)
            return original(self, *words, **more)

        monkeypatch.setattr(torch.Tensor, name, noted)
    return asked


def waits_by_step(learner: StepLearner, waits: list[str], epochs: int) -> list[list[str]]:
    """What has been asked in each step, from its batch to its end."""
    steps = []
    first = Callback(before_batch=lambda _: waits.clear())
    last = Callback(after_batch=lambda own: steps.append(list(waits)) if own.training else None)
    first.order, last.order = -100, 1000
    learner.add_cbs([first, last])
    learner.fit(epochs, cbs=[ParamScheduler(one_cycle(learner))])
    return steps


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(("name", "optimizer"), [("fp32", "radam"), ("bf16", "adam"), ("fp16", "radam")])
def test_in_a_plain_step_nothing_is_waited_for(few, waits, monkeypatch, name, optimizer, clip):
    monkeypatch.setattr(precision, "MIXED", ("cpu",))
    monkeypatch.setattr(radam, "WATCHED", 3)
    config = replace(SMALL, precision=name, optimizer=optimizer, batch_size=2, accumulate=2, clip_gradient=clip)
    learner = learner_of(few, config, seeded_network())
    if name == "fp16":
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    steps = waits_by_step(learner, waits, epochs=2)
    assert len(steps) == 48
    looks = [number for number, asked in enumerate(steps) if number % 24 == 23 or (number % 24 + 1) % LOOK == 0]
    overflow = {*range(3), *range(22, 48, LOOK)} if name == "fp16" else set()  # RAdam's own looks
    torchs_adam = name != "fp32" and optimizer == "adam"  # not fused on a CPU: it reads its steps, which are there
    for number, asked in enumerate(steps):
        if number not in looks and number not in overflow and not torchs_adam:
            assert asked == [], f"step {number}"
    assert all(steps[number] for number in looks)


JOINT = {"cell": "transformer", "slice_weight": 1.0, "study_weight": 0.5, "logits_dropout": 0.2, "spacing": 4.0}


@pytest.mark.parametrize("changes", [{}, JOINT], ids=["plain", "joint"])
def test_a_network_of_studies_waits_for_nothing_but_its_looks(few, waits, changes):
    small = {"network": "small", "image_size": 64, "pretrained": False, "batch_size": 1, "study_slices": 4}
    config = replace(RECURRENT, **small, **changes)
    slices, _ = split_fold(few, 0, skip_low_information=False)
    loader = make_loader(StudyDataset(slices, few, config, "none"), 1, 0, shuffle_seed=0)
    learner = make_learner(build_study_network(config), loader, loader, config, Processes(CPU), [])
    steps = waits_by_step(learner, waits, epochs=1)
    assert len(steps) > 2
    for asked in steps[:-1]:
        assert set(asked) <= {"__int__"}  # of a packed sequence's batch sizes, which are never on the device


def test_the_lengths_of_studies_are_never_asked_of_the_device():
    with pytest.raises((TypeError, RuntimeError)):
        split_studies(torch.zeros((3, 3), device="meta"))
