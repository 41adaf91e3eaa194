"""--compile: the backbone of a network by torch.compile, and one line for what fails in it."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn

from models.common.errors import InputError
from models.training.networks import HemorrhageNetwork
from models.training.recurrent import StudyNetwork
from models.training.steps import StepLearner

BACKEND = "inductor"


def compile_backbone(network: nn.Module, learner: StepLearner) -> None:
    """Compile what takes the time of a network of images, in place; its names stay what they were.

    With CUDA graphs where one process makes its steps in one part: of a small network the CPU takes longer to launch
    the kernels than the GPU to run them. Not where gradients add up over parts or backbones run again for the backward
    pass (StudyNetwork), whose results a graph would overwrite. Raises InputError if there is nothing to compile.
    """
    networks = [module for module in network.modules() if isinstance(module, HemorrhageNetwork)]
    if not networks:
        raise InputError("--compile has nothing to compile in a network without images; leave it out")
    alone = learner.processes.count == 1 and learner.parts == 1 and not isinstance(network, StudyNetwork)
    learner.graphs = BACKEND == "inductor" and learner.device.type == "cuda" and alone
    for images in networks:
        images.backbone.compile(backend=BACKEND, mode="reduce-overhead" if learner.graphs else None)


@contextmanager
def compile_explained() -> Generator[None]:
    """Raise an InputError of one line for what torch.compile raises within the block."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            f"--compile failed: {reason[:200]}; it needs a C++ compiler (g++), on a GPU also Triton; or leave it out"
        ) from error
