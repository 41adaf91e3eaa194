"""Networks by onnxruntime beside torch: slices a second of CPU time, on one core and on two.

    python benchmarks/onnx_speed.py

Not called `onnx`: this folder is first on the path, and would hide that library. The presets small, lite0 and b0_224
at their sizes, batches as predict.py makes them, all weights random. onnxruntime begins with Hounsfield units, torch
with the grey values that its dataset has made of them. CPU time is divided by the cores, so that other load on the
machine counts for neither, and threads that wait for one another count as if they worked.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnxruntime
import torch
from comparison import RATE, row, table, take_turns
from torch import nn

from models import train_b0_224, train_lite0, train_small
from models.common.cli import command
from models.common.config import TrainConfig
from models.inference.engines import at_once
from models.inference.onnx_engine import count_planes
from models.inference.onnx_export import to_onnx
from models.inference.onnx_graphs import SlicesGraph
from models.preprocessing.hounsfield import HOUNSFIELD_RANGE
from models.training.networks import HemorrhageNetwork, build_network
from models.training.transfer import network_to_device

PRESETS = (train_small, train_lite0, train_b0_224)
CORES = (1, 2)


@dataclass(frozen=True)
class SpeedOptions:
    """The command line of this benchmark."""

    rounds: int = 7
    """of each network by each engine"""


def main(options: SpeedOptions) -> None:
    """Print a row for each preset and number of cores."""
    rows = []
    for preset in PRESETS:
        config = replace(preset.CONFIG, pretrained=False)
        network = awake(config)
        graph, images = exported(network, config)
        network_to_device(network, torch.device("cpu"))
        for cores in CORES:
            measures: dict[str, Callable[[], float]] = {
                "ours": by_onnx(graph, images, cores),
                "peer": partial(by_torch, network, len(images), config, cores),
            }
            rates = take_turns(measures, options.rounds, warm_up=2)
            rows.append(row(f"{config.name} {config.input_size} px, {cores} cores", rates["ours"], rates["peer"], RATE))
            print("{name}: {ours:.1f} and {peer:.1f} {unit}".format(**rows[-1]), flush=True)
    print(table(rows).replace("ours", "ONNX", 1).replace("peer", "torch", 1))


def awake(config: TrainConfig) -> HemorrhageNetwork:
    """A network whose features do not fade from layer to layer: numbers near 0 would slow either engine."""
    torch.manual_seed(0)
    network = build_network(config)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all that is seen
    with torch.no_grad():
        network.train()(grey_values(8, config))
    return network.eval()


def grey_values(slices: int, config: TrainConfig) -> torch.Tensor:
    """What torch is given, uint8 (slices, channels, size, size)."""
    size = config.input_size
    return torch.randint(0, 256, (slices, len(config.channels), size, size)).to(torch.uint8)


def exported(network: HemorrhageNetwork, config: TrainConfig) -> tuple[bytes, np.ndarray]:
    """A network as ONNX, and a batch for it, int16 (slices, planes, size, size)."""
    size = config.input_size
    shape = (at_once(size), count_planes(config), size, size)
    images = torch.randint(*HOUNSFIELD_RANGE, shape).to(torch.int16)
    graph = to_onnx(SlicesGraph(network, config), {"hounsfield": images[:2]}, ["embedding", "logits"])
    return graph.SerializeToString(), images.numpy()


def by_onnx(graph: bytes, images: np.ndarray, cores: int) -> Callable[[], float]:
    """Slices a second by onnxruntime, of images (slices, planes, size, size)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: rate(lambda: session.run(["logits"], {"hounsfield": images}), len(images), cores)


def by_torch(network: HemorrhageNetwork, slices: int, config: TrainConfig, cores: int) -> float:
    """Slices a second by torch."""
    torch.set_num_threads(cores)
    images = grey_values(slices, config)
    with torch.inference_mode():
        return rate(lambda: network(images), slices, cores)


def rate(function: Callable[[], object], slices: int, cores: int) -> float:
    """Slices a second of CPU time on each core."""
    start = time.process_time()
    function()
    return slices * cores / (time.process_time() - start)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # what torch says of its own exporter
    command(main, SpeedOptions)
