"""Laws of --compile: the same network, a line where it cannot be, and networks of studies too."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from fits import SMALL, learner_of, seeded_network, weights_of

from models.common.config import SequenceConfig
from models.common.errors import InputError
from models.common.options import Machine, TrainOptions
from models.train_b0_recurrent import CONFIG as RECURRENT
from models.train_small import CONFIG
from models.training import compiling
from models.training import learner as learning
from models.training.checkpoint_callback import Checkpoints
from models.training.checkpoint_files import Checkpoint
from models.training.compiling import compile_backbone, compile_explained
from models.training.networks import build_network
from models.training.recurrent import build_sequence_network
from models.training.run import train


@pytest.fixture
def graphs_alone(monkeypatch) -> None:
    """torch.compile without its code generator, which takes a compiler and minutes."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()


def test_a_compiled_network_learns_the_same(few, graphs_alone):
    compiled, plain = (learner_of(few, SMALL, seeded_network()) for _ in range(2))
    compile_backbone(compiled.model, compiled)
    names = list(compiled.model.state_dict())
    for learner in (compiled, plain):
        learner.fit_one_cycle(1, 1e-3)
    torch.testing.assert_close(weights_of(compiled.model), weights_of(plain.model), rtol=1e-4, atol=1e-6)
    assert names == list(plain.model.state_dict())
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0  # it has been compiled


def test_what_is_computed_anew_for_the_backward_pass_is_compiled_too_and_counts_once(graphs_alone):
    config = replace(CONFIG, network="timm/test_efficientnet", checkpointing=True)
    compiled = build_network(config)
    plain = deepcopy(compiled)
    compiled.backbone.compile(backend=compiling.BACKEND)
    images = torch.randn(2, 4, 3, 64, 64)
    for network in (compiled, plain):
        optimizer = torch.optim.SGD(network.parameters(), 1e-3)
        for batch in images:
            network.train()(batch).sum().backward()
            optimizer.step()
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    torch.testing.assert_close(compiled.eval()(images[0]), plain.eval()(images[0]))
    moved, expected = (
        [of for name, of in network.named_buffers() if "running" in name] for network in (compiled, plain)
    )
    torch.testing.assert_close(moved, expected)
    assert moved


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, name="compiled", epochs=1),
        replace(
            RECURRENT, name="compiled_studies", network="small", image_size=64, pretrained=False, epochs=1, batch_size=2
        ),
    ],
    ids=lambda config: config.name,
)
def test_a_run_is_compiled_from_training_to_predictions(few, graphs_alone, config):
    """Over recurrent layers the backbone alone is: their gradient checkpoints are none of a graph's."""
    options = TrainOptions(config, fold=1, compile=True, tta="none", machine=Machine(work=few.root, device="cpu"))
    train(options)
    assert (options.folder / "valid.parquet").is_file()


def test_what_is_profiled_is_compiled_where_the_run_is_to_be(few, graphs_alone):
    config = replace(CONFIG, name="compiled_profile", batch_size=8)
    options = TrainOptions(config, fold=1, profile=True, compile=True, machine=Machine(work=few.root, device="cpu"))
    train(options)
    trace = json.loads(options.folder.with_name("fold1_trace.json").read_text())
    assert any("Torch-Compiled Region" in str(event["name"]) for event in trace["traceEvents"])


def test_in_how_many_parts_a_run_goes_on_is_known_before_it_is_compiled(few, monkeypatch):
    """CUDA graphs are of one part; a run that has met the end of its memory has two in its checkpoint."""
    options = TrainOptions(replace(CONFIG, name="in_parts", epochs=1), machine=Machine(work=few.root, device="cpu"))
    found = Checkpoint({}, {"parts": 2})
    monkeypatch.setattr(learning, "read_checkpoint", lambda *_: found)
    monkeypatch.setattr(learning, "require_one_place", lambda *_: None)
    monkeypatch.setattr(Checkpoints, "put_back", lambda own, found: setattr(own.learn, "parts", found.state["parts"]))
    seen = []

    def compile_backbone(_, learner) -> None:
        seen.append(learner.parts)
        raise InputError("compiled")

    monkeypatch.setattr(learning, "compile_backbone", compile_backbone)
    with pytest.raises(InputError, match="compiled"):
        train(replace(options, compile=True))
    assert seen == [2]


def test_there_is_nothing_to_compile_over_embeddings(few):
    config = SequenceConfig(name="s", optimizer="adam", max_lr=1e-3, epochs=1, batch_size=2, runs=("small",))
    with pytest.raises(InputError, match="--compile has nothing to compile"):
        compile_backbone(build_sequence_network(config, 8), None)


def test_without_a_compiler_it_is_one_line(few, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (str(tmp_path / "none"),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    learner = learner_of(few, SMALL, seeded_network())
    compile_backbone(learner.model, learner)
    with pytest.raises(InputError, match=r"^--compile failed: [^\n]+; it needs a C\+\+ compiler"), compile_explained():
        learner.fit_one_cycle(1, 1e-3)


def test_other_errors_are_not_explained_away():
    with pytest.raises(ZeroDivisionError), compile_explained():
        raise ZeroDivisionError
