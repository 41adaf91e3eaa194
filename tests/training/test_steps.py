"""Laws of a training step: parts add up, memory that runs out is met, and what fails is named and loses nothing."""

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from fits import ALONE, SMALL, fit_once, learner_of, seeded_network, weights_of

from models.common.errors import InputError
from models.common.folders import Work
from models.common.options import Machine, TrainOptions
from models.preprocessing.tables import split_fold
from models.train_sequence import CONFIG as SEQUENCE
from models.train_small import CONFIG
from models.training.checkpoint_files import Checkpoint, read_checkpoint, write_checkpoint
from models.training.dividing import as_divided
from models.training.evaluation import predict
from models.training.groups import parameter_groups
from models.training.loading import explained, make_loader
from models.training.networks import build_network
from models.training.recurrent import build_sequence_network
from models.training.run import train


@pytest.mark.parametrize("parts", [2, 5, 12])
def test_parts_of_a_batch_add_up_to_the_whole(few, parts):
    whole, one = fit_once(few, SMALL)
    in_parts, other = fit_once(few, replace(SMALL, accumulate=parts))
    torch.testing.assert_close(in_parts, whole, rtol=1e-3, atol=1e-5)
    assert list(other.recorder.values[0]) == pytest.approx(list(one.recorder.values[0]), rel=1e-4)
    assert other.train_iter == one.train_iter == 4


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[-20:])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(few, capsys, error):
    halved, learner = fit_once(few, SMALL, capacity=3, error=error)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("out of memory")]
    assert lines == [
        f"out of memory: from here on a batch of 12 goes through the network {size} at a time" for size in (6, 3)
    ]
    assert learner.parts == 4
    assert torch.equal(halved, fit_once(few, replace(SMALL, accumulate=4))[0])


def test_another_error_of_a_network_is_none_of_memory(few):
    with pytest.raises(RuntimeError, match="sizes do not match"):
        fit_once(few, SMALL, capacity=3, error=RuntimeError("sizes do not match"))


def test_a_slice_that_does_not_fit_is_an_error(few):
    with pytest.raises(InputError, match="out of memory with one slice or study at a time"):
        fit_once(few, SMALL, capacity=0)


def test_a_batch_that_does_not_fit_in_a_validation_or_a_prediction_is_divided(few, capsys):
    learners = [learner_of(few, SMALL, seeded_network()) for _ in range(2)]
    learners[0].model.backbone.valid_capacity = 3
    for learner in learners:
        learner.fit_one_cycle(1, 1e-3)
    small, large = learners
    assert (small.valid_parts, small.parts, large.valid_parts) == (4, 1, 1)
    assert list(small.recorder.values[0]) == pytest.approx(list(large.recorder.values[0]))
    capsys.readouterr()
    said, expected = (predict(of.model, of.dls.valid, ALONE, "fp32", "") for of in learners)
    assert said == pytest.approx(expected, abs=1e-6)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("out of memory")]
    assert lines == [
        f"out of memory with 12 slices: from here on such a batch is predicted in {parts} parts" for parts in (2, 4)
    ]


def test_studies_are_never_divided():
    places = torch.tensor([[0.0, z, 0] for z in range(4)] + [[1.0, z, 0] for z in range(3)])
    asked = []

    def ask(images: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        asked.append(place[:, 0].tolist())
        if len(images) > 4:
            raise OUT_OF_MEMORY[0]
        return images

    images = torch.arange(7.0)
    result, parts = as_divided(ask, (images, places), 1)
    assert torch.equal(result, images)
    assert parts == 2
    assert asked[1:] == [[0.0] * 4, [1.0] * 3]
    with pytest.raises(InputError, match="out of memory with one slice or study at a time"):
        as_divided(ask, (torch.arange(5.0), torch.tensor([[0.0, z, 0] for z in range(5)])), 1)
    with pytest.raises(RuntimeError, match="another error"):
        as_divided(mock.Mock(side_effect=RuntimeError("another error")), (images,), 1)


def test_norms_and_biases_are_decayed_only_where_the_configuration_says_so():
    network = build_network(SMALL)
    assert [len(group.parameters) for group in parameter_groups(SMALL, network)] == [len(list(network.parameters()))]
    groups = parameter_groups(replace(SMALL, decay_norms_and_biases=False), network)
    decayed, spared = (group.parameters for group in groups)
    assert len(decayed) + len(spared) == len(list(network.parameters()))
    assert {parameter.ndim for parameter in decayed} == {2, 4}
    assert {parameter.ndim for parameter in spared} == {1}


def test_biases_of_layers_over_studies_are_spared_as_well():
    for config in (replace(SEQUENCE, decay_norms_and_biases=False, cell=cell) for cell in ("gru", "transformer")):
        network = build_sequence_network(config, 8)
        spared = [p for group in parameter_groups(config, network) if not group.weight_decay for p in group.parameters]
        named = {name for name, p in network.named_parameters() if any(p is one for one in spared)}
        assert {name for name, _ in network.named_parameters() if "bias" in name} <= named
        assert all(p.ndim <= 1 for p in spared)


def test_both_groups_follow_the_schedule_and_one_of_them_decays(few):
    _, learner = fit_once(few, replace(SMALL, decay_norms_and_biases=False))
    decayed, spared = learner.opt.opt.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (SMALL.weight_decay, 0)
    assert decayed["lr"] == spared["lr"] < SMALL.max_lr


def test_clipping_bounds_the_step(few):
    free, _ = fit_once(few, SMALL)
    clipped, _ = fit_once(few, replace(SMALL, clip_gradient=1e-9, weight_decay=0.0))
    start = weights_of(seeded_network())
    assert (clipped - start).norm() < 0.5 * (free - start).norm()


# ---- failing well ----


class Deadly(torch.utils.data.Dataset):
    """Kills the process that reads row 20, as the system does when memory runs out."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, key):
        if key[1] == 20:
            time.sleep(0.2)  # what was noted before is seen by all
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3), torch.zeros(6)


def test_a_loader_that_dies_is_an_error_that_names_slice_and_memory():
    names = [f"ID_{row:03d}" for row in range(40)]
    loader = make_loader(Deadly(), 4, 2, image_ids=names)
    message = r"a loader process has died.*; it was reading slice ID_020; .* GiB of memory free, .* shared memory"
    with pytest.raises(InputError, match=message), explained(loader):
        list(loader)


def options_for(work: Work, **values) -> TrainOptions:
    machine = Machine(work=work.root, device="cpu")
    return TrainOptions(replace(SMALL, **values), fold=1, checkpoint_steps=2, machine=machine)


@pytest.fixture
def own(few, tmp_path) -> Work:
    """A working folder with a cache that a test may break."""
    shutil.copytree(few.cache, tmp_path / "cache")
    return Work(tmp_path)


def test_a_cache_that_vanishes_is_one_line_and_nothing_is_lost(own):
    """The series that is read last is gone: all steps before its batch are in the checkpoint, though none was due."""
    options = options_for(own, batch_size=2, seed=1)
    options = replace(options, checkpoint_steps=1000, machine=replace(options.machine, workers=1))
    slices, _ = split_fold(own, 1, skip_low_information=False)
    steps = len(slices) // 2
    rows = np.random.default_rng((options.config.seed, 0)).permutation(len(slices))
    steps_of: dict[str, int] = {}  # in which step each series is read first
    for place, row in enumerate(rows[: steps * 2]):
        steps_of.setdefault(slices["series_id"][row], place // 2)
    last = max(steps_of, key=steps_of.__getitem__)
    gone = own.series(64, last)
    gone.unlink()
    with pytest.raises(InputError, match=rf"^no {re.escape(str(gone))}; make it with: python models/prepare.py"):
        train(options)
    assert steps_of[last] > 0
    found = read_checkpoint(own.run("steps", 1), options.config)
    assert found.state["step"] == steps_of[last]


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(few):
    options = replace(options_for(few, name="not_finite", max_lr=1e8), checkpoint_steps=1)
    with pytest.raises(
        InputError, match=r"not finite in epoch 1, step \d+, the batch of slices (ID_\w+, ){11}ID_\w+; "
    ):
        train(options)
    found = read_checkpoint(few.run("not_finite", 1), options.config)
    assert all(torch.isfinite(tensor).all() for name, tensor in found.tensors.items() if name.endswith(".weight"))


@pytest.mark.parametrize("room", [0, 1000, 10_000])
def test_a_full_disk_is_one_line_and_the_checkpoints_before_stay(tmp_path, room):
    def write(value: float) -> None:
        write_checkpoint(tmp_path, CONFIG, Checkpoint({"weights": torch.full((5000,), value)}, {}))

    write(0.0)
    write(1.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.redirect_stdout(io.StringIO()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(
                InputError, match=r"^cannot write .*checkpoint_000003.safetensors: .*make room or mend it"
            ):
                write(2.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
