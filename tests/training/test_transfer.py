"""Laws of batches on their way to the device: in their order, copied beside the computing."""

from contextlib import contextmanager

import pytest
import torch

from models.training import transfer
from models.training.transfer import batch_to_device, on_device


def batches(count: int) -> list[tuple[torch.Tensor, ...]]:
    return [
        (torch.full((2, 3, 4, 4), number), torch.zeros(2, 3), torch.full((2, 6), float(number)))
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_come_in_their_order(count):
    got = [int(images[0, 0, 0, 0]) for images, _, _ in on_device(batches(count), torch.device("cpu"))]
    assert got == list(range(count))


def test_images_are_in_the_format_of_the_network_and_places_stay():
    seen = []
    places = torch.zeros(2, 3)
    images, same, _ = batch_to_device((torch.zeros(2, 3, 4, 4), places, torch.zeros(2, 6)), torch.device("meta"))
    seen = (images.device.type, same.device.type, images.is_contiguous(memory_format=torch.channels_last))
    assert seen == ("meta", "cpu", True)
    assert same is places


class Stand:
    """What stands for a stream of CUDA, and notes what is asked of it."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: "Stand") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


def test_on_cuda_a_batch_is_copied_beside_the_computing(monkeypatch):
    """Without a GPU: the order of what is asked of CUDA."""
    log: list[str] = []
    here, copies = Stand(log, "network"), Stand(log, "copies")

    @contextmanager
    def on(stream: Stand):
        log.append(f"on {stream.name}")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: copies)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: here)

    def copied(batch: tuple, _: torch.device) -> tuple:
        log.append(f"copy {int(batch[0][0, 0, 0, 0])}")
        return batch

    monkeypatch.setattr(transfer, "batch_to_device", copied)
    for images, *_ in on_device(iter(batches(3)), torch.device("cuda", 0)):
        log.append(f"train {int(images[0, 0, 0, 0])}")
    steps = [["on copies", f"copy {number}", "network waits for copies", f"train {number}"] for number in range(3)]
    assert log == [*steps[0], *steps[1], *steps[2]]
