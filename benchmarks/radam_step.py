"""Milliseconds a step of our RAdam and of torch's optimizers on EfficientNet-B2's parameters, on the CPU.

    python benchmarks/radam_step.py

The optimizers take turns, each on its own copy of the same parameters and gradients, so that other load on
the machine meets them alike. The first steps, which RAdam takes unrectified, are left out. Needs no data.
"""

import statistics
import time
from functools import partial

import torch
from efficientnet_pytorch import EfficientNet

from radam import RAdam

THREADS = 2
WARM_UP, STEPS = 10, 100
OURS = "RAdam, this project"
OPTIMIZERS = {
    OURS: RAdam,
    "torch.optim.RAdam(foreach=True)": partial(torch.optim.RAdam, foreach=True, decoupled_weight_decay=True),
    "torch.optim.AdamW(fused=True)": partial(torch.optim.AdamW, fused=True),
}


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    network = EfficientNet.from_name("efficientnet-b2", num_classes=6)
    optimizers = {
        name: make(with_gradients(network.parameters()), lr=1e-4, weight_decay=1e-4)
        for name, make in OPTIMIZERS.items()
    }
    milliseconds = {name: [] for name in optimizers}
    for _ in range(WARM_UP + STEPS):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            milliseconds[name].append(1000 * (time.perf_counter() - start))

    medians = {name: statistics.median(times[WARM_UP:]) for name, times in milliseconds.items()}
    sizes = [parameter.numel() for parameter in network.parameters()]
    print(f"EfficientNet-B2: {sum(sizes):,} parameters in {len(sizes)} tensors; median of {STEPS} steps\n")
    print(f"{'optimizer':34}{'ms a step':>10}{'times ours':>12}")
    for name, median in medians.items():
        print(f"{name:34}{median:10.2f}{median / medians[OURS]:12.2f}")
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} CPU threads")


def with_gradients(parameters) -> list[torch.Tensor]:
    copies = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    for copy in copies:
        copy.grad = torch.randn(copy.shape, generator=generator) * 1e-3
    return copies


if __name__ == "__main__":
    main()
