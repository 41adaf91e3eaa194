"""A network over a loader -> probabilities, in the loader's order."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from models.common.config import Precision
from models.common.labels import LABELS
from models.common.progress import progress_bar
from models.training.dividing import as_divided
from models.training.loading import explained
from models.training.precision import autocast, usable_precision
from models.training.processes import Processes
from models.training.transfer import network_to_device, on_device

View = Callable[..., torch.Tensor]


def single_view(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """Probabilities of a batch as it is, (slices, 6)."""
    return network(*inputs).float().sigmoid()


def predict(
    network: nn.Module,
    loader: DataLoader,
    processes: Processes,
    precision: Precision,
    title: str,
    view: View = single_view,
) -> np.ndarray:
    """Probabilities of all slices of a loader, float32 (slices, 6); of several processes each predicts a stretch.

    `view` gives those of a batch. Raises InputError as `predict_batches`.
    """
    with processes.as_one():
        own = list(predict_batches(network, loader, processes, precision, title, view))
    shares = processes.gather(np.concatenate(own) if own else np.empty((0, len(LABELS)), np.float32))
    return np.concatenate(shares)


@torch.inference_mode()
def predict_batches(
    network: nn.Module,
    loader: DataLoader,
    processes: Processes,
    precision: Precision,
    title: str,
    view: View = single_view,
) -> Iterator[np.ndarray]:
    """What `view` gives for each batch of a loader; probabilities, float32 (slices, 6), if nothing else is asked.

    A batch that the memory is too small for is divided. Raises InputError for what fails in the loader, and if the
    memory is too small for one slice or study.
    """
    device = processes.device
    network = network_to_device(network, device).eval()
    usable = usable_precision(precision, device)
    with explained(loader), progress_bar(title, len(loader), processes.is_main) as bar:
        before, parts = None, 1
        for *inputs, _ in on_device(loader, device):
            with autocast(device, usable):
                result, parts = as_divided(partial(view, network), inputs, parts)
            if before is not None:
                yield before.cpu().numpy()  # while the device works on the next one
            before = result
            bar.update()
        if before is not None:
            yield before.cpu().numpy()
