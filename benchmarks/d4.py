"""Milliseconds a slice of D4 test-time augmentation, of ttach's and of eight plain forward passes, on the CPU.

    python benchmarks/d4.py

EfficientNet-B0 at 224 pixels with random weights, on uint8 batches as in inference. The three take turns, so that
other load on the machine meets them alike. Needs no data.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import ttach
from comparison import Row, row, seconds, take_turns
from torch import nn

from models.train_b0_224 import CONFIG
from models.training.d4 import mean_probability
from models.training.evaluation import single_view
from models.training.networks import build_network
from models.training.symmetries import D4
from models.training.transfer import to_device

THREADS = 2
BATCH = 4  # slices: short turns, so that a burst of other load meets all three
WARM_UP, ROUNDS = 2, 25
OURS, TTACH, EIGHT = "mean_probability over D4", "ttach, d4_transform()", "eight plain forward passes"


def main() -> None:
    """Print the milliseconds a slice of each way, and how far ttach's probabilities are from ours."""
    ways = make_ways()
    milliseconds = measure(ways)
    print(f"{CONFIG.network} at {CONFIG.image_size} pixels, {BATCH} slices at a time; median of {ROUNDS} rounds\n")
    print(f"{'':34}{'ms a slice':>10}{'times ours':>12}")
    for name, median in milliseconds.items():
        print(f"{name:34}{median:10.2f}{median / milliseconds[OURS]:12.3f}")
    with torch.inference_mode():
        difference = (ways[OURS]() - ways[TTACH]()).abs().max()
    print(f"\nlargest difference of a probability from ttach's: {difference:.1e}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads")


def rows(_: Path | None = None) -> list[Row]:
    """The rows of this benchmark, each beside another way."""
    milliseconds = measure(make_ways())
    peers = {"d4_vs_ttach": TTACH, "d4_vs_eight_forwards": EIGHT}
    return [row(name, milliseconds[OURS], milliseconds[peer], "ms a slice") for name, peer in peers.items()]


def make_ways() -> dict[str, Callable[[], torch.Tensor]]:
    """The three ways to probabilities of one batch, (slices, 6)."""
    torch.manual_seed(0)
    network = build_network(CONFIG).to(memory_format=torch.channels_last).eval()
    shape = (BATCH, len(CONFIG.channels), CONFIG.image_size, CONFIG.image_size)
    grey = to_device(torch.randint(0, 256, shape, dtype=torch.uint8), torch.device("cpu"))
    with_sigmoid = nn.Sequential(network, nn.Sigmoid())  # ttach averages what the network gives
    theirs = ttach.ClassificationTTAWrapper(with_sigmoid, ttach.aliases.d4_transform(), merge_mode="mean")
    return {
        OURS: partial(mean_probability, network, grey, group=D4),
        TTACH: partial(theirs, grey),
        EIGHT: lambda: torch.stack([single_view(network, grey) for _ in D4]).mean(0),
    }


@torch.inference_mode()
def measure(ways: dict[str, Callable[[], torch.Tensor]]) -> dict[str, float]:
    """Milliseconds a slice of each way."""
    torch.set_num_threads(THREADS)
    turns = {name: partial(seconds, way) for name, way in ways.items()}
    return {name: 1000 * median / BATCH for name, median in take_turns(turns, ROUNDS, WARM_UP).items()}


if __name__ == "__main__":
    main()
