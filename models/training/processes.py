"""The processes of one command: a single one, or those that torchrun has started, each with a device of its own."""

import contextlib
import gc
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch import distributed, nn

from models.common.errors import InputError
from models.training.device import choose_device, use_device
from models.training.stopping import Interrupted, is_one_of_several

Result = TypeVar("Result")

# How long who is done with its share waits for the others, which may work for hours: torch's own is half an hour. That
# one has died, torchrun and its connection tell at once.
PATIENCE = timedelta(days=1)
SHARED_NORMS = {"cuda"}  # the kinds of devices for which torch has a batch norm that processes share
# What is said where another process has died: by gloo, then by NCCL.
LOST = re.compile(r"[Cc]onnection (closed|reset) by peer|[Bb]roken pipe|remote process exited|communicator was aborted")


@dataclass(frozen=True)
class Processes:
    """How many there are, which one this is, and its device. All run the same lines; the main one writes the files."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes the files."""
        return self.rank == 0

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU of NVIDIA's, or one that torch treats as such."""
        return self.device.type == "cuda"

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor, of any shape and on this process's device or the CPU, over all processes."""
        if self.count == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def largest(self, value: int) -> int:
        """The largest of the numbers of all processes."""
        return value if self.count == 1 else largest_of_all(value)

    def gather(self, item: Result) -> list[Result]:
        """The items of all processes in their order, in each of them."""
        items = [item] * self.count
        if self.count > 1:
            distributed.all_gather_object(items, item)
        return items

    @contextmanager
    def as_one(self) -> Generator[None]:
        """All end if the block fails in one of them; the first of those says why, the others raise EndedElsewhere.

        One that ended alone would leave the others waiting for it. Within the block they must not exchange anything.
        """
        error = None
        try:
            yield
        except (Exception, Interrupted) as caught:  # raised again when the others know
            error = caught
        first = self.count - self.largest(0 if error is None else self.count - self.rank)  # of those that failed
        if error is not None and first == self.rank:
            raise error
        if first < self.count:
            raise EndedElsewhere(1) from error

    def in_step(self, items: Iterable[Result]) -> Iterator[Result]:
        """Items of which each process has its own, as many as the others; all end if one cannot have its next."""
        own = iter(items)
        while True:
            with self.as_one():
                found = list(islice(own, 1))
            if not found:
                return
            yield found[0]

    def main_first(self, function: Callable[[], Result]) -> Result:
        """Call a function in the main process, then in the others; all end if it fails in one of them."""
        results: list[Result] = []  # one, if all goes well
        for mine in (self.is_main, not self.is_main):
            with self.as_one():
                if mine:
                    results.append(function())
        return results[0]

    def on_main(self, function: Callable[[], Result]) -> Result:
        """Call a function in the main process alone; all get its result, or end with it if it fails."""
        results: list[Result] = []  # one, if all goes well
        with self.as_one():
            if self.is_main:
                results.append(function())
        (result,), *_ = self.gather(results)
        return result

    def together(self, network: nn.Module) -> nn.Module:
        """A network whose gradients are the mean over the processes; on CUDA they share batch statistics, too.

        All start with the weights of the main process. The network itself stays what it was, under the same names.
        """
        if self.count == 1:
            return network
        if self.device.type in SHARED_NORMS:
            share_norms(network)
        # Without the device's number: with it, what is to stay on the CPU would be brought there, too.
        return nn.parallel.DistributedDataParallel(network)

    def share_statistics(self, network: nn.Module) -> None:
        """Give all processes the running batch-norm statistics of the main one."""
        if self.count > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


def share_norms(network: nn.Module) -> None:
    """Let batch norms compute the statistics of a batch over all processes, under the names that they have.

    timm's apply the activation behind them, too, which torch's conversion leaves out without a word.
    """
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(isinstance(module, nn.BatchNorm2d) and type(module) is not nn.BatchNorm2d for module in network.modules()):
        from timm.layers import convert_sync_batchnorm as convert  # takes a second, and its networks have it anyway
    convert(network)


class EndedElsewhere(SystemExit):
    """Another process has failed, and says why; this one ends with it, and says nothing."""


def largest_of_all(value: int) -> int:
    """The largest of the numbers of all processes; of one that is alone its own. No device has to wait for it."""
    if not distributed.is_initialized():
        return value
    largest = torch.tensor(value)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


@contextmanager
def started_processes(device: str) -> Generator[Processes]:
    """The processes that torchrun has started (DistributedDataParallel's), or this one alone.

    What the others print is left out: all say the same. They exchange what lies on CUDA by NCCL, all else by gloo, from
    host to host. Raises InputError if there are more of them than CUDA devices, or if one of the others has died.
    """
    if not is_one_of_several():
        yield Processes(use_device(choose_device(device)))
        return
    # DistributedDataParallel imports it. What is imported while there is a group holds it, and gloo's threads with it.
    import torch._dynamo
    from accelerate import PartialState  # a second, for those who need it

    with said_once():
        chosen = choose_device(device)
        if on_cuda := chosen.type == "cuda":
            if chosen.index is not None:
                raise InputError(
                    f"--device {device} is one, and each process of torchrun takes one of its own; leave it out"
                )
            require_devices(int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count())
    connected = partial(PartialState, timeout=PATIENCE)
    state = connected(backend="cpu:gloo,cuda:nccl") if on_cuda else connected(cpu=True)
    assert state.device is not None  # it has been chosen just now
    use_device(state.device)
    with contextlib.ExitStack() as stack:
        if not state.is_main_process:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        stack.enter_context(explained_loss_of_others(state.is_main_process))
        yield Processes(state.device, state.process_index, state.num_processes)
    # A learner, which refers to itself, still holds the group, and gloo's threads would abort the end of Python.
    gc.collect()
    distributed.destroy_process_group()


@contextmanager
def said_once() -> Generator[None]:
    """Leave an InputError that all processes raise to the main one, before they are connected."""
    try:
        yield
    except InputError as error:
        if os.environ["RANK"] == "0":
            raise
        raise EndedElsewhere(1) from error


def require_devices(processes: int, devices: int) -> None:
    """Raise InputError if a machine has fewer CUDA devices than processes: each needs one of its own."""
    if processes > devices:
        raise InputError(
            f"{processes} processes need a CUDA device each, and there are {devices}; "
            f"start torchrun with --nproc-per-node {devices}"
        )


@contextmanager
def explained_loss_of_others(is_main: bool) -> Generator[None]:
    """Raise an InputError, in the main process, for what is left of an exchange with one that has died."""
    try:
        yield
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        if not is_main:
            raise EndedElsewhere(1) from error
        raise InputError("another process has died, torchrun says which; start the same command again") from error
