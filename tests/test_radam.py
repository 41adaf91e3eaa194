"""The laws of radam.py, with torch.optim.RAdam as the oracle."""

import copy
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import radam
from radam import RAdam, rectification

SHAPES = {
    "scalar": (),
    "bias": (6,),
    "linear": (6, 1408),
    "depthwise": (32, 1, 3, 3),
    "pointwise": (96, 16, 1, 1),
    "empty": (0, 3),
}
ALL_SHAPES = tuple(SHAPES.values())
TorchRAdam = partial(torch.optim.RAdam, decoupled_weight_decay=True)


def parameters(shapes=ALL_SHAPES, dtype=torch.float32, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def set_gradients(tensors: list[torch.Tensor], seed: int) -> None:
    """Gradients over four orders of magnitude, the same for whoever asks with the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in tensors:
        size = 10 ** (-4 * torch.rand(tensor.shape, generator=generator))
        tensor.grad = torch.empty_like(tensor)
        tensor.grad.copy_(torch.randn(tensor.shape, generator=generator) * size)


def take_steps(optimizer, steps: range) -> None:
    for step in steps:
        set_gradients([tensor for group in optimizer.param_groups for tensor in group["params"]], seed=step)
        optimizer.step()


def assert_follows(ours, theirs, tolerance=1e-6) -> None:
    """Within the tolerance, relative to the largest entry of each tensor."""
    for own, oracle in zip(ours, theirs, strict=True):
        largest = oracle.abs().max().item() if oracle.numel() else 0.0
        torch.testing.assert_close(own, oracle, rtol=0, atol=tolerance * largest)


def assert_same_bits(ours, theirs) -> None:
    for own, oracle in zip(ours, theirs, strict=True):
        assert torch.equal(own, oracle)


def moments(optimizer) -> list[torch.Tensor]:
    """Steps, first and second moments of all parameters."""
    return [torch.as_tensor(value) for state in optimizer.state.values() for _, value in sorted(state.items())]


# The rectification


@pytest.mark.parametrize("beta2", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("step", [1, 5, 6, 7, 100, 10_000])
def test_rectification_is_the_ratio_of_the_papers_variances(step, beta2):
    """r^2 = Var(rho_inf) / Var(rho_t), with Var(rho) = rho / (2 (rho - 2) (rho - 4)) to first order."""
    weights = [beta2 ** (step - i) for i in range(1, step + 1)]
    mean_age = sum(weight * (step - i) for i, weight in enumerate(weights, start=1)) / sum(weights)
    length = 2 * mean_age + 1  # a simple average over `length` gradients has the same centre of mass
    longest = 2 * beta2 / (1 - beta2) + 1

    def variance(rho):
        return rho / (2 * (rho - 2) * (rho - 4))

    expected = math.sqrt(variance(longest) / variance(length)) if length > 5 else None
    assert rectification(step, beta2) == (expected and pytest.approx(expected, rel=1e-7))


def test_rectification_begins_at_the_sixth_step_of_the_usual_beta2():
    assert [rectification(step, 0.999) for step in range(1, 6)] == [None] * 5
    assert rectification(6, 0.999) == pytest.approx(0.0258211, rel=1e-5)


def test_rectification_grows_to_one():
    factors = [rectification(step, 0.99) for step in range(6, 3000)]
    assert all(0 < small < large <= 1 for small, large in pairwise(factors[:400]))
    assert factors[-1] == pytest.approx(1)


def test_rectification_never_begins_where_the_memory_is_short():
    assert all(rectification(step, beta2) is None for beta2 in (0.0, 0.5, 0.66) for step in range(1, 500))


# The steps


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2], ids=["no-decay", "decoupled"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("foreach", [False, True], ids=["single", "foreach"])
def test_radam_follows_torch(shape, weight_decay, foreach):
    ours, theirs = parameters([shape]), parameters([shape])
    own = RAdam(ours, lr=1e-3, weight_decay=weight_decay)
    oracle = TorchRAdam(theirs, lr=1e-3, weight_decay=weight_decay, foreach=foreach)
    for first in range(0, 200, 10):
        take_steps(own, range(first, first + 10))
        take_steps(oracle, range(first, first + 10))
        assert_follows(ours, theirs)
    assert_follows(moments(own), moments(oracle))


@pytest.mark.parametrize(
    "options",
    [
        {"betas": (0.95, 0.99), "eps": 1e-3, "weight_decay": 0.1},
        {"betas": (0.9, 0.5)},  # never rectified
        {"betas": (0.0, 0.999), "lr": 0.1},
        {"lr": 0.0, "weight_decay": 1.0},
    ],
    ids=str,
)
def test_radam_follows_torch_in_double_to_the_last_digits(options):
    ours, theirs = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    take_steps(RAdam(ours, **options), range(200))
    take_steps(TorchRAdam(theirs, **options), range(200))
    assert_follows(ours, theirs, tolerance=1e-13)


def test_radam_learns_as_torch_does():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    target = x @ torch.linspace(-1, 1, 8)
    solutions = []
    for make in (RAdam, TorchRAdam):
        weight = torch.zeros(8, requires_grad=True)
        optimizer = make([weight], lr=0.05, weight_decay=1e-3)

        def closure(weight=weight, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (x @ weight - target).square().mean()
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(300)]
        assert losses[-1] < 1e-4 < losses[0]
        solutions.append(weight.detach())
    assert_follows(solutions[:1], solutions[1:], tolerance=1e-5)  # a loop through the gradient amplifies rounding


def test_a_schedule_of_rate_and_momentum_is_followed():
    ours, theirs = parameters(), parameters()
    for tensors, make in ((ours, RAdam), (theirs, TorchRAdam)):
        optimizer = make(tensors, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=60)
        for step in range(60):
            take_steps(optimizer, range(step, step + 1))
            schedule.step()
    assert_follows(ours, theirs)


def test_each_parameter_group_has_its_own_hyperparameters():
    ours, theirs = parameters(), parameters()
    for tensors, make in ((ours, RAdam), (theirs, TorchRAdam)):
        optimizer = make([{"params": tensors[:2], "lr": 1e-2}, {"params": tensors[2:4], "betas": (0.8, 0.9)}])
        take_steps(optimizer, range(10))
        optimizer.add_param_group({"params": tensors[4:], "weight_decay": 0.1})  # ten steps behind the others
        take_steps(optimizer, range(10, 50))
    assert_follows(ours, theirs)


def test_a_parameter_without_gradient_rests():
    ours, theirs = parameters(), parameters()
    own, oracle = RAdam(ours, weight_decay=0.1), TorchRAdam(theirs, weight_decay=0.1)
    own.step()
    assert not own.state
    assert not oracle.state
    for step in range(50):
        for optimizer, tensors in ((own, ours), (oracle, theirs)):
            set_gradients(tensors, seed=step)
            for tensor in tensors[step % 4 :: 3]:
                tensor.grad = None
            before = [tensor.detach().clone() for tensor in tensors]
            optimizer.step()
            assert_same_bits(tensors[step % 4 :: 3], before[step % 4 :: 3])
    assert [own.state[tensor]["step"] for tensor in ours] == [oracle.state[tensor]["step"] for tensor in theirs]
    assert_follows(ours, theirs)


def test_types_may_be_mixed():
    types = [torch.float32, torch.float64, torch.bfloat16]
    together = [parameters([(4, 3)], dtype)[0] for dtype in types]
    apart = [parameters([(4, 3)], dtype)[0] for dtype in types]
    optimizers = [RAdam(together), *(RAdam([tensor]) for tensor in apart)]
    for step in range(20):
        for tensor in together + apart:
            tensor.grad = torch.full_like(tensor, math.cos(step))
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits(together, apart)


# Kernels and memory layouts


def test_without_the_fused_kernel_the_result_is_the_same(monkeypatch):
    ours, theirs = parameters(), parameters()
    take_steps(RAdam(theirs, weight_decay=1e-2), range(200))
    monkeypatch.setattr(radam, "FUSED_DEVICES", ())
    monkeypatch.delattr(torch, "_fused_adamw_")
    take_steps(RAdam(ours, weight_decay=1e-2), range(200))
    assert_follows(ours, theirs)


def test_the_memory_layout_of_a_gradient_does_not_matter():
    shape = (8, 3, 5, 5)
    (plain,), (mixed,) = parameters([shape]), parameters([shape])
    own, other = RAdam([plain]), RAdam([mixed])
    for step in range(20):
        set_gradients([plain, mixed], seed=step)
        mixed.grad = plain.grad.to(memory_format=torch.channels_last)
        own.step(), other.step()
    assert_follows([mixed], [plain])


def test_a_parameter_may_be_a_strided_view():
    whole = torch.arange(24.0).reshape(4, 6)
    view, dense = whole.clone()[:, ::2].requires_grad_(), whole[:, ::2].clone().requires_grad_()
    take_steps(RAdam([view]), range(20))
    take_steps(RAdam([dense]), range(20))
    assert_follows([view], [dense])


# The state


def copied(state_dict: dict) -> dict:
    return copy.deepcopy(state_dict)


def flattened(state_dict: dict) -> dict:
    """As a checkpoint file keeps it: contiguous tensors under flat names."""
    flat = {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, state in state_dict["state"].items()
        for name, value in state.items()
    }
    back = {index: {} for index in state_dict["state"]}
    for key, tensor in load(save(flat)).items():
        index, name = key.split(".")
        back[int(index)][name] = tensor
    return {"state": back, "param_groups": copy.deepcopy(state_dict["param_groups"])}


def shared(state_dict: dict) -> dict:
    return state_dict


@pytest.mark.parametrize("transport", [copied, flattened, shared])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("steps", [0, 3, 20])
def test_state_dict_round_trip_is_bit_exact(transport, memory_format, steps):
    shape = (8, 3, 5, 5)
    first = [tensor.detach().to(memory_format=memory_format) for tensor in parameters([shape, shape])]
    for tensor in first:
        tensor.requires_grad_()
    one = RAdam([{"params": first[:1], "lr": 1e-2}, {"params": first[1:]}], weight_decay=1e-2)
    take_steps(one, range(steps))

    second = [tensor.detach().clone().requires_grad_() for tensor in first]
    other = RAdam([{"params": second[:1]}, {"params": second[1:]}], lr=1.0)
    other.load_state_dict(transport(one.state_dict()))
    assert_same_bits(moments(other), moments(one))

    for step in range(steps, steps + 10):
        take_steps(one, range(step, step + 1))
        take_steps(other, range(step, step + 1))
    assert_same_bits(second, first)
    assert_same_bits(moments(other), moments(one))


def test_of_what_has_made_no_step_the_state_may_be_empty():
    """As a checkpoint has it that was saved before the first step, or of weights that never had a gradient."""
    one, other = RAdam(parameters()), RAdam(parameters())
    other.load_state_dict(one.state_dict() | {"state": {number: {} for number in range(len(parameters()))}})
    for optimizer in (one, other):
        take_steps(optimizer, range(10))
    assert_same_bits(other.param_groups[0]["params"], one.param_groups[0]["params"])


def test_a_deep_copy_goes_its_own_way_with_the_same_bits():
    one = RAdam(parameters(), weight_decay=1e-2)
    take_steps(one, range(10))
    other = copy.deepcopy(one)
    take_steps(one, range(10, 20))
    take_steps(other, range(10, 20))
    assert_same_bits(other.param_groups[0]["params"], one.param_groups[0]["params"])
    assert_same_bits(moments(other), moments(one))


def test_the_state_is_a_number_and_two_tensors_a_parameter():
    optimizer = RAdam(parameters())
    take_steps(optimizer, range(7))
    for tensor, state in optimizer.state.items():
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert state["step"] == 7
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == tensor.shape


# Refusals


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"lr": -1e-4}, "-0.0001"),
        ({"lr": math.nan}, "nan"),
        ({"betas": (1.0, 0.999)}, r"betas\[0\].*1.0"),
        ({"betas": (0.9, -0.5)}, r"betas\[1\].*-0.5"),
        ({"eps": -1e-8}, "-1e-08"),
        ({"weight_decay": -0.25}, "-0.25"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_named(options, value):
    with pytest.raises(ValueError, match=value):
        RAdam(parameters(), **options)
    with pytest.raises(ValueError, match=value):
        RAdam([{"params": parameters(), **options}])


def test_sparse_and_complex_gradients_are_refused():
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=r"dense real gradients, not torch.sparse_coo"):
        RAdam(embedding.parameters()).step()
    wave = torch.ones(3, dtype=torch.complex64, requires_grad=True)
    wave.abs().sum().backward()
    with pytest.raises(RuntimeError, match="complex64"):
        RAdam([wave]).step()


# Under GradScaler and fastai


def test_a_scaled_loss_gives_the_same_bits_and_overflow_skips_the_step():
    scaled, plain = parameters([(6, 8)]), parameters([(6, 8)])
    own, other = RAdam(scaled, weight_decay=1e-2), RAdam(plain, weight_decay=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    for step in range(30):
        x = torch.randn(8, generator=torch.Generator().manual_seed(step))
        overflows = step in (0, 3, 17)
        own.zero_grad()
        scaler.scale((scaled[0] @ x).square().sum() * (math.inf if overflows else 1)).backward()
        scaler.step(own)
        scaler.update()
        if not overflows:
            other.zero_grad()
            (plain[0] @ x).square().sum().backward()
            other.step()
        assert_same_bits(scaled, plain)
    assert own.state[scaled[0]]["step"] == 27
    assert_same_bits(moments(own), moments(other))


def test_after_the_first_steps_overflow_is_read_now_and_then(monkeypatch):
    """And till it is read, a step that was left out counts: the result is that of torch to a thousandth."""
    monkeypatch.setattr(radam, "WATCHED", 200)
    reads = []
    for name in ("item", "tolist"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, read=read: reads.append(step) or read(self))
    ours, theirs = parameters(), parameters()
    own, other = RAdam(ours, weight_decay=1e-2), RAdam(theirs, weight_decay=1e-2)
    left_out = (3, 205, 239)
    for step in range(245):
        set_gradients(ours, seed=step)
        set_gradients(theirs, seed=step)
        if step not in left_out:
            other.step()
        for tensor in ours:
            tensor.grad *= 1024
        own.grad_scale, own.found_inf = torch.tensor(1024.0), torch.tensor(float(step in left_out))
        own.step()
    assert set(reads) == {*range(201), 220, 240}
    assert {state["step"] for state in own.state_dict()["state"].values()} == {242}
    assert_follows(ours, theirs, tolerance=1e-3)


def halves(model: nn.Sequential) -> list[list[nn.Parameter]]:
    return [list(model[0].parameters()), list(model[1:].parameters())]


def fit_one_cycle(optimizer_class):
    from fastai.callback import progress, schedule  # noqa: F401 - they add no_bar and fit_one_cycle to Learner
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    torch.manual_seed(0)
    x = torch.randn(96, 8)
    dataset = list(zip(x, (x[:, :1] > 0).float(), strict=True))
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    learner = Learner(
        DataLoaders.from_dsets(dataset, dataset, bs=16, shuffle=False, num_workers=0, device="cpu"),
        model,
        loss_func=nn.BCEWithLogitsLoss(),
        opt_func=partial(OptimWrapper, opt=optimizer_class),
        splitter=halves,
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(3, slice(1e-3, 1e-1), wd=1e-2)
    return learner


def test_one_cycle_under_fastais_wrapper_follows_torch():
    own, oracle = fit_one_cycle(RAdam), fit_one_cycle(TorchRAdam)
    assert own.recorder.values[-1][0] < own.recorder.values[0][0]  # the mean loss of an epoch
    assert_follows(own.model.parameters(), oracle.model.parameters(), tolerance=1e-4)
    assert own.recorder.hps == oracle.recorder.hps
    assert len(set(own.recorder.hps["lr"])) > 10
    assert len(set(own.recorder.hps["mom"])) > 10
    assert set(own.opt.hypers[0]) == {"lr", "mom", "sqr_mom", "eps", "wd"}
    assert [hyper["wd"] for hyper in own.opt.hypers] == [1e-2, 1e-2]
    assert own.opt.hypers[0]["lr"] < own.opt.hypers[1]["lr"]
