"""Milliseconds a step of our RAdam and of torch's optimizers on EfficientNet-B2's parameters, on the CPU.

    python benchmarks/radam_step.py

The optimizers take turns, each on its own copy of the same parameters and gradients, so that other load on
the machine meets them alike. The first steps, which RAdam takes unrectified, are left out. Needs no data.
"""

from functools import partial
from pathlib import Path

import torch
from comparison import Row, row, seconds, take_turns
from efficientnet_pytorch import EfficientNet

from radam import RAdam

THREADS = 2
WARM_UP, STEPS = 10, 100
OURS, RADAM, ADAMW = "RAdam, this project", "torch.optim.RAdam(foreach=True)", "torch.optim.AdamW(fused=True)"
OPTIMIZERS = {
    OURS: RAdam,
    RADAM: partial(torch.optim.RAdam, foreach=True, decoupled_weight_decay=True),
    ADAMW: partial(torch.optim.AdamW, fused=True),
}


def main() -> None:
    """Print the milliseconds a step of each optimizer."""
    parameters = list(network().parameters())
    milliseconds = measure(parameters)
    sizes = [parameter.numel() for parameter in parameters]
    print(f"EfficientNet-B2: {sum(sizes):,} parameters in {len(sizes)} tensors; median of {STEPS} steps\n")
    print(f"{'optimizer':34}{'ms a step':>10}{'times ours':>12}")
    for name, median in milliseconds.items():
        print(f"{name:34}{median:10.2f}{median / milliseconds[OURS]:12.2f}")
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} CPU threads")


def rows(_: Path | None = None) -> list[Row]:
    """The rows of this benchmark, each beside one of torch's optimizers."""
    milliseconds = measure(list(network().parameters()))
    peers = {"radam_vs_torch": RADAM, "radam_vs_adamw": ADAMW}
    return [row(name, milliseconds[OURS], milliseconds[peer], "ms a step") for name, peer in peers.items()]


def measure(parameters: list[torch.Tensor]) -> dict[str, float]:
    """Milliseconds a step of each optimizer, on copies of parameters of any shape."""
    torch.set_num_threads(THREADS)
    optimizers = {
        name: make(with_gradients(parameters), lr=1e-4, weight_decay=1e-4) for name, make in OPTIMIZERS.items()
    }
    steps = {name: partial(seconds, optimizer.step) for name, optimizer in optimizers.items()}
    return {name: 1000 * median for name, median in take_turns(steps, STEPS, WARM_UP).items()}


def network() -> EfficientNet:
    """EfficientNet-B2 with random weights, always the same."""
    torch.manual_seed(0)
    return EfficientNet.from_name("efficientnet-b2", num_classes=6)


def with_gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of parameters of any shape, with random gradients, always the same."""
    copies = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    for copy in copies:
        copy.grad = torch.randn(copy.shape, generator=generator) * 1e-3
    return copies


if __name__ == "__main__":
    main()
