"""Laws of mixed precision, on a CPU that is told to have it: torch's autocast and scaler are the same there."""

import json
from dataclasses import replace

import pytest
import torch
from fits import SMALL, fit_once, learner_of, seeded_network, weights_of

from models.common.options import Machine, TrainOptions
from models.train_small import CONFIG
from models.training import precision
from models.training.checkpoint_callback import Checkpoints
from models.training.evaluation import predict_batches
from models.training.precision import autocast, usable_precision
from models.training.run import train

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def mixed(monkeypatch) -> None:
    """A CPU that computes in half precision, as a GPU does."""
    monkeypatch.setattr(precision, "MIXED", ("cuda", "cpu"))


def types_of_products(learner) -> set[torch.dtype]:
    """In which types the convolution of a network gives its result, in training and in validation."""
    seen = set()
    learner.model.backbone[0].register_forward_hook(lambda _, __, result: seen.add((learner.training, result.dtype)))
    learner.fit_one_cycle(1, 1e-3)
    return seen


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_networks_compute_in_the_precision_that_is_asked_for(few, mixed, name, dtype):
    learner = learner_of(few, replace(SMALL, precision=name), seeded_network())
    assert types_of_products(learner) == {(True, dtype), (False, dtype)}
    assert learner.scaler.is_enabled() == (name == "fp16")
    assert all(parameter.dtype == torch.float32 for parameter in learner.model.parameters())


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_predictions_are_made_in_it_too(few, mixed, name):
    learner = learner_of(few, SMALL, seeded_network())
    seen = []
    learner.model.backbone[0].register_forward_hook(lambda _, __, result: seen.append(result.dtype))
    list(predict_batches(learner.model, learner.dls.valid, learner.processes, name, ""))
    assert set(seen) == {{"fp16": torch.float16, "bf16": torch.bfloat16}[name]}


@pytest.mark.parametrize("name", ["auto", "fp16", "bf16", "fp32"])
def test_a_cpu_computes_in_fp32(few, name):
    assert usable_precision(name, CPU) == "fp32"
    assert types_of_products(learner_of(few, replace(SMALL, precision=name), seeded_network())) == {
        (True, torch.float32),
        (False, torch.float32),
    }


@pytest.mark.parametrize(("in_hardware", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_auto_is_bf16_where_the_card_has_it(monkeypatch, in_hardware, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: in_hardware or including_emulation)
    assert usable_precision("auto", CUDA) == chosen
    assert usable_precision("fp16", CUDA) == "fp16"


@pytest.mark.parametrize("name", ["fp16", "bf16"])
@pytest.mark.parametrize("parts", [1, 3])
def test_losses_follow_fp32(few, mixed, name, parts):
    """Parts of a batch add up under the scaler, too."""
    exact, one = fit_once(few, replace(SMALL, precision="fp32"))
    other = learner_of(few, replace(SMALL, precision=name, accumulate=parts), seeded_network())
    other.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=name == "fp16")  # no step is left out
    other.fit_one_cycle(1, SMALL.max_lr)
    half = weights_of(other.model)
    start = weights_of(seeded_network())
    assert (half - exact).norm() < 0.1 * (exact - start).norm()
    assert list(other.recorder.values[0]) == pytest.approx(list(one.recorder.values[0]), rel=5e-3)


@pytest.mark.parametrize("optimizer", ["radam", "adam"])
@pytest.mark.parametrize("scale", [2.0**4, 2.0**12])
def test_a_gradient_is_clipped_after_it_has_been_unscaled(few, mixed, optimizer, scale):
    """The bound is of the gradient, whatever the loss is multiplied with."""
    config = replace(SMALL, precision="fp16", clip_gradient=1e-3, weight_decay=0.0, optimizer=optimizer)
    clipped = []
    for start in (1.0, scale):
        learner = learner_of(few, config, seeded_network())
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=start)
        norms = []
        learner.opt.opt.register_step_pre_hook(lambda own, *_, norms=norms: norms.append(norm_of(own)))
        learner.fit_one_cycle(1, config.max_lr)
        clipped.append(norms)
    assert clipped[0] == pytest.approx([1e-3] * 4, rel=1e-2)
    assert clipped[1] == pytest.approx(clipped[0], rel=1e-2)


def norm_of(optimizer: torch.optim.Optimizer) -> float:
    scale = getattr(optimizer, "grad_scale", None)
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) / float(1.0 if scale is None else scale)


@pytest.mark.parametrize("optimizer", ["radam", "adam"])
def test_a_step_that_overflows_is_left_out_and_the_scale_is_halved(few, mixed, optimizer):
    config = replace(SMALL, precision="fp16", optimizer=optimizer)
    learner = learner_of(few, config, seeded_network())
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # fp16 ends at 65,504
    before = weights_of(learner.model)
    changed = []
    learner.opt.opt.register_step_post_hook(
        lambda *_: changed.append(not torch.equal(weights_of(learner.model), before))
    )
    learner.fit_one_cycle(1, 1e-3)
    assert not any(changed)  # AdamW of a CPU is not even called
    assert learner.scaler.get_scale() == 2.0**36
    assert torch.isfinite(weights_of(learner.model)).all()
    assert torch.equal(weights_of(learner.model), before)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    learner.fit_one_cycle(1, 1e-3)
    assert not torch.equal(weights_of(learner.model), before)


def test_autocast_is_of_the_device():
    with autocast(CPU, "bf16"):
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cuda")


@pytest.mark.parametrize("half_first", [False, True], ids=["fp32 then fp16", "fp16 then fp32"])
def test_a_run_goes_on_with_another_kind_of_device(few, tiny, monkeypatch, half_first):
    """Begun on a CPU and gone on with on a GPU, whose scaler then has no state yet, and back."""
    config = replace(CONFIG, name=f"moved_{half_first}", epochs=1, precision="fp16", batch_size=32)
    machine = Machine(work=few.root, device="cpu")
    options = TrainOptions(config, fold=1, checkpoint_steps=2, tta="none", machine=machine)
    begin, go_on = [("cuda", "cpu"), ("cuda",)][:: 1 if half_first else -1]
    monkeypatch.setattr(precision, "MIXED", begin)
    save = Checkpoints.save

    def save_and_stop(self) -> None:
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(options)
    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(precision, "MIXED", go_on)
    train(options)
    ran = json.loads((options.folder / "config.json").read_text())["ran"]
    assert ran["precision"] == ("fp32" if half_first else "fp16")
